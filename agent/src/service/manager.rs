//! Services of systemd, launchd, OpenRC and rc.d.
//!
//! The crate `service-manager` knows where files go and which programs to call. The unit of systemd is our own, see
//! [`unit`].

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use hithe_cli_parser::printable;
use service_manager::{
    RestartPolicy, ServiceInstallCtx, ServiceLabel, ServiceLevel, ServiceManager, ServiceManagerKind,
    ServiceStartCtx, ServiceStatus, ServiceStatusCtx, ServiceStopCtx, ServiceUninstallCtx,
};

use super::{Install, ServiceError, Which, readable, unit};

/// A service as its manager knows it.
pub(super) struct Service {
    kind: ServiceManagerKind,
    manager: Box<dyn ServiceManager>,
    label: ServiceLabel,
}

impl Service {
    pub(super) fn find(which: &Which, changes: bool) -> Result<Self, ServiceError> {
        let kind = ServiceManagerKind::native().map_err(|_| ServiceError::NoManager)?;
        match kind {
            // As sd_booted(3) asks.
            ServiceManagerKind::Systemd if !Path::new("/run/systemd/system").is_dir() => {
                return Err(ServiceError::NotBooted);
            }
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

    pub(super) fn install(&self, install: &Install, out: &mut impl Write) -> Result<(), ServiceError> {
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
            ServiceManagerKind::OpenRc | ServiceManagerKind::Rcd => {
                unit::must_be_bare(program.as_os_str())?;
                args.iter().try_for_each(|it| unit::must_be_bare(it))?;
                None
            }
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
        if let (Some(log), Some(user)) = (&log, &username) {
            hand_over(log, user)?;
        }
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

    pub(super) fn uninstall(&self, out: &mut impl Write) -> Result<(), ServiceError> {
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

    pub(super) fn start(&self) -> Result<(), ServiceError> {
        self.must_exist()?;
        self.done(self.manager.start(ServiceStartCtx { label: self.label.clone() }))
    }

    pub(super) fn stop(&self) -> Result<(), ServiceError> {
        self.must_exist()?;
        self.done(self.manager.stop(ServiceStopCtx { label: self.label.clone() }))?;
        // It does not wait, and does not start again what still runs.
        if self.kind == ServiceManagerKind::Launchd { self.wait_for_the_end() } else { Ok(()) }
    }

    fn wait_for_the_end(&self) -> Result<(), ServiceError> {
        for _ in 0..TURNS {
            let status = self.manager.status(ServiceStatusCtx { label: self.label.clone() });
            if !matches!(status, Ok(ServiceStatus::Running)) {
                return Ok(());
            }
            std::thread::sleep(TURN);
        }
        Err(ServiceError::Manager(format!("it has not ended within {} s", (TURN * TURNS).as_secs())))
    }

    pub(super) fn status(&self, out: &mut impl Write) -> Result<ExitCode, ServiceError> {
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
            // Its journal keeps what the program writes.
            (ServiceManagerKind::Systemd, _) => None,
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
        // The library knows it, and we do without the library there.
        ServiceManagerKind::WinSw | ServiceManagerKind::Sc => Some("Windows"),
    };
    match manager {
        Some(manager) if which.user => Err(ServiceError::NoUserServices(manager)),
        Some(_) => Ok(ServiceLevel::System),
        None if which.system || (is_root() && !which.user) => Ok(ServiceLevel::System),
        None => Ok(ServiceLevel::User),
    }
}

/// Makes a file that only `user` can read: in the machine's folder of logs he could not make one.
fn hand_over(log: &Path, user: &str) -> Result<(), ServiceError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(log)?;
    let done = std::process::Command::new("chown").arg("--").arg(user).arg(log).output()?;
    if done.status.success() {
        return Ok(());
    }
    Err(ServiceError::Manager(printable(String::from_utf8_lossy(&done.stderr).trim()).into_owned()))
}

/// Who called sudo owns the files and keys, most likely.
fn run_as(install: &Install) -> String {
    let caller = || std::env::var("SUDO_USER").ok().filter(|user| !user.is_empty());
    install.run_as.clone().or_else(caller).unwrap_or_else(|| "root".to_owned())
}

const TURN: Duration = Duration::from_millis(100);
/// launchd kills what has not ended after 20 s.
const TURNS: u32 = 300;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::super::ServiceCommand;
    use super::super::tests::parse;
    use super::*;

    fn which(line: &str) -> Which {
        match parse(line).unwrap() {
            ServiceCommand::Start(which) => which,
            other => panic!("{other:?}"),
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
    fn a_log_is_handed_to_who_will_write_it() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("hithe.log");
        hand_over(&log, &rustix::process::geteuid().as_raw().to_string()).unwrap();
        let about = std::fs::metadata(&log).unwrap();
        assert_eq!((about.uid(), about.mode() & 0o777), (rustix::process::geteuid().as_raw(), 0o600));
        let error = hand_over(&log, "no\x1bbody").unwrap_err().to_string();
        assert!(error.contains("chown") && !error.contains('\x1b'), "{error}");
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
            .args(["--exact", "service::manager::tests::installs_and_uninstalls", "--ignored"])
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
