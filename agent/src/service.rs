//! `hithe service …`: the agent as a service of systemd, launchd, OpenRC or rc.d, or of WinSW on Windows.
//!
//! The crate `service-manager` knows where files go and which programs to call. The unit of systemd is our own, see
//! [`unit`]. Everything here blocks.

mod unit;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use hithe_cli_parser::printable;
use service_manager::{
    RestartPolicy, ServiceInstallCtx, ServiceLabel, ServiceLevel, ServiceManager, ServiceManagerKind,
    ServiceStartCtx, ServiceStatus, ServiceStatusCtx, ServiceStopCtx, ServiceUninstallCtx,
};

/// Run the agent in the background, from the start of the machine or of your session
///
/// systemd, launchd, OpenRC and rc.d are known; on Windows WinSW, if winsw.exe is in the PATH. OpenRC and rc.d have
/// system services only and do not start again what has failed.
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
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Install {
    /// The agent's file; several are merged. Without it your own is used, which --system needs to be told
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// As whom a system service runs. Default: who called sudo, else root, which has no more rights than its files' owner
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
    #[error(
        "no service manager is known here: systemd, launchd, OpenRC and rc.d are; start `hithe start --all` as your system starts programs"
    )]
    NoManager,
    #[error(
        "systemctl is here but systemd does not run, as in most containers: let what starts the container start `hithe start --all`"
    )]
    NotBooted,
    #[error(
        "a Windows service has to answer the service control manager, which hithe does not do: put winsw.exe of https://github.com/winsw/winsw, which does, in the PATH, or let the Task Scheduler run `hithe start --all`"
    )]
    NeedsWinSw,
    #[error(
        "this needs root, or an administrator: call it with sudo, or add --user for a service of your own"
    )]
    NeedsRoot,
    #[error("{0} has services of the machine only: call it as root, with --system")]
    NoUserServices(&'static str),
    #[error("--system needs --config FILE, since it does not run in your home directory")]
    NeedsConfig,
    #[error("--run-as is for systemd and launchd")]
    NoRunAs,
    #[error("{} cannot be read: {error}", printable(&path.to_string_lossy()))]
    Config { path: PathBuf, error: io::Error },
    #[error("{0} is a path or name that cannot stand in a service's file")]
    Unspeakable(String),
    #[error("the service is not installed: `hithe service install`")]
    NotInstalled,
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
    }
    Ok(ExitCode::SUCCESS)
}

/// A service as its manager knows it.
struct Service {
    kind: ServiceManagerKind,
    manager: Box<dyn ServiceManager>,
    label: ServiceLabel,
}

impl Service {
    fn find(which: &Which, changes: bool) -> Result<Self, ServiceError> {
        let kind = ServiceManagerKind::native().map_err(|_| ServiceError::NoManager)?;
        match kind {
            // As sd_booted(3) asks.
            ServiceManagerKind::Systemd if !Path::new("/run/systemd/system").is_dir() => {
                return Err(ServiceError::NotBooted);
            }
            ServiceManagerKind::Sc => return Err(ServiceError::NeedsWinSw),
            _ => {}
        }
        let level = level(which, kind)?;
        if level == ServiceLevel::System && changes && !is_root() {
            return Err(ServiceError::NeedsRoot);
        }
        let mut manager = <dyn ServiceManager>::target(kind);
        manager.set_level(level)?;
        let label = ServiceLabel { qualifier: None, organization: None, application: which.name.clone() };
        Ok(Self { kind, manager, label })
    }

    fn install(&self, install: &Install, out: &mut impl Write) -> Result<(), ServiceError> {
        let level = self.manager.level();
        if level == ServiceLevel::System && install.config.is_empty() {
            return Err(ServiceError::NeedsConfig);
        }
        let can_run_as = matches!(self.kind, ServiceManagerKind::Systemd | ServiceManagerKind::Launchd);
        if install.run_as.is_some() && !can_run_as {
            return Err(ServiceError::NoRunAs);
        }
        let username = (level == ServiceLevel::System && can_run_as).then(|| run_as(install));
        let program = std::env::current_exe()?;
        let mut args: Vec<OsString> = vec!["start".into(), "--all".into()];
        for path in &install.config {
            args.push("--config".into());
            args.push(readable(path)?.into());
        }
        let log = self.log_file();
        if let Some(log) = &log {
            args.extend(["--log".into(), log.into()]);
        }
        let contents = match self.kind {
            ServiceManagerKind::Systemd => Some(unit::systemd(&program, &args, username.as_deref())?),
            _ => None,
        };
        let context = ServiceInstallCtx {
            label: self.label.clone(),
            program,
            args,
            contents,
            username: username.clone(),
            working_directory: None,
            environment: None,
            autostart: true,
            restart_policy: RestartPolicy::default(),
        };
        self.done(self.manager.install(context))?;
        self.tell(username.as_deref(), log.as_deref(), out)
    }

    /// What was written, and what comes next.
    fn tell(&self, user: Option<&str>, log: Option<&Path>, out: &mut impl Write) -> Result<(), ServiceError> {
        match self.file() {
            Some(file) => writeln!(out, "{} has been written", printable(&file.to_string_lossy()))?,
            None => writeln!(out, "{} has been installed", self.label)?,
        }
        if let Some(user) = user {
            writeln!(out, "It runs as {}, who must be able to read its files and keys", printable(user))?;
        }
        match log {
            Some(log) => writeln!(out, "It will log to {}", printable(&log.to_string_lossy()))?,
            None if self.kind == ServiceManagerKind::Systemd => {
                writeln!(
                    out,
                    "It will log to the journal: journalctl {}-u {}",
                    self.user_flag(),
                    self.label
                )?;
            }
            None => {}
        }
        if self.kind == ServiceManagerKind::Systemd && self.manager.level() == ServiceLevel::User {
            writeln!(
                out,
                "It runs while you are logged in; `loginctl enable-linger` lets it run without that"
            )?;
        }
        writeln!(
            out,
            "Nobody can be asked: it needs a key without a passphrase, or a token, and a known host key"
        )?;
        writeln!(out, "Start it now: hithe service start{}", self.flags())?;
        Ok(())
    }

    fn uninstall(&self, out: &mut impl Write) -> Result<(), ServiceError> {
        self.must_exist()?;
        // One that does not run, or was never loaded, need not be stopped.
        let _ = self.manager.stop(ServiceStopCtx { label: self.label.clone() });
        self.done(self.manager.uninstall(ServiceUninstallCtx { label: self.label.clone() }))?;
        match self.file() {
            // The library passes over what launchd's file does not let it do.
            Some(file) if file.exists() => Err(ServiceError::NeedsRoot),
            Some(file) => Ok(writeln!(out, "{} has been removed", printable(&file.to_string_lossy()))?),
            None => Ok(writeln!(out, "{} has been removed", self.label)?),
        }
    }

    fn start(&self) -> Result<(), ServiceError> {
        self.must_exist()?;
        self.done(self.manager.start(ServiceStartCtx { label: self.label.clone() }))
    }

    fn stop(&self) -> Result<(), ServiceError> {
        self.must_exist()?;
        self.done(self.manager.stop(ServiceStopCtx { label: self.label.clone() }))
    }

    fn status(&self, out: &mut impl Write) -> Result<ExitCode, ServiceError> {
        let (text, code) = match self.manager.status(ServiceStatusCtx { label: self.label.clone() }) {
            Ok(ServiceStatus::Running) => ("runs".to_owned(), 0),
            Ok(ServiceStatus::Stopped(None)) => ("does not run".to_owned(), 3),
            Ok(ServiceStatus::Stopped(Some(why))) => (format!("does not run: {}", printable(&why)), 3),
            Ok(ServiceStatus::NotInstalled) => ("is not installed".to_owned(), 4),
            Err(error) => return self.done(Err(error)).map(|()| ExitCode::FAILURE),
        };
        writeln!(out, "{} {text}", self.label)?;
        Ok(ExitCode::from(code))
    }

    fn must_exist(&self) -> Result<(), ServiceError> {
        match self.file() {
            Some(file) if !file.exists() => Err(ServiceError::NotInstalled),
            _ => Ok(()),
        }
    }

    /// What a manager said, with what to do about it.
    fn done(&self, result: io::Result<()>) -> Result<(), ServiceError> {
        result.map_err(|error| {
            let text = error.to_string();
            let said = text.trim().lines().map(printable).collect::<Vec<_>>().join("\n  ");
            let is_refused =
                error.kind() == io::ErrorKind::PermissionDenied || text.contains("Access denied");
            if is_refused && self.manager.level() == ServiceLevel::System {
                ServiceError::NeedsRoot
            } else if self.kind == ServiceManagerKind::Systemd && text.contains("connect to bus") {
                ServiceError::NoUserBus(said)
            } else {
                ServiceError::Manager(said)
            }
        })
    }

    /// Where the library writes.
    fn file(&self) -> Option<PathBuf> {
        let name = &self.label.application;
        let is_system = self.manager.level() == ServiceLevel::System;
        match self.kind {
            ServiceManagerKind::Systemd => {
                let folder = if is_system {
                    service_manager::systemd_global_dir_path()
                } else {
                    service_manager::systemd_user_dir_path().ok()?
                };
                Some(folder.join(format!("{name}.service")))
            }
            ServiceManagerKind::Launchd => {
                let folder = if is_system {
                    PathBuf::from("/Library/LaunchDaemons")
                } else {
                    etcetera::home_dir().ok()?.join("Library/LaunchAgents")
                };
                Some(folder.join(format!("{name}.plist")))
            }
            ServiceManagerKind::OpenRc => Some(Path::new("/etc/init.d").join(name)),
            _ => None,
        }
    }

    /// Where there is no journal.
    fn log_file(&self) -> Option<PathBuf> {
        let name = format!("{}.log", self.label.application);
        match (self.kind, self.manager.level()) {
            (ServiceManagerKind::Launchd, ServiceLevel::User) => {
                Some(etcetera::home_dir().ok()?.join("Library/Logs").join(name))
            }
            // WinSW keeps what the program writes beside its own file, and systemd in the journal.
            (ServiceManagerKind::Systemd | ServiceManagerKind::WinSw | ServiceManagerKind::Sc, _) => None,
            _ => Some(Path::new("/var/log").join(name)),
        }
    }

    fn user_flag(&self) -> &'static str {
        if self.manager.level() == ServiceLevel::User { "--user " } else { "" }
    }

    /// By which a further command means the same service.
    fn flags(&self) -> String {
        let level = if self.manager.level() == ServiceLevel::User { " --user" } else { " --system" };
        match self.label.application.as_str() {
            "hithe" => level.to_owned(),
            name => format!("{level} --name {name}"),
        }
    }
}

fn level(which: &Which, kind: ServiceManagerKind) -> Result<ServiceLevel, ServiceError> {
    let manager = match kind {
        ServiceManagerKind::Systemd | ServiceManagerKind::Launchd => None,
        ServiceManagerKind::OpenRc => Some("OpenRC"),
        ServiceManagerKind::Rcd => Some("rc.d"),
        ServiceManagerKind::WinSw | ServiceManagerKind::Sc => Some("Windows"),
    };
    match manager {
        Some(manager) if which.user => Err(ServiceError::NoUserServices(manager)),
        Some(_) => Ok(ServiceLevel::System),
        None if which.system || (is_root() && !which.user) => Ok(ServiceLevel::System),
        None => Ok(ServiceLevel::User),
    }
}

/// Who called sudo owns the files and keys, most likely.
fn run_as(install: &Install) -> String {
    let caller = || std::env::var("SUDO_USER").ok().filter(|user| !user.is_empty());
    install.run_as.clone().or_else(caller).unwrap_or_else(|| "root".to_owned())
}

/// The service runs elsewhere: paths are absolute, and read once to see that they are there.
fn readable(path: &Path) -> Result<PathBuf, ServiceError> {
    let found = std::fs::File::open(path).and_then(|_| std::path::absolute(path));
    found.map_err(|error| ServiceError::Config { path: path.to_owned(), error })
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Windows says so itself when rights are missing.
#[cfg(not(unix))]
fn is_root() -> bool {
    true
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

    fn parse(line: &str) -> Result<ServiceCommand, clap::Error> {
        Cli::try_parse_from(std::iter::once("hithe").chain(line.split_whitespace())).map(|cli| cli.command)
    }

    fn which(line: &str) -> Which {
        match parse(line).unwrap() {
            ServiceCommand::Start(which) => which,
            other => panic!("{other:?}"),
        }
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
    fn a_manager_without_services_of_users_says_so() {
        let error = level(&which("start --user"), ServiceManagerKind::OpenRc).unwrap_err();
        assert!(error.to_string().contains("OpenRC has services of the machine only"), "{error}");
        let found = |line| level(&which(line), ServiceManagerKind::Systemd).unwrap();
        assert_eq!(found("start --user"), ServiceLevel::User);
        assert_eq!(found("start --system"), ServiceLevel::System);
        assert_eq!(found("start"), if is_root() { ServiceLevel::System } else { ServiceLevel::User });
    }

    #[test]
    fn a_file_that_is_not_there_is_named_before_anything_is_written() {
        let error = readable(Path::new("no\x1bwhere.yml")).unwrap_err();
        assert!(error.to_string().starts_with("no\\u{1b}where.yml cannot be read: "), "{error}");
    }

    #[test]
    fn what_a_manager_said_comes_with_advice() {
        let label = ServiceLabel { qualifier: None, organization: None, application: "hithe".into() };
        let kind = ServiceManagerKind::Systemd;
        let service = Service { kind, manager: <dyn ServiceManager>::target(kind), label };
        let told = |text: &str| service.done(Err(io::Error::other(text))).unwrap_err().to_string();
        assert!(told("Failed to connect to bus: No medium found").contains("enable-linger"));
        assert!(told("Access denied").contains("sudo"));
        assert_eq!(told("odd\x1b[2J\nthing\n"), "odd\\u{1b}[2J\n  thing");
        assert_eq!(service.file().unwrap(), Path::new("/etc/systemd/system/hithe.service"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn without_systemd_it_says_what_to_do_instead() {
        let error = match Service::find(&which("start --user"), true) {
            Ok(_) => return, // it runs here
            Err(error) => error.to_string(),
        };
        assert!(error.contains("hithe start --all"), "{error}");
    }

    /// Called by the next test in a process with an environment of its own.
    #[cfg(target_os = "linux")]
    #[test]
    #[ignore = "changes units"]
    fn installs_and_uninstalls() {
        let mut manager = <dyn ServiceManager>::target(ServiceManagerKind::Systemd);
        manager.set_level(ServiceLevel::User).unwrap();
        let label = ServiceLabel { qualifier: None, organization: None, application: "hithe-test".into() };
        let service = Service { kind: ServiceManagerKind::Systemd, manager, label };
        let config = PathBuf::from(std::env::var_os("TEST_CONFIG").unwrap());
        let line = "install --user --name hithe-test";
        let ServiceCommand::Install(mut install) = parse(line).unwrap() else { panic!("{line}") };
        install.config.push(config);
        let mut told = Vec::new();
        assert!(matches!(service.start(), Err(ServiceError::NotInstalled)));
        service.install(&install, &mut told).unwrap();
        let file = service.file().unwrap();
        std::fs::copy(&file, file.with_extension("kept")).unwrap();
        assert!(file.parent().unwrap().join("default.target.wants/hithe-test.service").exists());
        service.uninstall(&mut told).unwrap();
        assert!(!file.exists());
        assert!(!file.parent().unwrap().join("default.target.wants/hithe-test.service").is_symlink());
        let told = String::from_utf8(told).unwrap();
        assert!(told.contains("hithe-test.service has been written"), "{told}");
        assert!(told.contains("Start it now: hithe service start --user --name hithe-test"), "{told}");
        assert!(told.contains("hithe-test.service has been removed"), "{told}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_service_is_written_enabled_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("my file.yml");
        std::fs::write(&config, "version: 3").unwrap();
        if std::process::Command::new("systemctl").arg("--version").output().is_err() {
            return;
        }
        let done = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "service::tests::installs_and_uninstalls", "--ignored"])
            .env("XDG_CONFIG_HOME", dir.path())
            .env("TEST_CONFIG", &config)
            // systemctl then changes files only.
            .env("SYSTEMD_OFFLINE", "1")
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        let unit = std::fs::read_to_string(dir.path().join("systemd/user/hithe-test.kept")).unwrap();
        let wanted = format!(" start --all --config \"{}\"\n", config.display());
        assert!(unit.contains(&wanted), "{unit}");
    }
}
