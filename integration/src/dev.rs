//! `cargo dev`: what keeps this repository true, without a task runner to install.
//!
//! Each subcommand is one file of `dev/`; all print what they do and end at the first failure.

mod bench;
mod check;
mod generate;
mod order;
mod platforms;
mod setup;
mod soak;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};

/// Work on this repository
#[derive(Debug, Parser)]
#[command(name = "cargo dev", bin_name = "cargo dev", arg_required_else_help = true)]
struct Dev {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Install what the tests need (Debian packages, Autobahn's test suite; nothing is done if all is there)
    Setup {
        /// What the benchmarks need too: nginx, sshd, haproxy, h2load. No service is started
        #[arg(long)]
        bench: bool,
    },
    /// Check the house rules (file docs and lengths, order of dependencies, generated files), and that the agent compiles
    /// for Windows and macOS
    Check,
    /// Write the generated files of docs/
    Generate {
        /// Write nothing; fail if a file is out of date
        #[arg(long)]
        check: bool,
    },
    /// Set up, then run all tests
    Test {
        /// Passed to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Compare hithed with sandhole, sshd and nginx, as ratios of one run
    Bench(bench::Options),
    /// Compare the agent with stock ssh as publishers of one hithed
    Duel(bench::duel::Options),
    /// Attack hithed, and nginx beside it, and measure what other visitors notice
    Siege(bench::siege::Options),
    /// Let publishers and visitors of all kinds come and go for a while, and look at what is left of it
    Soak(soak::Options),
}

/// The program `dev`.
pub fn main() -> ExitCode {
    let done = match Dev::parse().action {
        Action::Setup { bench } => setup::run(bench),
        Action::Check => check::run(),
        Action::Generate { check } => generate::run(check),
        Action::Test { arguments } => test(&arguments),
        Action::Bench(options) => bench::run(&options),
        Action::Duel(options) => bench::duel::run(&options),
        Action::Siege(options) => bench::siege::run(&options),
        Action::Soak(options) => soak::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn test(arguments: &[String]) -> anyhow::Result<()> {
    setup::run(false)?;
    say("cargo test --workspace --locked");
    run(Command::new(cargo()).args(["test", "--workspace", "--locked"]).args(arguments))
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The root of the repository in which `cargo dev` was called.
fn root() -> &'static Path {
    crate::program::repository()
}

/// Tells how things go, apart from what a command is for.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Runs a program in the root of the repository; it must succeed.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.current_dir(root()).status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// The files that git tracks or would track, relative to the root.
fn tracked_files() -> anyhow::Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.current_dir(root()).output().context("cannot start git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).context("file names are UTF-8")?;
    let paths = names.split_terminator('\0').map(PathBuf::from);
    Ok(paths.filter(|path| root().join(path).is_file()).collect())
}
