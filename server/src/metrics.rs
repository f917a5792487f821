//! What is counted of the server as a whole: counters that only grow, and whose labels are known when the program is
//! built.

use std::sync::atomic::{AtomicU64, Ordering};

use hithe_cli_parser::Code;

/// All counters of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// `hithe_refusals_total{code="ERR_HITHE_…"}`: one for each code, in the order of [`Code::all`].
    refusals: Box<[AtomicU64]>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { refusals: Code::all().map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Metrics {
    /// Counts something that was refused or cut off.
    pub(crate) fn refused(&self, code: Code) {
        if let Some(counter) = code.index().and_then(|at| self.refusals.get(at)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often each code was the reason of a refusal, where it was.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (Code, u64)> {
        let counts = self.refusals.iter().map(|counter| counter.load(Ordering::Relaxed));
        Code::all().map(|(code, _)| code).zip(counts).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_a_counter_of_its_own() {
        let metrics = Metrics::default();
        for (code, _) in Code::all() {
            metrics.refused(code);
        }
        metrics.refused(Code::RATE_LIMITED);
        metrics.refused(Code::new(0));
        assert_eq!(metrics.refusals().count(), Code::all().count());
        assert!(metrics.refusals().all(|(code, count)| count == 1 + u64::from(code == Code::RATE_LIMITED)));
    }
}
