//! The publishers behind an endpoint: one, or several that share its address (`--pooling-enabled`).

use std::fmt;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::{Overdrawn, VisitPlace};
use crate::tunnel::Tunnel;
use crate::visit::VisitLogRef;

/// One forward of a publisher.
pub(crate) struct Member {
    /// Shared by the two endpoints that `--schemes http,https` makes of one forward.
    pub(crate) tunnel: Arc<Tunnel>,
    pub(crate) log: VisitLogRef,
    under_way: AtomicUsize,
    /// The last visit is over.
    emptied: Notify,
    health: Health,
}

/// Whether a member can be reached. One that failed rests, longer each time, while there are others.
struct Health {
    born: Instant,
    /// In a row.
    failures: AtomicU32,
    /// Milliseconds since `born`.
    rests_until: AtomicU64,
}

/// A visit at a member, as long as this is held.
#[must_use]
pub(crate) struct Turn(Arc<Member>);

impl Member {
    pub(crate) fn new(tunnel: Arc<Tunnel>, log: VisitLogRef) -> Arc<Self> {
        let health =
            Health { born: Instant::now(), failures: AtomicU32::new(0), rests_until: AtomicU64::new(0) };
        Arc::new(Self { tunnel, log, under_way: AtomicUsize::new(0), emptied: Notify::new(), health })
    }

    /// Begins a visit there.
    pub(crate) fn begin(self: &Arc<Self>) -> Turn {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Turn(Arc::clone(self))
    }

    /// Counts a visit for the publisher's account, or tells the publisher why there can be none.
    pub(crate) fn begin_visit(&self) -> Result<VisitPlace, Overdrawn> {
        let place = self.tunnel.usage.begin_visit();
        if let (Err(overdrawn), Some(log)) = (&place, &self.log) {
            log.advise(overdrawn.advice());
        }
        place
    }

    /// Waits until no visit is under way.
    pub(crate) async fn idle(&self) {
        loop {
            let mut emptied = pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.under_way.load(Ordering::Acquire) == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Its upstream was reached.
    pub(crate) fn reached(&self) {
        // Read first: this is in the way of every visit, and almost never has anything to write.
        if self.health.failures.load(Ordering::Relaxed) != 0 {
            self.health.failures.store(0, Ordering::Relaxed);
            self.health.rests_until.store(0, Ordering::Relaxed);
        }
    }

    /// Its upstream could not be reached.
    pub(crate) fn failed(&self) {
        let before = self.health.failures.fetch_add(1, Ordering::Relaxed).min(MAX_DOUBLINGS);
        let rest = FIRST_REST * 2_u32.pow(before);
        let until = self.health.born.elapsed() + rest;
        self.health
            .rests_until
            .store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether it failed lately.
    pub(crate) fn rests(&self) -> bool {
        let until = self.health.rests_until.load(Ordering::Relaxed);
        until != 0 && self.health.born.elapsed() < Duration::from_millis(until)
    }
}

impl Turn {
    pub(crate) fn member(&self) -> &Arc<Member> {
        &self.0
    }
}

impl Deref for Turn {
    type Target = Member;

    fn deref(&self) -> &Member {
        &self.0
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

/// All members of an endpoint. Read at each visit, changed seldom and under the registry's lock.
pub(super) struct Members {
    all: ArcSwap<Vec<Arc<Member>>>,
    /// Whose turn it is among those that are equally busy.
    next: AtomicUsize,
}

impl Members {
    pub(super) fn of(first: Arc<Member>) -> Self {
        Self { all: ArcSwap::from_pointee(vec![first]), next: AtomicUsize::new(0) }
    }

    pub(super) fn add(&self, member: &Arc<Member>) {
        self.all.rcu(|all| [all.as_slice(), &[Arc::clone(member)]].concat());
    }

    /// Whether any is left.
    pub(super) fn remove(&self, member: &Arc<Member>) -> bool {
        let without = |all: &Vec<Arc<Member>>| -> Vec<_> {
            all.iter().filter(|it| !Arc::ptr_eq(it, member)).cloned().collect()
        };
        self.all.rcu(|all| without(all));
        !self.all.load().is_empty()
    }

    pub(super) fn first(&self) -> Option<Arc<Member>> {
        self.all.load().first().cloned()
    }

    pub(super) fn all(&self) -> Arc<Vec<Arc<Member>>> {
        self.all.load_full()
    }

    /// The member with the fewest visits of those that do not rest, without those that were tried; where all others
    /// rest, the least busy of these.
    pub(super) fn choose(&self, tried: &[Arc<Member>]) -> Option<Turn> {
        let all = self.all.load();
        if let ([only], []) = (all.as_slice(), tried) {
            return Some(only.begin());
        }
        let start = self.next.fetch_add(1, Ordering::Relaxed) % all.len().max(1);
        let in_turn = all.iter().cycle().skip(start).take(all.len());
        let open = in_turn.filter(|it| !tried.iter().any(|tried| Arc::ptr_eq(it, tried)));
        open.min_by_key(|it| (it.rests(), it.under_way.load(Ordering::Relaxed))).map(Member::begin)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}

/// After the first failure; doubled with each further one.
const FIRST_REST: Duration = Duration::from_secs(1);
/// At most some half a minute.
const MAX_DOUBLINGS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Drain;
    use crate::tunnel::Tunnel;
    use crate::tunnel::testing::NoDial;

    fn member() -> Arc<Member> {
        Member::new(Arc::new(Tunnel::new(Arc::new(NoDial), Drain::new().1, <_>::default())), None)
    }

    fn pool(count: usize) -> (Members, Vec<Arc<Member>>) {
        let all: Vec<_> = (0..count).map(|_| member()).collect();
        let members = Members::of(Arc::clone(&all[0]));
        all.iter().skip(1).for_each(|it| members.add(it));
        (members, all)
    }

    #[tokio::test]
    async fn visits_go_to_the_least_busy_and_in_turn_where_all_are_alike() {
        let (members, all) = pool(3);
        let turns: Vec<_> = (0..9).map(|_| members.choose(&[]).unwrap()).collect();
        for member in &all {
            assert_eq!(turns.iter().filter(|turn| Arc::ptr_eq(turn.member(), member)).count(), 3);
        }
        drop(turns);
        let counts = (0..300).map(|_| members.choose(&[]).unwrap());
        let firsts = counts.filter(|turn| Arc::ptr_eq(turn.member(), &all[0])).count();
        assert_eq!(firsts, 100, "visits that follow one another are spread as well");
    }

    #[tokio::test]
    async fn one_that_failed_rests_while_there_are_others() {
        let (members, all) = pool(2);
        all[0].failed();
        assert!((0..10).all(|_| Arc::ptr_eq(members.choose(&[]).unwrap().member(), &all[1])));
        all[1].failed();
        assert!(members.choose(&[]).is_some(), "where all rest, one is tried nevertheless");
        all[0].reached();
        assert!((0..10).all(|_| Arc::ptr_eq(members.choose(&[]).unwrap().member(), &all[0])));
    }

    #[tokio::test]
    async fn who_was_tried_is_not_chosen_again() {
        let (members, all) = pool(2);
        let next = members.choose(&all[..1]).unwrap();
        assert!(Arc::ptr_eq(next.member(), &all[1]));
        assert!(members.choose(&all).is_none());
    }

    #[tokio::test]
    async fn who_has_left_gets_no_more_visits() {
        let (members, all) = pool(2);
        assert!(members.remove(&all[0]));
        assert!((0..5).all(|_| Arc::ptr_eq(members.choose(&[]).unwrap().member(), &all[1])));
        assert!(!members.remove(&all[1]));
        assert!(members.choose(&[]).is_none());
    }
}
