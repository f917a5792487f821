//! `hithe service …`: the agent as a service of systemd, launchd, OpenRC or rc.d, see [`manager`], or of Windows' own
//! service control manager, see [`windows`]. Everything here blocks.

#[cfg(not(windows))]
mod manager;
#[cfg(not(windows))]
mod unit;
#[cfg(windows)]
mod windows;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use hithe_cli_parser::printable;

#[cfg(not(windows))]
use manager::Service;
#[cfg(windows)]
use windows::Service;
#[cfg(windows)]
pub(crate) use windows::answer;

/// Run the agent in the background, from the start of the machine or of your session
///
/// systemd, launchd, OpenRC, rc.d and Windows' services are known. The last three have services of the machine only;
/// OpenRC and rc.d do not start again what has failed.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Write the service's file, so that it starts with the machine (--system) or your session (--user)
    Install(Install),
    /// Stop the service and remove its file
    Uninstall(Which),
    /// Start it now
    Start(Which),
    /// Stop it now
    Stop(Which),
    /// Stop it, and start it with what its files say now
    Restart(Which),
    /// Tell whether it runs: exit status 0 if so, 3 if not, 4 if it is not installed
    Status(Which),
    /// Be the service. Windows calls this, and nobody else
    #[cfg(windows)]
    #[command(hide = true)]
    Run(Run),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Install {
    /// The agent's file; several are merged. Without it your own is used, which --system needs to be told
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// As whom a system service runs. Default: who called sudo, else root, which has no more rights than its files'
    /// owner; on Windows `NT AUTHORITY\LocalService`
    #[arg(long, value_name = "USER", conflicts_with = "user")]
    run_as: Option<String>,
    #[command(flatten)]
    which: Which,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Which {
    /// A service of yours: the default unless you are root
    #[arg(long, conflicts_with = "system")]
    user: bool,
    /// A service of the machine
    #[arg(long)]
    system: bool,
    /// One of several: hithe, or hithe- and a word
    #[arg(long, default_value = "hithe", value_parser = name)]
    name: String,
}

/// What the service control manager of Windows is told to say.
#[cfg(windows)]
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    /// The service's own name
    #[arg(long, value_parser = name)]
    pub(crate) name: String,
    /// Nobody reads what it prints
    #[arg(long, value_name = "FILE")]
    pub(crate) log: PathBuf,
}

/// Names of other services are out of reach.
fn name(text: &str) -> Result<String, &'static str> {
    let is_word = |word: &str| {
        (1..=64).contains(&word.len())
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    match text.strip_prefix("hithe") {
        Some("") => Ok(text.to_owned()),
        Some(rest) if rest.strip_prefix('-').is_some_and(is_word) => Ok(text.to_owned()),
        _ => Err("a name is hithe, or hithe- and letters, digits, - or _"),
    }
}

/// Why it cannot be done, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[cfg(not(windows))]
    #[error(
        "no service manager is known here: systemd, launchd, OpenRC and rc.d are; start `hithe start --all` as your system starts programs"
    )]
    NoManager,
    #[cfg(not(windows))]
    #[error(
        "systemctl is here but systemd does not run, as in most containers: let what starts the container start `hithe start --all`"
    )]
    NotBooted,
    #[cfg(not(windows))]
    #[error("this needs root: call it with sudo, or add --user for a service of your own")]
    NeedsRoot,
    #[cfg(windows)]
    #[error("this needs an administrator: call it in a terminal that was started as one")]
    NeedsAdministrator,
    #[error("{0} has services of the machine only: call it as its administrator, without --user")]
    NoUserServices(&'static str),
    #[error("a service of the machine needs --config FILE, since it does not run in your home directory")]
    NeedsConfig,
    #[cfg(not(windows))]
    #[error("--run-as is for systemd, launchd and Windows")]
    NoRunAs,
    #[error("{} cannot be read: {error}", printable(&path.to_string_lossy()))]
    Config { path: PathBuf, error: io::Error },
    #[cfg(not(windows))]
    #[error("{0} is a path or name that cannot stand in a service's file")]
    Unspeakable(String),
    #[error("the service is not installed: `hithe service install`")]
    NotInstalled,
    #[cfg(not(windows))]
    #[error(
        "your systemd cannot be reached, as after su or without a login: log in as that user (or `machinectl shell USER@`), and `loginctl enable-linger USER` lets services run without a login\n  {0}"
    )]
    NoUserBus(String),
    #[error("{0}")]
    Manager(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Does it and tells what it did. Blocks.
///
/// # Errors
/// The service manager is missing or refuses, or rights are missing.
pub(crate) fn run(command: &ServiceCommand, out: &mut impl Write) -> Result<ExitCode, ServiceError> {
    let which = match command {
        ServiceCommand::Install(install) => &install.which,
        ServiceCommand::Uninstall(which)
        | ServiceCommand::Start(which)
        | ServiceCommand::Stop(which)
        | ServiceCommand::Restart(which)
        | ServiceCommand::Status(which) => which,
        #[cfg(windows)]
        ServiceCommand::Run(_) => {
            return Err(ServiceError::Manager("only Windows itself calls this".to_owned()));
        }
    };
    let service = Service::find(which, !matches!(command, ServiceCommand::Status(_)))?;
    let shown = &which.name;
    match command {
        ServiceCommand::Install(install) => service.install(install, out)?,
        ServiceCommand::Uninstall(_) => service.uninstall(out)?,
        ServiceCommand::Start(_) => {
            service.start()?;
            writeln!(out, "{shown} has been started")?;
        }
        ServiceCommand::Stop(_) => {
            service.stop()?;
            writeln!(out, "{shown} has been stopped")?;
        }
        ServiceCommand::Restart(_) => {
            service.stop()?;
            service.start()?;
            writeln!(out, "{shown} has been restarted")?;
        }
        ServiceCommand::Status(_) => return service.status(out),
        #[cfg(windows)]
        ServiceCommand::Run(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The service runs elsewhere: paths are absolute, and read once to see that they are there.
fn readable(path: &Path) -> Result<PathBuf, ServiceError> {
    let found = std::fs::File::open(path).and_then(|_| std::path::absolute(path));
    found.map_err(|error| ServiceError::Config { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: ServiceCommand,
    }

    pub(super) fn parse(line: &str) -> Result<ServiceCommand, clap::Error> {
        Cli::try_parse_from(std::iter::once("hithe").chain(line.split_whitespace())).map(|cli| cli.command)
    }

    #[test]
    fn only_services_of_this_program_can_be_named() {
        for line in [
            "start",
            "start --name hithe-shop",
            "install --config a.yml --config b.yml --system --run-as ada",
        ] {
            parse(line).unwrap();
        }
        for line in [
            "start --name sshd",
            "start --name hithe-",
            "start --name hithe-a/b",
            "start --name hithe.x",
            "start --name hithe-../../x",
            "start --user --system",
            "install --user --run-as ada",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named_before_anything_is_written() {
        let error = readable(Path::new("no\x1bwhere.yml")).unwrap_err();
        assert!(error.to_string().starts_with("no\\u{1b}where.yml cannot be read: "), "{error}");
    }
}
