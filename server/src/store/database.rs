//! The database of the state directory: SQLite with a write-ahead log, so that `hithed admin` can read and change it
//! beside a running server.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Steps from an empty database to this version's. A step that was released is never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/1.sql"),
    include_str!("migrations/2.sql"),
    include_str!("migrations/3.sql"),
    include_str!("migrations/4.sql"),
    include_str!("migrations/5.sql"),
];

/// Why the database cannot be used: the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("cannot make {path}")]
    Create { path: PathBuf, source: io::Error },
    #[error(
        "{0} is not a database, or a damaged one. Put a backup (hithed admin backup) in its place, or move it away to \
         begin with none: accounts, tokens and reservations are then gone"
    )]
    NotADatabase(PathBuf),
    #[error(
        "{path} was written by a newer hithed (its format is {found}, this one knows {MIGRATIONS_LEN}): install that \
         version again, or put a backup of before in its place"
    )]
    Newer { path: PathBuf, found: usize },
    #[error("{}", said(.0))]
    Query(#[from] rusqlite::Error),
    #[error("cannot write the backup {path}: {reason}")]
    Backup { path: PathBuf, reason: String },
}

const MIGRATIONS_LEN: usize = MIGRATIONS.len();

/// What a failed query means for who asked for it.
fn said(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            "the disk of the state directory is full: nothing was changed".to_owned()
        }
        Some(ErrorCode::ReadOnly) => {
            "the state directory cannot be written to: nothing was changed".to_owned()
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds the database: nothing was changed, try again".to_owned()
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            "the database is damaged (hithe.db): stop the server and put a backup (hithed \
             admin backup) in its place, or what sqlite3 hithe.db .recover still finds in it"
                .to_owned()
        }
        _ => format!("the database failed: {error}"),
    }
}

/// Handle of the one connection of this process. Its methods block for as long as the disk takes.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    connection: Arc<Mutex<Connection>>,
    path: PathBuf,
    /// Why nothing can be written, where that is so.
    read_only: Option<String>,
}

impl Database {
    /// Opens or makes the file (0600) and brings it to this version. Where it cannot be written to, it is opened for
    /// reading alone.
    ///
    /// # Errors
    /// It is no database, or a newer version's.
    pub(crate) fn open(path: &Path) -> Result<Self, DatabaseError> {
        match Self::open_for_writing(path) {
            Err(DatabaseError::Query(error) | DatabaseError::Open { source: error, .. })
                if is_about_writing(&error) && path.exists() =>
            {
                Ok(Self::of(open_for_reading(path)?, path, Some(said(&error))))
            }
            Err(DatabaseError::Create { source, .. }) if path.exists() => {
                Ok(Self::of(open_for_reading(path)?, path, Some(source.to_string())))
            }
            Err(DatabaseError::Query(error)) if is_no_database(&error) => {
                Err(DatabaseError::NotADatabase(path.to_owned()))
            }
            opened => opened,
        }
    }

    fn open_for_writing(path: &Path) -> Result<Self, DatabaseError> {
        let create = |source| DatabaseError::Create { path: path.to_owned(), source };
        // SQLite would make it with the modes of the umask; its companions take those of the file.
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(create)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)
            .map_err(|source| DatabaseError::Open { path: path.to_owned(), source })?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        migrate(path, &mut connection)?;
        Ok(Self::of(connection, path, None))
    }

    fn of(connection: Connection, path: &Path, read_only: Option<String>) -> Self {
        Self { connection: Arc::new(Mutex::new(connection)), path: path.to_owned(), read_only }
    }

    /// Why nothing can be written, where that is so.
    pub(crate) fn read_only(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    /// What SQLite finds damaged, in its words; empty when all is well.
    pub(crate) fn damages(&self) -> Result<Vec<String>, DatabaseError> {
        let connection = self.lock();
        let mut check = connection.prepare("PRAGMA quick_check(20)")?;
        let found = check.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        Ok(found.into_iter().filter(|line| line != "ok").collect())
    }

    /// A number that changes when another connection has written.
    pub(crate) fn version_of_data(&self) -> Result<i64, DatabaseError> {
        Ok(self.lock().query_row("PRAGMA data_version", [], |row| row.get(0))?)
    }

    /// Writes a whole and consistent copy to a file that is not there yet (0600).
    pub(crate) fn back_up(&self, to: &Path) -> Result<(), DatabaseError> {
        let failed = |reason: String| DatabaseError::Backup { path: to.to_owned(), reason };
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
        made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => failed("there is such a file already".to_owned()),
            _ => failed(error.to_string()),
        })?;
        let copied = Connection::open(to).and_then(|mut copy| {
            let connection = self.lock();
            let backup = rusqlite::backup::Backup::new(&connection, &mut copy)?;
            backup.run_to_completion(PAGES_AT_A_TIME, Duration::ZERO, None)
        });
        copied.map_err(|error| {
            let _ = std::fs::remove_file(to);
            failed(said(&error))
        })
    }

    /// For queries; hold it shortly.
    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// What an older version wrote is brought to this one's form in memory, where it stays as it was at that moment.
fn open_for_reading(path: &Path) -> Result<Connection, DatabaseError> {
    let connection = read_only(path)?;
    let found = version(&connection)?;
    check_version(path, found)?;
    if found == MIGRATIONS.len() {
        return Ok(connection);
    }
    let mut copy = Connection::open_in_memory()?;
    rusqlite::backup::Backup::new(&connection, &mut copy)?.run_to_completion(
        PAGES_AT_A_TIME,
        Duration::ZERO,
        None,
    )?;
    migrate(path, &mut copy)?;
    Ok(copy)
}

fn read_only(path: &Path) -> Result<Connection, DatabaseError> {
    let failed = |source| DatabaseError::Open { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let direct = Connection::open_with_flags(path, flags).map_err(failed)?;
    if version(&direct).is_ok() {
        return Ok(direct);
    }
    // A write-ahead log needs a file of its own to be read. Where that cannot be made, nobody writes either.
    let uri = format!("file:{}?immutable=1", percent(path));
    Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI).map_err(failed)
}

/// A path in a URI of SQLite: what is special there is written as its number.
fn percent(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    bytes
        .iter()
        .map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn version(connection: &Connection) -> rusqlite::Result<usize> {
    connection.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0)).map(|it| it as usize)
}

fn check_version(path: &Path, found: usize) -> Result<(), DatabaseError> {
    if found > MIGRATIONS.len() {
        return Err(DatabaseError::Newer { path: path.to_owned(), found });
    }
    Ok(())
}

/// All steps that are missing, each whole or not at all.
fn migrate(path: &Path, connection: &mut Connection) -> Result<(), DatabaseError> {
    let done = version(connection)?;
    check_version(path, done)?;
    for (step, number) in MIGRATIONS.iter().zip(1_u32..).skip(done) {
        let change = connection.transaction()?;
        change.execute_batch(step)?;
        change.pragma_update(None, "user_version", number)?;
        change.commit()?;
    }
    Ok(())
}

fn is_about_writing(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::DiskFull)
    )
}

fn is_no_database(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// How long a writer waits for another.
const BUSY: Duration = Duration::from_secs(5);
/// Of 4 KiB; between them others may write.
const PAGES_AT_A_TIME: std::ffi::c_int = 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hithe.db");
        (folder, path)
    }

    #[test]
    fn a_fresh_database_is_its_owners_alone_and_whole() {
        let (_folder, path) = place();
        let database = Database::open(&path).unwrap();
        assert_eq!(database.damages().unwrap(), [""; 0]);
        assert_eq!(database.read_only(), None);
        for file in [path.clone(), path.with_extension("db-wal"), path.with_extension("db-shm")] {
            let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.display());
        }
    }

    #[test]
    fn what_a_newer_version_wrote_is_refused_with_the_way_out() {
        let (_folder, path) = place();
        let database = Database::open(&path).unwrap();
        database.lock().pragma_update(None, "user_version", 999).unwrap();
        drop(database);
        let told = Database::open(&path).unwrap_err().to_string();
        assert!(told.contains("a newer hithed (its format is 999") && told.contains("backup"), "{told}");
    }

    #[test]
    fn what_is_no_database_is_refused_and_left_as_it_is() {
        let (_folder, path) = place();
        std::fs::write(&path, "these are not the rows that you are looking for".repeat(50)).unwrap();
        let told = Database::open(&path).unwrap_err().to_string();
        assert!(told.contains("not a database"), "{told}");
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("these are"));
    }

    #[test]
    fn damage_inside_is_found() {
        let (_folder, path) = place();
        let database = Database::open(&path).unwrap();
        let lines = "x".repeat(3000);
        for number in 0..50 {
            let row = (number, lines.as_str());
            database
                .lock()
                .execute("INSERT INTO names (name, account, seen) VALUES (?1, ?2, 0)", row)
                .unwrap();
        }
        database.lock().pragma_update(None, "wal_checkpoint", "TRUNCATE").unwrap();
        drop(database);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 4096].fill(0xa5);
        std::fs::write(&path, bytes).unwrap();
        assert_ne!(Database::open(&path).unwrap().damages().unwrap(), [""; 0]);
    }

    #[test]
    fn a_backup_is_a_database_and_never_overwrites() {
        let (folder, path) = place();
        let database = Database::open(&path).unwrap();
        database
            .lock()
            .execute("INSERT INTO names (name, account, seen) VALUES ('a', 'ada', 0)", [])
            .unwrap();
        let copy = folder.path().join("copy.db");
        database.back_up(&copy).unwrap();
        let rows: u32 = Database::open(&copy)
            .unwrap()
            .lock()
            .query_row("SELECT count(*) FROM names", [], |r| r.get(0))
            .unwrap();
        assert_eq!(rows, 1);
        let told = database.back_up(&copy).unwrap_err().to_string();
        assert!(told.contains("there is such a file already"), "{told}");
    }

    #[test]
    fn another_writer_is_noticed() {
        let (_folder, path) = place();
        let (one, other) = (Database::open(&path).unwrap(), Database::open(&path).unwrap());
        let before = one.version_of_data().unwrap();
        other.lock().execute("INSERT INTO names (name, account, seen) VALUES ('a', 'ada', 0)", []).unwrap();
        assert_ne!(one.version_of_data().unwrap(), before);
    }

    /// A database as the first `steps` made it.
    fn of_version(path: &Path, steps: usize) -> Connection {
        let connection = Connection::open(path).unwrap();
        MIGRATIONS.iter().take(steps).for_each(|step| connection.execute_batch(step).unwrap());
        connection.pragma_update(None, "user_version", u32::try_from(steps).unwrap()).unwrap();
        connection
    }

    #[test]
    fn what_admins_changed_before_audit_entries_had_classes_is_told_from_what_anybody_did() {
        let (_folder, path) = place();
        let before = of_version(&path, 2);
        let told = [("login", "ok"), ("keys add", "only an admin may do that"), ("keys remove", "ok")];
        for (action, result) in told {
            let add = "INSERT INTO audit (at, account, source, action, object, result) VALUES (1, 'ada', '', ?1, '', ?2)";
            before.execute(add, [action, result]).unwrap();
        }
        drop(before);
        let database = Database::open(&path).unwrap();
        let classes: Vec<u8> = {
            let connection = database.lock();
            let mut classes = connection.prepare("SELECT class FROM audit ORDER BY id").unwrap();
            classes.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(classes, [0, 0, 2]);
    }

    #[test]
    fn what_an_older_version_wrote_is_read_where_nothing_can_be_written() {
        let (_folder, path) = place();
        let before = of_version(&path, 1);
        before
            .execute("INSERT INTO reservations (name, account, made) VALUES ('a.w.test', 'ada', 0)", [])
            .unwrap();
        drop(before);
        let database =
            Database::of(open_for_reading(&path).unwrap(), &path, Some("said by a test".to_owned()));
        assert!(database.reservations().unwrap().get("a.w.test").is_some());
        assert!(database.people().unwrap().accounts.is_empty());
        assert_eq!(version(&Connection::open(&path).unwrap()).unwrap(), 1);
    }
}
