//! `--config FILE`: TOML to [`Options`], every problem with its line and column.
//!
//! Each key is handed to the parser of the flags, so that file and flags cannot differ in what they accept.

use std::path::Path;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Args as _, Command, FromArgMatches as _};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::options::{DEFAULTS, Options};
use super::{ConfigError, Problem};

/// A word this close to a key is taken for that key misspelt.
const SIMILAR: f64 = 0.75;

/// Reads the file; what was wrong stands beside what could be read.
pub(crate) fn read(path: &Path) -> (Options, Vec<Problem>) {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&path.display().to_string(), &text),
        Err(error) => {
            let text = format!("cannot read the configuration {}: {error}", path.display());
            (Options::default(), vec![Problem::new(text)])
        }
    }
}

/// The lowest layer.
pub(crate) fn defaults() -> Result<Options, ConfigError> {
    match parse("defaults", DEFAULTS) {
        (options, problems) if problems.is_empty() => Ok(options.may_fall_back()),
        (_, problems) => Err(ConfigError(problems)),
    }
}

/// The default of an option as `--help` shows it.
pub(crate) fn default_text(key: &str) -> Option<String> {
    let table = DeTable::parse(DEFAULTS).ok()?.into_inner();
    let value = table.get(key)?;
    Some(words(value.get_ref()).ok()?.join(", "))
}

fn parse(file: &str, text: &str) -> (Options, Vec<Problem>) {
    let at = |offset: usize, message: String| {
        let (line, column) = position(text, offset);
        Problem::new(format!("{file}:{line}:{column}: {message}"))
    };
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    if !syntax_errors.is_empty() {
        let problem =
            |error: &toml::de::Error| at(error.span().map_or(0, |it| it.start), error.message().to_owned());
        return (Options::default(), syntax_errors.iter().map(problem).collect());
    }
    let mut options = Options::default();
    let mut problems = Vec::new();
    for (key, value) in table.into_inner() {
        match one(key.get_ref(), &value) {
            Ok(read) => options = read.over(options),
            Err(Wrong::Key(message)) => problems.push((key.span().start, message)),
            Err(Wrong::Value(message)) => problems.push((value.span().start, message)),
        }
    }
    problems.sort();
    (options, problems.into_iter().map(|(offset, message)| at(offset, message)).collect())
}

/// Which half of `key = value` is wrong, and why.
enum Wrong {
    Key(String),
    Value(String),
}

fn one(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Options, Wrong> {
    let command = flags();
    let known: Vec<&str> = keys(&command).collect();
    if !known.contains(&key) {
        return Err(Wrong::Key(unknown_key(key, &known)));
    }
    let words = words(value.get_ref()).map_err(|problem| Wrong::Value(format!("{key}: {problem}")))?;
    let arguments = words.iter().map(|word| format!("--{key}={word}"));
    let wrong = |error: clap::Error| Wrong::Value(format!("{key}: {}", explain(&error)));
    let matches = command.try_get_matches_from(arguments).map_err(wrong)?;
    Options::from_arg_matches(&matches).map_err(wrong)
}

/// The flags without environment, help and the program's name.
fn flags() -> Command {
    let bare = Command::new("hithed").no_binary_name(true).disable_help_flag(true);
    Options::augment_args(bare)
}

/// All but `config`: a file cannot name another one.
fn keys(command: &Command) -> impl Iterator<Item = &str> {
    command.get_arguments().filter_map(|it| it.get_long()).filter(|it| *it != "config")
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    let near = known.iter().map(|it| (strsim::jaro_winkler(key, it), it));
    let nearest = near.filter(|(likeness, _)| *likeness >= SIMILAR).max_by(|a, b| a.0.total_cmp(&b.0));
    let key = key.escape_debug();
    match nearest {
        Some((_, nearest)) => format!("unknown key {key}, did you mean {nearest}?"),
        None => {
            format!("unknown key {key}; the keys are the flags of hithed serve --help without the dashes")
        }
    }
}

/// One word for a scalar, many for a list.
fn words(value: &DeValue<'_>) -> Result<Vec<String>, &'static str> {
    match value {
        DeValue::Array(list) => list.iter().map(|item| scalar(item.get_ref())).collect(),
        other => Ok(vec![scalar(other)?]),
    }
}

fn scalar(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        _ => Err("give a text in quotes, a number, true or false, or a list of texts"),
    }
}

/// The reason inside clap's report, without the flag around it.
fn explain(error: &clap::Error) -> String {
    let context = |kind| error.get(kind).map(text_of).filter(|it| !it.is_empty());
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    if let Some(reason) = std::error::Error::source(error) {
        return format!("invalid value {value:?}: {reason}");
    }
    match (error.kind(), context(ContextKind::ValidValue)) {
        (clap::error::ErrorKind::ArgumentConflict, _) => "takes one value, not a list".to_owned(),
        (_, Some(valid)) => format!("invalid value {value:?}: give one of {valid}"),
        _ => error.kind().to_string(),
    }
}

fn text_of(value: &ContextValue) -> String {
    match value {
        ContextValue::String(text) => text.clone(),
        ContextValue::Strings(texts) => texts.join(", "),
        ContextValue::StyledStr(text) => StyledStr::to_string(text),
        _ => String::new(),
    }
}

/// Line and column from 1, in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |it| it + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        parse("hithed.toml", text).1.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_can_be_read() {
        let options = defaults().unwrap();
        assert_eq!(options.domain.unwrap().to_string(), "localhost");
        assert!(options.ssh_listen.iter().all(|it| it.fallback));
    }

    #[test]
    fn each_flag_is_a_key() {
        let text = r#"
            domain = "tunnel.example.com"
            http-listen = ["127.0.0.1:80", "[::1]:80"]
            public-http-port = 80
            open = true
            grace = 5
            log-level = "debug"
            reserved-labels = "www,mail"
        "#;
        let (options, problems) = parse("hithed.toml", text);
        assert_eq!(problems, []);
        assert_eq!(options.domain.unwrap().to_string(), "tunnel.example.com");
        assert_eq!(options.http_listen.len(), 2);
        assert_eq!(options.public_http_port.map(u16::from), Some(80));
        assert_eq!(options.open, Some(true));
        assert_eq!(options.grace.unwrap().0.as_secs(), 5);
        assert_eq!(options.reserved_labels.len(), 2);
    }

    #[test]
    fn a_misspelt_key_gets_a_suggestion() {
        assert_eq!(
            problems("\n  domian = \"a.b\""),
            ["hithed.toml:2:3: unknown key domian, did you mean domain?"]
        );
        assert!(problems("config = \"other.toml\"")[0].starts_with("hithed.toml:1:1: unknown key config"));
        assert!(problems("zzz = 1")[0].contains("hithed serve --help"));
    }

    #[test]
    fn a_bad_value_is_named_with_its_place_and_reason() {
        assert_eq!(
            problems("tcp-ports = \"9-8\""),
            ["hithed.toml:1:13: tcp-ports: invalid value \"9-8\": the first port is greater than the last"]
        );
        assert_eq!(
            problems("log-level = \"loud\""),
            [
                "hithed.toml:1:13: log-level: invalid value \"loud\": give one of error, warn, info, debug, trace"
            ]
        );
    }

    #[test]
    fn values_of_the_wrong_shape_are_named() {
        assert!(problems("domain = {}")[0].contains("hithed.toml:1:10: domain: give a text"));
        assert_eq!(problems("grace = [1, 2]"), ["hithed.toml:1:9: grace: takes one value, not a list"]);
        assert!(problems("open = \"maybe\"")[0].contains("open: invalid value \"maybe\""));
        assert!(problems("public-http-port = 0")[0].contains("public-http-port: invalid value \"0\""));
    }

    #[test]
    fn all_problems_are_told_at_once_in_the_order_of_the_file() {
        let told = problems("zomain = 1\ngrace = \"soon\"\n[listen]\nssh = 1\n");
        let places: Vec<&str> = told.iter().map(|it| it.split(": ").next().unwrap()).collect();
        assert_eq!(places, ["hithed.toml:1:1", "hithed.toml:2:9", "hithed.toml:3:2"]);
    }

    #[test]
    fn broken_toml_is_named_with_its_place() {
        let told = problems("domain = \"a.b\"\nopen = = true\n");
        assert!(told[0].starts_with("hithed.toml:2:8: "), "{told:?}");
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(position("a\n\u{e4}\u{f6}x", 6), (2, 3));
        assert_eq!(position("", 9), (1, 1));
    }
}
