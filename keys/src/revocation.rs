//! Keys and certificates that are no longer trusted: a file like sshd's RevokedKeys.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Certificate, PublicKey};

use crate::certificate::plain_key;
use crate::files::{self, FileError};
use crate::krl::{Krl, KrlError, MAGIC};
use crate::{Fingerprint, line};

/// What is revoked.
#[derive(Clone, Debug)]
pub struct Revocations(List);

#[derive(Clone, Debug)]
enum List {
    /// A list that cannot be read.
    Everything,
    Keys(HashSet<Fingerprint>),
    Krl(Krl),
}

/// Why a list cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}:{line}: {text}")]
    Line { path: PathBuf, line: usize, text: String },
    #[error("{path} is not a readable key revocation list")]
    Krl { path: PathBuf, source: KrlError },
}

impl Revocations {
    /// No list: nothing is revoked.
    pub fn none() -> Self {
        Self(List::Keys(HashSet::new()))
    }

    /// Every key and every certificate.
    pub fn everything() -> Self {
        Self(List::Everything)
    }

    /// Reads a list of `ssh-keygen -k`, or public keys one a line, of which a certificate stands for its key.
    ///
    /// As in sshd, everybody is refused when the list cannot be read, or not to its end: then it is
    /// [`Self::everything`] that comes with the error.
    pub fn load(path: &Path) -> (Self, Option<RevocationError>) {
        match Self::read(path) {
            Ok(list) => (list, None),
            Err(error) => (Self::everything(), Some(error)),
        }
    }

    fn read(path: &Path) -> Result<Self, RevocationError> {
        let content = files::read("list of revoked keys", path)?;
        if content.starts_with(MAGIC) {
            let list = Krl::parse(&content);
            return match list {
                Ok(list) => Ok(Self(List::Krl(list))),
                Err(source) => Err(RevocationError::Krl { path: path.to_owned(), source }),
            };
        }
        let mut keys = HashSet::new();
        for (line, text) in files::lines(&content) {
            match revoked_key(text) {
                Ok(key) => keys.extend(key),
                Err(text) => return Err(RevocationError::Line { path: path.to_owned(), line, text }),
            }
        }
        Ok(Self(List::Keys(keys)))
    }

    /// Whether the list could not be read, so that nobody is let in.
    pub fn are_everything(&self) -> bool {
        matches!(self.0, List::Everything)
    }

    /// Whether this key may not be used, by itself or in a certificate.
    pub fn revokes_key(&self, key: &PublicKey) -> bool {
        match &self.0 {
            List::Everything => true,
            List::Keys(keys) => keys.contains(&Fingerprint::of(key)),
            List::Krl(list) => list.revokes_key(key),
        }
    }

    /// Whether this certificate may not be used, because of itself, its key or its authority's.
    pub fn revokes_certificate(&self, certificate: &Certificate) -> bool {
        let revokes = |key: &KeyData| self.revokes_key(&PublicKey::from(key.clone()));
        revokes(certificate.public_key())
            || revokes(certificate.signature_key())
            || matches!(&self.0, List::Krl(list) if list.revokes_certificate(certificate))
    }
}

/// The key of a line of the plain form.
fn revoked_key(text: &[u8]) -> Result<Option<Fingerprint>, String> {
    if let Some(text) = line::content_of(text)? {
        let (first, rest) = line::split_word(text);
        if first.contains("-cert-v01@") {
            let blob = line::split_word(rest).0;
            let certificate = Certificate::from_openssh(&format!("{first} {blob}"))
                .map_err(|error| format!("is not a valid certificate: {}", line::told(&error)))?;
            return Ok(Some(Fingerprint::of(&PublicKey::from(certificate.public_key().clone()))));
        }
    }
    Ok(plain_key(text)?.map(|(key, _)| Fingerprint::of(&key)))
}
