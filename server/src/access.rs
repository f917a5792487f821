//! Who may log in: keys that the operator wrote down or put into the database, tokens, or any key on an open server.
//!
//! Logins read snapshots and never wait for a disk. [`Access::refresh`] looks whether files or database changed;
//! [`Access::still_admits`] says of a session that is there whether it would be let in today.

mod rights;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use hithe_keys::{AuthorizedKeys, AuthorizedKeysError, Complaint, Fingerprint};
use russh::keys::{Algorithm, PublicKey};

pub(crate) use rights::Rights;

use crate::account::Account;
use crate::config::KeyPolicy;
use crate::limits::Overrides;
use crate::store::{Database, DatabaseError, People, Token, seconds};

/// Handle of what logins are decided by.
#[derive(Clone)]
pub(crate) struct Access(Arc<Inner>);

struct Inner {
    policy: KeyPolicy,
    file: ArcSwap<AuthorizedKeys>,
    people: ArcSwap<People>,
    database: Database,
    seen: Mutex<Seen>,
}

/// By what a change is noticed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    files: Vec<(PathBuf, Option<SystemTime>)>,
    database: Option<i64>,
}

/// Why logins cannot be decided at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error(transparent)]
    Keys(#[from] AuthorizedKeysError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// By what somebody logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    Key(Fingerprint),
    /// By its public half.
    Token(String),
}

impl std::fmt::Display for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(fingerprint) => fingerprint.fmt(f),
            Self::Token(id) => write!(f, "token {id}"),
        }
    }
}

/// Somebody who has proved to hold a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) account: Account,
    pub(crate) credential: Credential,
    /// What the operator wrote beside it.
    pub(crate) comment: String,
    pub(crate) rights: Rights,
}

impl Access {
    /// Reads what there is, with complaints about lines that admit nobody.
    pub(crate) fn load(policy: KeyPolicy, database: Database) -> Result<(Self, Vec<Complaint>), AccessError> {
        let seen = Seen { files: key_files(&policy), database: Some(database.version_of_data()?) };
        let (file, complaints) = match &policy {
            KeyPolicy::Known { keys: Some(path) } => AuthorizedKeys::load(path)?,
            KeyPolicy::Known { keys: None } | KeyPolicy::Open => <_>::default(),
        };
        let people = ArcSwap::from_pointee(database.people()?);
        let inner =
            Inner { policy, file: ArcSwap::from_pointee(file), people, database, seen: Mutex::new(seen) };
        Ok((Self(Arc::new(inner)), complaints))
    }

    /// Whether any key may log in.
    pub(crate) fn is_open(&self) -> bool {
        self.0.policy == KeyPolicy::Open
    }

    /// Whether nobody could log in.
    pub(crate) fn admits_nobody(&self) -> bool {
        let people = self.0.people.load();
        !self.is_open() && self.0.file.load().is_empty() && people.keys.is_empty() && !people.has_tokens()
    }

    /// Whether there is any token that could be shown.
    pub(crate) fn knows_tokens(&self) -> bool {
        self.0.people.load().has_tokens()
    }

    /// The identity of a key, if it may log in. The operator's file counts before the database, that before `--open`.
    pub(crate) fn by_key(&self, key: &PublicKey, algorithm: &Algorithm) -> Option<Identity> {
        // SHA-1.
        if *algorithm == (Algorithm::Rsa { hash: None }) {
            return None;
        }
        self.of_key(Fingerprint::of(key))
    }

    fn of_key(&self, fingerprint: Fingerprint) -> Option<Identity> {
        let people = self.0.people.load();
        let known = people.keys.get(&fingerprint);
        let identity = |account, comment: String, rights| Identity {
            account,
            credential: Credential::Key(fingerprint),
            comment,
            rights,
        };
        if let Some(listed) = self.0.file.load().by_fingerprint(&fingerprint) {
            let account = known.map_or_else(|| Account::of_key(fingerprint), |key| key.account.clone());
            return Some(identity(account, listed.comment.clone(), Rights::default()));
        }
        if let Some(key) = known {
            return Some(identity(
                key.account.clone(),
                key.description.clone(),
                Rights { acl: key.acl.clone() },
            ));
        }
        self.is_open().then(|| identity(Account::of_key(fingerprint), "anyone".to_owned(), Rights::default()))
    }

    /// The identity behind a token that was typed in place of a password.
    pub(crate) fn by_token(&self, text: &str) -> Option<Identity> {
        let people = self.0.people.load();
        people.token(text.trim()).and_then(of_token)
    }

    /// Whether this login would be let in today, as the account that it is and with no fewer rights.
    pub(crate) fn still_admits(&self, identity: &Identity) -> bool {
        let now = match &identity.credential {
            Credential::Key(fingerprint) => self.of_key(*fingerprint),
            Credential::Token(id) => self.0.people.load().token_by_id(id).and_then(of_token),
        };
        now.is_some_and(|now| now.account == identity.account && now.rights == identity.rights)
    }

    /// Whether who logged in so may use all commands: the account is marked, and nothing restricts the login. A token
    /// made for one name must not be able to make itself another.
    pub(crate) fn is_admin(&self, identity: &Identity) -> bool {
        identity.rights == Rights::default() && self.0.people.load().is_admin(&identity.account)
    }

    /// What is said of an account's limits.
    pub(crate) fn limits(&self, account: &Account) -> Overrides {
        self.0.people.load().limits(account)
    }

    /// Reads again what has changed since the last look: whether anything has, and the complaints.
    pub(crate) fn refresh(&self) -> Result<(bool, Vec<Complaint>), AccessError> {
        let now =
            Seen { files: key_files(&self.0.policy), database: Some(self.0.database.version_of_data()?) };
        let before = std::mem::replace(&mut *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner), now);
        let now = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (files, database) = (now.files != before.files, now.database != before.database);
        drop(now);
        if database {
            self.reload_people()?;
        }
        let complaints = if files { self.reload_file()? } else { Vec::new() };
        Ok((files || database, complaints))
    }

    /// Reads the database again, after a change of our own.
    pub(crate) fn reload_people(&self) -> Result<(), DatabaseError> {
        self.0.people.store(Arc::new(self.0.database.people()?));
        Ok(())
    }

    fn reload_file(&self) -> Result<Vec<Complaint>, AccessError> {
        let KeyPolicy::Known { keys: Some(path) } = &self.0.policy else { return Ok(Vec::new()) };
        let (keys, complaints) = AuthorizedKeys::load(path)?;
        tracing::info!(path = %path.display(), keys = keys.len(), "authorized keys read again");
        self.0.file.store(Arc::new(keys));
        Ok(complaints)
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("policy", &self.0.policy).finish_non_exhaustive()
    }
}

fn of_token(token: &Token) -> Option<Identity> {
    let valid = !token.has_expired(seconds(SystemTime::now()));
    valid.then(|| Identity {
        account: token.account.clone(),
        credential: Credential::Token(token.id.clone()),
        comment: token.description.clone(),
        rights: Rights { acl: token.acl.clone() },
    })
}

/// Name and time of change of each file of keys.
fn key_files(policy: &KeyPolicy) -> Vec<(PathBuf, Option<SystemTime>)> {
    let KeyPolicy::Known { keys: Some(path) } = policy else { return Vec::new() };
    let changed = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    let mut files = vec![(path.clone(), changed(path))];
    if let Ok(entries) = std::fs::read_dir(path) {
        files.extend(entries.flatten().map(|entry| (entry.path(), changed(&entry.path()))));
    }
    files.sort();
    files
}
