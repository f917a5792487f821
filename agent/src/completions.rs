//! `hithe completions SHELL`: what a shell offers after the tabulator.
//!
//! The script asks `hithe` itself, with [`VARIABLE`] set, so that it knows the endpoints of the file too.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap_complete::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};
pub(crate) use clap_complete::{ArgValueCandidates, Shell};

use crate::Config;

/// In the environment of `hithe` where a shell asks what could follow. Its value is the name of the shell.
const VARIABLE: &str = "HITHE_COMPLETE";

/// Writes the script that `SHELL` sources.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write(shell: Shell, out: &mut impl Write) -> io::Result<()> {
    let shells = Shells::builtins();
    let completer = shells.completer(&shell.to_string()).ok_or(io::ErrorKind::Unsupported)?;
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, NAME, NAME, &own_name(), &mut script)?;
    out.write_all(&script)?;
    out.flush()
}

/// As which the script calls us: by name where the shell found us so.
fn own_name() -> String {
    let called = PathBuf::from(std::env::args_os().next().unwrap_or_else(|| NAME.into()));
    let path = if called.components().count() > 1 { std::path::absolute(&called) } else { Ok(called) };
    path.map_or_else(|_| NAME.to_owned(), |path| path.to_string_lossy().into_owned())
}

/// Answers a shell that asks, and says whether one did. To be called before anything else is.
///
/// # Errors
/// It is no shell that we know, or the answer cannot be written.
pub(crate) fn answer(grammar: fn() -> clap::Command) -> Result<bool, clap::Error> {
    let here = std::env::current_dir().ok();
    CompleteEnv::with_factory(grammar).var(VARIABLE).try_complete(std::env::args_os(), here.as_deref())
}

/// The endpoints of the file, or of those that the line names with `--config`.
pub(crate) fn endpoints() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let words: Vec<_> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
        names(&files(&words))
    })
}

fn names(files: &[PathBuf]) -> Vec<CompletionCandidate> {
    // A file that is wrong is told when it is started.
    let endpoints = Config::load(files).map(|config| config.endpoints).unwrap_or_default();
    let candidate = |it: crate::Endpoint| {
        let leads = format!("{} {}", it.kind().as_str(), it.upstream);
        CompletionCandidate::new(it.name).help(Some(leads.into()))
    };
    endpoints.into_iter().map(candidate).collect()
}

/// Of `--config FILE` and `--config=FILE`.
fn files(words: &[OsString]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut words = words.iter().map(OsString::as_os_str);
    while let Some(word) = words.next() {
        let joined = word.to_str().and_then(|word| word.strip_prefix("--config="));
        let file = if word == OsStr::new("--config") { words.next() } else { joined.map(OsStr::new) };
        files.extend(file.map(at_home));
    }
    files
}

/// A shell gives the words as they stand, and would have made a home directory of `~/`.
fn at_home(word: &OsStr) -> PathBuf {
    match (Path::new(word).strip_prefix("~"), etcetera::home_dir()) {
        (Ok(rest), Ok(home)) => home.join(rest),
        _ => PathBuf::from(word),
    }
}

const NAME: &str = "hithe";

#[cfg(test)]
mod tests {
    use clap::{Arg, Command, ValueEnum as _};

    use super::*;

    #[test]
    fn every_shell_learns_whom_to_ask() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            write(*shell, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("hithe") && script.contains(VARIABLE), "{shell}: {script}");
        }
    }

    #[test]
    fn bash_understands_its_script() {
        let mut script = tempfile::NamedTempFile::new().unwrap();
        write(Shell::Bash, &mut script).unwrap();
        // Where there is none, there is nothing to ask.
        if let Ok(status) = std::process::Command::new("bash").arg("-n").arg(script.path()).status() {
            assert!(status.success());
        }
    }

    #[test]
    fn a_reader_who_has_gone_is_an_error() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        assert!(write(Shell::Zsh, &mut writer).is_err());
    }

    #[test]
    fn names_of_endpoints_are_those_of_the_files_that_the_line_names() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yml");
        let text = "version: 3\nendpoints:\n  - {name: web, upstream: {url: 80}}\n  - {name: shell, url: 'tcp://', upstream: {url: 22}}\n";
        std::fs::write(&file, text).unwrap();
        let named = file;
        let grammar = || {
            let name =
                Arg::new("names").add(ArgValueCandidates::new(move || names(std::slice::from_ref(&named))));
            Command::new("hithe").subcommand(Command::new("start").arg(name))
        };
        let words = ["hithe", "start", "s"].map(OsString::from).to_vec();
        let offered = clap_complete::engine::complete(&mut grammar(), words, 2, None).unwrap();
        let offered: Vec<_> =
            offered.iter().map(|it| (it.get_value(), it.get_help().map(ToString::to_string))).collect();
        assert_eq!(offered, [(OsStr::new("shell"), Some("tcp localhost:22".to_owned()))]);
        assert!(names(&[folder.path().join("none.yml")]).is_empty());
        let words = ["hithe", "--config", "a", "start", "--config=b"].map(OsString::from);
        assert_eq!(files(&words), [PathBuf::from("a"), PathBuf::from("b")]);
    }
}
