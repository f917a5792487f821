//! The command line of the program `hithe`.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgMatches, Args as _, FromArgMatches as _};
use futures_util::future::BoxFuture;
use hithe_cli_parser::Kind;

use crate::agent::Agent;
use crate::publisher::{Dialled, Failure, Heartbeat, Way};
use crate::session::{Client, HostKeyCheck};
use crate::status::Phase;
use crate::{COMMAND_LINE, Endpoint, endpoint, exit};

/// Where the server is, and who we are.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Server")]
struct ServerArgs {
    /// Where the server is
    #[arg(long, env = "HITHE_SERVER")]
    server: Option<String>,
    /// The private key to log in with
    #[arg(short, long)]
    identity: Option<std::path::PathBuf>,
}

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| usage(error.to_string()))?;
    let direct = Direct {
        address: server.server.clone().unwrap_or_default(),
        identity: server.identity.unwrap_or_default(),
    };
    runtime.block_on(async {
        let (agent, mut ended) = Agent::new(Arc::new(direct), Heartbeat::default(), server.server.unwrap_or_default());
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

struct Direct {
    address: String,
    identity: std::path::PathBuf,
}

struct Any;

impl HostKeyCheck for Any {
    fn check<'a>(&'a self, _: &'a russh::keys::PublicKeyOrCertificate) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

impl Way for Direct {
    fn dial(&self) -> BoxFuture<'_, Result<Dialled, Failure>> {
        Box::pin(async {
            let stream = tokio::net::TcpStream::connect(&self.address).await;
            let stream = stream.map_err(|error| Failure::passing(error.to_string()))?;
            let _ = stream.set_nodelay(true);
            let address = stream.peer_addr().ok();
            Ok(Dialled { stream: Box::new(stream), address })
        })
    }

    fn host_key(&self) -> Arc<dyn HostKeyCheck> {
        Arc::new(Any)
    }

    fn log_in<'a>(
        &'a self,
        handle: &'a mut russh::client::Handle<Client>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async {
            let key = russh::keys::load_secret_key(&self.identity, None)
                .map_err(|e| Failure::lasting(exit::LOGIN, e.to_string()))?;
            let key = russh::keys::PrivateKeyWithHashAlg::new(Arc::new(key), None);
            let result = handle
                .authenticate_publickey("v2", key)
                .await
                .map_err(|e| Failure::passing(e.to_string()))?;
            if result.success() { Ok(()) } else { Err(Failure::lasting(exit::LOGIN, "refused")) }
        })
    }
}
