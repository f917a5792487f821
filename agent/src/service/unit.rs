//! The unit of systemd, which may do no more than an agent has to.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::Path;

use hithe_cli_parser::printable;

use super::ServiceError;

/// Of the machine, run as `user`; or a person's own, without one.
pub(super) fn systemd(program: &Path, args: &[OsString], user: Option<&str>) -> Result<String, ServiceError> {
    let mut command = quoted(program.as_os_str())?;
    for arg in args {
        command.push(' ');
        command.push_str(&quoted(arg)?);
    }
    let mut unit = format!(
        "# Written by `hithe service install`, which overwrites it.\n\
         [Unit]\n\
         Description=Hithe agent: publishes local services\n\
         After=network-online.target\n\
         Wants=network-online.target\n\
         \n\
         [Service]\n\
         Type=exec\n\
         ExecStart={command}\n\
         Restart=on-failure\n\
         # A server that refuses it for a while, and takes it again, is not to be bothered more often.\n\
         RestartSec=30\n\
         # What the command line or a file gets wrong is not better at the next start.\n\
         RestartPreventExitStatus=2\n\
         # Visits finish.\n\
         TimeoutStopSec=45\n"
    );
    if let Some(user) = user {
        if !is_user(user) {
            return Err(ServiceError::Unspeakable(printable(user).into_owned()));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(unit, "User={user}\n{OF_THE_MACHINE}");
    }
    unit.push_str(HARDENING);
    let target = if user.is_some() { "multi-user.target" } else { "default.target" };
    let _ = write!(unit, "\n[Install]\nWantedBy={target}\n");
    Ok(unit)
}

fn is_user(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// As systemd.service(5) reads a command line: quotes, backslashes, `%` specifiers and `$` variables.
fn quoted(text: &OsStr) -> Result<String, ServiceError> {
    let unspeakable = || ServiceError::Unspeakable(printable(&text.to_string_lossy()).into_owned());
    let text = text.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(unspeakable)?;
    if is_bare(text) {
        return Ok(text.to_owned());
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    Ok(format!("\"{escaped}\""))
}

/// What no shell and no file of a service reads as anything but itself.
fn is_bare(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.,:=@+".contains(c))
}

/// For managers whose files are shell scripts into which words are written as they are.
///
/// # Errors
/// It is more than one word there, or runs something.
pub(super) fn must_be_bare(text: &OsStr) -> Result<(), ServiceError> {
    match text.to_str() {
        Some(text) if is_bare(text) => Ok(()),
        _ => Err(ServiceError::Unspeakable(printable(&text.to_string_lossy()).into_owned())),
    }
}

/// What only the machine's own manager can do. Sockets and folders in /tmp may be what is published.
const OF_THE_MACHINE: &str = "\
# The log may go to /var/log/hithe; nothing else can be written.
LogsDirectory=hithe
UMask=0077
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
# Keys, known hosts and served folders are there.
ProtectHome=read-only
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible";

const HARDENING: &str = "\
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
";

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    fn args(args: &[&str]) -> Vec<OsString> {
        args.iter().map(Into::into).collect()
    }

    #[test]
    fn a_command_line_survives_systemd() {
        for (text, shown) in [
            ("--config", "--config"),
            ("/home/ada/my file.yml", "\"/home/ada/my file.yml\""),
            ("50%", "\"50%%\""),
            ("$HOME", "\"$$HOME\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("b\u{fc}cher", "\"b\u{fc}cher\""),
            (";", "\";\""),
            ("", "\"\""),
        ] {
            assert_eq!(quoted(text.as_ref()).unwrap(), shown);
        }
        assert!(quoted("a\nUser=root".as_ref()).is_err());
        assert!(systemd(Path::new("/bin/true"), &[], Some("ada\nUser=root")).is_err());
    }

    #[test]
    fn a_persons_unit_asks_for_nothing_that_only_root_can_give() {
        let own = systemd(Path::new("/bin/true"), &[], None).unwrap();
        assert!(
            !own.contains("User=")
                && !own.contains("ProtectSystem")
                && own.contains("WantedBy=default.target")
        );
        let machine = systemd(Path::new("/bin/true"), &[], Some("ada")).unwrap();
        assert!(machine.contains("\nUser=ada\n") && machine.contains("WantedBy=multi-user.target"));
        for unit in [own, machine] {
            assert!(unit.contains("NoNewPrivileges=yes") && unit.contains("ExecStart=/bin/true\n"));
        }
    }

    /// systemd itself reads them, where it is.
    #[cfg(target_os = "linux")]
    #[test]
    fn systemd_finds_no_fault_with_the_units() {
        let dir = tempfile::tempdir().unwrap();
        let odd = args(&["start", "--all", "--config", "/tmp/50% of $HOME \"quoted\" \\.yml"]);
        for (name, user) in [("hithe-own.service", None), ("hithe-machine.service", Some("root"))] {
            let path = dir.path().join(name);
            std::fs::write(&path, systemd(Path::new("/bin/true"), &odd, user).unwrap()).unwrap();
            let mut verify = std::process::Command::new("systemd-analyze");
            let Ok(output) = verify.args(["verify", "--man=no"]).arg(&path).output() else { return };
            let said = String::from_utf8_lossy(&output.stderr);
            // It also tells of units of this machine.
            let ours: Vec<_> = said.lines().filter(|line| line.contains("hithe-")).collect();
            assert!(ours.is_empty(), "{ours:#?}");
        }
    }
}
