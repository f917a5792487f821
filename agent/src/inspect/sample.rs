//! Which requests are recorded when more come than anybody could look at.
//!
//! To record a request costs a good part of what it costs to pass it on. Beyond [`MOST`] in a [`WINDOW`] a sample is taken: whole
//! requests are left out, and only counted. A request begins behind the body of the one before and its answer; on a connection
//! where that cannot be told, nothing is left out any more.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::head::{self, Framing};

/// Of all endpoints together. The first of each connection is recorded in any case.
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
        if self.window.fetch_max(window, Ordering::Relaxed) < window {
            self.left.store(MOST, Ordering::Relaxed);
        }
        self.left.fetch_sub(1, Ordering::Relaxed) > 0
    }

    /// How many requests were not recorded.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

/// One connection's place in its requests. Both its directions are one task's.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    has_begun: AtomicBool,
    /// Of the body of the request that is under way, in bytes.
    body_left: AtomicU64,
    /// Something of its answer has come.
    answered: AtomicBool,
    leaves_out: AtomicBool,
    /// Requests cannot be told apart here.
    entire: AtomicBool,
}

impl Sampling {
    pub(super) fn is_entire(&self) -> bool {
        self.entire.load(Ordering::Relaxed)
    }

    /// How many of these bytes of the visitor, from the first, are left out; `left_out` hears when that begins with a request.
    pub(super) fn request(&self, bytes: &[u8], budget: &Budget, left_out: impl FnOnce(Instant)) -> usize {
        let leaves_out = self.leaves_out.load(Ordering::Relaxed);
        let of_all = |count: usize| if leaves_out { count } else { 0 };
        let body_left = self.body_left.load(Ordering::Relaxed);
        if body_left > 0 {
            let rest = body_left.checked_sub(bytes.len() as u64);
            self.body_left.store(rest.unwrap_or(0), Ordering::Relaxed);
            if rest.is_none() {
                // The next request comes with the end of this one.
                self.entire.store(true, Ordering::Relaxed);
            }
            return of_all(usize::try_from(body_left).unwrap_or(usize::MAX).min(bytes.len()));
        }
        let has_begun = self.has_begun.swap(true, Ordering::Relaxed);
        if has_begun && !self.answered.swap(false, Ordering::Relaxed) {
            // Who left out this one does not know where the next begins.
            self.entire.store(!leaves_out, Ordering::Relaxed);
            return of_all(bytes.len());
        }
        let Some(body) = body_length(bytes) else {
            self.entire.store(true, Ordering::Relaxed);
            return 0;
        };
        self.body_left.store(body, Ordering::Relaxed);
        let now = Instant::now();
        let leaves_out = !budget.takes(now) && has_begun;
        self.leaves_out.store(leaves_out, Ordering::Relaxed);
        if !leaves_out {
            return 0;
        }
        budget.left_out.fetch_add(1, Ordering::Relaxed);
        left_out(now);
        bytes.len()
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

/// How many bytes of the body of a request that begins with these are not among them. None if that cannot be said, or if
/// another protocol may follow.
fn body_length(bytes: &[u8]) -> Option<u64> {
    let (head, _, behind) = head::request(bytes).ok()??;
    match head.framing {
        Framing::Length(length) if !head.may_upgrade => length.checked_sub(behind.len() as u64),
        _ => None,
    }
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
        // A window that begins by and by: the clock comes to none after it.
        let window = |number: u64| {
            assert!(inspector.inner.budget.takes(Instant::now() + Duration::from_secs(3600 * (1 + number))));
        };
        for number in 0..MANY {
            if number.is_multiple_of(MANY / 2) {
                window(number);
            }
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
        assert_eq!(recorded, 2 * (MOST.cast_unsigned() - 1));
        assert_eq!(inspector.metrics("web").http.figures().count, MANY);
        for entry in all {
            let http = entry.http().unwrap();
            assert_eq!((http.status(), http.size(), entry.incomplete), (Some(200), WHOLE, None));
        }
    }

    #[test]
    fn a_body_that_looks_like_a_request_is_a_body_also_behind_an_early_answer() {
        let (budget, sampling) = (Budget::default(), Sampling::default());
        while budget.takes(Instant::now() + Duration::from_secs(3600)) {}
        let asked = |bytes: &[u8]| sampling.request(bytes, &budget, |_| {});
        let ask: &[u8] = b"POST /a HTTP/1.1\r\nContent-Length: 40\r\n\r\n";
        let body: &[u8] = b"GET /x HTTP/1.1\r\n\r\n.";
        assert_eq!(asked(ask), 0, "the first is recorded");
        assert!(!sampling.response(ANSWER));
        assert_eq!((asked(body), asked(body)), (0, 0));
        assert_eq!(asked(ask), ask.len());
        assert!(sampling.response(ANSWER));
        assert_eq!(asked(body), body.len());
        let both = [body, ask].concat();
        assert_eq!(asked(&both), body.len(), "the next one came with its end");
        assert!(sampling.is_entire());
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
