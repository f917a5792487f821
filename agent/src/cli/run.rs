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
use crate::config::{ConsoleUi, LogFormat, LogLevel, LogTarget, Settings, WebAddress};
use crate::connect::Route;
use crate::console::{self, Left, Look, Numbers, Sources, plain};
use crate::logging::{self, Log};
use crate::publisher::{Failure, Heartbeat};

/// What is shown and kept of a run. What is not said stands in the file.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Output")]
pub(super) struct RunArgs {
    /// Keep a log: stdout, stderr, a file, or false
    #[arg(long, value_name = "PLACE")]
    log: Option<LogTarget>,
    /// The form of the log
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
    /// What is logged, with what is worse
    #[arg(long, value_enum)]
    log_level: Option<LogLevel>,
    /// Print lines also on a terminal, in place of the full-screen view
    #[arg(long)]
    plain: bool,
    /// Where the inspector listens, or false for nowhere; the next free port if that is taken
    #[arg(long, value_name = "ADDRESS")]
    web_addr: Option<WebAddress>,
}

impl RunArgs {
    /// Over what the file says.
    pub(super) fn over(self, settings: &mut Settings) {
        let Self { log, log_format, log_level, plain, web_addr } = self;
        settings.log = log.unwrap_or_else(|| settings.log_target());
        settings.log_format = log_format.unwrap_or(settings.log_format);
        settings.log_level = log_level.unwrap_or(settings.log_level);
        if plain {
            settings.console_ui = ConsoleUi::Never;
        }
        if let Some(address) = web_addr {
            settings.web_addr = address;
        }
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
pub(super) fn run(endpoints: Vec<Endpoint>, route: Route, settings: &Settings) -> Result<ExitCode, Failure> {
    let log = Log { target: settings.log.clone(), format: settings.log_format, level: settings.log_level };
    logging::start(&log).map_err(usage)?;
    for warning in route.warnings() {
        let _ = writeln!(io::stderr(), "{warning}");
    }
    let runtime = runtime()?;
    runtime.block_on(async {
        let heartbeat = Heartbeat {
            interval: settings.heartbeat_interval.get(),
            tolerance: settings.heartbeat_tolerance.get(),
        };
        let (agent, mut ended) = Agent::new(Arc::new(route), heartbeat);
        for endpoint in endpoints {
            agent.start(endpoint).map_err(usage)?;
        }
        let over = tokio::select! {
            over = all_ended(&agent, &mut ended) => over,
            left = show(&agent, settings) => {
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
    let wanted = match settings.console_ui {
        // Nothing may be logged where the view is drawn.
        _ if matches!(settings.log, LogTarget::Stdout | LogTarget::Stderr) => false,
        ConsoleUi::Always => true,
        ConsoleUi::Never => false,
        ConsoleUi::IfTty => io::stdout().is_terminal() && io::stdin().is_terminal(),
    };
    if wanted {
        let (_keep, numbers) = watch::channel(Numbers::default());
        let (_lines, requests) = broadcast::channel(1);
        let sources = Sources { status: agent.board.watch(), numbers, requests };
        let left =
            console::run(sources, Look::of_this_terminal(settings.console_ui_color)).await.map_err(usage)?;
        tracing::debug!(?left, "the console is closed");
        return match left {
            Left::Quit | Left::Signal => Ok(()),
            Left::Over => std::future::pending().await,
        };
    }
    let out = (settings.log != LogTarget::Stdout).then(io::stdout);
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
