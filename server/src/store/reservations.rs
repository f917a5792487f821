//! What the operator keeps for whom.
//!
//! Where that cannot be read, nobody may take what might be kept for another: [`Reservations::are_in_doubt`].

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, params};

use super::database::{Database, DatabaseError};
use crate::account::Account;

/// Names and ports that the operator keeps for accounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reservations {
    kept: HashMap<String, Account>,
    /// Kept for somebody, but what stands there is no account.
    for_unknown: HashSet<String>,
    incomplete: bool,
}

impl Reservations {
    /// For whom something is kept, as far as that can be read.
    pub(crate) fn get(&self, what: &str) -> Option<&Account> {
        self.kept.get(what)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Account)> {
        self.kept.iter().map(|(what, account)| (what.as_str(), account))
    }

    /// Whether there may be a reservation of `what`, or of a wildcard `above` it, that could not be read.
    pub(crate) fn are_in_doubt(&self, what: &str, above: impl IntoIterator<Item = String>) -> bool {
        let unknown = |what: &str| self.for_unknown.contains(what);
        self.incomplete || unknown(what) || above.into_iter().any(|it| unknown(&it))
    }

    /// Whether there may be others that could not be read.
    pub(crate) fn are_incomplete(&self) -> bool {
        self.incomplete
    }

    fn put(&mut self, what: String, account: &str) {
        match account.parse() {
            Ok(account) => _ = self.kept.insert(what, account),
            Err(error) => {
                tracing::error!(what, %error, "a reservation in the database is damaged: nobody gets what it keeps");
                self.for_unknown.insert(what);
            }
        }
    }

    /// Reads rows until there are no more, or one cannot be read.
    fn read(&mut self, connection: &Connection, query: &str) -> rusqlite::Result<()> {
        let mut rows = connection.prepare(query)?;
        for row in rows.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))? {
            let (what, account) = row?;
            self.put(what, &account);
        }
        Ok(())
    }
}

impl Database {
    /// # Errors
    /// Not all of them can be read.
    pub(crate) fn reservations(&self) -> Result<Reservations, DatabaseError> {
        let mut reservations = Reservations::default();
        reservations.read(&self.lock(), "SELECT name, account FROM reservations")?;
        Ok(reservations)
    }

    /// Those before the first that cannot be read, and those behind the last.
    pub(crate) fn readable_reservations(&self) -> Reservations {
        let mut reservations = Reservations { incomplete: true, ..Reservations::default() };
        for order in ["", "ORDER BY name DESC"] {
            let query = format!("SELECT name, account FROM reservations {order}");
            if let Err(error) = reservations.read(&self.lock(), &query) {
                tracing::debug!(%error, "reservations cannot be read any further");
            }
        }
        reservations
    }

    /// Keeps a name for an account, in place of whoever it was kept for before.
    pub(crate) fn reserve(&self, what: &str, account: &Account, now: i64) -> Result<(), DatabaseError> {
        let keep = "INSERT OR REPLACE INTO reservations (name, account, made) VALUES (?1, ?2, ?3)";
        self.lock().execute(keep, params![what, account.as_str(), now])?;
        Ok(())
    }

    /// Whether there was such a reservation.
    pub(crate) fn release(&self, what: &str) -> Result<bool, DatabaseError> {
        Ok(self.lock().execute("DELETE FROM reservations WHERE name = ?1", [what])? > 0)
    }
}

#[cfg(test)]
impl Reservations {
    /// One that can be read, of some that cannot.
    pub(crate) fn incomplete_for_test(what: &str, account: &Account) -> Self {
        let kept = HashMap::from([(what.to_owned(), account.clone())]);
        Self { kept, incomplete: true, ..Self::default() }
    }

    pub(crate) fn for_test(what: &str, account: &Account) -> Self {
        Self { incomplete: false, ..Self::incomplete_for_test(what, account) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn ada() -> Account {
        "ada".parse().unwrap()
    }

    #[test]
    fn a_reservation_holds_until_it_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("hithe.db")).unwrap();
        database.reserve("app.w.test", &ada(), 1).unwrap();
        assert_eq!(database.reservations().unwrap().get("app.w.test"), Some(&ada()));
        assert!(database.release("app.w.test").unwrap() && !database.release("app.w.test").unwrap());
    }

    #[test]
    fn what_is_kept_for_who_is_no_account_is_for_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("hithe.db")).unwrap();
        database.reserve("app.w.test", &ada(), 1).unwrap();
        for what in ["api.w.test", "*.team.w.test"] {
            let add = "INSERT INTO reservations (name, account, made) VALUES (?1, 'a b', 1)";
            database.lock().execute(add, [what]).unwrap();
        }
        let found = database.reservations().unwrap();
        assert!(!found.are_incomplete() && found.are_in_doubt("api.w.test", []));
        assert!(found.are_in_doubt("x.team.w.test", ["*.team.w.test".to_owned()]));
        assert!(!found.are_in_doubt("app.w.test", ["*.w.test".to_owned()]));
    }

    /// Overwrites the page where the middle one of some reservations stands.
    fn damage(path: &Path, what: &str) {
        let mut bytes = std::fs::read(path).unwrap();
        let row = format!("{what}ada");
        let at = bytes.windows(row.len()).position(|it| it == row.as_bytes()).unwrap();
        let page = at / 4096 * 4096;
        bytes[page..page + 4096].fill(0xa5);
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn of_damaged_reservations_those_around_the_damage_are_read_and_the_others_are_in_doubt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hithe.db");
        let name = |number| format!("a-name-of-some-length-{number:04}.w.test");
        {
            let database = Database::open(&path).unwrap();
            (0..500).for_each(|number| database.reserve(&name(number), &ada(), 1).unwrap());
        }
        assert!(!Database::open(&path).unwrap().reservations().unwrap().are_incomplete());
        damage(&path, &name(250));
        let database = Database::open(&path).unwrap();
        assert!(database.reservations().is_err());
        let found = database.readable_reservations();
        assert!(found.are_incomplete() && found.are_in_doubt("anything.w.test", []));
        let known = |number| found.get(&name(number)).is_some();
        assert_eq!((known(0), known(250), known(499)), (true, false, true));
    }
}
