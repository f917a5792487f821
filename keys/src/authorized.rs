//! The keys that may publish: files in the format of sshd(8), AUTHORIZED_KEYS FILE FORMAT.
//!
//! A line that cannot be honoured to the letter admits nobody and becomes a [`Complaint`]: a restriction is never
//! ignored. Only reads; the server decides when to read again.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;
use russh::keys::PublicKey;

use crate::files::{self, FileError};
use crate::{CertAuthorities, Complaint, Fingerprint, Grant, Login, Refused, Revocations, line};

const WHAT: &str = "authorized keys";

/// A set of public keys, and of authorities whose certificates count as keys.
#[derive(Clone, Debug, Default)]
pub struct AuthorizedKeys {
    /// The lines of each key in their order; a list is never empty.
    keys: HashMap<Fingerprint, Vec<Grant>>,
    authorities: CertAuthorities,
}

impl AuthorizedKeys {
    /// Reads a file, or each file of a directory whose name neither starts with `.` nor ends with `~`.
    ///
    /// Folders in the directory are passed over, symbolic links to files are followed. A file of the directory that
    /// cannot be read becomes a complaint; the path itself must be readable. Times of expiry that name no time zone
    /// are of the system's.
    pub fn load(path: &Path) -> Result<(Self, Vec<Complaint>), FileError> {
        let unreadable = |source| FileError::Read { what: WHAT, path: path.to_owned(), source };
        let mut keys = Self::default();
        let mut complaints = Vec::new();
        if !fs::metadata(path).map_err(unreadable)?.is_dir() {
            keys.add_file(path, &mut complaints)?;
            return Ok((keys, complaints));
        }
        for file in files::files_of(path).map_err(unreadable)? {
            if let Err(error) = keys.add_file(&file, &mut complaints) {
                complaints.push(Complaint::about_file(&file, &error));
            }
        }
        Ok((keys, complaints))
    }

    /// The first line that lets this key in from this address at this time, as in sshd. The user name says nothing.
    pub fn admit(
        &self,
        key: &PublicKey,
        login: Login<'_>,
        revocations: &Revocations,
    ) -> Result<&Grant, Refused> {
        if revocations.revokes_key(key) {
            return Err(Refused::Revoked);
        }
        let mut refused = Refused::Unknown;
        for grant in self.grants(key) {
            match grant.admits(login.peer, login.now) {
                Ok(()) => return Ok(grant),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// The lines of this key, in their order.
    pub fn grants(&self, key: &PublicKey) -> &[Grant] {
        self.keys.get(&Fingerprint::of(key)).map_or(&[], Vec::as_slice)
    }

    /// The first line of this key, whatever it restricts.
    pub fn get(&self, key: &PublicKey) -> Option<&Grant> {
        self.grants(key).first()
    }

    /// The lines with `cert-authority`.
    pub fn authorities(&self) -> &CertAuthorities {
        &self.authorities
    }

    /// The number of keys, without authorities.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nobody can get in.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.authorities.is_empty()
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn every_grant(&self) -> impl Iterator<Item = &Grant> {
        self.keys.values().flatten()
    }

    fn add_file(&mut self, path: &Path, complaints: &mut Vec<Complaint>) -> Result<(), FileError> {
        let content = files::read(WHAT, path)?;
        self.add(&content, path, &TimeZone::system(), complaints);
        Ok(())
    }

    pub(crate) fn add(
        &mut self,
        content: &[u8],
        path: &Path,
        zone: &TimeZone,
        complaints: &mut Vec<Complaint>,
    ) {
        let shared: Arc<Path> = Arc::from(path);
        for (number, text) in files::lines(content) {
            let line = match line::parse(text, &shared, number, zone) {
                Ok(Some(line)) => line,
                Ok(None) => continue,
                Err(text) => {
                    complaints.push(Complaint::error(path, number, text));
                    continue;
                }
            };
            let warnings = line.warnings.iter().map(|text| Complaint::warning(path, number, text.clone()));
            complaints.extend(warnings);
            if line.authority {
                self.authorities.add(line);
            } else {
                self.keys.entry(line.grant.fingerprint).or_default().push(line.grant);
            }
        }
    }
}

#[cfg(test)]
mod tests;
