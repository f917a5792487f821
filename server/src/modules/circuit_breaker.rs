//! Circuit breaker: spares a failing upstream its requests (behaviour.md 3.2).
//!
//! Requests of the last seconds are counted in ten buckets, so that one that is too old falls out by itself. While
//! the breaker is open nobody but a probe gets through, one at a time; a probe whose visitor leaves before the answer
//! makes room for the next. One that hangs gets another at its side: whichever
//! succeeds closes the breaker, and what comes of the other counts no more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hithe_cli_parser::{CircuitBreaker, Code, Objection, Share};
use http::header::RETRY_AFTER;
use http::{HeaderValue, Request, StatusCode};
use tokio::time::Instant;

use super::{BuildError, Flow, Module, Passage, Plan, Refusal, Visit};
use crate::body::Body;

pub(super) fn build(config: &CircuitBreaker, plan: &mut Plan) -> Result<(), BuildError> {
    let threshold = config.threshold.ok_or_else(|| {
        Objection::new(Code::BREAKER_SHARE, "say when the breaker opens: --circuit-breaker 0.5")
    })?;
    plan.chain.push(Breaker(Arc::new(Shared {
        threshold,
        volume: u64::from(config.volume.unwrap_or(CircuitBreaker::VOLUME)),
        bucket: config.window.unwrap_or(CircuitBreaker::WINDOW).0 / BUCKETS as u32,
        pause: config.probe.unwrap_or(CircuitBreaker::PROBE).0,
        state: Mutex::new(State {
            phase: Phase::Closed,
            probes: 0,
            settled: 0,
            buckets: [Counts::default(); BUCKETS],
            begun: Instant::now(),
        }),
    })));
    Ok(())
}

const BUCKETS: usize = 10;

struct Breaker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    threshold: Share,
    volume: u64,
    bucket: Duration,
    /// Between opening and the next probe.
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Let through so far.
    probes: u64,
    /// So many of them when the breaker closed last: what comes of those says nothing new.
    settled: u64,
    /// The first is the running one.
    buckets: [Counts; BUCKETS],
    /// When the running bucket began.
    begun: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    /// A probe may go from then on. One that is under way has moved that moment on, in case it hangs.
    Open(Instant),
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    all: u64,
    failed: u64,
}

/// A request that the breaker let pass. Dropping it without an outcome counts neither way.
#[derive(Debug)]
pub(crate) struct Passed {
    breaker: Arc<Shared>,
    /// Its number, where it is a probe.
    probe: Option<u64>,
}

impl Shared {
    /// Lets a request pass, or says how long to wait.
    fn admit(self: &Arc<Self>, now: Instant) -> Result<Passed, Duration> {
        let mut state = self.lock();
        let probe = match state.phase {
            Phase::Closed => None,
            Phase::Open(until) if now < until => return Err(until - now),
            Phase::Open(_) => {
                state.phase = Phase::Open(now + self.pause);
                state.probes += 1;
                Some(state.probes)
            }
        };
        drop(state);
        Ok(Passed { breaker: Arc::clone(self), probe })
    }

    fn note(&self, failed: bool, now: Instant) {
        let mut state = self.lock();
        // What was under way when the breaker opened says nothing new.
        if state.phase != Phase::Closed {
            return;
        }
        state.turn(now, self.bucket);
        let [running, ..] = &mut state.buckets;
        running.all += 1;
        running.failed += u64::from(failed);
        let (all, bad) = state.buckets.iter().fold((0, 0), |(all, bad), it| (all + it.all, bad + it.failed));
        if failed && all >= self.volume && self.threshold.is_reached(bad, all) {
            state.phase = Phase::Open(now + self.pause);
            tracing::info!(requests = all, failed = bad, "a circuit breaker opened");
        }
    }

    fn note_probe(&self, probe: u64, failed: bool, now: Instant) {
        let mut state = self.lock();
        if failed && state.is_last(probe) {
            state.phase = Phase::Open(now + self.pause);
        } else if !failed && probe > state.settled {
            tracing::info!("a circuit breaker closed");
            state.phase = Phase::Closed;
            state.settled = state.probes;
            state.buckets = [Counts::default(); BUCKETS];
            state.begun = now;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the next probe waits for this one.
    fn is_last(&self, probe: u64) -> bool {
        probe > self.settled && probe == self.probes
    }

    /// Lets the time that has passed push old buckets out.
    fn turn(&mut self, now: Instant, bucket: Duration) {
        let passed = now.saturating_duration_since(self.begun).as_nanos() / bucket.as_nanos().max(1);
        let steps = usize::try_from(passed).unwrap_or(BUCKETS);
        if steps == 0 {
            return;
        }
        self.buckets.rotate_right(steps.min(BUCKETS) % BUCKETS);
        self.buckets.iter_mut().take(steps).for_each(|counts| *counts = Counts::default());
        self.begun = if steps < BUCKETS { self.begun + bucket * steps as u32 } else { now };
    }
}

impl Passed {
    fn ended(mut self, failed: bool, now: Instant) {
        match self.probe.take() {
            Some(probe) => self.breaker.note_probe(probe, failed, now),
            None => self.breaker.note(failed, now),
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if let Some(probe) = self.probe {
            let mut state = self.breaker.lock();
            if state.is_last(probe) {
                state.phase = Phase::Open(Instant::now());
            }
        }
    }
}

impl Module for Breaker {
    fn request<'a>(&'a self, _request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        Passage::Now(match self.0.admit(Instant::now()) {
            Ok(passed) => {
                visit.passed.breaker =
                    Some(if passed.probe.is_some() { "allow_while_open" } else { "allow" });
                visit.breaker = Some(passed);
                Flow::Continue
            }
            Err(wait) => refusal(wait).into(),
        })
    }

    fn outcome(&self, status: StatusCode, visit: &mut Visit) {
        if let Some(passed) = visit.breaker.take() {
            passed.ended(status.is_server_error(), Instant::now());
        }
    }
}

fn refusal(wait: Duration) -> Refusal {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: Code::BREAKER_OPEN,
        text: "The service behind the tunnel fails too often, and is left alone for a while",
        hint: "Try again in some seconds.",
        header: Some((RETRY_AFTER, HeaderValue::from(seconds.max(1)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker(threshold: &str, volume: u64) -> Arc<Shared> {
        let buckets = [Counts::default(); BUCKETS];
        let state =
            Mutex::new(State { phase: Phase::Closed, probes: 0, settled: 0, buckets, begun: Instant::now() });
        Arc::new(Shared {
            threshold: threshold.parse().unwrap(),
            volume,
            bucket: SECOND,
            pause: 10 * SECOND,
            state,
        })
    }

    fn pass(breaker: &Arc<Shared>, failed: bool, now: Instant) -> bool {
        breaker.admit(now).map(|passed| passed.ended(failed, now)).is_ok()
    }

    #[test]
    fn it_opens_when_enough_requests_were_there_and_their_share_has_failed() {
        let (breaker, now) = (breaker("0.5", 20), Instant::now());
        for number in 0..19 {
            assert!(pass(&breaker, number % 2 == 0, now));
        }
        assert!(pass(&breaker, true, now));
        assert_eq!(breaker.admit(now + 4 * SECOND).map(drop), Err(6 * SECOND));
    }

    #[test]
    fn good_answers_never_open_it() {
        let (breaker, now) = (breaker("0", 1), Instant::now());
        assert!((0..100).all(|_| pass(&breaker, false, now)));
        assert!(pass(&breaker, true, now));
        assert!(!pass(&breaker, false, now));
    }

    #[test]
    fn what_lies_beyond_the_window_does_not_count() {
        let (breaker, start) = (breaker("0.5", 4), Instant::now());
        for _ in 0..3 {
            assert!(pass(&breaker, true, start));
        }
        // The same failures, spread over more than the window.
        for step in 0..8 {
            assert!(pass(&breaker, true, start + (11 + 5 * step) * SECOND));
        }
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let (breaker, start) = (breaker("1", 1), Instant::now());
        assert!(pass(&breaker, true, start));
        let later = start + 10 * SECOND;
        let probe = breaker.admit(later).unwrap();
        assert!(breaker.admit(later).is_err(), "a second one has to wait for the first");
        probe.ended(true, later);
        assert!(breaker.admit(later + 9 * SECOND).is_err());
        let probe = breaker.admit(later + 10 * SECOND).unwrap();
        probe.ended(false, later + 11 * SECOND);
        assert!(pass(&breaker, false, later + 11 * SECOND) && pass(&breaker, false, later + 11 * SECOND));
    }

    #[test]
    fn a_probe_whose_visitor_leaves_makes_room_for_the_next_at_once() {
        let breaker = breaker("1", 1);
        let long_ago = Instant::now() - 11 * SECOND;
        assert!(pass(&breaker, true, long_ago));
        drop(breaker.admit(Instant::now()).unwrap());
        assert!(breaker.admit(Instant::now()).is_ok());
    }

    #[test]
    fn a_probe_that_hung_opens_it_no_more_when_another_has_closed_it() {
        let breaker = breaker("1", 1);
        let start = Instant::now() - 60 * SECOND;
        assert!(pass(&breaker, true, start));
        let [slow, slower, good] = [10, 20, 30].map(|later| breaker.admit(start + later * SECOND).unwrap());
        slow.ended(true, start + 35 * SECOND);
        assert!(breaker.admit(start + 40 * SECOND).is_ok(), "it does not keep the next one waiting either");
        good.ended(false, start + 41 * SECOND);
        slower.ended(true, start + 42 * SECOND);
        assert!(pass(&breaker, false, start + 43 * SECOND) && pass(&breaker, false, start + 43 * SECOND));
    }

    #[test]
    fn an_upstream_that_takes_longer_than_the_pause_still_closes_it() {
        let breaker = breaker("1", 1);
        let start = Instant::now() - 60 * SECOND;
        assert!(pass(&breaker, true, start));
        let [first, _second] = [10, 20].map(|later| breaker.admit(start + later * SECOND).unwrap());
        first.ended(false, start + 25 * SECOND);
        assert!(pass(&breaker, false, start + 25 * SECOND) && pass(&breaker, false, start + 25 * SECOND));
    }

    #[test]
    fn a_visitor_of_a_probe_that_was_given_up_may_leave_without_harm() {
        let breaker = breaker("1", 1);
        let start = Instant::now() - 40 * SECOND;
        assert!(pass(&breaker, true, start));
        let left = breaker.admit(start + 10 * SECOND).unwrap();
        pass(&breaker, false, start + 20 * SECOND);
        drop(left);
        let now = Instant::now();
        assert!(
            (0..3).all(|_| breaker.admit(now).is_ok_and(|passed| passed.probe.is_none())),
            "it had closed"
        );
    }

    #[test]
    fn what_was_under_way_when_it_opened_does_not_keep_it_open_for_longer() {
        let (breaker, now) = (breaker("1", 1), Instant::now());
        let slow = breaker.admit(now).unwrap();
        assert!(pass(&breaker, true, now));
        slow.ended(true, now + 9 * SECOND);
        assert!(breaker.admit(now + 10 * SECOND).is_ok());
    }
}
