//! How many connections may be there: in total, and from one source. One count for those that have not logged in,
//! and on an open server one for all.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

/// Counts connections while their [`Admitted`] lives.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    counts: Arc<Counts>,
    max_total: usize,
    max_per_source: usize,
}

#[derive(Debug, Default)]
struct Counts {
    total: AtomicUsize,
    by_source: DashMap<IpAddr, usize>,
}

/// A place among those that are counted.
#[derive(Debug)]
pub(crate) struct Admitted {
    counts: Arc<Counts>,
    source: IpAddr,
}

impl Admission {
    /// For connections that have not logged in.
    pub(crate) fn before_login() -> Self {
        Self { counts: Arc::default(), max_total: MAX_TOTAL, max_per_source: MAX_PER_SOURCE }
    }

    /// For all connections to an open server, which anyone may make.
    pub(crate) fn when_open() -> Self {
        Self { counts: Arc::default(), max_total: usize::MAX, max_per_source: MAX_PER_SOURCE_WHEN_OPEN }
    }

    /// `None` when too many wait already, in total or from this source.
    pub(crate) fn admit(&self, source: IpAddr) -> Option<Admitted> {
        let counts = Arc::clone(&self.counts);
        if counts.total.fetch_add(1, Ordering::Relaxed) >= self.max_total {
            counts.total.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let source = network(source);
        let from_source = {
            let mut count = counts.by_source.entry(source).or_default();
            *count += 1;
            *count
        };
        let admitted = Admitted { counts, source };
        (from_source <= self.max_per_source).then_some(admitted)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.counts.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(mut count) = self.counts.by_source.get_mut(&self.source) {
            *count = count.saturating_sub(1);
        }
        self.counts.by_source.remove_if(&self.source, |_, count| *count == 0);
    }
}

/// The smallest network that is given to somebody: an IPv4 address, and with IPv6 a /64 (RFC 6177), of which a single
/// host has all addresses.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

const MAX_TOTAL: usize = 1024;
const MAX_PER_SOURCE: usize = 64;
const MAX_PER_SOURCE_WHEN_OPEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_all_places() {
        let admission = Admission::before_login();
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let held: Vec<_> = (0..MAX_PER_SOURCE).map(|_| admission.admit(source).unwrap()).collect();
        assert!(admission.admit(source).is_none());
        assert!(admission.admit("192.0.2.2".parse().unwrap()).is_some());
        drop(held);
        assert!(admission.admit(source).is_some());
        assert!(admission.counts.by_source.is_empty() || admission.counts.by_source.len() == 1);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_source() {
        let admission = Admission::before_login();
        let address = |host: usize| format!("2001:db8:0:1::{host:x}").parse::<IpAddr>().unwrap();
        let _held: Vec<_> = (0..MAX_PER_SOURCE).map(|host| admission.admit(address(host)).unwrap()).collect();
        assert!(admission.admit(address(MAX_PER_SOURCE)).is_none());
        assert!(admission.admit("2001:db8:0:2::1".parse().unwrap()).is_some());
        assert!(admission.admit("::ffff:192.0.2.1".parse().unwrap()).is_some());
    }
}
