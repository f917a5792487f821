//! Who had which name or port last.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::params;

use super::database::{Database, DatabaseError};
use super::seconds;
use crate::account::Account;

/// The last owner of each name and port, remembered for a day.
#[derive(Clone, Debug, Default)]
pub(crate) struct PastOwners {
    held: HashMap<Arc<str>, Held>,
    by_age: ByAge,
    of_account: HashMap<Account, ByAge>,
    /// Not stored yet.
    changed: HashSet<Arc<str>>,
}

/// The longest unseen first: when it was seen, in seconds since 1970, and what.
type ByAge = BTreeSet<(i64, Arc<str>)>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    account: Account,
    seen: i64,
    came_by: CameBy,
}

/// How an account came by a name or a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CameBy {
    /// An older version has not noted it.
    #[default]
    Unknown = 0,
    /// It asked for this one.
    Asking = 1,
    /// It asked for any.
    Chance = 2,
}

impl CameBy {
    fn of(number: i64) -> Self {
        [Self::Asking, Self::Chance].into_iter().find(|it| *it as i64 == number).unwrap_or_default()
    }
}

impl Held {
    fn counts(&self, now: SystemTime) -> bool {
        seconds(now).saturating_sub(self.seen) < REMEMBERED_FOR.as_secs().cast_signed()
    }
}

/// What has to be stored: rows to write, and rows to remove where there is no account.
pub(crate) type Changes = Vec<(Arc<str>, Option<(Account, i64, CameBy)>)>;

impl PastOwners {
    /// Remembers that `account` holds `what` at `now`. Beyond the bounds the longest unseen is forgotten.
    pub(crate) fn note(&mut self, what: &str, account: &Account, came_by: CameBy, now: SystemTime) {
        let what: Arc<str> = what.into();
        self.put(Arc::clone(&what), Held { account: account.clone(), seen: seconds(now), came_by });
        self.changed.insert(what);
        let of_account = self.of_account.get(account).filter(|all| all.len() > MAX_PER_ACCOUNT);
        let crowded = of_account.or(Some(&self.by_age).filter(|all| all.len() > MAX_REMEMBERED));
        if let Some((_, oldest)) = crowded.and_then(BTreeSet::first).cloned() {
            self.forget(&oldest);
        }
    }

    fn put(&mut self, what: Arc<str>, held: Held) {
        self.take(&what);
        self.by_age.insert((held.seen, Arc::clone(&what)));
        self.of_account.entry(held.account.clone()).or_default().insert((held.seen, Arc::clone(&what)));
        self.held.insert(what, held);
    }

    fn take(&mut self, what: &str) -> Option<Held> {
        let (what, held) = self.held.remove_entry(what)?;
        let place = (held.seen, what);
        self.by_age.remove(&place);
        if let Some(of_account) = self.of_account.get_mut(&held.account) {
            of_account.remove(&place);
            if of_account.is_empty() {
                self.of_account.remove(&held.account);
            }
        }
        Some(held)
    }

    /// The last owner of `what`, if that was within the last day.
    pub(crate) fn owner(&self, what: &str, now: SystemTime) -> Option<&Account> {
        self.held.get(what).filter(|held| held.counts(now)).map(|held| &held.account)
    }

    /// What an account had within the last day and came by so.
    pub(crate) fn of_by(&self, account: &Account, came_by: CameBy, now: SystemTime) -> Vec<Arc<str>> {
        let is_so = |what: &Arc<str>| {
            self.held.get(what).is_some_and(|held| held.counts(now) && held.came_by == came_by)
        };
        self.of(account).into_iter().filter(is_so).collect()
    }

    /// When `what` was held last, in seconds since 1970.
    pub(crate) fn seen(&self, what: &str) -> Option<i64> {
        self.held.get(what).map(|held| held.seen)
    }

    /// All that was held within the last day.
    pub(crate) fn all(&self, now: SystemTime) -> impl Iterator<Item = (&str, &Account)> {
        self.held
            .iter()
            .filter(move |(_, held)| held.counts(now))
            .map(|(what, held)| (&**what, &held.account))
    }

    /// Whether it was known.
    pub(crate) fn forget(&mut self, what: &str) -> bool {
        let known = self.take(what).is_some();
        if known {
            self.changed.insert(what.into());
        }
        known
    }

    pub(crate) fn forget_account(&mut self, account: &Account) {
        for what in self.of(account) {
            self.forget(&what);
        }
    }

    /// What an account had.
    pub(crate) fn of(&self, account: &Account) -> Vec<Arc<str>> {
        self.of_account.get(account).into_iter().flatten().map(|(_, what)| Arc::clone(what)).collect()
    }

    /// What was not stored since the last question.
    pub(crate) fn take_changes(&mut self) -> Changes {
        let changed = std::mem::take(&mut self.changed);
        let now =
            |what: &str| self.held.get(what).map(|held| (held.account.clone(), held.seen, held.came_by));
        changed.into_iter().map(|what| (what.clone(), now(&what))).collect()
    }

    /// They could not be stored: they will be asked for again.
    pub(crate) fn give_back(&mut self, changes: Changes) {
        self.changed.extend(changes.into_iter().map(|(what, _)| what));
    }
}

impl Database {
    pub(crate) fn past_owners(&self) -> Result<PastOwners, DatabaseError> {
        let connection = self.lock();
        let mut rows = connection.prepare("SELECT name, account, seen, came_by FROM names")?;
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        let mut past = PastOwners::default();
        for row in rows {
            let (what, account, seen, came_by): (Arc<str>, String, i64, i64) = row?;
            // A damaged row frees its name early, which is the lesser evil.
            if let Ok(account) = account.parse() {
                past.put(what, Held { account, seen, came_by: CameBy::of(came_by) });
            }
        }
        Ok(past)
    }

    pub(crate) fn save_past_owners(&self, changes: &Changes) -> Result<(), DatabaseError> {
        let mut connection = self.lock();
        let change = connection.transaction()?;
        {
            let mut keep = change.prepare_cached(
                "INSERT OR REPLACE INTO names (name, account, seen, came_by) VALUES (?1, ?2, ?3, ?4)",
            )?;
            let mut remove = change.prepare_cached("DELETE FROM names WHERE name = ?1")?;
            for (what, now) in changes {
                match now {
                    Some((account, seen, came_by)) => {
                        keep.execute(params![&**what, account.as_str(), seen, *came_by as i64])?
                    }
                    None => remove.execute([&**what])?,
                };
            }
        }
        Ok(change.commit()?)
    }

    /// For who works beside a server: takes a name from who had it last, and leaves word for the server. Whether anybody
    /// was remembered there.
    pub(crate) fn release_past_owner(&self, what: &str, at: i64) -> Result<bool, DatabaseError> {
        let mut connection = self.lock();
        let change = connection.transaction()?;
        change.execute(LEAVE_WORD, params![false, what, at])?;
        let known = change.execute("DELETE FROM names WHERE name = ?1", [what])? > 0;
        change.commit()?;
        Ok(known)
    }

    /// What was taken so since the last question, and when, in seconds since 1970.
    pub(crate) fn take_released(&self) -> Result<Vec<(Released, i64)>, DatabaseError> {
        let mut connection = self.lock();
        let change = connection.transaction()?;
        let released = {
            let mut rows = change.prepare_cached("SELECT of_account, what, at FROM released")?;
            let rows = rows.query_map([], |row| Ok((released(row.get(0)?, row.get(1)?), row.get(2)?)))?;
            rows.collect::<Result<Vec<_>, _>>()?
        };
        if !released.is_empty() {
            change.execute("DELETE FROM released", [])?;
        }
        change.commit()?;
        Ok(released.into_iter().filter_map(|(what, at)| Some((what?, at))).collect())
    }
}

/// What was taken from who had it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// A name or a port.
    One(String),
    /// All that an account had.
    AllOf(Account),
}

fn released(of_account: bool, what: String) -> Option<Released> {
    if of_account { what.parse().ok().map(Released::AllOf) } else { Some(Released::One(what)) }
}

pub(super) const LEAVE_WORD: &str =
    "INSERT OR REPLACE INTO released (of_account, what, at) VALUES (?1, ?2, ?3)";
/// How long a name stays with its last account.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);
/// A few megabytes.
const MAX_REMEMBERED: usize = 10_000;
/// One account cannot crowd out the others.
const MAX_PER_ACCOUNT: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(hours: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + hours * 3600)
    }

    fn ada() -> Account {
        "ada".parse().unwrap()
    }

    #[test]
    fn what_was_held_is_stored_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("hithe.db")).unwrap();
        let mut past = database.past_owners().unwrap();
        past.note("app.w.test", &ada(), CameBy::Asking, at(0));
        past.note("port 20000", &ada(), CameBy::Asking, at(0));
        past.note("port 20001", &ada(), CameBy::Chance, at(0));
        let changes = past.take_changes();
        assert_eq!(changes.len(), 3);
        database.save_past_owners(&changes).unwrap();
        assert!(past.take_changes().is_empty());
        past.forget("port 20000");
        past.give_back(past.clone().take_changes());
        database.save_past_owners(&past.take_changes()).unwrap();
        let found = database.past_owners().unwrap();
        assert_eq!(found.owner("app.w.test", at(23)), Some(&ada()));
        assert_eq!((found.owner("app.w.test", at(25)), found.owner("port 20000", at(0))), (None, None));
        assert_eq!(found.of_by(&ada(), CameBy::Chance, at(23)), ["port 20001".into()]);
        assert_eq!(found.of_by(&ada(), CameBy::Asking, at(23)), ["app.w.test".into()]);
        assert!(found.of_by(&ada(), CameBy::Chance, at(25)).is_empty());
    }

    #[test]
    fn one_account_cannot_crowd_out_the_others() {
        let mut past = PastOwners::default();
        past.note("other", &"bob".parse().unwrap(), CameBy::Asking, at(0));
        for number in 0..200 {
            past.note(&format!("name-{number}"), &ada(), CameBy::Asking, at(1 + number));
        }
        assert!(past.owner("other", at(1)).is_some());
        assert_eq!(past.held.len(), MAX_PER_ACCOUNT + 1);
    }

    #[test]
    fn the_server_hears_once_of_what_was_released_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hithe.db");
        let (server, other) = (Database::open(&path).unwrap(), Database::open(&path).unwrap());
        let mut past = PastOwners::default();
        past.note("app.w.test", &ada(), CameBy::Asking, at(0));
        server.save_past_owners(&past.take_changes()).unwrap();
        assert!(other.release_past_owner("app.w.test", 7).unwrap());
        assert!(!other.release_past_owner("unknown.w.test", 8).unwrap());
        let one = |name: &str| Released::One(name.to_owned());
        let released = [(one("app.w.test"), 7), (one("unknown.w.test"), 8)];
        assert_eq!(server.take_released().unwrap(), released);
        assert!(server.take_released().unwrap().is_empty());
        assert!(server.past_owners().unwrap().owner("app.w.test", at(0)).is_none());
    }
}
