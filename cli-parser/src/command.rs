//! `http|tls|tcp [flags]`: from an exec line to a [`Command`] and back.

use std::error::Error as _;
use std::fmt;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use serde::{Deserialize, Serialize};

use crate::words;
use crate::{Code, CommandError, HttpSpec, Objection, Scheme, TcpSpec, TlsSpec};

/// What a publisher asks for.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Publish a web service over https, http or both
    Http(HttpSpec),
    /// Publish a TLS service; the server passes it through undecrypted, by the name that visitors ask for
    Tls(TlsSpec),
    /// Publish any TCP service on a port of the server
    Tcp(TcpSpec),
}

/// What an exec line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Publish(Command),
    /// The text to show.
    Help(String),
}

/// Parses the exec line of a session, as it was received.
///
/// # Errors
/// Says which word is at fault and what to write instead.
pub fn parse(line: &str) -> Result<Parsed, CommandError> {
    let words = words::split(line);
    let Some(command) = words.first() else {
        return Err(CommandError::new(Code::NO_COMMAND, "say what to publish: http, tls or tcp")
            .hint("for example: ssh -R 443:localhost:80 HOST http"));
    };
    if ["help", "--help", "-h"].contains(&command.as_str()) {
        return Ok(Parsed::Help(help(None)));
    }
    if !NAMES.contains(&command.as_str()) {
        return Err(unknown_command(command));
    }
    if words.iter().skip(1).any(|word| word == "--help" || word == "-h") {
        return Ok(Parsed::Help(help(Some(command))));
    }
    // clap would read `-auth` as four short flags.
    let single_dash = |word: &&String| word.len() > 2 && word.starts_with('-') && !word.starts_with("--");
    if let Some(word) = words.iter().skip(1).find(single_dash) {
        return Err(unknown_argument(word, None));
    }
    let parsed = grammar()
        .try_get_matches_from(&words)
        .and_then(|matches| Line::from_arg_matches(&matches))
        .map_err(|error| explain(&error))?;
    check(&parsed.command)?;
    Ok(Parsed::Publish(parsed.command))
}

/// The three commands.
pub(crate) const NAMES: [&str; 3] = ["http", "tls", "tcp"];

#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_version_flag = true, disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// The grammar as clap knows it; help and reference are made from it too.
pub(crate) fn grammar() -> clap::Command {
    let usage = |command: clap::Command| {
        let usage = format!("ssh -R [NAME:]PORT:localhost:LOCAL_PORT HOST {} [flags]", command.get_name());
        let examples = examples(command.get_name());
        command.override_usage(usage).after_help(examples).term_width(80).max_term_width(80)
    };
    let mut grammar = Line::command()
        .name("ssh")
        .about("Publish a local service: say its name and port in -R, and what it is as the command")
        .override_usage("ssh -R [NAME:]PORT:localhost:LOCAL_PORT HOST <http|tls|tcp> [flags]")
        .after_help(GENERAL)
        .term_width(80)
        .max_term_width(80)
        .color(clap::ColorChoice::Never);
    for name in NAMES {
        grammar = grammar.mut_subcommand(name, usage);
    }
    grammar
}

const GENERAL: &str = "\
The name and the port stand in -R:
  -R 443:localhost:3000        a random name, the same each time for your key
  -R app:443:localhost:3000    the name app below the server's domain
  -R 0:localhost:22            let the server choose the port (tcp)

Flags of one command: ssh HOST http --help";

fn examples(command: &str) -> &'static str {
    match command {
        "http" => {
            "\
The port in -R: 443 or 0 is https, 80 is http. The name in -R is optional.

Examples:
  ssh -R 443:localhost:3000 HOST http
  ssh -R app:443:localhost:3000 HOST http --basic-auth ada:correct-horse
  ssh -R '*.app:443:localhost:3000' HOST http
  ssh -R 80:localhost:3000 HOST http --schemes http,https"
        }
        "tls" => {
            "\
The port in -R: 443 or 0. Visitors see the certificate of your own service.

Example:
  ssh -R app:443:localhost:8443 HOST tls"
        }
        _ => {
            "\
The port in -R: 0 for a random one, or one of the server's range.

Example:
  ssh -R 0:localhost:22 HOST tcp"
        }
    }
}

fn help(command: Option<&str>) -> String {
    let mut grammar = grammar();
    match command.and_then(|name| grammar.find_subcommand_mut(name)) {
        Some(command) => command.render_long_help().to_string(),
        None => grammar.render_long_help().to_string(),
    }
}

fn check(command: &Command) -> Result<(), CommandError> {
    match command {
        Command::Http(http) => http.modules.check().map_err(|it| CommandError::new(it.code, it.message)),
        Command::Tls(_) | Command::Tcp(_) => Ok(()),
    }
}

fn unknown_command(word: &str) -> CommandError {
    let hint = match strsim_best(word, NAMES) {
        Some(near) => format!("did you mean {near}? The commands are http, tls and tcp"),
        None => "the commands are http, tls and tcp: ssh -R 443:localhost:80 HOST http".to_owned(),
    };
    CommandError::new(Code::UNKNOWN_COMMAND, "this command is not known").word(word).hint(hint)
}

fn strsim_best(word: &str, among: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    let scored = among.into_iter().map(|near| (strsim::jaro_winkler(word, near), near));
    scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, near)| near)
}

/// clap's error in our words: with a code, and without the value of a secret.
fn explain(error: &clap::Error) -> CommandError {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    let flag = argument.split([' ', '=']).next().unwrap_or_default();
    if let Some(objection) = error.source().and_then(|source| source.downcast_ref::<Objection>()) {
        return CommandError::new(objection.code, objection.message.clone()).word(flag);
    }
    match error.kind() {
        ErrorKind::UnknownArgument => unknown_argument(argument, context(ContextKind::SuggestedArg)),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = context(ContextKind::InvalidValue).unwrap_or_default();
            if value.is_empty() {
                return CommandError::new(Code::BAD_FLAG, format!("{flag} needs a value")).word(flag);
            }
            let error =
                CommandError::new(Code::BAD_FLAG, format!("{flag} does not take this value")).word(value);
            match error_values(argument) {
                Some(values) => error.hint(format!("it takes {values}")),
                None => error,
            }
        }
        ErrorKind::TooManyValues => {
            CommandError::new(Code::BAD_FLAG, format!("{flag} takes no value")).word(flag)
        }
        ErrorKind::ArgumentConflict => {
            CommandError::new(Code::BAD_FLAG, format!("{flag} can be given once only")).word(flag)
        }
        _ => CommandError::new(Code::BAD_FLAG, "these flags cannot be understood").word(flag),
    }
}

fn error_values(argument: &str) -> Option<&'static str> {
    argument.starts_with("--schemes").then_some("http, https, or both: --schemes http,https")
}

fn unknown_argument(argument: &str, suggested: Option<&str>) -> CommandError {
    if !argument.starts_with('-') {
        let hint = "the port stands in -R, as in ssh -R 443:localhost:80 HOST http";
        return CommandError::new(Code::BAD_FLAG, "this word is not a flag").word(argument).hint(hint);
    }
    let flag = argument.split('=').next().unwrap_or_default();
    if let Some((_, advice)) = KNOWN_ELSEWHERE.iter().find(|(known, _)| known.contains(&flag)) {
        let message = "this flag is not offered here";
        return CommandError::new(Code::UNSUPPORTED_FLAG, message).word(flag).hint(*advice);
    }
    let hint = match suggested {
        Some(near) => format!("did you mean {near}? All flags: ssh HOST http --help"),
        None => "all flags: ssh HOST http --help".to_owned(),
    };
    CommandError::new(Code::BAD_FLAG, "this flag is not known").word(flag).hint(hint)
}

const IN_R: &str = "the name stands in -R: ssh -R NAME:443:localhost:80 HOST http";
const NOT_YET: &str = "this server does not have it yet";
const NEVER: &str = "it needs an agent on your machine; a server that ssh connects to cannot do it";

/// Flags of ngrok that are not (yet) flags of ours, and what to do.
const KNOWN_ELSEWHERE: &[(&[&str], &str)] = &[
    (&["--domain", "--hostname", "--subdomain", "--url", "-hostname", "-subdomain"], IN_R),
    (&["--remote-addr", "-remote-addr"], "the port stands in -R: ssh -R 20022:localhost:22 HOST tcp"),
    (&["--scheme"], "it is called --schemes: http, https, or http,https"),
    (&["-auth", "--auth"], "it is called --basic-auth USER:PASSWORD"),
    (
        &["--inspect", "--traffic-policy-file", "--policy-file", "--app-protocol", "--binding", "--name"],
        NEVER,
    ),
    (
        &[
            "--cidr-allow",
            "--cidr-deny",
            "--circuit-breaker",
            "--compression",
            "--host-header",
            "--mutual-tls-cas",
            "--oauth",
            "--oauth-allow-domain",
            "--oauth-allow-email",
            "--oauth-client-id",
            "--oauth-client-secret",
            "--oauth-scope",
            "--oidc",
            "--oidc-client-id",
            "--oidc-client-secret",
            "--oidc-scope",
            "--proxy-proto",
            "-proxy-proto",
            "--upstream-proxy-protocol",
            "--request-header-add",
            "--request-header-remove",
            "--response-header-add",
            "--response-header-remove",
            "--ua-filter-allow",
            "--ua-filter-deny",
            "--verify-webhook",
            "--verify-webhook-secret",
            "--websocket-tcp-converter",
            "--upstream-protocol",
            "--traffic-policy-url",
            "--pooling-enabled",
            "--metadata",
            "--description",
            "--terminate-at",
            "--crt",
            "--key",
        ],
        NOT_YET,
    ),
];

/// The line that parses back to this command; the agent sends it.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(TlsSpec {}) => f.write_str("tls"),
            Self::Tcp(TcpSpec {}) => f.write_str("tcp"),
            Self::Http(http) => {
                f.write_str("http")?;
                if !http.schemes.is_empty() {
                    let schemes: Vec<_> = http.schemes.iter().map(|it: &Scheme| it.as_str()).collect();
                    write!(f, " --schemes={}", schemes.join(","))?;
                }
                for (flag, value) in http.modules.flags() {
                    match value {
                        Some(value) => write!(f, " {flag}={}", words::quote(&value))?,
                        None => write!(f, " {flag}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// What the user name of a login says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserName {
    /// `http@host`: a bare command, for connections without a session (`ssh -N`).
    Command(Command),
    /// `v2`, or any name that says nothing: the command follows.
    Version2,
    /// `v1`, `v9` …
    UnknownVersion(String),
}

impl UserName {
    pub fn parse(user: &str) -> Self {
        if NAMES.contains(&user)
            && let Ok(Parsed::Publish(command)) = parse(user)
        {
            return Self::Command(command);
        }
        let number =
            user.strip_prefix('v').filter(|it| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit()));
        match number {
            Some("2") | None => Self::Version2,
            Some(_) => Self::UnknownVersion(user.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
