//! `cargo dev setup`: the clients and tools that the tests drive, and with `--bench` what the benchmarks compare
//! with, from Debian's packages; Autobahn's websocket test suite, from PyPI; and Rust for Windows and macOS.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::{platforms, run as succeed, tell};
use crate::autobahn;
use crate::clients::PYTHON;

/// How one sees that a package is there.
enum Sign {
    Program(&'static str),
    PythonModule(&'static str),
}

type Need = (Sign, &'static str);

const TESTS: &[Need] = &[
    (Sign::Program("ssh"), "openssh-client"),
    (Sign::Program("ssh-keygen"), "openssh-client"),
    (Sign::Program("/usr/sbin/sshd"), "openssh-server"),
    (Sign::Program("dbclient"), "dropbear-bin"),
    (Sign::Program("dropbearconvert"), "dropbear-bin"),
    (Sign::Program("plink"), "putty-tools"),
    (Sign::Program("puttygen"), "putty-tools"),
    (Sign::Program("/usr/sbin/ip"), "iproute2"),
    (Sign::Program("unshare"), "util-linux"),
    (Sign::Program("nc"), "netcat-openbsd"),
    (Sign::Program("curl"), "curl"),
    (Sign::Program("openssl"), "openssl"),
    (Sign::Program("zstd"), "zstd"),
    (Sign::Program("/usr/sbin/nginx"), "nginx"),
    (Sign::Program("/usr/lib/nginx/modules/ngx_stream_module.so"), "libnginx-mod-stream"),
    (Sign::Program("/usr/sbin/haproxy"), "haproxy"),
    (Sign::Program("systemd-socket-activate"), "systemd"),
    (Sign::Program("node"), "nodejs"),
    (Sign::Program("/usr/bin/python3"), "python3"),
    (Sign::PythonModule("paramiko"), "python3-paramiko"),
    (Sign::PythonModule("asyncssh"), "python3-asyncssh"),
    (Sign::PythonModule("autobahn"), "python3-autobahn"),
    (Sign::PythonModule("pip"), "python3-pip"),
    (Sign::PythonModule("websockets"), "python3-websockets"),
    (Sign::Program("chromium"), "chromium"),
    (Sign::Program("certutil"), "libnss3-tools"),
];

const BENCH: &[Need] = &[
    (Sign::Program("ssh"), "openssh-client"),
    (Sign::Program("h2load"), "nghttp2-client"),
    (Sign::Program("slowhttptest"), "slowhttptest"),
    (Sign::Program("/usr/sbin/sshd"), "openssh-server"),
    (Sign::Program("/usr/sbin/nginx"), "nginx"),
    (Sign::Program("/usr/sbin/haproxy"), "haproxy"),
];

/// What the tests need, and with `bench` what the benchmarks need too.
pub(super) fn run(bench: bool) -> anyhow::Result<()> {
    install(TESTS)?;
    fetch_autobahn()?;
    platforms::install()?;
    if bench { install(BENCH) } else { Ok(()) }
}

/// Autobahn's test suite as PyPI has it. It is written for a Python that Debian no longer has, so pip is told that
/// it is for that one; `autobahn/fuzzer.py` makes it run.
fn fetch_autobahn() -> anyhow::Result<()> {
    let folder = autobahn::folder();
    if folder.is_dir() {
        return Ok(());
    }
    tell(&format!("setup: fetching autobahntestsuite {} from PyPI", autobahn::RELEASE));
    let parent = folder.parent().context("a folder in the target directory")?;
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let part = tempfile::tempdir_in(parent).context("cannot make a temporary folder")?;
    let list = part.path().join("requirements.txt");
    let (release, digest) = (autobahn::RELEASE, autobahn::DIGEST);
    std::fs::write(&list, format!("autobahntestsuite=={release} --hash=sha256:{digest}\n"))
        .with_context(|| format!("cannot write {}", list.display()))?;
    let mut pip = Command::new(PYTHON);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]);
    pip.args([
        "--no-deps",
        "--no-compile",
        "--only-binary=:all:",
        "--python-version=2.7",
        "--implementation=py",
    ]);
    pip.args(["--require-hashes", "--requirement"]).arg(&list).arg("--target").arg(part.path().join("suite"));
    succeed(&mut pip).context("cannot fetch the websocket test suite")?;
    std::fs::rename(part.path().join("suite"), &folder)
        .with_context(|| format!("cannot make {}", folder.display()))
}

/// The packages of which the benchmarks would miss programs.
pub(super) fn missing_for_bench() -> Vec<&'static str> {
    missing(BENCH)
}

fn install(needs: &[Need]) -> anyhow::Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        tell("setup: all there");
        return Ok(());
    }
    if !present("apt-get") {
        bail!(
            "programs of these Debian packages are needed: {}. This machine has no apt-get; \
             install their counterparts and run this again",
            missing.join(" ")
        );
    }
    tell(&format!("setup: installing {}", missing.join(" ")));
    // Lists older than the mirror name packages that are gone; without network a full cache still serves.
    if let Err(error) = succeed(as_root("sh").args(["-c", "apt-get update -q >&2"])) {
        tell(&format!("setup: going on with the package lists that are there ({error:#})"));
    }
    succeed(as_root("sh").args(["-c", INSTALL, "install"]).args(&missing))
        .context("cannot install what is needed")
}

/// The servers among the packages are not started: whoever benchmarks has not asked for a daemon.
const INSTALL: &str = "\
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        trap 'rm -f $policy' EXIT
        trap 'exit 1' INT TERM
        printf '#!/bin/sh\\nexit 101\\n' >$policy && chmod 755 $policy
    fi
    apt-get install -yq --no-install-recommends \"$@\" >&2";

fn missing(needs: &[Need]) -> Vec<&'static str> {
    let mut missing: Vec<_> =
        needs.iter().filter(|(sign, _)| !sign.seen()).map(|(_, package)| *package).collect();
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
                let run = Command::new(PYTHON).args(["-c", &find]).stderr(Stdio::null()).status();
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
