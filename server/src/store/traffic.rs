//! Bytes that accounts moved, by month.

use std::collections::HashMap;

use rusqlite::params;

use super::database::{Database, DatabaseError};
use crate::account::Account;
use crate::limits::{MAX_REMEMBERED, Month};

impl Database {
    /// Of all accounts in a month. A row that makes no sense is as good as none.
    pub(crate) fn traffic(&self, month: Month) -> Result<HashMap<Account, u64>, DatabaseError> {
        let connection = self.lock();
        let mut rows = connection
            .prepare("SELECT account, bytes FROM traffic WHERE month = ?1 ORDER BY bytes DESC LIMIT ?2")?;
        let rows = rows.query_map(params![month.0, most()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
        })?;
        let mut traffic = HashMap::new();
        for row in rows {
            let (account, bytes) = row?;
            if let (Ok(account), Ok(bytes)) = (account.parse(), u64::try_from(bytes)) {
                traffic.insert(account, bytes);
            }
        }
        Ok(traffic)
    }

    /// Adds to a month, and forgets what is older than a year and who moved least beyond the bound.
    pub(crate) fn add_traffic(&self, month: Month, moved: &[(Account, u64)]) -> Result<(), DatabaseError> {
        let mut connection = self.lock();
        let change = connection.transaction()?;
        {
            let mut add = change.prepare_cached(
                "INSERT INTO traffic (account, month, bytes) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
            )?;
            for (account, bytes) in moved {
                add.execute(params![account.as_str(), month.0, bytes.cast_signed()])?;
            }
        }
        change.execute("DELETE FROM traffic WHERE month < ?1", [month.0 - MONTHS])?;
        let rows: i64 =
            change.query_row("SELECT count(*) FROM traffic WHERE month = ?1", [month.0], |row| row.get(0))?;
        if rows > most() {
            change.execute(
                "DELETE FROM traffic WHERE month = ?1 AND account IN
                 (SELECT account FROM traffic WHERE month = ?1 ORDER BY bytes LIMIT ?2)",
                params![month.0, rows - most()],
            )?;
        }
        Ok(change.commit()?)
    }
}

fn most() -> i64 {
    i64::try_from(MAX_REMEMBERED).unwrap_or(i64::MAX)
}

const MONTHS: i64 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_add_up_in_their_month_and_are_forgotten_after_a_year() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("hithe.db")).unwrap();
        let [ada, bob]: [Account; 2] = ["ada", "bob"].map(|name| name.parse().unwrap());
        let month = Month(24_000);
        database.add_traffic(month, &[(ada.clone(), 1), (bob, 5)]).unwrap();
        database.add_traffic(month, &[(ada.clone(), 2)]).unwrap();
        assert_eq!(database.traffic(month).unwrap()[&ada], 3);
        database.add_traffic(Month(24_012), &[(ada.clone(), 7)]).unwrap();
        assert_eq!(database.traffic(month).unwrap().len(), 2);
        database.add_traffic(Month(24_013), &[]).unwrap();
        assert!(database.traffic(month).unwrap().is_empty());
        assert_eq!(database.traffic(Month(24_012)).unwrap()[&ada], 7);
    }
}
