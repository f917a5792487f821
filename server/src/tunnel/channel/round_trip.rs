//! How far away a client is.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The shortest of what was measured lately: what takes longer was kept waiting, here or at the client.
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    /// In microseconds; 0 while it is not known.
    shortest: AtomicU32,
    periods: Mutex<Option<Periods>>,
}

/// Two, so that one that ends does not leave nothing.
#[derive(Clone, Copy, Debug)]
struct Periods {
    begun: Instant,
    before: u32,
    now: u32,
}

const PERIOD: Duration = Duration::from_secs(30);

impl RoundTrip {
    pub(super) fn microseconds(&self) -> u32 {
        self.shortest.load(Ordering::Relaxed)
    }

    /// Bytes that a client may have in flight on one channel, so that one download gets some 300 MiB/s over the link
    /// that its session has: russh refills the window when half of it is used.
    ///
    /// Not simply the largest: OpenSSH reads ahead of its link as much as the window allows, into a buffer that it
    /// enlarges by copying, which takes it seconds for one of 32 MiB.
    pub(super) fn window(&self) -> u32 {
        let wanted = u64::from(self.microseconds()).saturating_mul(WINDOW_PER_MILLISECOND) / 1000;
        u32::try_from(wanted).unwrap_or(MAX_WINDOW).clamp(MIN_WINDOW, MAX_WINDOW)
    }

    pub(super) fn note(&self, took: Duration, now: Instant) {
        let sample = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let mut periods = self.periods.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match *periods {
            None => Periods { begun: now, before: sample, now: sample },
            Some(last) if now.saturating_duration_since(last.begun) >= PERIOD => {
                Periods { begun: now, before: last.now, now: sample }
            }
            Some(last) => Periods { now: last.now.min(sample), ..last },
        };
        self.shortest.store(next.before.min(next.now), Ordering::Relaxed);
        *periods = Some(next);
    }
}

/// For short ways, and until the way is known.
pub(crate) const MIN_WINDOW: u32 = 2 << 20;
pub(super) const MAX_WINDOW: u32 = 32 << 20;
/// Twice 320 MiB/s.
const WINDOW_PER_MILLISECOND: u64 = (640 << 20) / 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_client_does_not_seem_farther_away_and_one_that_moves_does_after_a_while() {
        let (trip, start) = (RoundTrip::default(), Instant::now());
        let note =
            |millis, seconds| trip.note(Duration::from_millis(millis), start + Duration::from_secs(seconds));
        assert_eq!(trip.microseconds(), 0);
        note(2, 0);
        (1..29).for_each(|second| note(40, second));
        assert_eq!(trip.microseconds(), 2000);
        note(40, 31);
        assert_eq!(trip.microseconds(), 2000, "the last period still counts");
        note(40, 62);
        assert_eq!(trip.microseconds(), 40_000);
        note(3, 63);
        assert_eq!(trip.microseconds(), 3000);
    }
}
