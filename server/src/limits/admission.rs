//! How many connections may be there at a time: in total, and from one source.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

use super::source::network;

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

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    InTotal,
    OfSource,
}

impl Admission {
    pub(crate) fn new(max_total: usize, max_per_source: usize) -> Self {
        Self { counts: Arc::default(), max_total, max_per_source }
    }

    /// # Errors
    /// Too many are there already, in total or from this source.
    pub(crate) fn admit(&self, source: IpAddr) -> Result<Admitted, Full> {
        let counts = Arc::clone(&self.counts);
        if counts.total.fetch_add(1, Ordering::Relaxed) >= self.max_total {
            counts.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::InTotal);
        }
        let source = network(source);
        let from_source = {
            let mut count = counts.by_source.entry(source).or_default();
            *count += 1;
            *count
        };
        let admitted = Admitted { counts, source };
        if from_source <= self.max_per_source { Ok(admitted) } else { Err(Full::OfSource) }
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

#[cfg(test)]
mod tests {
    use super::*;

    const PER_SOURCE: usize = 8;

    #[test]
    fn one_source_cannot_take_all_places() {
        let admission = Admission::new(2 * PER_SOURCE, PER_SOURCE);
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let held: Vec<_> = (0..PER_SOURCE).map(|_| admission.admit(source).unwrap()).collect();
        assert_eq!(admission.admit(source).unwrap_err(), Full::OfSource);
        let others: Vec<_> = (2..2 + PER_SOURCE)
            .map(|host| admission.admit(format!("192.0.2.{host}").parse().unwrap()))
            .collect();
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(admission.admit("192.0.2.99".parse().unwrap()).unwrap_err(), Full::InTotal);
        drop((held, others));
        assert!(admission.admit(source).is_ok());
        assert!(admission.counts.by_source.is_empty());
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_source() {
        let admission = Admission::new(100, PER_SOURCE);
        let address = |host: usize| format!("2001:db8:0:1::{host:x}").parse::<IpAddr>().unwrap();
        let _held: Vec<_> = (0..PER_SOURCE).map(|host| admission.admit(address(host)).unwrap()).collect();
        assert!(admission.admit(address(PER_SOURCE)).is_err());
        assert!(admission.admit("2001:db8:0:2::1".parse().unwrap()).is_ok());
        assert!(admission.admit("::ffff:192.0.2.1".parse().unwrap()).is_ok());
    }
}
