//! The command line of the program `hithe`.

use std::io::{Write as _, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, ConfigCommand};

/// The native agent of hithed
#[derive(Debug, Parser)]
#[command(name = "hithe", version, about)]
struct Cli {
    /// A file to read; repeat for several, the later over the earlier
    #[arg(long, global = true, value_name = "FILE")]
    config: Vec<PathBuf>,
    #[command(subcommand)]
    command: Option<Asked>,
}

#[derive(Debug, Subcommand)]
enum Asked {
    /// The agent's file: check it, change it, bring it to version 3
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// The program `hithe`.
pub fn main() -> ExitCode {
    let Cli { config, command } = Cli::parse();
    match command {
        Some(Asked::Config(command)) => config::run(&command, &config, &mut stdout(), &mut stderr()),
        None => {
            let _ = writeln!(stderr(), "hithe cannot publish yet");
            ExitCode::from(2)
        }
    }
}
