//! The program `hithe`. For now it answers `--version` and `--help`, which says what to use meanwhile.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// The native agent of hithed (not able to publish yet)
#[derive(Debug, Parser)]
#[command(name = "hithe", version, about, after_help = hithe::MEANWHILE)]
struct Cli {}

fn main() -> ExitCode {
    let Cli {} = Cli::parse();
    let _ = writeln!(std::io::stderr(), "hithe cannot publish yet.\n\n{}", hithe::MEANWHILE);
    ExitCode::from(2)
}
