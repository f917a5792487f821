//! From the data path to the inspector's thread, in batches.
//!
//! Who tells something holds a lock for as long as a push takes, and wakes the thread no more often than once in
//! [`LINGER`]: to wake it for each message costs more than all that it does with one. Bytes are copied into the batch: what is
//! freed by another thread than the one that made it costs the data path more.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::recording::{Note, What};

/// How many notes may wait; half of them may carry bytes, so that beginnings and ends find room.
pub(super) const NOTES: usize = 4096;

/// What a note costs beside its bytes.
const NOTE: usize = 128;

/// Bytes that a batch has room for at all times.
const KEPT: usize = 1 << 20;

/// How long the thread lets notes gather, unless they are many. The tests wait for it thousands of times.
const LINGER: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_millis(10) };

/// Notes, and the bytes of all of them one behind the other.
#[derive(Debug, Default)]
pub(super) struct Batch {
    notes: Vec<Note>,
    bytes: Vec<u8>,
}

impl Batch {
    fn push(&mut self, note: Note, bytes: &[u8]) {
        self.notes.push(note);
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the notes out, each with its bytes.
    pub(super) fn drain(&mut self, mut take: impl FnMut(Note, &[u8])) {
        let mut rest = self.bytes.as_slice();
        for note in self.notes.drain(..) {
            let (bytes, behind) = rest.split_at_checked(note.what.length()).unwrap_or_default();
            rest = behind;
            take(note, bytes);
        }
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
    }
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    bell: Condvar,
    /// In bytes.
    room: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: Batch,
    /// Notes that the thread has taken and not finished.
    in_hand: usize,
    /// What waits and what is in hand, in bytes.
    bytes: usize,
    /// Something found no room: the thread looks at all connections.
    missed: bool,
    thread: Thread,
    is_over: bool,
}

/// What the thread does, as far as it matters to who might wake it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Thread {
    Asleep,
    Lingers,
    #[default]
    Awake,
}

/// Tells the thread. It ends with the last of them.
#[derive(Debug)]
pub(super) struct Teller(Arc<Queue>);

/// The thread's end.
#[derive(Debug)]
pub(super) struct Hearer {
    queue: Arc<Queue>,
    /// In bytes.
    in_hand: usize,
}

/// A queue with room for so many bytes.
pub(super) fn queue(room: usize) -> (Arc<Teller>, Hearer) {
    let queue = Arc::new(Queue { state: Mutex::default(), bell: Condvar::new(), room });
    (Arc::new(Teller(Arc::clone(&queue))), Hearer { queue, in_hand: 0 })
}

impl Teller {
    /// Whether the note found room, with as many bytes as it says.
    pub(super) fn tell(&self, note: Note, bytes: &[u8]) -> bool {
        let size = note.size();
        let mut state = self.0.state();
        let notes = state.waiting.notes.len() + state.in_hand;
        let has_room = match size {
            0 => notes < NOTES,
            size => notes <= NOTES / 2 && state.bytes.saturating_add(size) <= self.0.room,
        };
        if has_room {
            state.bytes += size;
            state.waiting.push(note, bytes);
        } else {
            state.missed = true;
        }
        let is_needed = match state.thread {
            Thread::Asleep => true,
            Thread::Lingers => state.is_crowded(self.0.room),
            Thread::Awake => false,
        };
        if is_needed {
            state.thread = Thread::Awake;
            drop(state);
            self.0.bell.notify_one();
        }
        has_room
    }

    /// What waits, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.0.state().bytes
    }

    /// Whether there is room or not, and at once.
    #[cfg(test)]
    pub(super) fn press(&self, note: Note) {
        let mut state = self.0.state();
        state.waiting.push(note, &[]);
        self.0.bell.notify_one();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.bell.notify_one();
    }
}

impl Hearer {
    /// Fills the empty `batch` and says whether something was missed beside it. None when there will be no more.
    pub(super) fn hear(&mut self, batch: &mut Batch) -> Option<bool> {
        let Queue { bell, room, .. } = &*self.queue;
        let mut state = self.queue.state();
        state.in_hand = 0;
        state.bytes -= std::mem::take(&mut self.in_hand);
        while state.is_idle() && !state.is_over {
            state.thread = Thread::Asleep;
            state = bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.is_crowded(*room) {
            state.thread = Thread::Lingers;
            let lingers = |state: &mut State| state.thread == Thread::Lingers && !state.is_over;
            let waited = bell.wait_timeout_while(state, LINGER, lingers);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.thread = Thread::Awake;
        if state.is_idle() {
            return None;
        }
        std::mem::swap(&mut state.waiting, batch);
        state.in_hand = batch.notes.len();
        self.in_hand = state.bytes;
        Some(std::mem::take(&mut state.missed))
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.waiting.notes.is_empty() && !self.missed
    }

    fn is_crowded(&self, room: usize) -> bool {
        self.waiting.notes.len() > NOTES / 8 || self.bytes > room / 4
    }
}

impl Note {
    /// What its bytes take of the queue's room.
    fn size(&self) -> usize {
        match &self.what {
            What::Request(bytes) | What::Response(bytes) => bytes + NOTE,
            What::Skipped { .. } => NOTE,
            _ => 0,
        }
    }
}

impl What {
    /// Of the bytes that go with it.
    fn length(&self) -> usize {
        match self {
            Self::Request(bytes) | Self::Response(bytes) => *bytes,
            _ => 0,
        }
    }
}
