//! The entries, within their bound: the oldest go first.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, watch};

use super::Limits;
use super::entry::{Entry, Id};

/// Finished requests that may wait for the console.
const FINISHED: usize = 64;

/// All entries of one inspector.
#[derive(Debug)]
pub(super) struct Store {
    inner: Mutex<Inner>,
    /// The revision of the last change.
    changed: watch::Sender<u64>,
    /// Requests that have their answers.
    finished: broadcast::Sender<Arc<Entry>>,
    /// Of what is not an entry yet, in bytes.
    pending: AtomicUsize,
    most: usize,
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<Kept>,
    /// The number of the last entry; they follow each other without a gap.
    last: u64,
    revision: u64,
    cleared: u64,
    /// Of the entries, in bytes.
    memory: usize,
}

#[derive(Debug)]
struct Kept {
    entry: Arc<Entry>,
    /// What it takes, in bytes: the oldest is not looked at to let it go.
    memory: usize,
}

/// What changed since a revision.
#[derive(Debug)]
pub(super) struct Changes {
    /// Newest first.
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) revision: u64,
    /// Counts how often everything was removed.
    pub(super) cleared: u64,
}

impl Store {
    pub(super) fn new(limits: Limits) -> Self {
        // Ids differ from those before a restart, which programs may remember.
        let inner = Inner { last: u64::from(fastrand::u32(..)) << 32, ..Inner::default() };
        Self {
            inner: Mutex::new(inner),
            changed: watch::Sender::new(0),
            finished: broadcast::Sender::new(FINISHED),
            pending: AtomicUsize::new(0),
            most: limits.memory,
        }
    }

    /// Keeps an entry. Its id is set here. Who watches is told by [`Store::announce`].
    pub(super) fn add(&self, mut entry: Entry) -> Id {
        let mut inner = self.inner();
        inner.last += 1;
        let id = Id(inner.last);
        entry.id = id;
        entry.revision = inner.next_revision();
        let memory = entry.memory();
        inner.memory += memory;
        inner.entries.push_back(Kept { entry: Arc::new(entry), memory });
        inner.trim(self.room());
        id
    }

    /// Changes an entry that is still there.
    pub(super) fn change(&self, id: Id, change: impl FnOnce(&mut Entry)) {
        let mut inner = self.inner();
        let revision = inner.next_revision();
        let Some(kept) = inner.index(id).and_then(|index| inner.entries.get_mut(index)) else { return };
        // Copies only while somebody looks at it.
        let entry = Arc::make_mut(&mut kept.entry);
        change(entry);
        entry.revision = revision;
        let after = entry.memory();
        let before = std::mem::replace(&mut kept.memory, after);
        inner.memory = (inner.memory + after).saturating_sub(before);
        inner.trim(self.room());
    }

    /// What entries may take.
    fn room(&self) -> usize {
        self.most.saturating_sub(self.pending.load(Ordering::Relaxed))
    }

    /// What is not an entry yet took so many bytes, and takes so many now.
    pub(super) fn reserve(&self, before: usize, now: usize) {
        if now > before {
            self.pending.fetch_add(now - before, Ordering::Relaxed);
            self.inner().trim(self.room());
        } else {
            self.pending.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// Whether there is room for more that is not an entry yet.
    pub(super) fn has_room(&self) -> bool {
        self.pending.load(Ordering::Relaxed) <= self.most / 2
    }

    pub(super) fn get(&self, id: Id) -> Option<Arc<Entry>> {
        let inner = self.inner();
        Some(Arc::clone(&inner.entries.get(inner.index(id)?)?.entry))
    }

    /// Newest first.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.inner().newest().cloned().collect()
    }

    pub(super) fn since(&self, revision: u64) -> Changes {
        let inner = self.inner();
        let entries = inner.newest().filter(|entry| entry.revision > revision).cloned().collect();
        Changes { entries, revision: inner.revision, cleared: inner.cleared }
    }

    /// Hands it to the console, if there is one.
    pub(super) fn tell_finished(&self, id: Id) {
        if self.finished.receiver_count() > 0
            && let Some(entry) = self.get(id)
        {
            let _ = self.finished.send(entry);
        }
    }

    pub(super) fn finished(&self) -> broadcast::Receiver<Arc<Entry>> {
        self.finished.subscribe()
    }

    /// Tells of changes.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Removes everything.
    pub(super) fn clear(&self) {
        let mut inner = self.inner();
        let removed = std::mem::take(&mut inner.entries);
        inner.memory = 0;
        inner.cleared += 1;
        inner.next_revision();
        drop(inner);
        self.announce();
        drop(removed);
    }

    /// Which of these are no longer there.
    pub(super) fn missing(&self, shown: &HashSet<Id>) -> Vec<Id> {
        let inner = self.inner();
        shown.iter().filter(|id| inner.index(**id).is_none()).copied().collect()
    }

    /// How many entries there are, and what they take of how many bytes.
    pub(super) fn usage(&self) -> (usize, usize, usize) {
        let inner = self.inner();
        (inner.entries.len(), inner.memory + self.pending.load(Ordering::Relaxed), self.most)
    }

    /// Lets those know who watch.
    pub(super) fn announce(&self) {
        let revision = self.inner().revision;
        self.changed.send_if_modified(|last| std::mem::replace(last, revision) != revision);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That what is counted is what is there.
    #[cfg(test)]
    pub(super) fn counted_and_real(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.memory, inner.newest().map(|entry| entry.memory()).sum())
    }
}

impl Inner {
    fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    /// Where it is, if it is still there.
    fn index(&self, id: Id) -> Option<usize> {
        let behind = usize::try_from(self.last.checked_sub(id.0)?).ok()?;
        self.entries.len().checked_sub(behind + 1)
    }

    fn newest(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter().rev().map(|kept| &kept.entry)
    }

    fn trim(&mut self, room: usize) {
        while self.memory > room {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.memory = self.memory.saturating_sub(oldest.memory);
        }
    }
}
