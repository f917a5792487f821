//! What outlives the process: the secret of names, and who held which name or port last.
//!
//! Two small files in the state directory, 0600, replaced atomically.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::account::Account;

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
}

/// The state directory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    directory: PathBuf,
}

impl Store {
    /// Makes the directory (0700) if it is not there.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io { path: directory.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        Ok(Self { directory: directory.to_owned() })
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

    /// Who held what. A damaged file is set aside: losing it only frees names early.
    pub(crate) fn past_owners(&self) -> PastOwners {
        let path = self.owners_file();
        let Ok(text) = std::fs::read(&path) else { return PastOwners::default() };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "cannot read who held which name; starting without");
            let _ = std::fs::rename(&path, path.with_extension("damaged"));
            PastOwners::default()
        })
    }

    pub(crate) fn save_past_owners(&self, owners: &PastOwners) -> Result<(), StoreError> {
        let path = self.owners_file();
        let failed = |source| StoreError::Io { path: path.clone(), source };
        let text = serde_json::to_vec(owners).map_err(|error| failed(error.into()))?;
        self.replace(&path, &text).map_err(failed)
    }

    fn owners_file(&self) -> PathBuf {
        self.directory.join("owners.json")
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

/// The last owner of each name and port, remembered for a day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PastOwners {
    held: HashMap<String, Held>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    owner: Account,
    /// Seconds since 1970.
    seen: u64,
}

impl Held {
    fn counts(&self, now: SystemTime) -> bool {
        seconds(now).saturating_sub(self.seen) < REMEMBERED_FOR.as_secs()
    }
}

impl PastOwners {
    /// Remembers that `owner` holds `what` at `now`. Beyond the bounds the longest unseen is forgotten.
    pub(crate) fn note(&mut self, what: String, owner: Account, now: SystemTime) {
        let known = self.held.insert(what, Held { owner: owner.clone(), seen: seconds(now) }).is_some();
        if known {
            return;
        }
        if self.held.values().filter(|held| held.owner == owner).count() > MAX_PER_OWNER {
            self.forget_oldest(|held| held.owner == owner);
        }
        if self.held.len() > MAX_REMEMBERED {
            self.forget_oldest(|_| true);
        }
    }

    /// The last owner of `what`, if that was within the last day.
    pub(crate) fn owner(&self, what: &str, now: SystemTime) -> Option<Account> {
        let held = self.held.get(what)?;
        held.counts(now).then(|| held.owner.clone())
    }

    /// When `what` was held last, in seconds since 1970.
    pub(crate) fn seen(&self, what: &str) -> Option<u64> {
        self.held.get(what).map(|held| held.seen)
    }

    /// All that was held within the last day.
    pub(crate) fn all(&self, now: SystemTime) -> impl Iterator<Item = (&str, &Account)> {
        self.held.iter().filter(move |(_, held)| held.counts(now)).map(|(what, held)| (&**what, &held.owner))
    }

    fn forget_oldest(&mut self, among: impl Fn(&Held) -> bool) {
        let oldest = self.held.iter().filter(|(_, held)| among(held)).min_by_key(|(_, held)| held.seen);
        if let Some(oldest) = oldest.map(|(what, _)| what.clone()) {
            self.held.remove(&oldest);
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How long a name stays with its last key.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);
/// About a megabyte on disk.
const MAX_REMEMBERED: usize = 10_000;
/// One key cannot crowd out the others.
const MAX_PER_OWNER: usize = 64;

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
