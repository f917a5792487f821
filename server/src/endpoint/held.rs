//! The place of an endpoint whose publisher was cut off: visitors wait there for it to return.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Endpoint;

/// What became of an endpoint that is withdrawn: another one, or nothing after a while.
#[derive(Debug)]
pub(crate) struct Held {
    until: Instant,
    next: OnceLock<Arc<Endpoint>>,
    /// Cancelled when there is a next one, or will be none.
    settled: CancellationToken,
    waiting: AtomicUsize,
    all: Arc<AtomicUsize>,
}

/// One visitor that waits.
struct Waiting<'a>(&'a Held);

impl Held {
    /// `all` counts the visitors that wait anywhere.
    pub(crate) fn new(time: Duration, all: &Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self {
            until: Instant::now() + time,
            next: OnceLock::new(),
            settled: CancellationToken::new(),
            waiting: AtomicUsize::new(0),
            all: Arc::clone(all),
        })
    }

    /// Waits until somebody publishes there again, or the time is over. False where too many wait already.
    pub(crate) async fn wait(&self) -> bool {
        if self.is_over() {
            return true;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(self);
        if self.waiting.load(Ordering::Relaxed) > MAX_AT_ONE || self.all.load(Ordering::Relaxed) > MAX_IN_ALL
        {
            return false;
        }
        self.settled_or_over().await;
        true
    }

    /// As [`Self::wait`], for who holds nothing that would have to be bounded.
    pub(crate) async fn settled_or_over(&self) {
        let _ = timeout_at(self.until, self.settled.cancelled()).await;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.settled.is_cancelled() || self.until <= Instant::now()
    }

    /// Who came in its place.
    pub(crate) fn next(&self) -> Option<&Arc<Endpoint>> {
        self.next.get()
    }

    /// Ends the waiting: with another endpoint, or with none.
    pub(crate) fn settle(&self, next: Option<Arc<Endpoint>>) {
        if let Some(next) = next {
            // It is settled once.
            let _ = self.next.set(next);
        }
        self.settled.cancel();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Visitors that wait at one place. Each holds a request's head, and what its connection buffers.
const MAX_AT_ONE: usize = 256;
/// At all places together.
const MAX_IN_ALL: usize = 2048;
