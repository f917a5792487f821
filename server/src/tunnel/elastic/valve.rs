//! Telling the other side of a visit to stop sending, and to go on.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;

use crate::drain::DrainWatch;

/// Bytes that wait for a visitor when the other side is told to pause. It is told to go on at half of them, which the
/// visitor takes while the other side hears of it.
pub(super) fn high(keep: usize) -> usize {
    (keep / 2).clamp(LEAST, MOST)
}

/// Who can be told to pause.
pub(crate) trait Regulated: Send + Sync {
    /// Says whether it may send. Resolves when that is on its way, or in vain.
    fn tell(&self, open: bool) -> BoxFuture<'static, ()>;

    /// Bytes that may still come after it was told to pause.
    fn in_flight(&self) -> usize;
}

/// Says to one client that a channel may be written to, or may not. What is said waits in a task of its own, one at a
/// time: whoever turns the valve never waits, and the last turn wins.
pub(crate) struct Valve {
    client: Box<dyn Regulated>,
    /// Owns that task.
    tasks: DrainWatch,
    state: Mutex<State>,
}

struct State {
    open: bool,
    /// What the client was told last.
    told: bool,
    telling: bool,
}

impl Valve {
    /// An open one.
    pub(crate) fn new(tasks: DrainWatch, client: impl Regulated + 'static) -> Arc<Self> {
        let state = State { open: true, told: true, telling: false };
        Arc::new(Self { client: Box::new(client), tasks, state: Mutex::new(state) })
    }

    pub(super) fn in_flight(&self) -> usize {
        self.client.in_flight()
    }

    pub(super) fn set(self: &Arc<Self>, open: bool) {
        {
            let mut state = self.lock();
            state.open = open;
            if state.telling || state.told == open {
                return;
            }
            state.telling = true;
        }
        let valve = Arc::clone(self);
        self.tasks.spawn(async move {
            while let Some(open) = valve.next() {
                valve.client.tell(open).await;
            }
        });
    }

    /// What the client does not know yet.
    fn next(&self) -> Option<bool> {
        let mut state = self.lock();
        state.telling = state.told != state.open;
        state.told = state.open;
        state.telling.then_some(state.open)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Valve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Valve").field("open", &self.lock().open).finish_non_exhaustive()
    }
}

/// More than a session receives before its visits have their turn: a visitor who keeps up is never the cause.
const LEAST: usize = 192 << 10;
const MOST: usize = 512 << 10;
