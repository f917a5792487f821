//! `hithed admin`: the commands about the server, typed by who may use its state directory. They work beside a running
//! server, which looks for changes every two seconds.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use hithe_cli_parser::{Admin, HostName};

use crate::admin::{Asker, Desk};
use crate::config::{Options, place_of_state};
use crate::store::{Database, Store};

/// The options of `hithed admin`.
#[derive(Clone, Debug, Args)]
pub struct AdminOptions {
    /// Read --state-dir and --domain from this TOML file
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// The state directory of the server
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// The domain of the server, below which names of one label stand
    #[arg(long, value_name = "NAME", global = true)]
    pub domain: Option<HostName>,
    #[command(subcommand)]
    pub command: Offline,
}

/// What can be done without a running server.
#[derive(Clone, Debug, Subcommand)]
pub enum Offline {
    #[command(flatten)]
    Desk(Admin),
    /// Write a whole copy of the database to a file that is not there yet, while the server runs or not
    Backup { file: PathBuf },
}

/// Does it, and says whether it could be done.
///
/// # Errors
/// The configuration or the state directory cannot be used.
pub fn admin(options: AdminOptions, out: &mut dyn Write) -> anyhow::Result<bool> {
    let AdminOptions { config, state_dir, domain, command } = options;
    let (state_dir, domain) = place_of_state(Options { config, state_dir, domain, ..Options::default() })?;
    let database = match command {
        // A slip in --state-dir must not make a server's home somewhere.
        Offline::Backup { .. } => Database::open(&Store::database_in(&state_dir)?)?,
        Offline::Desk(_) => Store::open(&state_dir)?.database,
    };
    let done = match command {
        Offline::Backup { file } => {
            database.back_up(&file)?;
            writeln!(out, "backup written to {}", file.display())?;
            true
        }
        Offline::Desk(command) => {
            let answer = Desk::offline(database, domain).answer(&Asker::Operator, &command);
            out.write_all(answer.text.as_bytes())?;
            answer.status == 0
        }
    };
    Ok(done)
}
