//! What arrived for one visitor and was not taken yet: in memory, beyond a bound in unlinked files.
//!
//! The order is head (memory), segments (disk), tail (memory). What comes in never waits for the visitor, so that
//! the session's read loop does not either; at most one disk operation of at most 256 KiB is under way for a visit,
//! on a blocking thread.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use self::operation::{Done, Failure, Operation};
use self::queue::{Queue, cost};
pub(crate) use self::valve::{Regulated, Valve};
use super::spool::{ChargedTo, SEGMENT};
use crate::drain::DrainWatch;
use crate::visit::CutOff;

mod operation;
mod queue;
mod valve;

#[cfg(test)]
mod tests;

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Data(Bytes),
    /// An orderly end of the bytes; after it comes only [`Self::Closed`].
    Finished,
    /// The other side is gone.
    Closed,
    Cut(CutOff),
}

/// What became of bytes that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Taken,
    /// Thrown away since the visit is over; so much by now that the other side has to be stopped.
    Unwanted,
}

/// The buffer of one visit. Bytes come out as they went in.
pub(crate) struct Elastic {
    state: Mutex<State>,
    charged: ChargedTo,
    /// Owns the disk operations.
    tasks: DrainWatch,
    /// Where the other side can be told to pause.
    valve: Option<Arc<Valve>>,
}

#[derive(Default)]
struct State {
    head: Queue,
    segments: VecDeque<Segment>,
    tail: Queue,
    /// What the reader took last, and holds until it comes for more.
    lent: usize,
    /// A disk operation is under way; with the bytes that it takes to the disk.
    busy: Option<usize>,
    /// The other side sends no more (SSH's EOF).
    finished: bool,
    told_finished: bool,
    /// The other side neither sends nor takes any more (SSH's CLOSE).
    closed: bool,
    cut: Option<CutOff>,
    /// The publisher ended the visit.
    severed: bool,
    /// Nobody reads any more.
    abandoned: bool,
    /// Bytes that came in after that.
    discarded: u64,
    /// Line in the book of the spool.
    line: Option<u64>,
    /// Memory taken from the spool's count, in steps.
    reserved: usize,
    /// Of a write that is under way.
    on_its_way: usize,
    /// What of it and of the tail the session's backlog knows.
    counted: usize,
    /// Reads and writes take turns, or a visitor who catches up would keep the tail from the disk.
    read_last: bool,
    /// Kept while it is busy with what it took, for the news that the visit was ended.
    reader: Option<Waker>,
    /// The reader waits for something to take.
    is_awaited: bool,
    /// Waits for the close.
    writer: Option<Waker>,
    /// The other side was told to pause.
    paused: bool,
}

fn note(place: &mut Option<Waker>, cx: &Context<'_>) {
    if !place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}

/// A file that is written at its end and read from its begin.
struct Segment {
    file: Arc<File>,
    read: u64,
    written: u64,
}

impl Elastic {
    /// With a valve, the other side pauses when it is told to, and next to nothing has to go to the disk.
    pub(crate) fn new(charged: ChargedTo, tasks: DrainWatch, valve: Option<Arc<Valve>>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), charged, tasks, valve })
    }

    /// Takes what arrived. Never waits.
    pub(crate) fn push(self: &Arc<Self>, data: Bytes) -> Pushed {
        let mut state = self.lock();
        if state.is_over() {
            return state.throw_away(&data);
        }
        if !state.is_spilling() && state.head_takes(cost(&data), self.keep()) {
            state.head.push(data);
            state.wake();
        } else {
            state.tail.push(data);
        }
        self.settle(&mut state);
        Pushed::Taken
    }

    /// The other side sends no more. What it sent before is still read.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        state.finished = true;
        state.wake();
    }

    /// The other side is gone. What it sent before is still read.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.wake();
        state.wake_writer();
    }

    /// Ends the visit at once: what waits is not read any more.
    pub(crate) fn sever(&self) {
        let mut state = self.lock();
        self.clear(&mut state);
        state.severed = true;
        state.wake_even_if_busy();
        state.wake_writer();
    }

    /// How the visit was ended from here, if it was.
    pub(crate) fn ended(&self) -> Option<Taken> {
        self.lock().ended()
    }

    pub(crate) fn is_severed(&self) -> bool {
        self.lock().severed
    }

    /// Ready when the other side takes no more.
    pub(crate) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.takes_nothing() {
            return Poll::Ready(());
        }
        note(&mut state.writer, cx);
        Poll::Pending
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Whether writing is in vain.
    pub(crate) fn takes_nothing(&self) -> bool {
        self.lock().takes_nothing()
    }

    /// Ready when the channel is closed.
    pub(crate) fn poll_parted(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.closed {
            return Poll::Ready(());
        }
        note(&mut state.writer, cx);
        Poll::Pending
    }

    /// The next bytes, in the order in which they arrived.
    pub(crate) fn poll_take(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Taken> {
        let mut state = self.lock();
        state.is_awaited = false;
        if let Some(ended) = state.ended() {
            return Poll::Ready(ended);
        }
        note(&mut state.reader, cx);
        let chunk = state.head.pop();
        state.lent = chunk.as_ref().map_or(0, cost);
        let ends = state.closed || state.finished && !state.told_finished;
        state.is_awaited = chunk.is_none() && (state.is_spilling() || !ends);
        // Also when nothing came: the reader gave back what it held, and may be all that the disk waited for.
        self.settle(&mut state);
        if let Some(chunk) = chunk {
            return Poll::Ready(Taken::Data(chunk));
        }
        if state.is_awaited || !state.head.chunks.is_empty() {
            return Poll::Pending;
        }
        if state.finished && !state.told_finished {
            state.told_finished = true;
            return Poll::Ready(Taken::Finished);
        }
        Poll::Ready(Taken::Closed)
    }

    /// Nobody reads any more: what waits is dropped, and what still comes in is discarded.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.reader = None;
        self.clear(&mut state);
        // Then the other side comes to its end by itself, and closes the channel before we have to.
        self.regulate(&mut state);
    }

    /// Ends this visit alone. Its reader is told why.
    fn cut(&self, why: CutOff) {
        let mut state = self.lock();
        if state.is_over() {
            return;
        }
        let (waiting, usage) = (state.waiting(), self.charged.spool.usage());
        tracing::warn!(
            visitor = %self.charged.visitor.ip(),
            publisher = %self.charged.publisher,
            waiting,
            ?usage,
            "a visit was cut off: {why}"
        );
        state.cut = Some(why);
        state.wake_even_if_busy();
        state.wake_writer();
        self.clear(&mut state);
    }

    fn clear(&self, state: &mut State) {
        state.head = Queue::default();
        state.tail = Queue::default();
        if state.abandoned {
            state.lent = 0;
        }
        self.discard(std::mem::take(&mut state.segments));
        if let Some(line) = state.line.take() {
            self.charged.spool.strike(line);
        }
        self.count_memory(state);
    }

    /// Closing a file that has no name frees its blocks, which takes time: not on a thread that serves.
    fn discard(&self, segments: VecDeque<Segment>) {
        if segments.len() > 1 && Handle::try_current().is_ok() {
            self.tasks.spawn(async move {
                // Nothing is left to do if that fails.
                let _ = spawn_blocking(move || drop(segments)).await;
            });
        }
    }

    /// Moves on what can be moved without the disk, and sets the disk to work where it is needed.
    fn settle(self: &Arc<Self>, state: &mut State) {
        if state.is_spilling() {
            self.refill(state);
            if state.busy.is_none()
                && let Some(operation) = state.next(self.keep())
            {
                state.begin(&operation);
                self.tasks.spawn(Self::work(Arc::clone(self), operation));
            }
        }
        self.count_memory(state);
        self.regulate(state);
    }

    /// What may wait in memory. More where the other side was told to pause, for what was on its way by then.
    fn keep(&self) -> usize {
        let spool = &self.charged.spool;
        self.valve.as_ref().map_or_else(|| spool.keep(), |valve| spool.keep_with(valve.in_flight()))
    }

    /// Tells the other side to pause when much waits, and to go on when little does.
    fn regulate(&self, state: &mut State) {
        let Some(valve) = &self.valve else { return };
        if state.finished || state.closed || state.severed {
            return;
        }
        let waiting = if state.is_over() { 0 } else { state.waiting() };
        let high = valve::high(self.charged.spool.keep()) as u64;
        let paused = waiting > if state.paused { high / 2 } else { high };
        if paused != state.paused {
            state.paused = paused;
            valve.set(!paused);
        }
    }

    /// With nothing on the disk, the tail follows the head directly.
    fn refill(&self, state: &mut State) {
        if !state.segments.is_empty() || state.busy.is_some() {
            return;
        }
        let keep = self.keep();
        let before = state.tail.cost;
        while state.head_takes(0, keep)
            && let Some(chunk) = state.tail.pop()
        {
            state.head.push(chunk);
        }
        if state.tail.cost < before {
            state.wake();
        }
    }

    /// Counts in steps, so that a short answer costs nothing here.
    fn count_memory(&self, state: &mut State) {
        let held = state.head.cost + state.tail.cost + state.lent + state.busy.unwrap_or(0);
        let wanted = held / MEMORY_STEP * MEMORY_STEP;
        if wanted > state.reserved {
            self.charged.spool.take_memory(wanted - state.reserved);
            state.reserved = wanted;
        } else if wanted + MEMORY_STEP < state.reserved || held == 0 && state.reserved > 0 {
            self.charged.spool.give_memory(state.reserved - wanted);
            state.reserved = wanted;
        }
        // Only what the disk is certain to take: a session that waited for a tail that stays would wait for a visitor.
        let counted = state.tail.cost.saturating_sub(MIN_WRITE) + state.on_its_way;
        if counted > state.counted {
            self.charged.backlog.add(counted - state.counted);
        } else {
            self.charged.backlog.remove(state.counted - counted);
        }
        state.counted = counted;
    }

    /// Runs disk operations until none is needed.
    async fn work(self: Arc<Self>, first: Operation) {
        let mut next = Some(first);
        while let Some(operation) = next {
            self.book(&operation);
            let done = self.perform(operation).await;
            next = self.apply(done);
        }
    }

    /// A full disk costs the visit with most waiting its place; then the write is tried again.
    async fn perform(self: &Arc<Self>, mut operation: Operation) -> Option<Done> {
        loop {
            let Failure { error, undone } = match self.on_blocking_thread(operation).await {
                Ok(done) => return Some(done),
                Err(failure) => failure,
            };
            let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let largest = if is_full { self.charged.spool.largest() } else { None };
            match (largest, undone) {
                (Some(other), Some(undone)) if !Arc::ptr_eq(&other, self) => {
                    other.cut(CutOff::Full);
                    operation = undone;
                }
                _ if is_full => {
                    self.cut(CutOff::Full);
                    return None;
                }
                _ => {
                    tracing::error!(%error, "the spool's disk failed");
                    self.cut(CutOff::Disk);
                    return None;
                }
            }
        }
    }

    async fn on_blocking_thread(&self, operation: Operation) -> Result<Done, Failure> {
        let spool = Arc::clone(&self.charged.spool);
        let _turn = spool.turn().await;
        let files = Arc::clone(&spool);
        let done = spawn_blocking(move || operation.run(&|| files.segment())).await;
        done.unwrap_or_else(|panicked| Err(io::Error::other(panicked).into()))
    }

    /// Books what is about to be written, and cuts off whoever has to go because of it.
    fn book(self: &Arc<Self>, operation: &Operation) {
        let Operation::Write { chunks, .. } = operation else { return };
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let line = {
            let mut state = self.lock();
            if state.is_over() {
                return;
            }
            *state.line.get_or_insert_with(|| self.charged.spool.enter(Arc::downgrade(self), &self.charged))
        };
        // Not under our own lock: the victim may be another visit, whose lock is taken.
        if let Some((victim, why)) = self.charged.spool.charge(line, bytes) {
            victim.cut(why);
        }
    }

    /// Notes what came of an operation, and gives the next one.
    fn apply(self: &Arc<Self>, done: Option<Done>) -> Option<Operation> {
        let mut state = self.lock();
        state.busy = None;
        state.on_its_way = 0;
        let done = done.filter(|_| !state.is_over());
        match done {
            None => {
                self.count_memory(&mut state);
                return None;
            }
            Some(Done::Read(bytes)) => {
                if let Some(freed) = state.was_read(bytes.len() as u64)
                    && let Some(line) = state.line
                {
                    self.charged.spool.release(line, freed);
                }
                state.head.push(bytes);
                state.wake();
            }
            Some(Done::Written { file, bytes }) => state.was_written(file, bytes),
        }
        self.refill(&mut state);
        let next = state.next(self.keep());
        if let Some(next) = &next {
            state.begin(next);
        }
        self.count_memory(&mut state);
        self.regulate(&mut state);
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Elastic {
    fn drop(&mut self) {
        let mut state = std::mem::take(&mut *self.lock());
        state.abandoned = true;
        self.clear(&mut state);
    }
}

impl fmt::Debug for Elastic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elastic").field("visitor", &self.charged.visitor).finish_non_exhaustive()
    }
}

impl State {
    /// Nobody will read what comes in.
    fn is_over(&self) -> bool {
        self.abandoned || self.severed || self.cut.is_some()
    }

    fn ended(&self) -> Option<Taken> {
        self.cut.map(Taken::Cut).or(self.severed.then_some(Taken::Closed))
    }

    fn throw_away(&mut self, data: &Bytes) -> Pushed {
        self.discarded += data.len() as u64;
        if self.discarded > MAX_DISCARDED && !self.closed { Pushed::Unwanted } else { Pushed::Taken }
    }

    fn takes_nothing(&self) -> bool {
        self.closed || self.severed || self.cut.is_some()
    }

    /// Whether something is behind the head, or on its way there.
    fn is_spilling(&self) -> bool {
        !self.tail.chunks.is_empty() || !self.segments.is_empty() || self.busy.is_some()
    }

    fn waiting(&self) -> u64 {
        let on_disk: u64 = self.segments.iter().map(|segment| segment.written - segment.read).sum();
        on_disk + (self.head.cost + self.tail.cost + self.busy.unwrap_or(0)) as u64
    }

    /// Whether so much more may wait in memory. A visit without a share there (`keep` is 0) holds a message only for a
    /// reader that waits for it.
    fn head_takes(&self, cost: usize, keep: usize) -> bool {
        let is_first = self.head.chunks.is_empty() && (keep > 0 || self.is_awaited);
        is_first || self.head.cost + cost.max(1) <= keep
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    fn wake(&mut self) {
        if std::mem::take(&mut self.is_awaited)
            && let Some(reader) = &self.reader
        {
            reader.wake_by_ref();
        }
    }

    fn wake_even_if_busy(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn begin(&mut self, operation: &Operation) {
        self.busy = Some(operation.cost());
        self.on_its_way = operation.backlog();
        self.read_last = matches!(operation, Operation::Read { .. });
    }

    /// Reading goes first: somebody waits for it, or will.
    fn next(&mut self, keep: usize) -> Option<Operation> {
        let (low, least) = match keep {
            0 => (self.head.chunks.is_empty() && self.is_awaited, MIN_READ_WITHOUT_SHARE),
            _ => (self.head.chunks.is_empty() || self.head.cost < keep / 2, MIN_READ),
        };
        let writes_turn = self.read_last && !self.head.chunks.is_empty() && self.tail.cost >= MIN_WRITE;
        if low
            && !writes_turn
            && let Some(first) = self.segments.front()
        {
            let length = (first.written - first.read).min(keep.clamp(least, MAX_OPERATION) as u64);
            return Some(Operation::Read {
                file: Arc::clone(&first.file),
                at: first.read,
                length: usize::try_from(length).unwrap_or(MAX_OPERATION),
            });
        }
        let enough = keep.clamp(1, MIN_WRITE);
        if self.tail.cost < enough {
            return None;
        }
        let last = self.segments.back().filter(|last| last.written < SEGMENT);
        let file = last.map(|last| Arc::clone(&last.file));
        let mut chunks = Vec::new();
        let mut length = 0;
        while let Some(next) = self.tail.chunks.front()
            && (length == 0 || length + next.len() <= MAX_OPERATION)
        {
            length += next.len();
            chunks.extend(self.tail.pop());
        }
        Some(Operation::Write { file, chunks })
    }

    /// How many bytes of disk are free because of that.
    fn was_read(&mut self, bytes: u64) -> Option<u64> {
        let first = self.segments.front_mut()?;
        first.read += bytes;
        if first.read < first.written {
            return None;
        }
        // Also one that is not full: the next write begins another.
        self.segments.pop_front().map(|segment| segment.written)
    }

    fn was_written(&mut self, file: Arc<File>, bytes: u64) {
        match self.segments.back_mut().filter(|last| Arc::ptr_eq(&last.file, &file)) {
            Some(last) => last.written += bytes,
            None => self.segments.push_back(Segment { file, read: 0, written: bytes }),
        }
    }
}

/// What the other side may still send to a visit that is over before its channel is closed.
const MAX_DISCARDED: u64 = 1 << 20;
const MEMORY_STEP: usize = 4 << 10;
/// More in one operation keeps other visits waiting for too long, for the disk or for a CPU.
const MAX_OPERATION: usize = 256 << 10;
const MIN_WRITE: usize = 256 << 10;
const MIN_READ: usize = 64 << 10;
/// Where a visit has no share of the memory.
const MIN_READ_WITHOUT_SHARE: usize = 16 << 10;
