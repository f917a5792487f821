//! A service of Windows: known to its service control manager (SCM), which starts this program and tells it to stop.
//!
//! The SCM starts `hithe service run`, which has to answer within 30 s through [`answer`]. Nobody reads what such a
//! process prints, so it keeps a log.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::windows::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use hithe_cli_parser::printable;
use windows_service::service::{
    Service as Handle, ServiceAccess, ServiceAction, ServiceActionType, ServiceControl, ServiceControlAccept,
    ServiceErrorControl, ServiceExitCode, ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo,
    ServiceStartType, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};
use windows_service::{define_windows_service, service_dispatcher};

use super::{Install, ServiceError, Which, readable};
use crate::{Ask as _, Terminal, console};

/// A service as the SCM knows it.
pub(super) struct Service {
    manager: ServiceManager,
    name: String,
}

impl Service {
    pub(super) fn find(which: &Which, _changes: bool) -> Result<Self, ServiceError> {
        if which.user {
            return Err(ServiceError::NoUserServices("Windows"));
        }
        let manager =
            ServiceManager::local_computer(None::<&OsStr>, ServiceManagerAccess::CONNECT).map_err(told)?;
        Ok(Self { manager, name: which.name.clone() })
    }

    /// One that is there already is changed.
    pub(super) fn install(&self, install: &Install, out: &mut impl Write) -> Result<(), ServiceError> {
        if install.config.is_empty() {
            return Err(ServiceError::NeedsConfig);
        }
        let files = install.config.iter().map(|path| readable(path)).collect::<Result<Vec<_>, _>>()?;
        let account = install.run_as.as_deref().unwrap_or(ACCOUNT);
        let folder = log_folder()?;
        let log = folder.join(format!("{}.log", self.name));
        let service = self.create(&self.describe(account, &log, &files)?)?;
        service.set_description("Publishes local services through a server of hithed").map_err(told)?;
        writeln!(out, "The service {} has been installed", self.name)?;
        if failure_actions(&service).is_err() {
            writeln!(out, "It will not be started again when it fails: this Windows does not take that")?;
        }
        match keep_folder(&folder, account) {
            Ok(()) => writeln!(out, "It will log to {}", shown(&log))?,
            Err(error) => writeln!(
                out,
                "It will log to {}, which others can read, or it cannot write, until you restrict its folder: {error}",
                shown(&log)
            )?,
        }
        self.tell(account, &files, out)
    }

    /// What has to be done next.
    fn tell(&self, account: &str, files: &[PathBuf], out: &mut impl Write) -> Result<(), ServiceError> {
        if is_system(account) {
            writeln!(out, "It runs as LocalSystem, who may read and change everything on this machine")?;
        } else {
            let account = printable(account);
            writeln!(
                out,
                "It runs as {account}, who must be able to read its files and keys, and this program:"
            )?;
            // What cargo installs lies in the folder of who called it.
            let program = std::env::current_exe()?;
            for (file, right) in files.iter().map(|file| (file, "R")).chain([(&program, "RX")]) {
                writeln!(out, "  icacls \"{}\" /grant \"{account}:{right}\"", shown(file))?;
            }
        }
        writeln!(
            out,
            "Nobody can be asked: its file names a key without a passphrase (ssh.identity_files) or a token, and known hosts \
             (ssh.known_hosts), which are not looked for in your folder"
        )?;
        let name = if self.name == "hithe" { String::new() } else { format!(" --name {}", self.name) };
        Ok(writeln!(out, "Start it now: hithe service start{name}")?)
    }

    fn describe(&self, account: &str, log: &Path, files: &[PathBuf]) -> Result<ServiceInfo, ServiceError> {
        let mut arguments: Vec<OsString> =
            ["service", "run", "--name", &self.name, "--log"].map(Into::into).into();
        arguments.push(log.into());
        for file in files {
            arguments.extend(["--config".into(), file.into()]);
        }
        Ok(ServiceInfo {
            name: self.name.clone().into(),
            display_name: format!("Hithe agent ({})", self.name).into(),
            service_type: ServiceType::OWN_PROCESS,
            start_type: ServiceStartType::AutoStart,
            error_control: ServiceErrorControl::Normal,
            executable_path: std::env::current_exe()?,
            launch_arguments: arguments,
            dependencies: Vec::new(),
            account_password: password(account)?,
            account_name: Some(account.into()),
        })
    }

    fn create(&self, info: &ServiceInfo) -> Result<Handle, ServiceError> {
        let access = ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE;
        let manager = ServiceManager::local_computer(None::<&OsStr>, access).map_err(told)?;
        // Restarting after a failure needs the right to start.
        let rights = ServiceAccess::CHANGE_CONFIG | ServiceAccess::START;
        match manager.create_service(info, rights) {
            Err(error) if code(&error) == Some(ERROR_SERVICE_EXISTS) => {
                let service = manager.open_service(&self.name, rights).map_err(told)?;
                service.change_config(info).map_err(told)?;
                Ok(service)
            }
            created => created.map_err(told),
        }
    }

    pub(super) fn uninstall(&self, out: &mut impl Write) -> Result<(), ServiceError> {
        let service = self.open(ServiceAccess::STOP | ServiceAccess::QUERY_STATUS | ServiceAccess::DELETE)?;
        // One that cannot be stopped is removed when it ends.
        let stopped = stop(&service);
        service.delete().map_err(told)?;
        writeln!(out, "The service {} has been removed", self.name)?;
        if let Err(error) = stopped {
            writeln!(out, "It still runs: {error}")?;
        }
        Ok(())
    }

    pub(super) fn start(&self) -> Result<(), ServiceError> {
        let service = self.open(ServiceAccess::START | ServiceAccess::QUERY_STATUS)?;
        match service.start(&[] as &[&OsStr]) {
            Err(error) if code(&error) == Some(ERROR_SERVICE_ALREADY_RUNNING) => return Ok(()),
            started => started.map_err(told)?,
        }
        match wait(&service, |state| state != ServiceState::StartPending)? {
            ServiceStatus { current_state: ServiceState::Stopped, exit_code, .. } => {
                Err(ServiceError::Manager(format!("it has ended at once, {}", why(exit_code))))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn stop(&self) -> Result<(), ServiceError> {
        stop(&self.open(ServiceAccess::STOP | ServiceAccess::QUERY_STATUS)?)
    }

    pub(super) fn status(&self, out: &mut impl Write) -> Result<ExitCode, ServiceError> {
        let (text, status) = match self.open(ServiceAccess::QUERY_STATUS) {
            Err(ServiceError::NotInstalled) => ("is not installed".to_owned(), 4),
            Err(error) => return Err(error),
            Ok(service) => {
                let ServiceStatus { current_state, exit_code, .. } = service.query_status().map_err(told)?;
                match (current_state, exit_code) {
                    (
                        ServiceState::Stopped,
                        ServiceExitCode::NO_ERROR | ServiceExitCode::Win32(ERROR_SERVICE_NEVER_STARTED),
                    ) => ("does not run".to_owned(), 3),
                    (ServiceState::Stopped, ended) => (format!("does not run: it ended {}", why(ended)), 3),
                    (ServiceState::StopPending, _) => ("is about to end".to_owned(), 0),
                    _ => ("runs".to_owned(), 0),
                }
            }
        };
        writeln!(out, "{} {text}", self.name)?;
        Ok(ExitCode::from(status))
    }

    fn open(&self, access: ServiceAccess) -> Result<Handle, ServiceError> {
        self.manager.open_service(&self.name, access).map_err(told)
    }
}

/// Asks it to end, and waits until it has.
fn stop(service: &Handle) -> Result<(), ServiceError> {
    match service.stop() {
        Err(error) if code(&error) == Some(ERROR_SERVICE_NOT_ACTIVE) => return Ok(()),
        stopped => stopped.map_err(told)?,
    };
    wait(service, |state| state == ServiceState::Stopped).map(|_| ())
}

/// The SCM has nothing to wait for that this library knows, so it is asked again and again.
fn wait(service: &Handle, is_done: impl Fn(ServiceState) -> bool) -> Result<ServiceStatus, ServiceError> {
    for _ in 0..TURNS {
        let status = service.query_status().map_err(told)?;
        if is_done(status.current_state) {
            return Ok(status);
        }
        thread::sleep(TURN);
    }
    Err(ServiceError::Manager(format!("it does not get there within {} s", (TURN * TURNS).as_secs())))
}

/// Soon, and more seldom if that does not help: a server that refuses it for a while is not to be bothered.
fn failure_actions(service: &Handle) -> windows_service::Result<()> {
    let restart = |delay| ServiceAction { action_type: ServiceActionType::Restart, delay };
    service.update_failure_actions(ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(Duration::from_secs(24 * 60 * 60)),
        reboot_msg: None,
        command: None,
        // The last one is repeated.
        actions: Some([5, 60, 300].map(Duration::from_secs).map(restart).to_vec()),
    })?;
    service.set_failure_actions_on_non_crash_failures(true)
}

/// Accounts of Windows itself have no password.
fn password(account: &str) -> io::Result<Option<OsString>> {
    let (domain, name) = account.rsplit_once('\\').unwrap_or(("", account));
    let is_own =
        is_system(name) || ["NT AUTHORITY", "NT SERVICE"].iter().any(|own| domain.eq_ignore_ascii_case(own));
    if is_own {
        return Ok(None);
    }
    let question = format!("Password of {}, which Windows keeps: ", printable(account));
    Ok(Some(Terminal.secret(&question)?.expose().into()))
}

fn log_folder() -> Result<PathBuf, ServiceError> {
    let base = std::env::var_os("ProgramData").filter(|path| Path::new(path).is_absolute());
    let base = base.ok_or_else(|| ServiceError::Manager("the variable ProgramData is not set".to_owned()))?;
    Ok(Path::new(&base).join("hithe"))
}

/// Makes the folder one of administrators, the system and the account, whoever made it: where it lies anybody may make
/// folders, and read and write in them.
fn keep_folder(folder: &Path, account: &str) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    // What it leads to would be given away. Once the folder is theirs nobody else can make it one.
    icacls(folder, &["/setowner", ADMINISTRATORS, "/l"])?;
    if std::fs::symlink_metadata(folder)?.file_attributes() & FILE_ATTRIBUTE_REPARSE_POINT != 0 {
        return Err(io::Error::other("it leads elsewhere: remove it"));
    }
    // Also what is in it already.
    icacls(folder, &["/setowner", ADMINISTRATORS, "/t", "/l"])?;
    icacls(folder, &["/reset", "/t", "/l"])?;
    let (administrators, system) = (format!("{ADMINISTRATORS}:(OI)(CI)F"), format!("{SYSTEM}:(OI)(CI)F"));
    let writer = format!("{account}:(OI)(CI)M");
    let mut arguments = vec!["/inheritance:r", "/grant", &administrators, "/grant", &system];
    if !is_system(account) {
        arguments.extend(["/grant", &writer]);
    }
    icacls(folder, &arguments)
}

/// winnt.h: a link or junction.
const FILE_ATTRIBUTE_REPARSE_POINT: u32 = 0x400;

/// The program of Windows for access control lists.
fn icacls(path: &Path, arguments: &[&str]) -> io::Result<()> {
    let windows = std::env::var_os("SystemRoot").unwrap_or_else(|| "C:\\Windows".into());
    let mut icacls = Command::new(Path::new(&windows).join("System32").join("icacls.exe"));
    icacls.arg(path).args(arguments);
    let done = icacls.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if done.success() { Ok(()) } else { Err(io::Error::other(format!("icacls.exe ended with {done}"))) }
}

/// Whether it may read and write everything.
fn is_system(account: &str) -> bool {
    let name = account.rsplit_once('\\').map_or(account, |(_, name)| name);
    ["LocalSystem", "SYSTEM"].iter().any(|system| name.eq_ignore_ascii_case(system))
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy()).into_owned()
}

fn code(error: &windows_service::Error) -> Option<i32> {
    match error {
        windows_service::Error::Winapi(error) => error.raw_os_error(),
        _ => None,
    }
}

/// What the SCM said, with what to do about it.
fn told(error: windows_service::Error) -> ServiceError {
    match (code(&error), error) {
        (Some(ERROR_ACCESS_DENIED), _) => ServiceError::NeedsAdministrator,
        (Some(ERROR_SERVICE_DOES_NOT_EXIST), _) => ServiceError::NotInstalled,
        (Some(ERROR_SERVICE_MARKED_FOR_DELETE), _) => ServiceError::Manager(
            "the service is being removed, which needs that it ends and that services.msc is closed".to_owned(),
        ),
        (Some(ERROR_SERVICE_LOGON_FAILED), _) => ServiceError::Manager(
            "Windows does not let that account log on: the password is wrong, or it lacks the right \"Log on as a service\" \
             (secpol.msc)"
                .to_owned(),
        ),
        (Some(ERROR_INVALID_SERVICE_ACCOUNT), _) => ServiceError::Manager(
            "there is no such account: NT AUTHORITY\\LocalService, LocalSystem, .\\NAME or DOMAIN\\NAME".to_owned(),
        ),
        (_, windows_service::Error::Winapi(error)) => ServiceError::Io(error),
        (_, error) => ServiceError::Manager(error.to_string()),
    }
}

fn why(code: ServiceExitCode) -> String {
    match code {
        ServiceExitCode::ServiceSpecific(status) => format!("with exit status {status}; its log says why"),
        ServiceExitCode::Win32(number) => {
            format!("with error {number}: {}", io::Error::from_raw_os_error(number.cast_signed()))
        }
    }
}

/// Publishes until it is told to stop; gives the exit status.
type Work = Box<dyn FnOnce() -> u8 + Send>;

/// Answers the SCM, which has started this process as the service `name`, and does its work meanwhile.
///
/// # Errors
/// It was somebody else who started it.
pub(crate) fn answer(
    name: &str,
    work: impl FnOnce() -> u8 + Send + 'static,
) -> Result<ExitCode, ServiceError> {
    *WORK.lock().unwrap_or_else(PoisonError::into_inner) = Some((name.to_owned(), Box::new(work)));
    match service_dispatcher::start(name, service_main) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if code(&error) == Some(ERROR_FAILED_SERVICE_CONTROLLER_CONNECT) => {
            Err(ServiceError::Manager(
                "only Windows itself calls this; start the service: hithe service start".to_owned(),
            ))
        }
        Err(error) => Err(told(error)),
    }
}

define_windows_service!(service_main, serve);

/// Runs on a thread of the SCM's library, which hands it nothing of ours.
fn serve(_arguments: Vec<OsString>) {
    let Some((name, work)) = WORK.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let Ok(handle) = service_control_handler::register(&name, obey) else { return };
    let _ = STATUS.set(handle);
    report(ServiceState::Running, ServiceExitCode::NO_ERROR);
    let ended = match work() {
        0 => ServiceExitCode::NO_ERROR,
        status => ServiceExitCode::ServiceSpecific(status.into()),
    };
    // The process may be ended from here on.
    report(ServiceState::Stopped, ended);
}

/// What the SCM wants.
fn obey(control: ServiceControl) -> ServiceControlHandlerResult {
    match control {
        ServiceControl::Stop | ServiceControl::Shutdown => {
            // Before this returns: the library takes no second one.
            report(ServiceState::StopPending, ServiceExitCode::NO_ERROR);
            console::ask_to_end();
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        _ => ServiceControlHandlerResult::NotImplemented,
    }
}

fn report(state: ServiceState, exit_code: ServiceExitCode) {
    let Some(handle) = STATUS.get() else { return };
    let runs = state == ServiceState::Running;
    let status = ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted: if runs {
            ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN
        } else {
            ServiceControlAccept::empty()
        },
        exit_code,
        checkpoint: 0,
        wait_hint: if state == ServiceState::StopPending { FAREWELL } else { Duration::ZERO },
        process_id: None,
    };
    if let Err(error) = handle.set_service_status(status) {
        tracing::warn!(%error, "the service control manager does not listen");
    }
}

static WORK: Mutex<Option<(String, Work)>> = Mutex::new(None);
static STATUS: OnceLock<ServiceStatusHandle> = OnceLock::new();

/// It reads no files but those that everybody may, and those that it is given.
const ACCOUNT: &str = "NT AUTHORITY\\LocalService";
/// Well-known SIDs, since names are translated.
const ADMINISTRATORS: &str = "*S-1-5-32-544";
const SYSTEM: &str = "*S-1-5-18";
/// Running visits have ten seconds, and goodbyes to the server some more.
const FAREWELL: Duration = Duration::from_secs(20);
const TURN: Duration = Duration::from_millis(100);
/// A start or an end has 30 s.
const TURNS: u32 = 300;

// winerror.h
const ERROR_ACCESS_DENIED: i32 = 5;
const ERROR_SERVICE_ALREADY_RUNNING: i32 = 1056;
const ERROR_INVALID_SERVICE_ACCOUNT: i32 = 1057;
const ERROR_SERVICE_DOES_NOT_EXIST: i32 = 1060;
const ERROR_SERVICE_NOT_ACTIVE: i32 = 1062;
const ERROR_FAILED_SERVICE_CONTROLLER_CONNECT: i32 = 1063;
const ERROR_SERVICE_LOGON_FAILED: i32 = 1069;
const ERROR_SERVICE_MARKED_FOR_DELETE: i32 = 1072;
const ERROR_SERVICE_EXISTS: i32 = 1073;
/// Since the machine started.
const ERROR_SERVICE_NEVER_STARTED: u32 = 1077;
