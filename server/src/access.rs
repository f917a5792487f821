//! Who may log in: keys and authorities that the operator wrote down, keys and tokens of the database, or any key on an
//! open server.
//!
//! Logins read snapshots and never wait for a disk. [`Access::refresh`] looks whether files or database changed;
//! [`Access::still_admits`] says of a session that is there whether it would be let in today.

mod identity;
mod rights;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use hithe_cli_parser::HostName;
use hithe_keys::{
    AuthorizedKeys, CertAuthorities, CertRefused, Complaint, FileError, Fingerprint, Refused, Revocations,
};
use russh::keys::{Algorithm, Certificate, PublicKey};

pub(crate) use identity::{Credential, Identity, Origin};
pub(crate) use rights::Rights;

use crate::account::Account;
use crate::config::KeyPolicy;
use crate::limits::Overrides;
use crate::proof::Values;
use crate::store::{Database, DatabaseError, Key, People, Token, seconds};

/// Handle of what logins are decided by.
#[derive(Clone)]
pub(crate) struct Access(Arc<Inner>);

struct Inner {
    policy: KeyPolicy,
    files: ArcSwap<Files>,
    people: ArcSwap<People>,
    database: Database,
    seen: Mutex<Seen>,
}

/// What the files of the operator say.
struct Files {
    keys: AuthorizedKeys,
    /// Those of `--trusted-user-ca`, and those of `cert-authority` lines.
    authorities: CertAuthorities,
    revoked: Revocations,
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
    Keys(#[from] FileError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Access {
    /// Reads what there is, with complaints about lines that admit nobody.
    pub(crate) fn load(policy: KeyPolicy, database: Database) -> Result<(Self, Vec<Complaint>), AccessError> {
        let seen = Seen { files: watched(&policy), database: Some(database.version_of_data()?) };
        let (files, complaints) = Files::read(&policy)?;
        let people = ArcSwap::from_pointee(database.people()?);
        let files = ArcSwap::from_pointee(files);
        let inner = Inner { policy, files, people, database, seen: Mutex::new(seen) };
        Ok((Self(Arc::new(inner)), complaints))
    }

    /// Whether any key may log in.
    fn is_open(&self) -> bool {
        self.0.policy == KeyPolicy::Open
    }

    /// Whether nobody could log in.
    pub(crate) fn admits_nobody(&self) -> bool {
        let (people, files) = (self.0.people.load(), self.0.files.load());
        let listed = !files.keys.is_empty() || !files.authorities.is_empty();
        !(self.is_open() || listed || people.has_tokens() || !people.keys.is_empty())
    }

    /// Whether there is any token that could be shown.
    pub(crate) fn knows_tokens(&self) -> bool {
        self.0.people.load().has_tokens()
    }

    /// Whether a key is worth a signature: it may log in, or the certificate that it may come from may.
    pub(crate) fn may_know(&self, key: &PublicKey, algorithm: &Algorithm, origin: &Origin) -> bool {
        let certificates = !self.0.files.load().authorities.is_empty() && !is_weak(algorithm);
        certificates || self.by_key(key, algorithm, origin).is_some()
    }

    /// The identity of a key, if it may log in.
    pub(crate) fn by_key(&self, key: &PublicKey, algorithm: &Algorithm, origin: &Origin) -> Option<Identity> {
        if is_weak(algorithm) { None } else { self.of_key(key, origin) }
    }

    /// The operator's file counts before the database, that before `--open`. What the file restricts, the database does
    /// not give back.
    fn of_key(&self, key: &PublicKey, origin: &Origin) -> Option<Identity> {
        let fingerprint = Fingerprint::of(key);
        let (files, people) = (self.0.files.load(), self.0.people.load());
        let known = people.keys.get(&fingerprint);
        let identity = |account, comment: String, rights| Identity {
            account,
            credential: Credential::Key(Arc::new(key.clone())),
            comment,
            rights,
            origin: origin.clone(),
        };
        match files.keys.admit(key, origin.login(), &files.revoked) {
            Ok(grant) => {
                let account = account_of(&grant.account, known);
                let rights = Rights {
                    options: grant.restrictions.clone(),
                    acl: known.map(|key| key.acl.clone()).unwrap_or_default(),
                    ..Rights::default()
                };
                return Some(identity(account, grant.comment.clone(), rights));
            }
            Err(Refused::Unknown) => {}
            Err(refused) => {
                tracing::info!(peer = %origin.peer, key = %fingerprint, "login refused: {refused}");
                return None;
            }
        }
        if let Some(key) = known {
            let rights = Rights { acl: key.acl.clone(), ..Rights::default() };
            return Some(identity(key.account.clone(), key.description.clone(), rights));
        }
        let anyone = || identity(Account::of_key(fingerprint), "anyone".to_owned(), Rights::default());
        self.is_open().then(anyone)
    }

    /// The identity of a certificate whose key its holder has, if it may log in.
    pub(crate) fn by_certificate(&self, certificate: &Certificate, origin: &Origin) -> Option<Identity> {
        let files = self.0.files.load();
        let granted = files.authorities.check(certificate, origin.login(), &files.revoked);
        let granted = granted.inspect_err(|refused| {
            // Anybody can show one of those.
            if !matches!(refused, CertRefused::UnknownAuthority(_)) {
                tracing::info!(peer = %origin.peer, "certificate refused: {refused}");
            }
        });
        let grant = granted.ok()?;
        let people = self.0.people.load();
        let known = people.keys.get(&grant.fingerprint);
        let acl = known.map(|key| key.acl.clone()).unwrap_or_default();
        let name = format!("{} certificate {:?} serial {}", grant.fingerprint, grant.key_id, grant.serial);
        Some(Identity {
            account: account_of(&grant.account, known),
            credential: Credential::Certificate(Arc::new(certificate.clone()), name.into()),
            comment: grant.comment,
            rights: Rights { acl, options: grant.restrictions, names: grant.names },
            origin: origin.clone(),
        })
    }

    /// The identity behind a token that was typed in place of a password.
    pub(crate) fn by_token(&self, text: &str, origin: &Origin) -> Option<Identity> {
        let people = self.0.people.load();
        people.token(text.trim()).and_then(|token| of_token(token, origin))
    }

    /// Whether this login would be let in today, as the account that it is and with the same rights.
    pub(crate) fn still_admits(&self, identity: &Identity) -> bool {
        let origin = &identity.origin;
        let by_token = matches!(identity.credential, Credential::Token(_));
        if !by_token && self.0.files.load().revoked.are_everything() {
            // Nobody is let in now, but a list that is just being written must not end every session.
            return true;
        }
        let now = match &identity.credential {
            Credential::Key(key) => self.of_key(key, origin),
            Credential::Certificate(certificate, _) => self.by_certificate(certificate, origin),
            Credential::Token(id) => {
                self.0.people.load().token_by_id(id).and_then(|token| of_token(token, origin))
            }
        };
        now.is_some_and(|now| now.account == identity.account && now.rights == identity.rights)
    }

    /// Whether who logged in so may use all commands: the account is marked, and nothing restricts the login. A token
    /// made for one name must not be able to make itself another.
    pub(crate) fn is_admin(&self, identity: &Identity) -> bool {
        identity.rights.are_whole() && self.0.people.load().is_admin(&identity.account)
    }

    /// Lets the next look read everything again, changed or not.
    pub(crate) fn forget_look(&self) {
        *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen::default();
    }

    /// What the TXT record of a custom domain may hold to make it this login's account's: the account by its name, the
    /// key that logged in, or any key of the account in the database.
    pub(crate) fn values(&self, identity: &Identity, domain: &HostName) -> Values {
        let used = match &identity.credential {
            Credential::Key(key) => Some(Fingerprint::of(key)),
            Credential::Certificate(certificate, _) => {
                Some(Fingerprint::of(&PublicKey::from(certificate.public_key().clone())))
            }
            Credential::Token(_) => None,
        };
        let people = self.0.people.load();
        let known = people.keys.iter().filter(|(_, key)| key.account == identity.account);
        let keys = used.into_iter().chain(known.map(|(fingerprint, _)| *fingerprint));
        Values::new(&identity.account, domain, keys.map(|it| it.to_string()))
    }

    /// What is said of an account's limits.
    pub(crate) fn limits(&self, account: &Account) -> Overrides {
        self.0.people.load().limits(account)
    }

    /// Reads again what has changed since the last look: whether anything has, and the complaints.
    pub(crate) fn refresh(&self) -> Result<(bool, Vec<Complaint>), AccessError> {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = watched(&self.0.policy);
        let (mut changed, mut complaints) = (false, Vec::new());
        // Each is noted as seen when it could be read: what could not is tried again.
        let files =
            if now == seen.files { Ok(()) } else { self.reload_files().map(|told| complaints = told) };
        if files.is_ok() && now != seen.files {
            seen.files = now;
            changed = true;
        }
        let version = Some(self.0.database.version_of_data()?);
        if version != seen.database {
            self.reload_people()?;
            seen.database = version;
            changed = true;
        }
        files.map(|()| (changed, complaints))
    }

    /// Reads the database again, after a change of our own.
    pub(crate) fn reload_people(&self) -> Result<(), DatabaseError> {
        self.0.people.store(Arc::new(self.0.database.people()?));
        Ok(())
    }

    fn reload_files(&self) -> Result<Vec<Complaint>, AccessError> {
        let read = Files::read(&self.0.policy);
        if read.is_err()
            && let KeyPolicy::Known(files) = &self.0.policy
        {
            // What is revoked counts at once, whatever became of the other files.
            let before = self.0.files.load();
            let (keys, authorities) = (before.keys.clone(), before.authorities.clone());
            let revoked = revocations(files.revoked.as_deref());
            self.0.files.store(Arc::new(Files { keys, authorities, revoked }));
        }
        let (files, complaints) = read?;
        tracing::info!(
            keys = files.keys.len(),
            authorities = files.authorities.len(),
            "authorized keys read again"
        );
        self.0.files.store(Arc::new(files));
        Ok(complaints)
    }
}

impl Files {
    fn read(policy: &KeyPolicy) -> Result<(Self, Vec<Complaint>), FileError> {
        let KeyPolicy::Known(files) = policy else {
            let (keys, authorities) = <_>::default();
            return Ok((Self { keys, authorities, revoked: Revocations::none() }, Vec::new()));
        };
        let (keys, mut complaints) =
            files.keys.as_deref().map_or(Ok(<_>::default()), AuthorizedKeys::load)?;
        let listed = files.authorities.as_deref().map_or(Ok(<_>::default()), CertAuthorities::load)?;
        let (mut authorities, more): (CertAuthorities, Vec<_>) = listed;
        complaints.extend(more);
        authorities.extend(keys.authorities());
        let revoked = revocations(files.revoked.as_deref());
        Ok((Self { keys, authorities, revoked }, complaints))
    }
}

/// A list that cannot be read revokes everything.
fn revocations(path: Option<&Path>) -> Revocations {
    let Some(path) = path else { return Revocations::none() };
    let (revoked, error) = Revocations::load(path);
    if let Some(error) = error {
        tracing::error!("nobody with a key or certificate can log in: {error}");
    }
    revoked
}

/// A name that the operator's file gives counts before what the database knows of the key.
fn account_of(account: &hithe_keys::Account, known: Option<&Key>) -> Account {
    match (account, known) {
        (hithe_keys::Account::Named(name), _) => Account::named(name),
        (hithe_keys::Account::Key(_), Some(known)) => known.account.clone(),
        (hithe_keys::Account::Key(key), None) => Account::of_key(*key),
    }
}

/// SHA-1.
fn is_weak(algorithm: &Algorithm) -> bool {
    *algorithm == (Algorithm::Rsa { hash: None })
}

fn of_token(token: &Token, origin: &Origin) -> Option<Identity> {
    let valid = !token.has_expired(seconds(origin.at));
    valid.then(|| Identity {
        account: token.account.clone(),
        credential: Credential::Token(token.id.as_str().into()),
        comment: token.description.clone(),
        rights: Rights { acl: token.acl.clone(), ..Rights::default() },
        origin: origin.clone(),
    })
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("policy", &self.0.policy).finish_non_exhaustive()
    }
}

/// Name and time of change of each file that decides about logins.
fn watched(policy: &KeyPolicy) -> Vec<(PathBuf, Option<SystemTime>)> {
    let KeyPolicy::Known(files) = policy else { return Vec::new() };
    let changed = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    let named = [&files.keys, &files.authorities, &files.revoked].into_iter().flatten();
    let mut watched: Vec<_> = named.map(|path| (path.clone(), changed(path))).collect();
    if let Some(Ok(entries)) = files.keys.as_ref().map(std::fs::read_dir) {
        watched.extend(entries.flatten().map(|entry| (entry.path(), changed(&entry.path()))));
    }
    watched.sort();
    watched
}
