//! What is known of the agent's endpoints, for console, inspector and programs: one value in a
//! [`watch`](tokio::sync::watch) channel, replaced whenever something changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

/// All endpoints of this agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `host:port` of the server.
    pub server: String,
    /// Where the inspector listens: `http://127.0.0.1:4040`.
    pub web: Option<String>,
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointStatus {
    pub name: String,
    /// `http`, `tls` or `tcp`.
    pub kind: &'static str,
    /// Where it leads, as it was given.
    pub upstream: String,
    pub inspect: bool,
    /// What the server answered: `https://app.tunnel.example.com`, in the order of its lines. Kept while the
    /// connection is lost, since the same names come back.
    pub urls: Vec<String>,
    /// As whom the server knows us.
    pub account: Option<String>,
    /// To the server and back, by the last heartbeat.
    pub latency: Option<Duration>,
    pub phase: Phase,
    /// Why the last visit could not be led to the upstream; none where it could.
    pub unreachable: Option<String>,
}

/// How it stands with an endpoint's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Connecting,
    Online {
        since: SystemTime,
    },
    /// Lost; tried again at that time, or earlier when the network returns.
    Waiting {
        until: SystemTime,
        why: String,
    },
    /// For good.
    Ended {
        why: String,
    },
}

/// Where the parts of an agent note what they know. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Board(Arc<watch::Sender<Status>>);

impl Board {
    pub(crate) fn new(status: Status) -> Self {
        Self(Arc::new(watch::Sender::new(status)))
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    pub(crate) fn read(&self) -> Status {
        self.0.borrow().clone()
    }

    /// What is known of one endpoint.
    pub(crate) fn endpoint_now(&self, name: &str) -> Option<EndpointStatus> {
        self.0.borrow().endpoints.iter().find(|it| it.name == name).cloned()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        self.0.send_modify(change);
    }

    /// Changes what is known of one endpoint. Watchers are told only if that made a difference.
    pub(crate) fn endpoint(&self, name: &str, change: impl FnOnce(&mut EndpointStatus)) {
        self.0.send_if_modified(|status| {
            let Some(endpoint) = status.endpoints.iter_mut().find(|it| it.name == name) else { return false };
            let before = endpoint.clone();
            change(endpoint);
            *endpoint != before
        });
    }
}

/// Whether an endpoint's upstream can be reached, told by each visit.
#[derive(Debug)]
pub(crate) struct Reach {
    board: Board,
    name: String,
    /// So that a visit that finds all well need not look at the board.
    fails: AtomicBool,
}

impl Reach {
    pub(crate) fn new(board: Board, name: String) -> Self {
        Self { board, name, fails: AtomicBool::new(false) }
    }

    pub(crate) fn succeeded(&self) {
        if self.fails.load(Ordering::Relaxed) && self.fails.swap(false, Ordering::Acquire) {
            self.board.endpoint(&self.name, |it| it.unreachable = None);
        }
    }

    pub(crate) fn failed(&self, why: String) {
        self.board.endpoint(&self.name, |it| it.unreachable = Some(why));
        // Behind it: a visit that succeeds meanwhile may leave it there, and the next one takes it away.
        self.fails.store(true, Ordering::Release);
    }
}
