//! The data path's side: what it tells the inspector's thread of one connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(test)]
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Instant;

use super::entry::Id;
use super::queue::Teller;
use super::sample::{Budget, Sampling};
use crate::metrics::{Metrics, Running};

/// What the data path tells the thread.
#[derive(Debug)]
pub(super) struct Note {
    /// By its number.
    pub(super) connection: u64,
    pub(super) at: Instant,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Open(Arc<About>),
    /// So many bytes.
    Request(usize),
    Response(usize),
    /// So many bytes of which nothing is kept.
    Skipped {
        bytes: u64,
        is_request: bool,
    },
    RequestEnd,
    ResponseEnd,
    Closed,
    /// The thread tells that it came here, and goes on when the other sender is dropped.
    #[cfg(test)]
    Held(Sender<()>, Receiver<()>),
}

/// What is known of a connection from its beginning.
#[derive(Debug)]
pub(super) struct About {
    pub(super) connection: u64,
    pub(super) endpoint: Arc<str>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) visitor: SocketAddr,
    pub(super) start: SystemTime,
    pub(super) since: Instant,
    pub(super) replay_of: Option<Id>,
    /// Bytes were dropped: what came after them cannot be understood.
    pub(super) lost: AtomicBool,
    pub(super) closed: AtomicBool,
    /// See [`About::needless`]; the request's first.
    pub(super) needless: [AtomicU64; 2],
}

impl About {
    /// Since its beginning.
    pub(super) fn passed(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.since)
    }

    /// Before which byte of that direction the thread wants to know only how many there are.
    pub(super) fn needless(&self, is_request: bool) -> &AtomicU64 {
        of(&self.needless, is_request)
    }
}

/// One connection to the upstream. It ends when this is dropped.
///
/// The bytes of a request are recorded *before* they go to the upstream, so that they come before their response.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(super) about: Arc<About>,
    /// None if nothing is recorded.
    queue: Option<Arc<Teller>>,
    /// Where requests may be left out.
    sampled: Option<(Arc<Budget>, Sampling)>,
    passed: [Passed; 2],
    #[cfg(test)]
    skipped_ever: AtomicU64,
    _running: Option<Running>,
}

/// Of one direction, which is one task's alone.
#[derive(Debug, Default)]
struct Passed {
    bytes: AtomicU64,
    /// Of them, what the thread was not told of.
    skipped: AtomicU64,
}

impl Recording {
    pub(super) fn begin(
        about: Arc<About>,
        queue: Option<Arc<Teller>>,
        budget: Option<Arc<Budget>>,
        running: Option<Running>,
    ) -> Self {
        let mut recording = Self {
            about,
            queue,
            sampled: budget.map(|budget| (budget, Sampling::default())),
            passed: Default::default(),
            #[cfg(test)]
            skipped_ever: AtomicU64::new(0),
            _running: running,
        };
        if !recording.tell(What::Open(Arc::clone(&recording.about)), &[]) {
            recording.queue = None;
        }
        recording
    }

    /// Bytes on their way to the upstream.
    pub(crate) fn request(&self, bytes: &Bytes) {
        self.bytes(bytes, true);
    }

    /// Bytes from the upstream.
    pub(crate) fn response(&self, bytes: &Bytes) {
        self.bytes(bytes, false);
    }

    /// The visitor sends no more.
    pub(crate) fn request_end(&self) {
        self.tell_skipped(true);
        self.tell(What::RequestEnd, &[]);
    }

    /// The upstream sends no more.
    pub(crate) fn response_end(&self) {
        self.tell_skipped(false);
        self.tell(What::ResponseEnd, &[]);
    }

    fn bytes(&self, bytes: &Bytes, is_request: bool) {
        if self.queue.is_none() || bytes.is_empty() || self.about.lost.load(Ordering::Relaxed) {
            return;
        }
        let left_out = self.left_out(bytes, is_request);
        if left_out == bytes.len() {
            return;
        }
        let bytes = bytes.get(left_out..).unwrap_or(bytes);
        let Passed { bytes: passed, skipped } = of(&self.passed, is_request);
        let behind = passed.load(Ordering::Relaxed) + bytes.len() as u64;
        passed.store(behind, Ordering::Relaxed);
        // The last byte of a body is never skipped: with it the message is over.
        let needless = self.about.needless(is_request).load(Ordering::Relaxed);
        if bytes.len() >= BULK && behind < needless {
            let so_far = skipped.load(Ordering::Relaxed) + bytes.len() as u64;
            skipped.store(so_far, Ordering::Relaxed);
            if so_far >= REPORT {
                self.tell_skipped(is_request);
            }
            return;
        }
        self.tell_skipped(is_request);
        let length = bytes.len();
        self.tell_bytes(if is_request { What::Request(length) } else { What::Response(length) }, bytes);
    }

    /// How many of these bytes are left out.
    fn left_out(&self, bytes: &Bytes, is_request: bool) -> usize {
        let Some((budget, sampling)) = self.sampled.as_ref().filter(|it| !it.1.is_entire()) else { return 0 };
        if is_request {
            sampling.request(bytes, budget, |now| self.about.metrics.http.count(now))
        } else if sampling.response(bytes) {
            bytes.len()
        } else {
            0
        }
    }

    fn tell_skipped(&self, is_request: bool) {
        let skipped = &of(&self.passed, is_request).skipped;
        let bytes = skipped.load(Ordering::Relaxed);
        if bytes > 0 {
            skipped.store(0, Ordering::Relaxed);
            #[cfg(test)]
            self.skipped_ever.fetch_add(bytes, Ordering::Relaxed);
            self.tell_bytes(What::Skipped { bytes, is_request }, &[]);
        }
    }

    /// Bytes that were only counted.
    #[cfg(test)]
    pub(super) fn skipped_ever(&self) -> u64 {
        self.skipped_ever.load(Ordering::Relaxed)
    }

    /// Without them what comes behind cannot be understood.
    fn tell_bytes(&self, what: What, bytes: &[u8]) {
        if !self.tell(what, bytes) {
            self.about.lost.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the note found room.
    fn tell(&self, what: What, bytes: &[u8]) -> bool {
        let Some(queue) = &self.queue else { return false };
        queue.tell(Note { connection: self.about.connection, at: Instant::now(), what }, bytes)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.tell_skipped(true);
        self.tell_skipped(false);
        self.about.closed.store(true, Ordering::Relaxed);
        self.tell(What::Closed, &[]);
    }
}

/// What belongs to a direction.
fn of<T>([request, response]: &[T; 2], is_request: bool) -> &T {
    if is_request { request } else { response }
}

/// Smaller pieces are told one by one, so that of a connection that trickles everything is seen.
const BULK: usize = 4096;
/// After so many bytes the thread is told of those that were skipped.
const REPORT: u64 = 1 << 20;
