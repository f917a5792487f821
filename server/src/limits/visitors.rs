//! What one source of visitors may have: connections at once, and requests a second over the whole server.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use hithe_cli_parser::Code;
use tokio::time::Instant;

use super::source::network;
use crate::config::VisitorLimits;
use crate::metrics::Metrics;

/// All sources that are there, or were a moment ago.
#[derive(Debug)]
pub(crate) struct Visitors {
    pub(crate) limits: VisitorLimits,
    pub(crate) metrics: Arc<Metrics>,
    sources: DashMap<IpAddr, Arc<Source>>,
    began: Instant,
}

#[derive(Debug, Default)]
struct Source {
    connections: AtomicUsize,
    /// Nanoseconds from `began` to when its requests so far are worked off.
    paid: AtomicU64,
    /// Nanoseconds from `began` to when it may connect again.
    barred: AtomicU64,
}

/// A connection that is counted for its source until this is dropped.
#[derive(Debug)]
pub(crate) struct VisitorPlace {
    visitors: Arc<Visitors>,
    /// None where the source is exempt.
    source: Option<(IpAddr, Arc<Source>)>,
}

impl Visitors {
    pub(crate) fn new(limits: VisitorLimits, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { limits, metrics, sources: DashMap::new(), began: Instant::now() })
    }

    /// Counts a connection. `None` if its source has too many; that is counted too.
    pub(crate) fn admit(self: &Arc<Self>, source: IpAddr) -> Option<VisitorPlace> {
        let visitors = Arc::clone(self);
        let address = source.to_canonical();
        if self.limits.exempt.iter().any(|network| network.contains(address)) {
            return Some(VisitorPlace { visitors, source: None });
        }
        let key = network(source);
        let source = {
            let source = self.sources.entry(key).or_default();
            source.connections.fetch_add(1, Ordering::Relaxed);
            Arc::clone(&source)
        };
        let is_full = source.connections.load(Ordering::Relaxed) > self.limits.connections;
        let is_barred = source.barred.load(Ordering::Relaxed) > self.now();
        let place = VisitorPlace { visitors, source: Some((key, source)) };
        if is_barred {
            self.metrics.refused(Code::FRAME_FLOOD);
            return None;
        }
        if is_full {
            self.metrics.refused(Code::VISITOR_CONNECTIONS);
            return None;
        }
        Some(place)
    }

    /// A connection of a trusted proxy, which speaks for many.
    pub(crate) fn exempt(self: &Arc<Self>) -> VisitorPlace {
        VisitorPlace { visitors: Arc::clone(self), source: None }
    }

    /// Forgets sources that have left and owe nothing. To be called every few seconds.
    pub(crate) fn forget(&self) {
        let now = self.now();
        self.sources.retain(|_, source| !source.is_free(now));
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Source {
    fn is_free(&self, now: u64) -> bool {
        let is_over = |at: &AtomicU64| at.load(Ordering::Relaxed) <= now;
        self.connections.load(Ordering::Relaxed) == 0 && is_over(&self.paid) && is_over(&self.barred)
    }
}

impl VisitorPlace {
    pub(crate) fn limits(&self) -> &VisitorLimits {
        &self.visitors.limits
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.visitors.metrics
    }

    /// Its connection was ended for a flood of HTTP/2 frames: for a while its source gets no further one, whose handshake
    /// would cost more than the flood.
    pub(crate) fn bar(&self) {
        self.visitors.metrics.refused(Code::FRAME_FLOOD);
        let Some((_, source)) = &self.source else { return };
        source.barred.fetch_max(self.visitors.now() + FLOOD_PENALTY, Ordering::Relaxed);
    }

    /// Counts a request, or a connection that is no HTTP. A second's worth may come at once.
    ///
    /// # Errors
    /// There were too many; says how long to wait.
    pub(crate) fn request(&self) -> Result<(), Duration> {
        let Some((_, source)) = &self.source else { return Ok(()) };
        let now = self.visitors.now();
        let cost = SECOND / u64::from(self.visitors.limits.requests);
        // The idle time of a source earns it a second's worth and no more.
        let next = |paid: u64| paid.max(now).saturating_add(cost);
        let fits = |paid: u64| (next(paid) <= now.saturating_add(SECOND)).then(|| next(paid));
        let taken = source.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(|_| ()).map_err(|paid| Duration::from_nanos(next(paid).saturating_sub(now + SECOND)))
    }
}

impl Drop for VisitorPlace {
    fn drop(&mut self) {
        let Some((key, source)) = self.source.take() else { return };
        if source.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            let now = self.visitors.now();
            self.visitors.sources.remove_if(&key, |_, source| source.is_free(now));
        }
    }
}

/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;
/// In nanoseconds.
const FLOOD_PENALTY: u64 = 10 * SECOND;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn visitors() -> Arc<Visitors> {
        let limits = VisitorLimits { connections: 2, requests: 10, ..VisitorLimits::default() };
        Visitors::new(limits, Arc::default())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_flooded_is_barred_for_a_while_and_others_are_not() {
        let visitors = visitors();
        visitors.admit(address("192.0.2.1")).unwrap().bar();
        visitors.forget();
        assert!(visitors.admit(address("192.0.2.1")).is_none());
        assert!(visitors.admit(address("192.0.2.2")).is_some());
        advance(Duration::from_nanos(FLOOD_PENALTY)).await;
        assert!(visitors.admit(address("192.0.2.1")).is_some());
        visitors.forget();
        assert!(visitors.sources.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_has_so_many_connections() {
        let visitors = visitors();
        let held = ["2001:db8::1", "2001:db8::2"].map(|text| visitors.admit(address(text)).unwrap());
        assert!(visitors.admit(address("2001:db8::3")).is_none());
        assert!(visitors.admit(address("192.0.2.1")).is_some());
        assert_eq!(visitors.metrics.refusals().next(), Some((Code::VISITOR_CONNECTIONS, 1)));
        drop(held);
        assert!(visitors.sources.is_empty());
        let local: Vec<_> = (0..9).map(|_| visitors.admit(address("::ffff:127.0.0.1"))).collect();
        assert!(local.iter().all(Option::is_some), "this machine is exempt");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_has_so_many_requests_a_second_over_all_its_connections() {
        let visitors = visitors();
        let source = address("192.0.2.1");
        for _ in 0..10 {
            assert!(visitors.admit(source).unwrap().request().is_ok());
        }
        visitors.forget();
        let place = visitors.admit(source).unwrap();
        assert_eq!(place.request(), Err(Duration::from_millis(100)));
        assert!(visitors.admit(address("192.0.2.2")).unwrap().request().is_ok());
        for _ in 0..50 {
            advance(Duration::from_millis(100)).await;
            assert!(place.request().is_ok());
        }
        assert!(place.request().is_err());
        drop(place);
        assert_eq!(visitors.sources.len(), 2);
        advance(Duration::from_secs(1)).await;
        visitors.forget();
        assert!(visitors.sources.is_empty());
    }
}
