//! Endpoints that run until somebody ends them: what is shown meanwhile, and with which status it ends.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::timeout;

use super::usage;
use crate::Endpoint;
use crate::agent::{Agent, Ended};
use crate::connect::Route;
use crate::console::{self, Background, Left, Look, Numbers, Sources, plain};
use crate::logging::{self, Log, LogFormat, LogLevel, LogTarget};
use crate::publisher::{Failure, Heartbeat};

/// What is shown and kept of a run.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(super) struct RunArgs {
    /// Keep a log: stdout, stderr, a file, or false
    #[arg(long, value_name = "PLACE", default_value = "false")]
    log: String,
    /// The form of the log
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// What is logged, with what is worse
    #[arg(long, value_enum, default_value_t)]
    log_level: LogLevel,
    /// Print lines also on a terminal, in place of the full-screen view
    #[arg(long)]
    plain: bool,
}

/// How a run is to go.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) log: Log,
    pub(crate) heartbeat: Heartbeat,
    /// The full-screen view: None asks whether there is a terminal.
    pub(crate) console: Option<bool>,
    pub(crate) background: Background,
}

impl From<RunArgs> for Settings {
    fn from(said: RunArgs) -> Self {
        let target = said.log.parse().unwrap_or(LogTarget::Off);
        let log = Log { target, format: said.log_format, level: said.log_level };
        let console = said.plain.then_some(false);
        Self { log, heartbeat: Heartbeat::default(), console, background: Background::default() }
    }
}

/// One thread: each endpoint brings its own.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(usage)
}

/// Publishes until all endpoints have ended or somebody ends them.
///
/// # Errors
/// Nothing could be published, or an endpoint ended for good.
pub(super) fn run(endpoints: Vec<Endpoint>, route: Route, settings: Settings) -> Result<ExitCode, Failure> {
    logging::start(&settings.log).map_err(usage)?;
    for warning in route.warnings() {
        let _ = writeln!(io::stderr(), "{warning}");
    }
    let runtime = runtime()?;
    runtime.block_on(async {
        let (agent, mut ended) = Agent::new(Arc::new(route), settings.heartbeat);
        for endpoint in endpoints {
            agent.start(endpoint).map_err(usage)?;
        }
        let over = tokio::select! {
            over = all_ended(&agent, &mut ended) => over,
            left = show(&agent, &settings) => {
                left?;
                Ok(())
            }
        };
        agent.stop_all();
        let _ = timeout(FAREWELL, wait_for_all(&agent, &mut ended)).await;
        over.map(|()| ExitCode::SUCCESS)
    })
}

/// Shows how it goes, until somebody ends the program.
async fn show(agent: &Agent, settings: &Settings) -> Result<(), Failure> {
    let wanted = settings.console.unwrap_or_else(|| io::stdout().is_terminal() && io::stdin().is_terminal());
    // Nothing may be logged where the view is drawn.
    let log_is_there = matches!(settings.log.target, LogTarget::Stdout | LogTarget::Stderr);
    if wanted && !log_is_there {
        let (_keep, numbers) = watch::channel(Numbers::default());
        let (_lines, requests) = broadcast::channel(1);
        let sources = Sources { status: agent.board.watch(), numbers, requests };
        let left = console::run(sources, Look::of_this_terminal(settings.background)).await.map_err(usage)?;
        tracing::debug!(?left, "the console is closed");
        return match left {
            Left::Quit | Left::Signal => Ok(()),
            Left::Over => std::future::pending().await,
        };
    }
    let out = (settings.log.target != LogTarget::Stdout).then(io::stdout);
    tokio::select! {
        () = plain::lines(agent.board.watch(), out) => std::future::pending().await,
        () = console::asked_to_end() => Ok(()),
    }
}

/// Waits until no endpoint is left that could come back.
async fn all_ended(agent: &Agent, ended: &mut mpsc::UnboundedReceiver<Ended>) -> Result<(), Failure> {
    let mut worst = Ok(());
    while agent.runs() {
        let Some(Ended { name, result }) = ended.recv().await else { break };
        agent.forget(&name);
        if let Err(failure) = result {
            worst = Err(failure);
        }
    }
    worst
}

async fn wait_for_all(agent: &Agent, ended: &mut mpsc::UnboundedReceiver<Ended>) {
    let _ = all_ended(agent, ended).await;
}

/// For goodbyes to the server.
const FAREWELL: Duration = Duration::from_secs(5);
