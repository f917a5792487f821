//! Bytes a second that slow what goes faster, and cut nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A token bucket that may be overdrawn: who takes does not wait first, but after it, until it is paid for.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    /// Bytes a second; 0 for as many as there are.
    rate: AtomicU64,
    /// Nanoseconds from `began` to when all that was taken is paid for.
    paid: AtomicU64,
}

/// So much of a second may be taken at a stretch after a pause.
const BURST: Duration = Duration::from_secs(1);

impl Pace {
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self { began: Instant::now(), rate: AtomicU64::new(rate.unwrap_or(0)), paid: AtomicU64::new(0) }
    }

    pub(super) fn set(&self, rate: Option<u64>) {
        self.rate.store(rate.unwrap_or(0), Ordering::Relaxed);
    }

    /// Takes so many bytes.
    pub(super) fn take(&self, bytes: usize) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let cost = (bytes as u64).saturating_mul(NANOSECONDS) / rate;
        let from = self.now().saturating_sub(nanoseconds(BURST));
        let spend = |paid: u64| Some(paid.max(from).saturating_add(cost));
        // The closure never declines.
        let _ = self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
    }

    /// How long to wait before anything more is taken.
    pub(super) fn owed(&self) -> Option<Duration> {
        if self.rate.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let owed = self.paid.load(Ordering::Relaxed).checked_sub(self.now())?;
        (owed > 0).then(|| Duration::from_nanos(owed))
    }

    fn now(&self) -> u64 {
        nanoseconds(self.began.elapsed())
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

const NANOSECONDS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_too_fast_is_waited_for() {
        let pace = Pace::new(Some(1000));
        sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..11 {
            while let Some(wait) = pace.owed() {
                sleep(wait).await;
            }
            pace.take(1000);
        }
        // One second's worth at once, the last one not waited for.
        let took = began.elapsed();
        assert!((Duration::from_secs(9)..Duration::from_millis(9200)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nobody_waits() {
        let pace = Pace::new(None);
        pace.take(usize::MAX);
        assert_eq!(pace.owed(), None);
        pace.set(Some(1 << 20));
        pace.take(2 << 20);
        assert!(pace.owed().is_some());
        pace.set(None);
        assert_eq!(pace.owed(), None);
    }
}
