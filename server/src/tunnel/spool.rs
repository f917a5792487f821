//! The disk that holds what slow visitors have not taken yet, and how much of it each may fill.
//!
//! What lies here are unlinked files: an end of the process, however it comes, leaves nothing behind. Visits enter
//! the book only when they begin to spill, so that an ordinary one costs nothing here but a count of its memory.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hash;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use super::elastic::Elastic;
use crate::account::Account;
use crate::visit::{CutOff, Visitor};

#[cfg(test)]
mod tests;

/// What is in use, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) memory: usize,
    pub(crate) disk: u64,
    /// Visits that have something on the disk.
    pub(crate) visits: usize,
}

/// All that waits for visitors.
#[derive(Debug)]
pub(crate) struct Spool {
    directory: PathBuf,
    /// Of the disk, in bytes.
    limit: u64,
    memory: AtomicUsize,
    book: Mutex<Book>,
    /// Disk operations at a time: more would only take threads.
    turns: Semaphore,
}

/// Its sums are kept, since every write to the disk asks for them; the lines are searched only for one who has to go.
#[derive(Debug, Default)]
struct Book {
    last: u64,
    lines: HashMap<u64, Line>,
    total: u64,
    sources: Sums<IpAddr>,
    publishers: Sums<Account>,
}

/// Bytes of each who has any.
#[derive(Debug)]
struct Sums<K>(HashMap<K, u64>);

impl<K> Default for Sums<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Sums<K> {
    /// Gives the new sum.
    fn add(&mut self, key: K, bytes: u64) -> u64 {
        let sum = self.0.entry(key).or_default();
        *sum += bytes;
        *sum
    }

    fn take(&mut self, key: &K, bytes: u64) {
        let Some(sum) = self.0.get_mut(key) else { return };
        *sum = sum.saturating_sub(bytes);
        if *sum == 0 {
            self.0.remove(key);
        }
    }
}

#[derive(Debug)]
struct Line {
    visit: Weak<Elastic>,
    publisher: Account,
    source: IpAddr,
    bytes: u64,
}

impl Spool {
    /// Makes the directory (0700). `limit` in bytes; without one, a share of what is free now.
    ///
    /// # Errors
    /// The directory cannot be made or written to.
    pub(crate) fn open(directory: &Path, limit: Option<u64>) -> io::Result<Arc<Self>> {
        use std::os::unix::fs::DirBuilderExt;

        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        tempfile::tempfile_in(directory)?;
        let room = Room::of(directory)?;
        let limit = limit.unwrap_or(room.spare() / 4 * 3);
        if room.in_memory {
            tracing::warn!(
                path = %directory.display(),
                "the spool lies in memory (tmpfs): what slow visitors leave there takes memory; give --spool-dir"
            );
        }
        Ok(Arc::new(Self {
            directory: directory.to_owned(),
            limit,
            memory: AtomicUsize::new(0),
            book: Mutex::default(),
            turns: Semaphore::new(OPERATIONS),
        }))
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn usage(&self) -> Usage {
        let book = self.book();
        let visits = book.lines.values().filter(|line| line.bytes > 0).count();
        Usage { memory: self.memory.load(Ordering::Relaxed), disk: book.total, visits }
    }

    /// What a visit may hold in memory now before it spills, in bytes: less the more all hold together.
    pub(super) fn keep(&self) -> usize {
        let held = self.memory.load(Ordering::Relaxed);
        let shares = [(RELAXED, 1 << 20), (PRESSED, 256 << 10), (FULL, 64 << 10)];
        shares.into_iter().find(|(bound, _)| held < *bound).map_or(0, |(_, share)| share)
    }

    /// The same for a visit whose client can be told to pause, and then still has so many bytes on their way.
    pub(super) fn keep_with(&self, in_flight: usize) -> usize {
        let held = self.memory.load(Ordering::Relaxed);
        if held < STRETCHED { in_flight } else { self.keep() }
    }

    pub(super) fn take_memory(&self, bytes: usize) {
        self.memory.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_memory(&self, bytes: usize) {
        self.memory.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Enters a visit into the book.
    pub(super) fn enter(&self, visit: Weak<Elastic>, charged: &ChargedTo) -> u64 {
        let mut book = self.book();
        book.last += 1;
        let id = book.last;
        let (publisher, source) = (charged.publisher.clone(), charged.visitor.ip());
        book.lines.insert(id, Line { visit, publisher, source, bytes: 0 });
        id
    }

    /// Strikes a visit out. What it had on the disk is free.
    pub(super) fn strike(&self, id: u64) {
        let mut book = self.book();
        book.release(id, u64::MAX);
        book.lines.remove(&id);
    }

    pub(super) fn release(&self, id: u64, bytes: u64) {
        self.book().release(id, bytes);
    }

    /// Books `bytes` for a visit, and tells who has to go because of that: in the group whose bound is passed, the
    /// visit with most waiting.
    pub(super) fn charge(&self, id: u64, bytes: u64) -> Option<(Arc<Elastic>, CutOff)> {
        let mut book = self.book();
        let book = &mut *book;
        let line = book.lines.get_mut(&id)?;
        line.bytes += bytes;
        let (own, publisher, source) = (line.bytes, line.publisher.clone(), line.source);
        book.total += bytes;
        let of_source = book.sources.add(source, bytes);
        let of_publisher = book.publishers.add(publisher.clone(), bytes);
        if own > self.limit / 2 {
            book.lines.get(&id)?.visit.upgrade().map(|visit| (visit, CutOff::Visit))
        } else if book.total > self.limit {
            book.largest(&|_| true, CutOff::Full)
        } else if of_source > self.limit / 2 {
            book.largest(&|line| line.source == source, CutOff::Source)
        } else if of_publisher > self.limit / 4 * 3 {
            book.largest(&|line| line.publisher == publisher, CutOff::Publisher)
        } else {
            None
        }
    }

    /// Who has to go when the disk itself has no more room.
    pub(super) fn largest(&self) -> Option<Arc<Elastic>> {
        self.book().largest(&|_| true, CutOff::Full).map(|(visit, _)| visit)
    }

    /// Waits for a turn at the disk.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// A new unlinked file, unless the disk is nearly full.
    pub(super) fn segment(&self) -> io::Result<File> {
        if Room::of(&self.directory)?.spare() < SEGMENT {
            return Err(io::ErrorKind::StorageFull.into());
        }
        tempfile::tempfile_in(&self.directory)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn release(&mut self, id: u64, bytes: u64) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        let bytes = bytes.min(line.bytes);
        line.bytes -= bytes;
        self.total -= bytes;
        self.sources.take(&line.source, bytes);
        self.publishers.take(&line.publisher, bytes);
    }

    fn largest(&self, of: &dyn Fn(&Line) -> bool, why: CutOff) -> Option<(Arc<Elastic>, CutOff)> {
        // One that is just ending frees what it has by itself.
        let lines = self.lines.values().filter(|line| of(line) && line.visit.strong_count() > 0);
        let largest = lines.max_by_key(|line| line.bytes)?;
        Some((largest.visit.upgrade()?, why))
    }
}

/// The file system of the spool, in bytes.
struct Room {
    size: u64,
    free: u64,
    in_memory: bool,
}

impl Room {
    fn of(directory: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(directory)?;
        let in_memory =
            rustix::fs::statfs(directory).is_ok_and(|stat| i128::from(stat.f_type) == TMPFS_MAGIC);
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Self { size: bytes(stat.f_blocks), free: bytes(stat.f_bavail), in_memory })
    }

    /// What may be filled: never the last tenth, of a large disk never the last [`KEPT_FREE`].
    fn spare(&self) -> u64 {
        self.free.saturating_sub((self.size / 10).min(KEPT_FREE))
    }
}

/// Whom the bytes of a visit are counted for.
#[derive(Clone, Debug)]
pub(crate) struct ChargedTo {
    pub(crate) spool: Arc<Spool>,
    /// Of the session that the bytes come from.
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) publisher: Account,
    pub(crate) visitor: Visitor,
}

/// What one session received and its disk has not taken yet. A full one makes the session wait for the disk, never
/// for a visitor.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    bytes: AtomicUsize,
    changed: Notify,
}

impl Backlog {
    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before > BACKLOG && before - bytes <= BACKLOG {
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > BACKLOG
    }

    /// Waits until the disk has caught up.
    pub(crate) async fn has_room(&self) {
        while self.is_full() {
            let changed = self.changed.notified();
            if self.is_full() {
                changed.await;
            }
        }
    }
}

/// Bytes of a file of the spool: it is given back when it was read.
pub(super) const SEGMENT: u64 = 16 << 20;
/// Of the disk, for others: a tenth of a large one would be more than they need.
const KEPT_FREE: u64 = 4 << 30;
const OPERATIONS: usize = 4;
/// Bytes of one session on their way to the disk.
const BACKLOG: usize = 8 << 20;
/// Bytes that all visits hold in memory, from where each may hold less.
const RELAXED: usize = 24 << 20;
const PRESSED: usize = 64 << 20;
/// From where nobody gets more for what is on its way: others still have their share.
const STRETCHED: usize = 48 << 20;
const FULL: usize = 128 << 20;

/// linux/magic.h
const TMPFS_MAGIC: i128 = 0x0102_1994;
