//! The agent for Windows and macOS, as far as a Linux machine can judge it: it compiles there, tests included, and clippy
//! finds no fault. Nothing is linked, so no C compiler for these systems is needed.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use super::{cargo, root, run, say, tell};

const TARGETS: [&str; 2] = ["x86_64-pc-windows-gnu", "aarch64-apple-darwin"];

/// Checks those whose standard library is installed, and says which are not.
pub(super) fn check() -> anyhow::Result<()> {
    for target in TARGETS {
        if is_installed(target)? {
            clippy(target).with_context(|| format!("the agent is not fit for {target}"))?;
            say(&format!("check: the agent compiles for {target}"));
        } else {
            say(&format!("check: NOT checked for {target}, which needs `rustup target add {target}`"));
        }
    }
    Ok(())
}

/// Has rustup fetch what [`check`] needs. It is done without where that fails.
pub(super) fn install() -> anyhow::Result<()> {
    for target in TARGETS {
        if is_installed(target)? {
            continue;
        }
        tell(&format!("setup: fetching Rust's standard library for {target}"));
        // A network that swallows everything is no reason to wait for ever.
        let mut rustup = Command::new("timeout");
        if let Err(error) = run(rustup.args(["120", "rustup", "--quiet", "target", "add", target])) {
            tell(&format!("setup: going on without {target} ({error:#})"));
        }
    }
    Ok(())
}

fn clippy(target: &str) -> anyhow::Result<()> {
    let mut clippy = Command::new(cargo());
    clippy.args(["clippy", "--quiet", "--package", "hithe", "--all-targets", "--locked", "--target", target]);
    let variable = target.replace('-', "_");
    // What the crates have in C would be compiled for a linker that never runs.
    clippy.env(format!("CC_{variable}"), "true").env(format!("AR_{variable}"), "true");
    run(clippy.args(["--", "-D", "warnings"]))
}

fn is_installed(target: &str) -> anyhow::Result<bool> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let asked = rustc.args(["--print", "target-libdir", "--target", target]).current_dir(root()).output();
    let said = String::from_utf8(asked.context("cannot start rustc")?.stdout).context("paths are UTF-8")?;
    Ok(!said.trim().is_empty() && PathBuf::from(said.trim()).is_dir())
}
