//! What is to be written into the audit log and may wait a moment: logins, and what was published.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::audit::{Class, Entry};
use super::database::Database;

/// Handle of the entries that wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Held while entries are on their way to the disk.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: Vec<Entry>,
    /// How many of them anybody caused, by account: each has a share, and all together one.
    by_anybody: HashMap<String, usize>,
    /// How many are about admins.
    by_admins: usize,
    /// Failed logins by source: one entry for many, or who fails often enough could make the log forget the rest.
    refused: HashMap<IpAddr, u32>,
    /// Beyond the bounds.
    lost: u32,
}

impl Waiting {
    fn has_room_for(&self, entry: &Entry) -> bool {
        match entry.class {
            Class::Anybody => {
                self.entries.len() - self.by_admins < MAX_WAITING
                    && self.by_anybody.get(&entry.account).is_none_or(|waiting| *waiting < MAX_OF_ACCOUNT)
            }
            Class::Admin | Class::Change => self.by_admins < MAX_WAITING,
        }
    }
}

impl Recorder {
    pub(crate) fn note(&self, entry: Entry) {
        let mut waiting = self.waiting();
        if waiting.has_room_for(&entry) {
            match entry.class {
                Class::Anybody => *waiting.by_anybody.entry(entry.account.clone()).or_default() += 1,
                Class::Admin | Class::Change => waiting.by_admins += 1,
            }
            waiting.entries.push(entry);
        } else {
            waiting.lost += 1;
        }
    }

    /// A connection that did not log in although it tried.
    pub(crate) fn refused_login(&self, source: IpAddr) {
        let mut waiting = self.waiting();
        if waiting.refused.len() < MAX_SOURCES || waiting.refused.contains_key(&source) {
            *waiting.refused.entry(source).or_default() += 1;
        } else {
            waiting.lost += 1;
        }
    }

    /// Writes what waits: afterwards all that was noted before stands in the database. What cannot be written is lost, and
    /// the log says so.
    pub(crate) fn flush(&self, database: &Database) {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { mut entries, refused, lost, .. } = std::mem::take(&mut *self.waiting());
        entries.extend(refused.into_iter().map(|(source, times)| {
            Entry::now("", source.to_canonical().to_string(), "login", "", format!("refused, {times} times"))
        }));
        if lost > 0 {
            entries.push(Entry::now(
                "",
                "",
                "audit",
                "",
                format!("{lost} entries were lost: too many at once"),
            ));
        }
        if entries.is_empty() || database.read_only().is_some() {
            return;
        }
        if let Err(error) = database.record(&entries) {
            tracing::error!(%error, entries = entries.len(), "cannot write the audit log");
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Entries that wait for the next writing, which comes every two seconds at the latest: of what anybody can cause, and of admins.
const MAX_WAITING: usize = 4096;
/// Of what anybody can cause: of one account.
const MAX_OF_ACCOUNT: usize = 256;
/// Sources of failed logins that are told apart.
const MAX_SOURCES: usize = 256;

#[cfg(test)]
mod tests {
    use super::super::AuditQuery;
    use super::*;

    #[test]
    fn failed_logins_of_one_source_are_one_entry() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("hithe.db")).unwrap();
        let recorder = Recorder::default();
        for _ in 0..500 {
            recorder.refused_login("192.0.2.1".parse().unwrap());
        }
        recorder.note(Entry::now("ada", "192.0.2.2", "login", "key", "ok"));
        recorder.flush(&database);
        recorder.flush(&database);
        let found = database.audit(&AuditQuery { limit: 10, ..AuditQuery::default() }).unwrap();
        let told: Vec<_> = found.iter().map(|it| (it.source.as_str(), it.result.as_str())).collect();
        assert_eq!(told, [("192.0.2.1", "refused, 500 times"), ("192.0.2.2", "ok")]);
    }

    #[test]
    fn more_than_the_bound_is_told_and_not_kept() {
        let recorder = Recorder::default();
        for number in 0..u32::try_from(MAX_SOURCES).unwrap() + 7 {
            recorder.refused_login(IpAddr::from(number.to_be_bytes()));
        }
        let waiting = recorder.waiting();
        assert_eq!((waiting.refused.len(), waiting.lost), (MAX_SOURCES, 7));
    }

    #[test]
    fn who_floods_the_log_leaves_room_for_others_and_for_admins() {
        let recorder = Recorder::default();
        let login = |account: String| Entry::now(account, "192.0.2.1", "login", "key", "ok");
        for number in 0..MAX_WAITING * 2 {
            recorder.note(login(if number % 2 == 0 { "eve".to_owned() } else { format!("key {number}") }));
        }
        let of_eve = |waiting: &Waiting| waiting.entries.iter().filter(|it| it.account == "eve").count();
        assert_eq!(of_eve(&recorder.waiting()), MAX_OF_ACCOUNT);
        recorder.note(login("ada".to_owned()).of_class(Class::Admin));
        let waiting = recorder.waiting();
        assert_eq!(waiting.entries.last().unwrap().account, "ada");
        assert_eq!((waiting.entries.len(), waiting.lost as usize), (MAX_WAITING + 1, MAX_WAITING));
    }
}
