//! Several endpoints at once, each with a connection and a thread of its own.

mod local;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hithe_cli_parser::Kind;
pub(crate) use local::Served;
use tokio::sync::mpsc;

use crate::connect::Route;
use crate::inspect::Inspector;
use crate::publisher::{Failure, Heartbeat, Publisher, Stop};
use crate::session::{Target, Upstream};
use crate::status::{Board, EndpointStatus, Phase, Reach, Status};
use crate::upstream::{Dialer, Place, TlsError, UpstreamTls, acceptor};
use crate::{Endpoint, exit};

/// The endpoints of one program.
pub(crate) struct Agent {
    route: Arc<Route>,
    heartbeat: Heartbeat,
    pub(crate) board: Board,
    pub(crate) inspector: Inspector,
    running: Mutex<HashMap<String, Running>>,
    /// Those that were withdrawn and finish their visits.
    leaving: Mutex<HashSet<u64>>,
    stop: Stop,
    started: AtomicU64,
    managed: AtomicBool,
    ended: mpsc::UnboundedSender<Ended>,
}

struct Running {
    id: u64,
    stop: Stop,
    dialer: Dialer,
}

/// One endpoint is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) name: String,
    id: u64,
    pub(crate) result: Result<(), Failure>,
}

/// Why an endpoint cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("there is an endpoint {0} already")]
    Name(String),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("{0}: {1}")]
    Folder(String, std::io::Error),
    #[error("no thread can be started: {0}")]
    Thread(std::io::Error),
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let status = match error {
            StartError::Thread(_) => exit::HERE,
            StartError::Name(_) | StartError::Tls(_) | StartError::Folder(..) => exit::USAGE,
        };
        Self::lasting(status, error.to_string())
    }
}

impl Agent {
    pub(crate) fn new(
        route: Arc<Route>,
        heartbeat: Heartbeat,
        inspector: Inspector,
    ) -> (Self, mpsc::UnboundedReceiver<Ended>) {
        // As many messages as endpoints.
        let (ended, over) = mpsc::unbounded_channel();
        let board = Board::new(Status { server: route.address(), ..Status::default() });
        let stop = Stop::default();
        (
            Self {
                route,
                heartbeat,
                board,
                inspector,
                running: Mutex::default(),
                leaving: Mutex::default(),
                stop,
                started: AtomicU64::new(0),
                managed: AtomicBool::new(false),
                ended,
            },
            over,
        )
    }

    /// Publishes an endpoint, in a thread of its own, until it is stopped.
    ///
    /// # Errors
    /// What is wrong with it before the server is asked.
    pub(crate) fn start(&self, endpoint: Endpoint) -> Result<(), StartError> {
        let dialer = dialer(&endpoint)?;
        let tls = endpoint.tls.as_ref().map(acceptor).transpose()?;
        let mut running = self.running();
        if running.contains_key(&endpoint.name) {
            return Err(StartError::Name(endpoint.name));
        }
        let stop = self.stop.child();
        let tap = match endpoint.inspect {
            true if endpoint.kind() == Kind::Http => self.inspector.tap(&endpoint.name).sampled(),
            true => self.inspector.tap(&endpoint.name),
            false => self.inspector.meter(&endpoint.name),
        };
        let name = endpoint.name.clone();
        let id = self.started.fetch_add(1, Ordering::Relaxed);
        self.board.update(|status| {
            // One that has ended is still shown.
            status.endpoints.retain(|it| it.name != name);
            status.endpoints.push(first_status(&endpoint));
        });
        let reach = Reach::new(self.board.clone(), name.clone());
        let publisher = Publisher {
            route: Arc::clone(&self.route),
            target: Target::Upstream(Arc::new(Upstream { dialer: dialer.clone(), tls, tap, reach })),
            heartbeat: self.heartbeat,
            board: self.board.clone(),
            stop: stop.clone(),
            endpoint: Arc::new(endpoint),
        };
        let (ended, board, stopped) = (self.ended.clone(), self.board.clone(), stop.clone());
        let told = name.clone();
        let thread = std::thread::Builder::new().name("endpoint".to_owned()).spawn(move || {
            // A fault of ours ends this endpoint and is told, as any other end.
            let result = catch_unwind(AssertUnwindSafe(|| run(publisher)));
            let result = result.unwrap_or_else(|_| Err(Failure::lasting(exit::HERE, "the agent has failed")));
            // Otherwise it is told, or another one has its name by now.
            if let Err(failure) = &result
                && !stopped.is_asked()
            {
                board.endpoint(&told, |it| it.phase = Phase::Ended { why: failure.to_string() });
            }
            let _ = ended.send(Ended { name: told, id, result });
        });
        if let Err(error) = thread {
            self.board.update(|status| status.endpoints.retain(|it| it.name != name));
            return Err(StartError::Thread(error));
        }
        running.insert(name, Running { id, stop, dialer });
        Ok(())
    }

    /// Withdraws an endpoint, whose running visits are finished. False if there is none by that name.
    pub(crate) fn stop(&self, name: &str) -> bool {
        let Some(running) = self.running().remove(name) else { return false };
        self.leaving().insert(running.id);
        running.stop.ask();
        self.board.update(|status| status.endpoints.retain(|it| it.name != name));
        true
    }

    /// Withdraws all; running visits are finished.
    pub(crate) fn stop_all(&self) {
        self.stop.ask();
    }

    /// Withdraws all, and cuts running visits.
    pub(crate) fn cut_all(&self) {
        self.stop.cut();
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_done(&self) -> bool {
        !self.runs() && self.leaving().is_empty()
    }

    /// Whether any endpoint is published or may be again.
    pub(crate) fn runs(&self) -> bool {
        !self.running().is_empty()
    }

    /// Endpoints come and go by the API: that there is none is no end.
    pub(crate) fn is_managed(&self) -> bool {
        self.managed.load(Ordering::Relaxed)
    }

    fn manage(&self) {
        self.managed.store(true, Ordering::Relaxed);
    }

    /// One that has ended.
    pub(crate) fn forget(&self, ended: &Ended) {
        self.leaving().remove(&ended.id);
        let mut running = self.running();
        // Another may have its name by now.
        if running.get(&ended.name).is_some_and(|it| it.id == ended.id) {
            running.remove(&ended.name);
        }
    }

    /// The way to an endpoint's upstream.
    pub(crate) fn dialer(&self, name: &str) -> Option<Dialer> {
        self.running().get(name).map(|it| it.dialer.clone())
    }

    fn leaving(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread of its own: what wakes one visit wakes no other thread, and busy endpoints do not hold up one another.
fn run(publisher: Publisher) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::lasting(exit::HERE, format!("no runtime: {error}")))?;
    let result = runtime.block_on(publisher.run());
    // A question that nobody answers must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Whether what the endpoint needs of this machine is there: a folder, a certificate.
///
/// # Errors
/// What would keep it from being started.
pub(crate) fn check(endpoint: &Endpoint) -> Result<(), StartError> {
    dialer(endpoint)?;
    endpoint.tls.as_ref().map(acceptor).transpose()?;
    Ok(())
}

pub(crate) fn dialer(endpoint: &Endpoint) -> Result<Dialer, StartError> {
    let tls = match (&endpoint.upstream_tls, endpoint.upstream.place()) {
        (Some(tls), Place::Tcp { host, .. }) => Some(UpstreamTls::new(host, tls, endpoint.alpn())?),
        _ => None,
    };
    Dialer::new(&endpoint.upstream, tls)
        .map_err(|error| StartError::Folder(endpoint.upstream.to_string(), error))
}

pub(crate) fn first_status(endpoint: &Endpoint) -> EndpointStatus {
    EndpointStatus {
        name: endpoint.name.clone(),
        kind: match endpoint.kind() {
            Kind::Http => "http",
            Kind::Tls => "tls",
            Kind::Tcp => "tcp",
        },
        upstream: endpoint.upstream.to_string(),
        inspect: endpoint.inspect,
        urls: Vec::new(),
        account: None,
        latency: None,
        phase: Phase::Connecting,
        unreachable: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_this_machine_is_not_one_of_who_typed() {
        let status = |error| Failure::from(error).exit_status();
        assert_eq!(status(StartError::Thread(std::io::ErrorKind::OutOfMemory.into())), exit::HERE);
        assert_eq!(status(StartError::Name("web".to_owned())), exit::USAGE);
    }
}
