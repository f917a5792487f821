//! Which requests are recorded when more come than anybody could look at.
//!
//! To record a request costs a good part of what it costs to pass it on. Beyond [`MOST`] in a [`WINDOW`] a sample
//! is taken: whole requests are left out, and only counted. Where a request begins is told by its first line behind an answer; on a
//! connection where that does not hold, nothing is left out.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Of all endpoints together. The first of each connection is always recorded.
pub(super) const MOST: i64 = 1000;
const WINDOW: Duration = Duration::from_secs(1);

/// What may be recorded now.
#[derive(Debug)]
pub(super) struct Budget {
    since: Instant,
    /// The number of the window that `left` is of.
    window: AtomicU64,
    left: AtomicI64,
    left_out: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        let left = AtomicI64::new(MOST);
        Self { since: Instant::now(), window: AtomicU64::new(0), left, left_out: AtomicU64::new(0) }
    }
}

impl Budget {
    /// Whether there is room for one more that begins now.
    fn takes(&self, now: Instant) -> bool {
        let window = now.saturating_duration_since(self.since).as_millis() / WINDOW.as_millis();
        let window = u64::try_from(window).unwrap_or(u64::MAX);
        if self.window.swap(window, Ordering::Relaxed) != window {
            self.left.store(MOST, Ordering::Relaxed);
        }
        let takes = self.left.fetch_sub(1, Ordering::Relaxed) > 0;
        self.left_out.fetch_add(u64::from(!takes), Ordering::Relaxed);
        takes
    }

    /// How many requests were not recorded.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

/// One connection's place between two requests. Both its directions are one task's.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    /// Something of the answer has come.
    answered: AtomicBool,
    /// The request that is under way is left out.
    leaves_out: AtomicBool,
    /// Requests cannot be told apart here.
    entire: AtomicBool,
}

impl Sampling {
    pub(super) fn is_entire(&self) -> bool {
        self.entire.load(Ordering::Relaxed)
    }

    /// Whether these bytes of the visitor are left out; `left_out` hears when one begins.
    pub(super) fn request(&self, bytes: &[u8], budget: &Budget, left_out: impl FnOnce(Instant)) -> bool {
        let leaves_out = self.leaves_out.load(Ordering::Relaxed);
        if !self.answered.load(Ordering::Relaxed) {
            return leaves_out;
        }
        if !begins_request(bytes) {
            if !leaves_out {
                self.entire.store(true, Ordering::Relaxed);
            }
            return leaves_out;
        }
        self.answered.store(false, Ordering::Relaxed);
        let now = Instant::now();
        let leaves_out = !may_upgrade(bytes) && !budget.takes(now);
        self.leaves_out.store(leaves_out, Ordering::Relaxed);
        if leaves_out {
            left_out(now);
        }
        leaves_out
    }

    /// Whether these bytes of the upstream are left out.
    pub(super) fn response(&self, bytes: &[u8]) -> bool {
        let leaves_out = self.leaves_out.load(Ordering::Relaxed);
        if !self.answered.swap(true, Ordering::Relaxed) && !leaves_out && is_interim(bytes) {
            self.entire.store(true, Ordering::Relaxed);
        }
        leaves_out
    }
}

/// Whether the first line is that of a request. A longer one than a piece is none, which costs no more than the sample.
fn begins_request(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    bytes.first().is_some_and(u8::is_ascii_uppercase) && line.ends_with(b" HTTP/1.1\r")
}

fn may_upgrade(head: &[u8]) -> bool {
    const NAME: &[u8] = b"upgrade:";
    head.starts_with(b"CONNECT ")
        || head
            .split(|byte| *byte == b'\n')
            .any(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))
}

/// 1xx, behind which another answer comes, or another protocol.
fn is_interim(bytes: &[u8]) -> bool {
    bytes.get(9) == Some(&b'1')
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::inspect::entry::Kind;
    use crate::inspect::testing::{inspector, visitor};

    const ASK: &[u8] = b"POST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const WHOLE: u64 = (ASK.len() + 4 + ANSWER.len()) as u64;
    const MANY: u64 = 5 * MOST.cast_unsigned();

    fn pass(recording: &crate::inspect::Recording, pieces: [&'static [u8]; 2], answers: &[&'static [u8]]) {
        pieces.iter().for_each(|piece| recording.request(&Bytes::from_static(piece)));
        answers.iter().for_each(|piece| recording.response(&Bytes::from_static(piece)));
    }

    #[test]
    fn of_very_many_requests_some_are_recorded_whole_and_all_are_counted() {
        let inspector = inspector();
        let recording = inspector.tap("web").sampled().open(visitor());
        for number in 0..MANY {
            pass(&recording, [ASK, b"body"], &[&ANSWER[..20], &ANSWER[20..]]);
            // Only what passes faster than its thread follows would be lost instead.
            if number.is_multiple_of(100) {
                inspector.settle();
            }
        }
        drop(recording);
        inspector.settle();
        let all = inspector.store().all();
        let recorded = all.len() as u64;
        assert_eq!(recorded + inspector.left_out(), MANY);
        assert!((MOST.cast_unsigned()..MANY).contains(&recorded), "{recorded}");
        assert_eq!(inspector.metrics("web").http.figures().count, MANY);
        for entry in all {
            let http = entry.http().unwrap();
            assert_eq!((http.status(), http.size(), entry.incomplete), (Some(200), WHOLE, None));
        }
    }

    #[test]
    fn what_is_no_series_of_requests_is_recorded_as_a_whole() {
        let upgrade: &[u8] = b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUPGRADE: x\r\n\r\n";
        let inspector = inspector();
        while inspector.inner.budget.takes(Instant::now()) {}
        let taken = inspector.left_out();
        let changed = inspector.tap("web").sampled().open(visitor());
        pass(&changed, [ASK, b"body"], &[ANSWER]);
        pass(&changed, [upgrade, b""], &[b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"]);
        (0..10).for_each(|_| pass(&changed, [ASK, b"more"], &[ANSWER]));
        let early = inspector.tap("web").sampled().open(visitor());
        pass(&early, [ASK, b""], &[b"HTTP/1.1 100 Continue\r\n\r\n"]);
        pass(&early, [b"body", b""], &[ANSWER]);
        pass(&early, [ASK, b"body"], &[ANSWER]);
        let other = inspector.tap("web").sampled().open(visitor());
        (0..10).for_each(|_| pass(&other, [b"\x16\x03", b""], &[b"\x16\x03"]));
        drop((changed, early, other));
        inspector.settle();
        assert_eq!(inspector.left_out(), taken);
        let all = inspector.store().all();
        assert!(all.iter().all(|entry| entry.incomplete.is_none()), "{all:?}");
        let statuses: Vec<_> = all.iter().rev().filter_map(|entry| entry.http()?.status()).collect();
        assert_eq!(statuses, [200, 101, 200, 200]);
        let other = all.iter().find_map(|entry| match &entry.what {
            Kind::Connection(flow) => Some(flow.request.total),
            Kind::Http(_) => None,
        });
        assert_eq!(other, Some(20));
    }
}
