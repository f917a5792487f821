//! The place of an endpoint whose publisher was cut off: visitors wait there for it to return.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Endpoint;
use crate::account::Account;

/// What became of an endpoint that is withdrawn: another one, or nothing after a while.
#[derive(Debug)]
pub(crate) struct Held {
    until: Instant,
    next: OnceLock<Arc<Endpoint>>,
    /// Cancelled when there is a next one, or will be none.
    settled: CancellationToken,
    waiting: AtomicUsize,
    of_account: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
}

/// How many visitors wait, at all places together and at those of each account.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    all: Arc<AtomicUsize>,
    /// Of accounts that have places which are held.
    of_accounts: Mutex<HashMap<Account, Weak<AtomicUsize>>>,
}

impl Crowd {
    fn of(&self, account: &Account) -> Arc<AtomicUsize> {
        let mut all = self.of_accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(account).and_then(Weak::upgrade) {
            return known;
        }
        // Each time that it has doubled: who is gone is looked for seldom, and makes up half of it at most.
        if all.len() == all.capacity() {
            all.retain(|_, waiting| waiting.strong_count() > 0);
        }
        let fresh = Arc::new(AtomicUsize::new(0));
        all.insert(account.clone(), Arc::downgrade(&fresh));
        fresh
    }
}

/// One visitor that waits.
struct Waiting<'a>(&'a Held);

impl Held {
    /// A place of an account, for some time.
    pub(crate) fn new(time: Duration, account: &Account, crowd: &Crowd) -> Arc<Self> {
        Arc::new(Self {
            until: Instant::now() + time,
            next: OnceLock::new(),
            settled: CancellationToken::new(),
            waiting: AtomicUsize::new(0),
            of_account: crowd.of(account),
            all: Arc::clone(&crowd.all),
        })
    }

    /// Waits until somebody publishes there again, or the time is over. False where too many wait already.
    pub(crate) async fn wait(&self) -> bool {
        if self.is_over() {
            return true;
        }
        self.bounds().iter().for_each(|(waiting, _)| _ = waiting.fetch_add(1, Ordering::Relaxed));
        let _waiting = Waiting(self);
        if self.bounds().iter().any(|(waiting, most)| waiting.load(Ordering::Relaxed) > *most) {
            return false;
        }
        self.settled_or_over().await;
        true
    }

    /// The counts that a visitor who waits here belongs to, and how many may be in each.
    fn bounds(&self) -> [(&AtomicUsize, usize); 3] {
        [(&self.waiting, MAX_AT_ONE), (&*self.of_account, MAX_OF_ACCOUNT), (&*self.all, MAX_IN_ALL)]
    }

    /// As [`Self::wait`], for who holds nothing that would have to be bounded.
    pub(crate) async fn settled_or_over(&self) {
        let _ = timeout_at(self.until, self.settled.cancelled()).await;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.settled.is_cancelled() || self.until <= Instant::now()
    }

    /// Who came in its place.
    pub(crate) fn next(&self) -> Option<&Arc<Endpoint>> {
        self.next.get()
    }

    /// Ends the waiting: with another endpoint, or with none.
    pub(crate) fn settle(&self, next: Option<Arc<Endpoint>>) {
        if let Some(next) = next {
            // It is settled once.
            let _ = self.next.set(next);
        }
        self.settled.cancel();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.bounds().iter().for_each(|(waiting, _)| _ = waiting.fetch_sub(1, Ordering::Relaxed));
    }
}

/// Visitors that wait at one place. Each holds a request's head, and what its connection buffers.
const MAX_AT_ONE: usize = 256;
/// At all places of an account: one that has lost many must not take the room of all others.
const MAX_OF_ACCOUNT: usize = 512;
/// At all places together.
const MAX_IN_ALL: usize = 2048;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_account_with_many_lost_places_leaves_room_for_the_visitors_of_others() {
        let crowd = Crowd::default();
        let [ada, bob]: [Account; 2] = ["ada", "bob"].map(|name| name.parse().unwrap());
        let place = |account| Held::new(Duration::from_secs(60), account, &crowd);
        let lost: Vec<_> = (0..20).map(|_| place(&ada)).collect();
        let mut waiting: Vec<_> =
            lost.iter().flat_map(|held| (0..200).map(|_| Box::pin(held.wait()))).collect();
        let turned_away = waiting.iter_mut().filter_map(|it| it.now_or_never()).filter(|it| !it).count();
        assert_eq!(turned_away, 20 * 200 - MAX_OF_ACCOUNT);
        let bobs = place(&bob);
        assert!(Box::pin(bobs.wait()).now_or_never().is_none(), "it is let wait");
        drop(waiting);
        assert!(
            Box::pin(lost[0].wait()).now_or_never().is_none(),
            "so is the next one when others have left"
        );
    }

    #[test]
    fn accounts_without_a_place_are_forgotten() {
        let crowd = Crowd::default();
        for number in 0..10_000 {
            let account = format!("account-{number}").parse().unwrap();
            drop(Held::new(Duration::ZERO, &account, &crowd));
        }
        assert!(crowd.of_accounts.lock().unwrap().len() < 100);
    }
}
