//! The inspector: what passes through the agent, kept for a while and shown on a page of the local machine.
//!
//! The data path shows its bytes to a [`Recording`], which never waits. Copies go through one queue, bounded in bytes and in
//! number, in batches to one thread, which takes them apart. What finds no room is dropped, and its recording says so.
//! [`sample`] alone looks into heads of requests on the data path itself: what is left out costs neither copy nor thread.

mod api;
mod chunks;
mod collect;
mod connection;
mod content;
mod entry;
mod filter;
mod guard;
mod head;
mod http1;
mod http2;
mod listener;
mod page;
mod queue;
mod recording;
mod replay;
mod sample;
mod show;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod web;
mod websocket;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::console::Line;
use crate::metrics::Metrics;
use entry::{Entry, Id};
use queue::{Batch, Hearer, Teller, queue};
use recording::About;
#[cfg(test)]
use recording::{Note, What};
use sample::Budget;
use store::Store;

pub(crate) use api::{ApiError, BoxFuture, Local};
pub(crate) use guard::AllowedHost;
pub(crate) use listener::bind;
pub(crate) use recording::Recording;
pub(crate) use web::{Access, serve};

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// All entries together, in bytes. Nothing is recorded with 0.
    pub(crate) memory: usize,
    /// Of each message, head and body together, in bytes.
    pub(crate) message: usize,
    /// What waits to be looked at, in bytes.
    pub(crate) queue: usize,
}

impl Limits {
    /// As `inspect_db_size` of the file says: 0 is 50 MB, -1 nothing.
    pub(crate) fn of_option(bytes: i64) -> Self {
        let memory = match bytes {
            0 => 50_000_000,
            bytes => usize::try_from(bytes).unwrap_or(0),
        };
        Self { memory, ..Self::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 50_000_000, message: 4 << 20, queue: 4 << 20 }
    }
}

/// Keeps what is recorded. Clones are the same inspector.
#[derive(Clone, Debug)]
pub(crate) struct Inspector {
    inner: Arc<Inner>,
    /// None if nothing is recorded.
    queue: Option<Arc<Teller>>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    metrics: AllMetrics,
    connections: AtomicU64,
    budget: Arc<Budget>,
}

/// The figures of all endpoints, by their names.
#[derive(Debug, Default)]
struct AllMetrics(Mutex<BTreeMap<Arc<str>, Arc<Metrics>>>);

impl AllMetrics {
    fn of(&self, endpoint: &str) -> Arc<Metrics> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(endpoint) {
            Some(metrics) => Arc::clone(metrics),
            None => Arc::clone(all.entry(endpoint.into()).or_default()),
        }
    }
}

impl Inspector {
    /// Records within these bounds, on a thread of its own that ends with the last clone and its recordings.
    pub(crate) fn new(limits: Limits) -> Self {
        let store = Arc::new(Store::new(limits));
        let inner = Arc::new(Inner {
            store: Arc::clone(&store),
            metrics: AllMetrics::default(),
            connections: AtomicU64::new(1),
            budget: Arc::default(),
        });
        if limits.memory == 0 {
            return Self { inner, queue: None };
        }
        let (teller, hearer) = queue(limits.queue);
        let collector = collect::Collector::new(store, limits);
        if let Err(error) = start(collector, hearer) {
            tracing::warn!(%error, "the inspector records nothing: it has no thread");
            return Self { inner, queue: None };
        }
        Self { inner, queue: Some(teller) }
    }

    /// Records the connections of this endpoint.
    pub(crate) fn tap(&self, endpoint: &str) -> Tap {
        Tap {
            inspector: self.clone(),
            endpoint: endpoint.into(),
            metrics: self.inner.metrics.of(endpoint),
            records: self.queue.is_some(),
            samples: false,
        }
    }

    /// Counts and measures the connections of an endpoint that must not be looked into.
    pub(crate) fn meter(&self, endpoint: &str) -> Tap {
        Tap { records: false, ..self.tap(endpoint) }
    }

    /// The figures of an endpoint.
    pub(crate) fn metrics(&self, endpoint: &str) -> Arc<Metrics> {
        self.inner.metrics.of(endpoint)
    }

    /// The next finished request. None when there are no more.
    pub(crate) fn finished(&self) -> Finished {
        Finished(self.inner.store.finished())
    }

    /// How many requests were not recorded, as too many came at once.
    fn left_out(&self) -> u64 {
        self.inner.budget.left_out()
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Waits until all that has been recorded so far can be seen.
    #[cfg(test)]
    fn settle(&self) {
        drop(self.hold());
    }

    /// Waits as [`Inspector::settle`] does; then the thread stands still until the sender is dropped.
    #[cfg(test)]
    fn hold(&self) -> std::sync::mpsc::Sender<()> {
        // What was missed is looked for behind the batch.
        drop(self.stop());
        self.stop()
    }

    #[cfg(test)]
    fn stop(&self) -> std::sync::mpsc::Sender<()> {
        let (reached, waits) = std::sync::mpsc::channel();
        let (release, until) = std::sync::mpsc::channel();
        let note = Note { connection: 0, at: Instant::now(), what: What::Held(reached, until) };
        self.queue.as_ref().unwrap().press(note);
        waits.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
        release
    }
}

fn start(mut collector: collect::Collector, mut notes: Hearer) -> std::io::Result<()> {
    let run = move || {
        let mut batch = Batch::default();
        while let Some(missed) = notes.hear(&mut batch) {
            batch.drain(|note, bytes| collector.note(note, bytes));
            if missed {
                collector.sweep();
            }
            collector.announce();
        }
    };
    std::thread::Builder::new().name("inspector".to_owned()).spawn(run).map(drop)
}

/// Requests as they finish.
#[derive(Debug)]
pub(crate) struct Finished(broadcast::Receiver<Arc<Entry>>);

impl Finished {
    /// None when there are no more. Those that come faster than they are taken are left out.
    pub(crate) async fn next(&mut self) -> Option<Line> {
        loop {
            match self.0.recv().await {
                Ok(entry) => match line(&entry) {
                    Some(line) => return Some(line),
                    None => continue,
                },
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

fn line(entry: &Entry) -> Option<Line> {
    let http = entry.http()?;
    Some(Line {
        when: entry.start,
        endpoint: Arc::clone(&entry.endpoint),
        method: http.method.to_string(),
        path: http.target.to_string(),
        status: http.status(),
        duration: entry.duration?,
    })
}

/// Where the connections of one endpoint are recorded.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    inspector: Inspector,
    endpoint: Arc<str>,
    metrics: Arc<Metrics>,
    records: bool,
    samples: bool,
}

impl Tap {
    /// Leaves requests out where very many come. For upstreams that are asked for one thing after the other on each
    /// connection, as our server asks those of http.
    pub(crate) fn sampled(self) -> Self {
        Self { samples: true, ..self }
    }

    /// A connection to the upstream begins, for this visitor.
    pub(crate) fn open(&self, visitor: SocketAddr) -> Recording {
        self.begin(visitor, None)
    }

    /// A recorded request is sent once more.
    fn replay(&self, of: Id) -> Recording {
        self.begin(SocketAddr::from(([127, 0, 0, 1], 0)), Some(of))
    }

    fn begin(&self, visitor: SocketAddr, replay_of: Option<Id>) -> Recording {
        let about = Arc::new(self.about(visitor, replay_of));
        let queue = self.inspector.queue.clone().filter(|_| self.records);
        // Replays are no visits.
        let running = replay_of.is_none().then(|| self.metrics.connection());
        let budget = (self.samples && replay_of.is_none()).then(|| Arc::clone(&self.inspector.inner.budget));
        Recording::begin(about, queue, budget, running)
    }

    fn about(&self, visitor: SocketAddr, replay_of: Option<Id>) -> About {
        About {
            connection: self.inspector.inner.connections.fetch_add(1, Ordering::Relaxed),
            endpoint: Arc::clone(&self.endpoint),
            metrics: Arc::clone(&self.metrics),
            visitor,
            start: SystemTime::now(),
            since: Instant::now(),
            replay_of,
            lost: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            needless: Default::default(),
        }
    }
}
