//! Counts, rates and durations of an endpoint's connections and HTTP requests, for console, inspector and API.
//! What is kept is bounded: the durations are those of the last [`SAMPLES`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many durations the percentiles are taken of.
const SAMPLES: usize = 1024;

/// How often the rates move.
const TICK: Duration = Duration::from_secs(5);

/// The figures of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) connections: Meter,
    pub(crate) http: Meter,
}

/// Counts what begins, and measures how long it lasts.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<State>);

/// Something that has begun. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    metrics: Arc<Metrics>,
    since: Instant,
}

impl Metrics {
    /// A connection begins.
    pub(crate) fn connection(self: &Arc<Self>) -> Running {
        self.connections.begin();
        Running { metrics: Arc::clone(self), since: Instant::now() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.metrics.connections.end(self.since.elapsed());
    }
}

impl Meter {
    /// Something begins that [`Meter::end`] ends.
    pub(crate) fn begin(&self) {
        let mut state = self.state();
        state.mark(Instant::now());
        state.open += 1;
    }

    /// What had begun ended after this time.
    pub(crate) fn end(&self, duration: Duration) {
        let mut state = self.state();
        state.open = state.open.saturating_sub(1);
        state.keep(duration);
    }

    /// Something began at that time, and how long it lasts is not looked at.
    pub(crate) fn count(&self, began: Instant) {
        self.state().mark(began);
    }

    /// What began unnoticed and ended at that time took so long.
    pub(crate) fn record(&self, ended: Instant, duration: Duration) {
        let mut state = self.state();
        state.mark(ended);
        state.keep(duration);
    }

    pub(crate) fn figures(&self) -> Figures {
        let mut state = self.state();
        state.tick(Instant::now());
        let mut sorted = state.recent.clone();
        sorted.sort_unstable();
        let [rate1, rate5, rate15] = state.rates.map(|rate| rate.unwrap_or(0.0));
        let (count, gauge) = (state.count, state.open);
        drop(state);
        let at = |share| percentile(&sorted, share);
        Figures {
            count,
            gauge,
            rate1,
            rate5,
            rate15,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a [`Meter`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// How many have begun.
    pub(crate) count: u64,
    /// How many have not ended.
    pub(crate) gauge: u64,
    /// Each second, weighted over the last minute.
    pub(crate) rate1: f64,
    /// Each second, weighted over five minutes.
    pub(crate) rate5: f64,
    /// Each second, weighted over a quarter of an hour.
    pub(crate) rate15: f64,
    pub(crate) p50: Duration,
    pub(crate) p90: Duration,
    pub(crate) p95: Duration,
    pub(crate) p99: Duration,
}

#[derive(Debug, Default)]
struct State {
    count: u64,
    open: u64,
    /// None until the first tick with anything.
    rates: [Option<f64>; 3],
    /// Since the last tick.
    fresh: u32,
    ticked: Option<Instant>,
    recent: Vec<Duration>,
    next: usize,
}

impl State {
    fn mark(&mut self, now: Instant) {
        self.tick(now);
        self.count += 1;
        self.fresh = self.fresh.saturating_add(1);
    }

    /// Moves the rates by the ticks that have passed: an exponentially weighted average, as of the load of a machine.
    fn tick(&mut self, now: Instant) {
        let last = *self.ticked.get_or_insert(now);
        let ticks = now.saturating_duration_since(last).as_secs() / TICK.as_secs();
        if ticks == 0 {
            return;
        }
        let rate = f64::from(self.fresh) / TICK.as_secs_f64();
        for (kept, minutes) in self.rates.iter_mut().zip([1.0, 5.0, 15.0]) {
            let stays = (-TICK.as_secs_f64() / 60.0 / minutes).exp();
            let first = kept.map_or(rate, |kept| rate + stays * (kept - rate));
            let silent = i32::try_from(ticks - 1).unwrap_or(i32::MAX);
            *kept = Some(first * stays.powi(silent));
        }
        self.fresh = 0;
        self.ticked = Some(last + Duration::from_secs(ticks.saturating_mul(TICK.as_secs())));
    }

    fn keep(&mut self, duration: Duration) {
        match self.recent.get_mut(self.next) {
            Some(oldest) => *oldest = duration,
            None => self.recent.push(duration),
        }
        self.next = (self.next + 1) % SAMPLES;
    }
}

/// The nearest rank.
fn percentile(sorted: &[Duration], share: f64) -> Duration {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_last_samples_only() {
        let meter = Meter::default();
        for _ in 0..SAMPLES {
            meter.record(Instant::now(), Duration::from_secs(9));
        }
        for milliseconds in 1..=100 {
            meter.record(Instant::now(), Duration::from_millis(milliseconds));
        }
        assert_eq!(meter.figures().p50, Duration::from_secs(9));
        for _ in 0..SAMPLES / 100 {
            for milliseconds in 1..=100 {
                meter.record(Instant::now(), Duration::from_millis(milliseconds));
            }
        }
        let figures = meter.figures();
        assert_eq!(meter.state().recent.len(), SAMPLES);
        assert!((49..=52).contains(&figures.p50.as_millis()), "{figures:?}");
        assert!((98..=100).contains(&figures.p99.as_millis()), "{figures:?}");
    }

    #[test]
    fn a_single_duration_is_every_percentile() {
        let meter = Meter::default();
        assert_eq!(meter.figures(), Figures::default());
        meter.record(Instant::now(), Duration::from_millis(7));
        let figures = meter.figures();
        assert_eq!([figures.p50, figures.p90, figures.p95, figures.p99], [Duration::from_millis(7); 4]);
    }

    #[test]
    fn a_rate_rises_with_what_begins_and_falls_in_silence() {
        let start = Instant::now();
        let mut state = State::default();
        state.tick(start);
        for second in 0..60 {
            state.mark(start + Duration::from_secs(second));
            state.mark(start + Duration::from_secs(second));
        }
        state.tick(start + Duration::from_secs(60));
        assert!(state.rates.iter().all(|rate| (rate.unwrap() - 2.0).abs() < 0.01), "{:?}", state.rates);
        state.tick(start + Duration::from_secs(120));
        let [minute, _, quarter] = state.rates.map(Option::unwrap);
        assert!((minute - 2.0 * (-1.0_f64).exp()).abs() < 0.02, "{minute}");
        assert!(quarter > 1.8, "{quarter}");
    }

    #[test]
    fn a_connection_counts_while_it_is_open() {
        let metrics = Arc::new(Metrics::default());
        let first = metrics.connection();
        let _second = metrics.connection();
        drop(first);
        let figures = metrics.connections.figures();
        assert_eq!((figures.count, figures.gauge), (2, 1));
    }
}
