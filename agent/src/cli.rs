//! The command line of the program `hithe`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

/// The native agent of hithed
#[derive(Debug, Parser)]
#[command(name = "hithe", version, about)]
struct Cli {}

/// The program `hithe`.
pub fn main() -> ExitCode {
    let Cli {} = Cli::parse();
    let _ = writeln!(std::io::stderr(), "hithe cannot publish yet");
    ExitCode::from(2)
}
