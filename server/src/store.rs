//! What outlives the process: the secret of names, and the database with accounts, names and the audit log.
//!
//! All in the state directory, 0600.

mod audit;
mod database;
mod names;
mod people;
mod recorder;
mod reservations;
mod traffic;

use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use tempfile::NamedTempFile;

pub(crate) use audit::{AuditQuery, Class, Entry};
pub(crate) use database::{Database, DatabaseError};
pub(crate) use names::{CameBy, Changes, PastOwners, Released};
pub(crate) use people::{Key, NewToken, People, PeopleError, Person, Token};
pub(crate) use recorder::Recorder;
pub(crate) use reservations::Reservations;

/// Why the state directory cannot be used: the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("cannot use {path} (--state-dir)")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{0} is damaged: it should hold 32 bytes. Restore it from a backup, or remove it: random names will change"
    )]
    Secret(PathBuf),
    #[error("no randomness from the operating system")]
    Random,
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The state directory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    pub(crate) database: Database,
}

impl Store {
    /// Makes the directory (0700) and the database if they are not there.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io { path: directory.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let database = Database::open(&directory.join(DATABASE))?;
        Ok(Self { directory: directory.to_owned(), database })
    }

    /// The database of a state directory that is there.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn database_in(directory: &Path) -> Result<PathBuf, StoreError> {
        let path = directory.join(DATABASE);
        match path.metadata() {
            Ok(_) => Ok(path),
            Err(source) => Err(StoreError::Io { path, source }),
        }
    }

    /// The 32 bytes that random names are derived from, made once.
    pub(crate) fn name_secret(&self) -> Result<[u8; 32], StoreError> {
        let path = self.directory.join("names.secret");
        let failed = |source| StoreError::Io { path: path.clone(), source };
        match std::fs::read(&path) {
            Ok(bytes) => bytes.try_into().map_err(|_| StoreError::Secret(path.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                SystemRandom::new().fill(&mut secret).map_err(|_| StoreError::Random)?;
                self.replace(&path, &secret).map_err(failed)?;
                Ok(secret)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Temporary files are 0600, and so is what they become.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(&self.directory)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }
}

/// Seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

/// The file in the state directory.
const DATABASE: &str = "hithe.db";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_state_directory_is_made_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("not/yet/there");
        let store = Store::open(&directory).unwrap();
        store.name_secret().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join("names.secret"))), (0o700, 0o600));
    }
}
