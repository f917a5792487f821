//! `hithe completions SHELL`: what a shell offers after the tabulator.

use std::io::{self, Write};

use clap::Command;
pub(crate) use clap_complete::Shell;

/// Writes the script that `SHELL` sources. A reader who has gone is an error and no panic.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write(shell: Shell, command: &mut Command, out: &mut impl Write) -> io::Result<()> {
    let name = command.get_name().to_owned();
    // The library panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    out.write_all(&script)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ValueEnum as _};

    use super::*;

    fn command() -> Command {
        Command::new("hithe").subcommand(Command::new("http").arg(Arg::new("inspect").long("inspect")))
    }

    #[test]
    fn every_shell_learns_of_commands_and_flags() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            write(*shell, &mut command(), &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            for word in ["hithe", "http", "inspect"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn bash_understands_its_script() {
        let mut script = tempfile::NamedTempFile::new().unwrap();
        write(Shell::Bash, &mut command(), &mut script).unwrap();
        // Where there is none, there is nothing to ask.
        if let Ok(status) = std::process::Command::new("bash").arg("-n").arg(script.path()).status() {
            assert!(status.success());
        }
    }

    #[test]
    fn a_reader_who_has_gone_is_an_error() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        assert!(write(Shell::Zsh, &mut command(), &mut writer).is_err());
    }
}
