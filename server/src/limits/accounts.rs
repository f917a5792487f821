//! What each account has of the server at the moment, and how many bytes it has moved this month.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hithe_cli_parser::Code;
use time::OffsetDateTime;
use tokio::time::sleep;

use super::pace::Pace;
use super::quota::{Overrides, Quota};
use crate::account::Account;

/// A month of the calendar, in UTC: 12 times the year, plus 0 to 11.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Month(pub(crate) i64);

impl Month {
    pub(crate) fn of(time: SystemTime) -> Self {
        let date = OffsetDateTime::from(time).date();
        Self(i64::from(date.year()) * 12 + i64::from(u8::from(date.month())) - 1)
    }
}

/// Handle of the accounts that have sessions, or had some this month.
#[derive(Clone, Debug)]
pub(crate) struct Accounts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// For those of whom nothing else is said.
    usual: Quota,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    month: Month,
    /// Accounts with sessions.
    live: HashMap<Account, Arc<Usage>>,
    /// Bytes of this month of the others.
    moved: HashMap<Account, u64>,
    /// Bytes of this month that could not be stored.
    unstored: HashMap<Account, u64>,
}

/// What one account has at the moment. Shared by its sessions and their endpoints.
#[derive(Debug)]
pub(crate) struct Usage {
    quota: Mutex<Quota>,
    visits: AtomicU64,
    max_visits: AtomicU64,
    /// Bytes of this month, both ways.
    moved: AtomicU64,
    max_moved: AtomicU64,
    /// How many of them are stored.
    stored: AtomicU64,
    pace: Pace,
}

/// Why an account gets no visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Overdrawn {
    #[error("the publisher's account has as many visits as it may have at once")]
    Visits,
    #[error("the publisher's account has used up its bytes of this month")]
    Month,
}

impl Overdrawn {
    pub(crate) fn code(self) -> Code {
        match self {
            Self::Visits => Code::VISIT_LIMIT,
            Self::Month => Code::TRAFFIC_USED_UP,
        }
    }

    /// What the publisher is told.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Visits => {
                "ERR_HITHE_734: visitors are turned away, for your account has as many visits as it may have at once"
            }
            Self::Month => {
                "ERR_HITHE_725: visitors are turned away until next month, for your account has used up its bytes of this one"
            }
        }
    }
}

/// A visit that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct VisitPlace(Arc<Usage>);

impl Drop for VisitPlace {
    fn drop(&mut self) {
        self.0.visits.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Usage {
    fn new(quota: Quota, moved: u64) -> Self {
        let usage = Self {
            quota: Mutex::default(),
            visits: AtomicU64::new(0),
            max_visits: AtomicU64::new(u64::MAX),
            moved: AtomicU64::new(moved),
            max_moved: AtomicU64::new(u64::MAX),
            stored: AtomicU64::new(moved),
            pace: Pace::new(None),
        };
        usage.set(quota);
        usage
    }

    /// Of nobody in particular.
    pub(crate) fn unlimited() -> Arc<Self> {
        Arc::new(Self::new(Quota::default(), 0))
    }

    pub(crate) fn quota(&self) -> Quota {
        *self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, quota: Quota) {
        *self.quota.lock().unwrap_or_else(PoisonError::into_inner) = quota;
        self.max_visits.store(quota.visits.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.max_moved.store(quota.monthly.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.pace.set(quota.rate);
    }

    /// Begins a visit.
    ///
    /// # Errors
    /// The account may have no more.
    pub(crate) fn begin_visit(self: &Arc<Self>) -> Result<VisitPlace, Overdrawn> {
        if self.moved.load(Ordering::Relaxed) >= self.max_moved.load(Ordering::Relaxed) {
            return Err(Overdrawn::Month);
        }
        let before = self.visits.fetch_add(1, Ordering::Relaxed);
        let place = VisitPlace(Arc::clone(self));
        if before < self.max_visits.load(Ordering::Relaxed) { Ok(place) } else { Err(Overdrawn::Visits) }
    }

    /// Notes bytes that passed, one way or the other.
    pub(crate) fn moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
        self.pace.take(bytes);
    }

    /// Bytes of this month.
    pub(crate) fn this_month(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// How long to wait before more bytes pass, where the account is ahead of its rate.
    pub(crate) fn owed(&self) -> Option<Duration> {
        self.pace.owed()
    }

    /// Waits for that, if there is anything to wait for.
    pub(crate) fn settle(self: &Arc<Self>) -> Option<impl Future<Output = ()> + Send + use<>> {
        let first = self.owed()?;
        let usage = Arc::clone(self);
        Some(async move {
            let mut wait = Some(first);
            while let Some(owed) = wait {
                // Looked at again and again: the rate may be changed meanwhile.
                sleep(owed.min(LONGEST_WAIT)).await;
                wait = usage.owed();
            }
        })
    }

    fn take_unstored(&self) -> u64 {
        let moved = self.moved.load(Ordering::Relaxed);
        moved.saturating_sub(self.stored.swap(moved, Ordering::Relaxed))
    }
}

impl Accounts {
    /// `moved` is what is known of this month.
    pub(crate) fn new(usual: Quota, month: Month, moved: HashMap<Account, u64>) -> Self {
        let book = Mutex::new(Book { month, live: HashMap::new(), moved, unstored: HashMap::new() });
        Self(Arc::new(Inner { usual, book }))
    }

    /// The usage of an account, which is the same one for all of its sessions.
    pub(crate) fn usage(&self, account: &Account, overrides: Overrides) -> Arc<Usage> {
        let quota = overrides.over(self.0.usual);
        let mut book = self.book();
        if let Some(usage) = book.live.get(account) {
            usage.set(quota);
            return Arc::clone(usage);
        }
        let moved = book.moved.remove(account).unwrap_or(0);
        let usage = Arc::new(Usage::new(quota, moved));
        book.live.insert(account.clone(), Arc::clone(&usage));
        usage
    }

    /// What an account may have, and has moved this month.
    pub(crate) fn about(&self, account: &Account, overrides: Overrides) -> (Quota, u64) {
        let book = self.book();
        let live = book.live.get(account).map(|usage| usage.this_month());
        (overrides.over(self.0.usual), live.or_else(|| book.moved.get(account).copied()).unwrap_or(0))
    }

    /// What is said of accounts has changed.
    pub(crate) fn apply(&self, overrides: impl Fn(&Account) -> Overrides) {
        for (account, usage) in &self.book().live {
            usage.set(overrides(account).over(self.0.usual));
        }
    }

    /// Bytes that are not stored yet, with the month they belong to. Turns to the next month when it has come.
    pub(crate) fn take_unstored(&self, now: SystemTime) -> (Month, Vec<(Account, u64)>) {
        let mut book = self.book();
        let month = book.month;
        let Book { live, moved, unstored, .. } = &mut *book;
        for (account, usage) in live.iter() {
            let bytes = usage.take_unstored();
            if bytes > 0 {
                *unstored.entry(account.clone()).or_default() += bytes;
            }
        }
        let unstored = std::mem::take(unstored).into_iter().collect();
        for (account, usage) in live.extract_if(|_, usage| Arc::strong_count(usage) == 1) {
            let bytes = usage.this_month();
            if bytes > 0 && moved.len() < MAX_REMEMBERED {
                moved.insert(account, bytes);
            }
        }
        let next = Month::of(now);
        // A clock that goes back must not give the month anew.
        if next > month {
            book.month = next;
            book.moved.clear();
            for usage in book.live.values() {
                let old = usage.stored.swap(0, Ordering::Relaxed);
                usage.moved.fetch_sub(old, Ordering::Relaxed);
            }
        }
        (month, unstored)
    }

    /// They could not be stored. Those of a month that is over are lost with it.
    pub(crate) fn give_back(&self, month: Month, unstored: Vec<(Account, u64)>) {
        let mut book = self.book();
        if book.month == month {
            book.unstored = unstored.into_iter().collect();
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At a stretch.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Accounts without sessions whose bytes of the month are remembered.
pub(crate) const MAX_REMEMBERED: usize = 100_000;

#[cfg(test)]
mod tests {
    use hithe_cli_parser::Allowance;

    use super::*;

    fn accounts(usual: Quota) -> Accounts {
        Accounts::new(usual, Month::of(SystemTime::now()), HashMap::from([(ada(), 100)]))
    }

    fn ada() -> Account {
        "ada".parse().unwrap()
    }

    #[test]
    fn an_account_has_so_many_visits_at_once() {
        let usage = accounts(Quota { visits: Some(2), ..Quota::default() }).usage(&ada(), Overrides::NONE);
        let first = usage.begin_visit().unwrap();
        let _second = usage.begin_visit().unwrap();
        assert_eq!(usage.begin_visit().unwrap_err(), Overdrawn::Visits);
        drop(first);
        assert!(usage.begin_visit().is_ok());
    }

    #[test]
    fn the_bytes_of_a_month_are_used_up_and_the_next_brings_new_ones() {
        let accounts = accounts(Quota { monthly: Some(150), ..Quota::default() });
        let usage = accounts.usage(&ada(), Overrides::NONE);
        usage.moved(49);
        assert!(usage.begin_visit().is_ok());
        usage.moved(1);
        assert_eq!(usage.begin_visit().unwrap_err(), Overdrawn::Month);
        let now = SystemTime::now();
        let (month, unstored) = accounts.take_unstored(now);
        assert_eq!((month, unstored), (Month::of(now), vec![(ada(), 50)]));
        assert_eq!(accounts.take_unstored(now).1, []);
        usage.moved(7);
        let (month, unstored) = accounts.take_unstored(now + Duration::from_secs(32 * 86400));
        assert_eq!((month, unstored), (Month::of(now), vec![(ada(), 7)]));
        assert!(usage.begin_visit().is_ok());
        assert_eq!(usage.this_month(), 0);
    }

    #[test]
    fn bytes_that_could_not_be_stored_are_stored_later() {
        let (accounts, now) = (accounts(Quota::default()), SystemTime::now());
        let usage = accounts.usage(&ada(), Overrides::NONE);
        usage.moved(5);
        let (month, unstored) = accounts.take_unstored(now);
        accounts.give_back(month, unstored);
        usage.moved(1);
        assert_eq!(accounts.take_unstored(now).1, [(ada(), 6)]);
    }

    #[test]
    fn who_comes_back_has_what_it_used_before_and_the_limits_of_today() {
        let (accounts, now) = (accounts(Quota { visits: Some(1), ..Quota::default() }), SystemTime::now());
        let overrides = Overrides { visits: Allowance::AtMost(0), ..Overrides::NONE };
        let usage = accounts.usage(&ada(), Overrides::NONE);
        usage.moved(11);
        drop(usage);
        accounts.take_unstored(now);
        assert!(accounts.book().live.is_empty());
        let usage = accounts.usage(&ada(), overrides);
        assert_eq!((usage.this_month(), usage.quota().visits), (111, Some(0)));
        accounts.apply(|_| Overrides { visits: Allowance::Unlimited, ..Overrides::NONE });
        assert!(usage.begin_visit().is_ok());
        assert_eq!(accounts.about(&ada(), overrides).1, 111);
    }
}
