//! The command line of the program `hithe`.

mod server;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgMatches, Args as _, FromArgMatches as _};
use hithe_cli_parser::Kind;

use self::server::ServerArgs;
use crate::agent::Agent;
use crate::connect::Route;
use crate::publisher::{Failure, Heartbeat};
use crate::status::Phase;
use crate::{COMMAND_LINE, Endpoint, endpoint, exit};

/// The program `hithe`.
pub fn main() -> ExitCode {
    let matches = grammar().get_matches();
    let Some((name, matches)) = matches.subcommand() else { return ExitCode::from(exit::USAGE) };
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == name) else {
        return ExitCode::from(exit::USAGE);
    };
    match publish(kind, matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}

fn grammar() -> clap::Command {
    let mut grammar = clap::Command::new("hithe")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The native agent of hithed")
        .subcommand_required(true)
        .arg_required_else_help(true);
    for kind in Kind::ALL {
        grammar = grammar.subcommand(ServerArgs::augment_args(endpoint::command(kind)));
    }
    grammar
}

fn publish(kind: Kind, matches: &ArgMatches) -> Result<(), Failure> {
    let usage = |error: String| Failure::lasting(exit::USAGE, error);
    let server = ServerArgs::from_arg_matches(matches).map_err(|error| usage(error.to_string()))?;
    let endpoint =
        Endpoint::from_matches(COMMAND_LINE, kind, matches).map_err(|error| usage(error.to_string()))?;
    let route = Route::resolve(&server.options())?;
    for warning in route.warnings() {
        let _ = writeln!(std::io::stderr(), "{warning}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| usage(error.to_string()))?;
    runtime.block_on(async {
        let (agent, mut ended) = Agent::new(Arc::new(route), Heartbeat::default());
        agent.start(endpoint).map_err(|error| usage(error.to_string()))?;
        let mut watch = agent.board.watch();
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        let mut shown = Vec::new();
        loop {
            tokio::select! {
                over = ended.recv() => match over {
                    Some(over) => return over.result,
                    None => return Ok(()),
                },
                _ = &mut interrupted => agent.stop_all(),
                Ok(()) = watch.changed() => {
                    let status = watch.borrow_and_update().clone();
                    for endpoint in &status.endpoints {
                        if matches!(endpoint.phase, Phase::Online { .. }) && shown != endpoint.urls {
                            for url in &endpoint.urls {
                                let _ = writeln!(std::io::stdout(), "Forwarding  {url} -> {}", endpoint.upstream);
                            }
                            shown.clone_from(&endpoint.urls);
                        }
                    }
                }
            }
        }
    })
}
