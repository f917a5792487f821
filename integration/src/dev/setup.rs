//! `cargo dev setup`: the clients and tools that the tests drive, from Debian's packages.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::{run as succeed, say};

/// How one sees that a package is there.
enum Sign {
    Program(&'static str),
    PythonModule(&'static str),
}

const NEEDED: &[(Sign, &str)] = &[
    (Sign::Program("ssh"), "openssh-client"),
    (Sign::Program("ssh-keygen"), "openssh-client"),
    (Sign::Program("dbclient"), "dropbear-bin"),
    (Sign::Program("dropbearconvert"), "dropbear-bin"),
    (Sign::Program("plink"), "putty-tools"),
    (Sign::Program("puttygen"), "putty-tools"),
    (Sign::Program("curl"), "curl"),
    (Sign::Program("openssl"), "openssl"),
    (Sign::Program("node"), "nodejs"),
    (Sign::Program("/usr/bin/python3"), "python3"),
    (Sign::PythonModule("paramiko"), "python3-paramiko"),
    (Sign::PythonModule("asyncssh"), "python3-asyncssh"),
];

pub(super) fn run() -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        say("setup: all there");
        return Ok(());
    }
    if !present("apt-get") {
        bail!(
            "the tests need programs of these Debian packages: {}. This machine has no apt-get; \
             install their counterparts and run this again",
            missing.join(" ")
        );
    }
    say(&format!("setup: installing {}", missing.join(" ")));
    // Lists older than the mirror name packages that are gone; without network a full cache still serves.
    if let Err(error) = succeed(as_root("apt-get").args(["update", "-q"])) {
        say(&format!("setup: going on with the package lists that are there ({error:#})"));
    }
    succeed(as_root("apt-get").args(["install", "-yq", "--no-install-recommends"]).args(&missing))
        .context("cannot install what the tests need")
}

fn missing() -> Vec<&'static str> {
    let mut missing: Vec<_> =
        NEEDED.iter().filter(|(sign, _)| !sign.seen()).map(|(_, package)| *package).collect();
    missing.dedup();
    missing
}

impl Sign {
    fn seen(&self) -> bool {
        match self {
            Self::Program(name) => present(name),
            Self::PythonModule(name) => {
                let find =
                    format!("import importlib.util as u, sys; sys.exit(u.find_spec({name:?}) is None)");
                let run = Command::new("/usr/bin/python3").args(["-c", &find]).stderr(Stdio::null()).status();
                run.is_ok_and(|status| status.success())
            }
        }
    }
}

/// Whether PATH has a program of this name, or the path is one.
fn present(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
        || Path::new(name).is_absolute() && Path::new(name).is_file()
}

fn as_root(program: &str) -> Command {
    let is_root = rustix::process::geteuid().is_root();
    let mut command = Command::new(if is_root { program } else { "sudo" });
    if !is_root {
        command.args(["env", "DEBIAN_FRONTEND=noninteractive", program]);
    }
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
