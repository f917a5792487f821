//! Who did what, from where, and what came of it. Bounded; asked with `ssh HOST audit`.
//!
//! What anybody can cause has a bound of its own, and in it each account a share: a flood of refusals pushes out neither
//! what admins did nor all that others did.

use std::collections::BTreeSet;
use std::time::SystemTime;

use rusqlite::{Transaction, params};
use serde::Serialize;

use super::database::{Database, DatabaseError};
use super::seconds;

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    /// Seconds since 1970.
    pub(crate) at: i64,
    pub(crate) account: String,
    /// The address it came from, or `local`.
    pub(crate) source: String,
    /// Such as `accounts add` or `publish`.
    pub(crate) action: String,
    pub(crate) object: String,
    /// `ok`, or why not.
    pub(crate) result: String,
    #[serde(skip)]
    pub(crate) class: Class,
}

/// By whom an entry was caused, which says by what it can be pushed out: by others of its class alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Class {
    /// By who has logged in, or tried to.
    #[default]
    Anybody = 0,
    /// By an admin who is a publisher too: logins, what is published.
    Admin = 1,
    /// By an admin or the operator, to the server.
    Change = 2,
}

impl Class {
    const ALL: [Self; 3] = [Self::Anybody, Self::Admin, Self::Change];

    /// Entries that are kept.
    const fn bound(self) -> i64 {
        match self {
            Self::Anybody => 40_000,
            Self::Admin => 20_000,
            Self::Change => 40_000,
        }
    }

    /// As the database has it.
    const fn number(self) -> i64 {
        self as i64
    }
}

impl Entry {
    pub(crate) fn now(
        account: impl Into<String>,
        source: impl Into<String>,
        action: impl Into<String>,
        object: impl Into<String>,
        result: impl Into<String>,
    ) -> Self {
        let bounded = |text: String| {
            if text.len() <= MAX_TEXT { text } else { text.chars().take(MAX_TEXT / 4).collect() }
        };
        Self {
            at: seconds(SystemTime::now()),
            account: bounded(account.into()),
            source: bounded(source.into()),
            action: bounded(action.into()),
            object: bounded(object.into()),
            result: bounded(result.into()),
            class: Class::Anybody,
        }
    }

    pub(crate) fn of_class(self, class: Class) -> Self {
        Self { class, ..self }
    }
}

/// Which entries to show, the newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuditQuery {
    pub(crate) account: Option<String>,
    /// Seconds since 1970.
    pub(crate) since: Option<i64>,
    pub(crate) limit: u32,
}

impl Database {
    /// Writes entries, and forgets the oldest beyond the bounds.
    pub(crate) fn record(&self, entries: &[Entry]) -> Result<(), DatabaseError> {
        let mut connection = self.lock();
        let change = connection.transaction()?;
        {
            let mut add = change.prepare_cached(
                "INSERT INTO audit (at, account, source, action, object, result, class)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            for it in entries {
                let class = it.class.number();
                add.execute(params![it.at, it.account, it.source, it.action, it.object, it.result, class])?;
            }
        }
        forget_beyond_bounds(&change, entries)?;
        Ok(change.commit()?)
    }

    pub(crate) fn audit(&self, query: &AuditQuery) -> Result<Vec<Entry>, DatabaseError> {
        let connection = self.lock();
        let mut entries = connection.prepare_cached(
            "SELECT at, account, source, action, object, result, class FROM audit
             WHERE (?1 IS NULL OR account = ?1) AND (?2 IS NULL OR at >= ?2) ORDER BY id DESC LIMIT ?3",
        )?;
        let entries = entries.query_map(params![query.account, query.since, query.limit], |row| {
            Ok(Entry {
                at: row.get(0)?,
                account: row.get(1)?,
                source: row.get(2)?,
                action: row.get(3)?,
                object: row.get(4)?,
                result: row.get(5)?,
                class: row.get::<_, i64>(6).map(class_of)?,
            })
        })?;
        Ok(entries.collect::<Result<_, _>>()?)
    }
}

fn class_of(number: i64) -> Class {
    Class::ALL.into_iter().find(|it| it.number() == number).unwrap_or_default()
}

/// First the shares of accounts, so that who floods the log loses entries before others do.
fn forget_beyond_bounds(change: &Transaction<'_>, entries: &[Entry]) -> rusqlite::Result<()> {
    let by_anybody = entries.iter().filter(|it| it.class == Class::Anybody);
    let mut of_account = change.prepare_cached(
        "DELETE FROM audit WHERE class = ?1 AND account = ?2 AND id <=
         (SELECT id FROM audit WHERE class = ?1 AND account = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)",
    )?;
    for account in by_anybody.map(|it| it.account.as_str()).collect::<BTreeSet<_>>() {
        of_account.execute(params![Class::Anybody.number(), account, MAX_PER_ACCOUNT])?;
    }
    let mut of_class = change.prepare_cached(
        "DELETE FROM audit WHERE class = ?1 AND id <=
         (SELECT id FROM audit WHERE class = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
    )?;
    for class in Class::ALL.into_iter().filter(|class| entries.iter().any(|it| it.class == *class)) {
        of_class.execute(params![class.number(), class.bound()])?;
    }
    Ok(())
}

/// Of what anybody can cause: entries that are kept of one account. Failed logins are no account's, and have one share.
const MAX_PER_ACCOUNT: i64 = 4_000;
/// Bytes of each part of an entry.
const MAX_TEXT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> (tempfile::TempDir, Database) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("hithe.db")).unwrap();
        (folder, database)
    }

    fn published(account: &str, number: i64) -> Entry {
        Entry::now(account, "192.0.2.1", "publish", number.to_string(), "ERR_HITHE_334")
    }

    fn found(database: &Database, account: Option<&str>) -> Vec<Entry> {
        let account = account.map(str::to_owned);
        database.audit(&AuditQuery { account, since: None, limit: u32::MAX }).unwrap()
    }

    #[test]
    fn the_newest_entries_of_an_account_are_shown_first_and_the_oldest_are_forgotten() {
        let (_folder, database) = database();
        let of_account = |account| (0..MAX_PER_ACCOUNT + 10).map(move |number| published(account, number));
        database.record(&["ada", "bob"].into_iter().flat_map(of_account).collect::<Vec<_>>()).unwrap();
        let query = AuditQuery { account: Some("ada".to_owned()), since: None, limit: 2 };
        let newest = database.audit(&query).unwrap();
        let objects: Vec<_> = newest.iter().map(|it| it.object.as_str()).collect();
        assert_eq!(objects, [(MAX_PER_ACCOUNT + 9).to_string(), (MAX_PER_ACCOUNT + 8).to_string()]);
        assert_eq!(found(&database, Some("ada")).last().unwrap().object, "10");
    }

    #[test]
    fn who_floods_the_log_pushes_out_neither_changes_nor_others() {
        let (_folder, database) = database();
        let change = Entry::now("ada", "local", "keys remove", "SHA256:x", "ok").of_class(Class::Change);
        let login = Entry::now("ada", "192.0.2.2", "login", "key", "ok").of_class(Class::Admin);
        database.record(&[change.clone(), login.clone(), published("bob", 0)]).unwrap();
        for _ in 0..3 {
            let flood: Vec<_> = (0..MAX_PER_ACCOUNT).map(|number| published("eve", number)).collect();
            database.record(&flood).unwrap();
        }
        assert_eq!(found(&database, Some("eve")).len(), usize::try_from(MAX_PER_ACCOUNT).unwrap());
        assert_eq!(found(&database, Some("bob")).len(), 1);
        // Many accounts push out the others of their class, and nothing else.
        let crowd: Vec<_> =
            (0..Class::Anybody.bound()).map(|number| published(&format!("key {number}"), 0)).collect();
        database.record(&crowd).unwrap();
        assert_eq!(found(&database, Some("bob")).len(), 0);
        assert_eq!(found(&database, Some("ada")), [login, change]);
    }

    #[test]
    fn each_class_has_its_bound() {
        let (_folder, database) = database();
        for class in Class::ALL {
            let entries: Vec<_> = (0..class.bound() + 5)
                .map(|number| published(&format!("account {}", number % 100), number).of_class(class))
                .collect();
            database.record(&entries).unwrap();
            let kept = found(&database, None).into_iter().filter(|it| it.class == class).count();
            assert_eq!(kept, usize::try_from(class.bound()).unwrap(), "{class:?}");
        }
    }
}
