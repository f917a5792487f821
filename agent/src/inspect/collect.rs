//! The thread of the inspector: from notes of the data path to entries.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::Limits;
use super::connection::{Connection, Piece};
use super::entry::{Entry, Id, Kind};
use super::recording::{About, Note, What};
use super::store::Store;

/// Most connections that are looked into at a time.
const CONNECTIONS: usize = 4096;

/// What a connection costs beside its bytes and entries.
const CONNECTION: usize = 512;

/// Bytes that are allocated for small messages at a time.
const SHELF: usize = 64 << 10;

/// What belongs to a direction.
fn of<T>([request, response]: &mut [T; 2], is_request: bool) -> &mut T {
    if is_request { request } else { response }
}

/// Takes connections apart.
#[derive(Debug)]
pub(super) struct Collector {
    desk: Desk,
    connections: HashMap<u64, Known>,
}

#[derive(Debug)]
struct Known {
    about: Arc<About>,
    connection: Connection,
    /// What it takes now, in bytes.
    counted: usize,
    /// How many bytes came in each direction, the request's first.
    passed: [u64; 2],
}

/// Where a connection's entries go.
#[derive(Debug)]
pub(super) struct Desk {
    store: Arc<Store>,
    /// Where small messages are kept. They go about as they came, so that many share one allocation.
    shelf: RefCell<BytesMut>,
    /// When what is looked at passed. Clocks are slow.
    now: Cell<Instant>,
    /// Of each message, in bytes.
    pub(super) message: usize,
}

impl Desk {
    /// A copy of both, one behind the other. What is not whole will grow elsewhere.
    pub(super) fn keep(&self, head: &[u8], body: &[u8], is_whole: bool) -> Bytes {
        let length = head.len() + body.len();
        if length > SHELF / 8 || !is_whole {
            return [head, body].concat().into();
        }
        let mut shelf = self.shelf.borrow_mut();
        if shelf.capacity() < length {
            *shelf = BytesMut::with_capacity(SHELF);
        }
        shelf.extend_from_slice(head);
        shelf.extend_from_slice(body);
        shelf.split().freeze()
    }

    /// An entry that begins at that time of its connection.
    pub(super) fn add(&self, about: &About, at: Duration, what: Kind) -> Id {
        self.store.add(Entry {
            id: Id(0),
            connection: about.connection,
            endpoint: Arc::clone(&about.endpoint),
            visitor: about.visitor,
            start: about.start + at,
            replay_of: about.replay_of,
            incomplete: None,
            duration: None,
            is_cut: false,
            what,
            revision: 0,
        })
    }

    pub(super) fn change(&self, id: Id, change: impl FnOnce(&mut Entry)) {
        self.store.change(id, change);
    }

    /// It lasted so long.
    pub(super) fn finish(&self, about: &About, id: Id, duration: Duration, is_cut: bool) {
        let mut is_http = false;
        self.store.change(id, |entry| {
            is_http = entry.http().is_some() && entry.duration.is_none();
            entry.duration.get_or_insert(duration);
            entry.is_cut |= is_cut;
        });
        if is_http && about.replay_of.is_none() {
            about.metrics.http.record(self.now.get(), duration);
            self.store.tell_finished(id);
        }
    }
}

impl Collector {
    pub(super) fn new(store: Arc<Store>, limits: Limits) -> Self {
        // A message that is the whole memory would push out everything else.
        let message = limits.message.min(limits.memory / 4);
        let desk = Desk { store, shelf: RefCell::default(), now: Cell::new(Instant::now()), message };
        Self { desk, connections: HashMap::new() }
    }

    /// What passed, and when.
    pub(super) fn note(&mut self, Note { connection: number, at, what }: Note, bytes: &[u8]) {
        self.desk.now.set(at);
        match what {
            What::Open(about) => {
                if self.connections.len() < CONNECTIONS && self.desk.store.has_room() {
                    self.desk.store.reserve(0, CONNECTION);
                    let (connection, counted, passed) = (Connection::default(), CONNECTION, [0; 2]);
                    let known = Known { about, connection, counted, passed };
                    self.connections.insert(known.about.connection, known);
                } else {
                    about.needless.iter().for_each(|needless| needless.store(u64::MAX, Ordering::Relaxed));
                }
            }
            What::Request(_) => self.feed(number, bytes, true, at),
            What::Response(_) => self.feed(number, bytes, false, at),
            What::RequestEnd | What::ResponseEnd => {
                if let Some(Known { about, connection, .. }) = self.connections.get_mut(&number) {
                    connection.end(&self.desk, about, matches!(what, What::RequestEnd), about.passed(at));
                }
            }
            What::Skipped { bytes, is_request } => {
                if let Some(Known { about, connection, passed, .. }) = self.connections.get_mut(&number) {
                    *of(passed, is_request) += bytes;
                    connection.skip(&self.desk, about, bytes, is_request);
                }
            }
            What::Closed => self.close(number, at),
            #[cfg(test)]
            What::Held(reached, until) => {
                let _ = reached.send(());
                let _ = until.recv();
            }
        }
    }

    fn feed(&mut self, number: u64, bytes: &[u8], is_request: bool, at: Instant) {
        let Some(known) = self.connections.get_mut(&number) else { return };
        let Known { about, connection, counted, passed } = known;
        let at = about.passed(at);
        if !self.desk.store.has_room() {
            connection.give_up(&self.desk, about, "too many connections to look into all");
        }
        connection.feed(&self.desk, about, Piece { bytes, is_request, at });
        let mut now = CONNECTION + connection.memory();
        self.desk.store.reserve(*counted, now);
        *counted = now;
        if !self.desk.store.has_room() {
            connection.give_up(&self.desk, about, "too much at once to look into all");
            now = CONNECTION + connection.memory();
            self.desk.store.reserve(*counted, now);
            *counted = now;
        }
        let passed = of(passed, is_request);
        *passed += bytes.len() as u64;
        let needless = passed.saturating_add(connection.needless(&self.desk, is_request));
        about.needless(is_request).store(needless, Ordering::Relaxed);
    }

    fn close(&mut self, number: u64, at: Instant) {
        let Some(known) = self.connections.remove(&number) else { return };
        let Known { about, mut connection, counted, .. } = known;
        let at = about.passed(at);
        self.desk.store.reserve(counted, 0);
        if about.lost.load(Ordering::Relaxed) {
            connection.give_up(&self.desk, &about, LOST);
        }
        connection.close(&self.desk, &about, at);
    }

    /// Lets those see who watch what has come.
    pub(super) fn announce(&self) {
        self.desk.store.announce();
    }

    /// Something found no room in the queue: looks for it.
    pub(super) fn sweep(&mut self) {
        let mut closed = Vec::new();
        for (number, Known { about, connection, .. }) in &mut self.connections {
            if about.closed.load(Ordering::Relaxed) {
                closed.push(*number);
            } else if about.lost.load(Ordering::Relaxed) {
                connection.give_up(&self.desk, about, LOST);
            }
        }
        let now = Instant::now();
        self.desk.now.set(now);
        for number in closed {
            self.close(number, now);
        }
    }
}

const LOST: &str = "bytes passed faster than the inspector could follow";
