//! Who did what, from where, and what came of it. Bounded; asked with `ssh HOST audit`.

use std::time::SystemTime;

use rusqlite::params;
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
        }
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
    /// Writes entries, and forgets the oldest beyond the bound.
    pub(crate) fn record(&self, entries: &[Entry]) -> Result<(), DatabaseError> {
        let mut connection = self.lock();
        let change = connection.transaction()?;
        {
            let mut add = change.prepare_cached(
                "INSERT INTO audit (at, account, source, action, object, result) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for it in entries {
                add.execute(params![it.at, it.account, it.source, it.action, it.object, it.result])?;
            }
        }
        change.execute("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?1", [MAX_ENTRIES])?;
        Ok(change.commit()?)
    }

    pub(crate) fn audit(&self, query: &AuditQuery) -> Result<Vec<Entry>, DatabaseError> {
        let connection = self.lock();
        let mut entries = connection.prepare_cached(
            "SELECT at, account, source, action, object, result FROM audit
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
            })
        })?;
        Ok(entries.collect::<Result<_, _>>()?)
    }
}

/// Kept entries: some 20 MB.
const MAX_ENTRIES: i64 = 100_000;
/// Bytes of each part of an entry.
const MAX_TEXT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_entries_of_an_account_are_shown_first_and_the_oldest_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("hithe.db")).unwrap();
        let entries: Vec<_> = (0..MAX_ENTRIES + 10)
            .map(|number| {
                Entry::now(
                    if number % 2 == 0 { "ada" } else { "bob" },
                    "192.0.2.1",
                    "publish",
                    number.to_string(),
                    "ok",
                )
            })
            .collect();
        database.record(&entries).unwrap();
        let query = AuditQuery { account: Some("ada".to_owned()), since: None, limit: 2 };
        let found = database.audit(&query).unwrap();
        let objects: Vec<_> = found.iter().map(|it| it.object.as_str()).collect();
        assert_eq!(objects, [(MAX_ENTRIES + 8).to_string(), (MAX_ENTRIES + 6).to_string()]);
        let all = database.audit(&AuditQuery { limit: u32::MAX, ..AuditQuery::default() }).unwrap();
        assert_eq!(all.len(), usize::try_from(MAX_ENTRIES).unwrap());
    }
}
