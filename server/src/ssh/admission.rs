//! How many connections may be there that have not logged in: in total, and from one source.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

/// Counts connections until they have logged in or ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    total: AtomicUsize,
    by_source: DashMap<IpAddr, usize>,
}

/// A place among those that have not logged in. Dropped on login.
#[derive(Debug)]
pub(crate) struct Admitted {
    counts: Arc<Counts>,
    source: IpAddr,
}

impl Admission {
    /// `None` when too many wait already, in total or from this source.
    pub(crate) fn admit(&self, source: IpAddr) -> Option<Admitted> {
        let counts = Arc::clone(&self.0);
        if counts.total.fetch_add(1, Ordering::Relaxed) >= MAX_TOTAL {
            counts.total.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let source = source.to_canonical();
        let from_source = {
            let mut count = counts.by_source.entry(source).or_default();
            *count += 1;
            *count
        };
        let admitted = Admitted { counts, source };
        (from_source <= MAX_PER_SOURCE).then_some(admitted)
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

const MAX_TOTAL: usize = 1024;
const MAX_PER_SOURCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_all_places() {
        let admission = Admission::default();
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let held: Vec<_> = (0..MAX_PER_SOURCE).map(|_| admission.admit(source).unwrap()).collect();
        assert!(admission.admit(source).is_none());
        assert!(admission.admit("192.0.2.2".parse().unwrap()).is_some());
        drop(held);
        assert!(admission.admit(source).is_some());
        assert!(admission.0.by_source.is_empty() || admission.0.by_source.len() == 1);
    }
}
