//! Rate limit: bounds how many requests come in a while.
//!
//! A sliding window of two counts: those of the running period, and those of the one before, weighted by how much of
//! it the last so many seconds still cover. It needs the same memory for any count, and never admits a burst of
//! twice the limit at the border of two periods.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hithe_cli_parser::{Code, Objection, Rate, RateKey, RateLimit};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use lru::LruCache;
use tokio::time::Instant;

use super::{BuildError, Flow, Module, Passage, Plan, Refusal, Visit};
use crate::body::Body;

pub(super) fn build(config: &RateLimit, plan: &mut Plan) -> Result<(), BuildError> {
    plan.chain.push(Limits::new(config)?);
    Ok(())
}

/// Keys of one limit whose requests are counted. The one that has not been seen for longest is forgotten first.
const MAX_KEYS: usize = 16 * 1024;

struct Limits {
    limits: Vec<Limit>,
    /// One table for each limit.
    windows: Mutex<Vec<LruCache<u64, Window>>>,
    /// Keyed anew for each endpoint, so that nobody can choose values that share a count.
    hasher: RandomState,
}

impl Limit {
    fn new(rate: &Rate) -> Result<Self, BuildError> {
        let key = match &rate.key {
            RateKey::Address => Key::Address,
            RateKey::Endpoint => Key::Endpoint,
            RateKey::Header(name) => Key::Header(
                name.parse().map_err(|_| Objection::new(Code::BAD_FLAG, "--rate-limit names no header"))?,
            ),
        };
        Ok(Self { count: f64::from(rate.count), time: rate.time.0, key })
    }
}

#[derive(Debug)]
struct Limit {
    count: f64,
    time: Duration,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Address,
    Endpoint,
    Header(HeaderName),
}

/// The requests of one key.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// When the running period began.
    begun: Instant,
    before: f64,
    now: f64,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { begun: now, before: 0.0, now: 0.0 }
    }

    /// Begins the period that `now` lies in.
    fn turn(&mut self, now: Instant, time: Duration) {
        let passed = now.saturating_duration_since(self.begun);
        if passed >= 2 * time {
            *self = Self::new(now);
        } else if passed >= time {
            *self = Self { begun: self.begun + time, before: self.now, now: 0.0 };
        }
    }

    /// How long to wait until one more request fits, if it does not now.
    fn wait(&self, now: Instant, limit: &Limit) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.begun).as_secs_f64();
        let time = limit.time.as_secs_f64();
        let used = self.before * (1.0 - passed / time) + self.now;
        if used + 1.0 <= limit.count {
            return None;
        }
        let free = limit.count - 1.0;
        let seconds = if self.now <= free {
            // Enough of the last period has to fall out of sight.
            time * (1.0 - (free - self.now) / self.before) - passed
        } else {
            // The running one has to become the last, and then to fall out of sight by a part.
            time - passed + time * (1.0 - free / self.now)
        };
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(limit.time).max(Duration::from_millis(1)))
    }
}

impl Limits {
    fn new(config: &RateLimit) -> Result<Self, BuildError> {
        let limits = config.limits.iter().map(Limit::new).collect::<Result<Vec<_>, _>>()?;
        // Not bounded by the table itself, which would then take all its memory at once.
        let windows = limits.iter().map(|_| LruCache::unbounded()).collect();
        Ok(Self { limits, windows: Mutex::new(windows), hasher: RandomState::new() })
    }

    /// Counts a request for all limits, or says how long to wait for the first one that refuses it.
    fn admit(&self, address: IpAddr, headers: &HeaderMap, now: Instant) -> Result<(), Duration> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        for (limit, windows) in self.limits.iter().zip(windows.iter_mut()) {
            let window = windows.get_or_insert_mut(self.key(limit, address, headers), || Window::new(now));
            window.turn(now, limit.time);
            let wait = window.wait(now, limit);
            if windows.len() > MAX_KEYS {
                windows.pop_lru();
            }
            if let Some(wait) = wait {
                return Err(wait);
            }
        }
        for (limit, windows) in self.limits.iter().zip(windows.iter_mut()) {
            if let Some(window) = windows.peek_mut(&self.key(limit, address, headers)) {
                window.now += 1.0;
            }
        }
        Ok(())
    }

    fn key(&self, limit: &Limit, address: IpAddr, headers: &HeaderMap) -> u64 {
        match &limit.key {
            Key::Endpoint => 0,
            Key::Header(name) => self.hasher.hash_one(headers.get(name).map(HeaderValue::as_bytes)),
            Key::Address => match address {
                IpAddr::V4(four) => self.hasher.hash_one(four),
                // What one visitor has to itself.
                IpAddr::V6(six) => self.hasher.hash_one(six.to_bits() >> 64),
            },
        }
    }
}

impl Module for Limits {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        Passage::Now(match self.admit(visit.visitor.ip(), request.headers(), Instant::now()) {
            Ok(()) => Flow::Continue,
            Err(wait) => refusal(wait).into(),
        })
    }
}

fn refusal(wait: Duration) -> Refusal {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Refusal {
        status: StatusCode::TOO_MANY_REQUESTS,
        code: Code::RATE_LIMITED,
        text: "Too many requests",
        hint: "Wait for as many seconds as the header Retry-After says.",
        header: Some((RETRY_AFTER, HeaderValue::from(seconds.max(1)))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(said: &[&str]) -> Limits {
        let limits = said.iter().map(|it| it.parse().unwrap()).collect();
        Limits::new(&RateLimit { limits }).unwrap()
    }

    fn passes(limits: &Limits, address: &str, now: Instant) -> bool {
        limits.admit(address.parse().unwrap(), &HeaderMap::new(), now).is_ok()
    }

    #[test]
    fn the_count_is_what_passes_and_then_it_has_to_be_waited() {
        let (limits, now) = (limits(&["3/10s"]), Instant::now());
        assert!((0..3).all(|_| passes(&limits, "192.0.2.1", now)));
        assert!(!passes(&limits, "192.0.2.1", now + 9 * SECOND));
        assert!(passes(&limits, "192.0.2.2", now), "another visitor has a count of its own");
        // A third of the ten seconds later a third of the requests is out of sight.
        assert!(!passes(&limits, "192.0.2.1", now + 13 * SECOND));
        assert!(passes(&limits, "192.0.2.1", now + 14 * SECOND));
    }

    #[test]
    fn ipv6_visitors_count_by_their_first_64_bits() {
        let (limits, now) = (limits(&["1/10s"]), Instant::now());
        assert!(passes(&limits, "2001:db8::1", now));
        assert!(!passes(&limits, "2001:db8::2", now));
        assert!(passes(&limits, "2001:db8:0:1::1", now));
    }

    #[test]
    fn a_request_that_one_limit_refuses_counts_for_none() {
        let (limits, now) = (limits(&["10/1h;key=endpoint", "1/1s"]), Instant::now());
        assert!(passes(&limits, "192.0.2.1", now));
        assert!((0..50).all(|_| !passes(&limits, "192.0.2.1", now)));
        assert!((2..11).all(|last| passes(&limits, &format!("192.0.2.{last}"), now)));
        assert!(!passes(&limits, "192.0.2.99", now));
    }

    #[test]
    fn a_header_may_be_the_key_and_those_without_it_count_together() {
        let (limits, now) = (limits(&["1/10s;key=header:X-Key"]), Instant::now());
        let address = "192.0.2.1".parse().unwrap();
        let of = |key: Option<&str>| {
            let headers =
                key.map(|key| ("x-key".parse().unwrap(), key.parse().unwrap())).into_iter().collect();
            limits.admit(address, &headers, now).is_ok()
        };
        assert!(of(Some("a")) && of(Some("b")) && of(None));
        assert!(!of(Some("a")) && !of(None));
    }

    #[test]
    fn no_more_keys_are_kept_than_may_be() {
        let (limits, now) = (limits(&["1/1h"]), Instant::now());
        for number in 0..MAX_KEYS as u32 + 10 {
            assert!(passes(&limits, &std::net::Ipv4Addr::from_bits(number).to_string(), now));
        }
        assert_eq!(limits.windows.lock().unwrap().iter().map(LruCache::len).collect::<Vec<_>>(), [MAX_KEYS]);
    }

    proptest! {
        #[test]
        fn who_waits_as_long_as_told_gets_through_and_nobody_gets_twice_the_count(
            count in 1_u32..20, steps in prop::collection::vec(0_u64..3000, 1..200)
        ) {
            let limits = limits(&[&format!("{count}/2s")]);
            let address = "192.0.2.1".parse().unwrap();
            let mut now = Instant::now();
            let mut passed = Vec::new();
            for step in steps {
                now += Duration::from_millis(step / 10);
                match limits.admit(address, &HeaderMap::new(), now) {
                    Ok(()) => passed.push(now),
                    Err(wait) => {
                        now += wait + Duration::from_micros(1);
                        prop_assert!(limits.admit(address, &HeaderMap::new(), now).is_ok());
                        passed.push(now);
                    }
                }
                let recent = passed.iter().filter(|then| now - **then < 2 * SECOND).count();
                prop_assert!(recent < 2 * count as usize, "{recent} of {count}");
            }
        }
    }
}
