//! Sources whose connections did not log in: each such connection adds to the time for which the source is turned away
//! before anything is computed for it. As sshd's `PerSourcePenalties`.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hithe_cli_parser::Network;
use tokio::time::Instant;

use super::source::network;
use crate::config::Penalties;

/// How a connection ended that did not log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offence {
    /// It tried and failed.
    Failed,
    /// It left before it tried.
    NotTried,
    /// It was cut off because it took too long.
    TooSlow,
    /// It made the server fail.
    Crash,
}

/// Who is turned away, and until when.
#[derive(Debug)]
pub(crate) struct PenaltyBox {
    rules: Option<Penalties>,
    exempt: Vec<Network>,
    table: Mutex<Table>,
    bound: usize,
}

#[derive(Debug, Default)]
struct Table {
    sources: HashMap<IpAddr, Penalty>,
    /// The same by when they are free, so that the first is found without a search.
    order: BTreeSet<(Instant, IpAddr)>,
}

#[derive(Clone, Copy, Debug)]
struct Penalty {
    until: Instant,
    /// It has added up to the minimum, and counts until it is over.
    counts: bool,
}

impl PenaltyBox {
    pub(crate) fn new(rules: Option<Penalties>, exempt: Vec<Network>) -> Self {
        Self { rules, exempt, table: Mutex::default(), bound: MAX_SOURCES }
    }

    /// For how long a source has to wait, if it has to.
    pub(crate) fn wait(&self, source: IpAddr) -> Option<Duration> {
        self.rules?;
        let penalty = *self.table().sources.get(&network(source))?;
        let left = penalty.until.saturating_duration_since(Instant::now());
        (penalty.counts && !left.is_zero()).then_some(left)
    }

    /// Notes what a source did. Whether it is turned away from now on, and was not before.
    pub(crate) fn punish(&self, source: IpAddr, offence: Offence) -> bool {
        let Some(rules) = &self.rules else { return false };
        let more = match offence {
            Offence::Failed => rules.failed,
            Offence::NotTried => rules.not_tried,
            Offence::TooSlow => rules.too_slow,
            Offence::Crash => rules.crash,
        };
        let address = source.to_canonical();
        if more.is_zero() || self.exempt.iter().any(|network| network.contains(address)) {
            return false;
        }
        let (source, now) = (network(source), Instant::now());
        let mut table = self.table();
        table.forget_until(now);
        let before = table.remove(source).unwrap_or(Penalty { until: now, counts: false });
        let until = (before.until + more).min(now + rules.max);
        let counts = before.counts || until.saturating_duration_since(now) >= rules.min;
        // A flood from everywhere frees those who had the least to wait, and lets nobody in who is right out.
        if table.sources.len() >= self.bound {
            table.free_first();
        }
        table.insert(source, Penalty { until, counts });
        counts && !before.counts
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, source: IpAddr, penalty: Penalty) {
        self.order.insert((penalty.until, source));
        self.sources.insert(source, penalty);
    }

    fn remove(&mut self, source: IpAddr) -> Option<Penalty> {
        let penalty = self.sources.remove(&source)?;
        self.order.remove(&(penalty.until, source));
        Some(penalty)
    }

    fn free_first(&mut self) {
        if let Some((_, source)) = self.order.pop_first() {
            self.sources.remove(&source);
        }
    }

    fn forget_until(&mut self, now: Instant) {
        while self.order.first().is_some_and(|(until, _)| *until <= now) {
            self.free_first();
        }
    }
}

/// Sources that are remembered, at some 200 bytes each. Beyond it the one that would be free first is.
const MAX_SOURCES: usize = 65_536;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const RULES: Penalties = Penalties {
        failed: Duration::from_secs(5),
        not_tried: Duration::from_secs(1),
        too_slow: Duration::from_secs(10),
        crash: Duration::from_secs(90),
        min: Duration::from_secs(15),
        max: Duration::from_secs(60),
    };

    fn punished(exempt: &[&str]) -> PenaltyBox {
        PenaltyBox::new(Some(RULES), exempt.iter().map(|network| network.parse().unwrap()).collect())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn failures_add_up_and_expire() {
        let (penalties, source) = (punished(&[]), address("192.0.2.1"));
        assert!(!penalties.punish(source, Offence::Failed) && !penalties.punish(source, Offence::Failed));
        assert_eq!(penalties.wait(source), None);
        assert!(penalties.punish(source, Offence::Failed));
        assert_eq!(penalties.wait(source), Some(Duration::from_secs(15)));
        assert_eq!(penalties.wait(address("192.0.2.2")), None);
        assert!(!penalties.punish(source, Offence::Failed), "it is known already");
        advance(Duration::from_secs(19)).await;
        assert_eq!(penalties.wait(source), Some(Duration::from_secs(1)), "also below the minimum");
        advance(Duration::from_secs(1)).await;
        assert_eq!(penalties.wait(source), None);
        penalties.punish(source, Offence::Failed);
        assert_eq!(penalties.wait(source), None, "what is over is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_penalty_has_a_longest_time() {
        let (penalties, source) = (punished(&[]), address("192.0.2.1"));
        (0..20).for_each(|_| _ = penalties.punish(source, Offence::Crash));
        assert_eq!(penalties.wait(source), Some(RULES.max));
    }

    #[tokio::test(start_paused = true)]
    async fn who_looks_in_now_and_then_is_never_punished() {
        let (penalties, source) = (punished(&[]), address("192.0.2.1"));
        for _ in 0..1000 {
            penalties.punish(source, Offence::NotTried);
            assert_eq!(penalties.wait(source), None);
            advance(Duration::from_secs(2)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_network_is_one_source_and_an_exempt_one_none() {
        let penalties = punished(&["10.0.0.0/8", "2001:db8:ff::/48"]);
        for host in 1..=3 {
            penalties.punish(address(&format!("2001:db8::{host}")), Offence::Failed);
            penalties.punish(address(&format!("::ffff:10.0.0.{host}")), Offence::Crash);
            penalties.punish(address(&format!("2001:db8:ff::{host}")), Offence::Crash);
        }
        assert!(penalties.wait(address("2001:db8::99")).is_some());
        assert!(penalties.wait(address("2001:db8:0:1::1")).is_none());
        assert!(penalties.wait(address("10.0.0.1")).is_none());
        assert!(penalties.wait(address("2001:db8:ff::1")).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_table_frees_who_had_the_least_to_wait() {
        let penalties = PenaltyBox { bound: 2, ..punished(&[]) };
        let [long, short, new] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(address);
        penalties.punish(long, Offence::Crash);
        (0..3).for_each(|_| _ = penalties.punish(short, Offence::Failed));
        (0..4).for_each(|_| _ = penalties.punish(new, Offence::Failed));
        assert!(penalties.wait(long).is_some() && penalties.wait(new).is_some());
        assert_eq!(penalties.wait(short), None);
        let table = penalties.table();
        assert_eq!((table.sources.len(), table.order.len()), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn without_rules_nobody_is_punished() {
        let penalties = PenaltyBox::new(None, Vec::new());
        assert!(!penalties.punish(address("192.0.2.1"), Offence::Crash));
        assert_eq!(penalties.wait(address("192.0.2.1")), None);
    }
}
