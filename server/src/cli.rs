//! The command line of `hithed`. Options of the server stand in [`crate::config::Options`]; here are the commands.

mod admin;
mod check;
mod health;

use std::ffi::OsString;

use clap::{Arg, Args, Command as Clap, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::{Options, default_text};

pub use admin::{AdminOptions, Offline, admin};
pub use check::check;
pub use health::{HealthOptions, health};

const EXAMPLES: &str = "\
Examples:
  hithed demo
  hithed serve --domain tunnel.example.com --authorized-keys /etc/hithed/authorized_keys \\
      --ssh-listen '[::]:22' --http-listen '[::]:80' --https-listen '[::]:443'

A publisher then needs nothing but ssh:
  ssh -R 443:localhost:3000 v2@tunnel.example.com http";

const ADMIN: &str = "\
Examples:
  hithed admin accounts add ada --admin
  hithed admin keys add ada \"$(cat ~/.ssh/id_ed25519.pub)\"
  hithed admin tokens add ci --expires 90d --acl 'bind:*.ci'
  hithed admin backup /var/backups/hithe.db";

const LAYERS: &str = "\
Each option is a flag, an environment variable (HITHED_DOMAIN for --domain; lists separated by commas) and a key of \
the file given by --config (domain = \"tunnel.example.com\"). A flag counts more than the environment, that more than \
the file.

Examples:
  hithed serve --domain tunnel.example.com --authorized-keys /etc/hithed/authorized_keys
  HITHED_LOG_FORMAT=json hithed serve --config /etc/hithed/hithed.toml";

/// SSH-native reverse tunnel server
///
/// hithed publishes services that stand behind stock `ssh -R` connections: over HTTP, HTTPS, TLS and TCP, under names
/// below one domain.
#[derive(Debug, Parser)]
#[command(name = "hithed", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    #[command(after_long_help = LAYERS)]
    Serve(Box<Options>),
    /// Show a complete tunnel on this machine, with its own ssh as the publisher
    Demo(DemoOptions),
    /// Say what is wrong with a configuration, and start nothing; takes the options of serve
    ///
    /// Prints one line for each problem, with file, line and column where it has them. The exit status is 0 when
    /// there is none and 1 otherwise.
    #[command(after_long_help = LAYERS)]
    Check(Box<Options>),
    /// Ask a running server how it is: the exit status is 0 if it is well, else 1
    ///
    /// The server answers at --health-listen. For the HEALTHCHECK of a container image, and scripts.
    Health(HealthOptions),
    /// Accounts, keys, tokens, names and the audit log, in the state directory; also beside a running server
    ///
    /// The same commands that admins type over ssh: ssh HOST accounts --help.
    #[command(after_help = ADMIN)]
    Admin(Box<AdminOptions>),
}

/// The options of `hithed demo`.
#[derive(Clone, Copy, Debug, Args)]
pub struct DemoOptions {
    /// End after the first answer, with status 0 if it was the right one
    #[arg(long)]
    pub once: bool,
}

impl Cli {
    /// Reads arguments, the first of which is the program's name, and the environment.
    ///
    /// The error is also what `--help` and `--version` print: `error.exit()` does the right thing.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = command();
        let matches = command.try_get_matches_from_mut(arguments)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// The whole command line with environment variables and defaults, as help shows it.
pub fn command() -> Clap {
    let complete = |command: Clap| command.mut_args(with_environment_and_default);
    let of = |command: Clap, name: &str| command.mut_subcommand(name, complete);
    ["serve", "check", "admin"].into_iter().fold(Cli::command(), of)
}

fn with_environment_and_default(option: Arg) -> Arg {
    let Some(long) = option.get_long().map(str::to_owned) else { return option };
    let variable = format!("HITHED_{}", long.to_uppercase().replace('-', "_"));
    let option = option.env(variable).hide_env_values(true);
    match (option.get_help().cloned(), default_text(&long)) {
        (Some(help), Some(default)) => option.help(format!("{help} [default: {default}]")),
        _ => option,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        Cli::read(line.split_whitespace().map(OsString::from))
    }

    fn help(line: &str) -> String {
        read(line).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn serve_takes_options_and_demo_takes_once() {
        let Command::Serve(options) =
            read("hithed serve --open --ssh-listen [::]:22 --ssh-listen 1.2.3.4:5").unwrap().command
        else {
            panic!("not serve")
        };
        assert_eq!((options.open, options.ssh_listen.len()), (Some(true), 2));
        let Command::Demo(options) = read("hithed demo --once").unwrap().command else { panic!("not demo") };
        assert!(options.once);
        assert!(read("hithed demo --open").is_err());
    }

    #[test]
    fn open_can_be_taken_back_on_the_command_line() {
        let Command::Check(options) = read("hithed check --open=false").unwrap().command else {
            panic!("not check")
        };
        assert_eq!(options.open, Some(false));
    }

    #[test]
    fn every_option_has_an_environment_variable() {
        for option in command().find_subcommand("serve").unwrap().get_arguments() {
            let (Some(long), Some(variable)) = (option.get_long(), option.get_env()) else {
                panic!("{option} has none")
            };
            assert_eq!(
                variable.to_str().unwrap(),
                format!("HITHED_{}", long.to_uppercase().replace('-', "_"))
            );
        }
    }

    #[test]
    fn help_shows_headings_defaults_and_variables() {
        let shown = help("hithed serve --help");
        for part in ["Listeners:", "Names:", "Access:", "TLS:", "State:", "Logging:"] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
        assert!(shown.contains("[default: 20000-20999]") && shown.contains("HITHED_TCP_PORTS"), "{shown}");
    }

    #[test]
    fn a_bad_value_says_what_a_good_one_looks_like() {
        let shown = help("hithed serve --ssh-listen 22");
        assert!(shown.contains("--ssh-listen") && shown.contains("[::]:8080"), "{shown}");
    }
}
