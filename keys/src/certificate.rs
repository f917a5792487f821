//! OpenSSH user certificates: who is trusted to sign them, and what one permits (PROTOCOL.certkeys, sshd(8)).
//!
//! russh checks only that a certificate is signed by the key in it and not long expired; everything else is here.
//!
//! Principals are accounts, or names that may be published. One with a dot that reads as a host name or a pattern of
//! host names (`app.example.com`, `*.ada.example.com`) is a name; one that is an [`AccountName`] is an account. Unlike
//! sshd, where the user name picks the account, most publishers type none of their own: the user name picks among the
//! accounts of the certificate if it is one of them, else the first of them counts. A certificate with names alone
//! belongs to its key. As in sshd, principals of users are compared letter by letter, wildcards or not, and a
//! certificate without principals is refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::certificate::{CertType, OptionsMap};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey};

use crate::address::Networks;
use crate::complaint::shortened;
use crate::files::{self, FileError};
use crate::line::{self, Line};
use crate::{
    Account, AccountName, Complaint, Fingerprint, Grant, NamePattern, Refused, Restrictions, Revocations,
    Source,
};

/// The keys whose certificates are trusted, and what each line says of them.
#[derive(Clone, Debug, Default)]
pub struct CertAuthorities(HashMap<Fingerprint, Vec<Authority>>);

#[derive(Clone, Debug)]
struct Authority {
    /// `account=`: whose certificates these are, whatever their principals.
    account: Option<Account>,
    /// `principals=`: those that this authority may vouch for.
    principals: Option<Vec<String>>,
    restrictions: Restrictions,
    comment: String,
    at: Source,
}

/// Who presents a certificate, from where and when.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// The user name of the ssh connection.
    pub user: &'a str,
    pub peer: IpAddr,
    pub now: SystemTime,
}

/// What a certificate permits, together with the line of its authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertGrant {
    /// Of the key in the certificate.
    pub fingerprint: Fingerprint,
    pub account: Account,
    /// All of them, as they stand in the certificate.
    pub principals: Vec<String>,
    /// If there are any, nothing else may be published: see [`Self::may_publish`].
    pub names: Vec<NamePattern>,
    /// Of the line and of the certificate together: what either forbids is forbidden.
    pub restrictions: Restrictions,
    /// For the log, printable.
    pub key_id: String,
    pub serial: u64,
    pub authority: Fingerprint,
    /// The comment of the authority's line, printable.
    pub comment: String,
    /// The line of the authority.
    pub at: Source,
}

/// Why a certificate does not get in. For the log: the client learns no more than that it is denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertRefused {
    #[error("it is not a certificate of a user")]
    NotUser,
    #[error("its authority {0} is not trusted")]
    UnknownAuthority(Fingerprint),
    #[error("it is signed by {0}, which is not secure")]
    WeakSignature(String),
    #[error("{0}")]
    WeakKey(String),
    #[error("its signature is wrong")]
    Signature,
    #[error("it, its key or its authority is revoked")]
    Revoked,
    #[error("it is not valid yet")]
    NotYetValid,
    #[error("it has expired")]
    Expired,
    #[error("it has no principal")]
    NoPrincipal,
    #[error("{at} does not admit its principals")]
    Principal { at: Source },
    #[error("its critical option {0} is not supported")]
    CriticalOption(String),
    #[error("its option {0} is malformed")]
    Malformed(&'static str),
    #[error("it is not for use from {0}")]
    SourceAddress(IpAddr),
    #[error("it forces another command than {at}")]
    Command { at: Source },
    #[error("{0}")]
    Line(Refused),
}

impl CertAuthorities {
    /// Reads a file like sshd's TrustedUserCAKeys: one key a line, without options.
    pub fn load(path: &Path) -> Result<(Self, Vec<Complaint>), FileError> {
        let content = files::read("keys of trusted authorities", path)?;
        let shared: Arc<Path> = Arc::from(path);
        let mut authorities = Self::default();
        let mut complaints = Vec::new();
        for (number, text) in files::lines(&content) {
            match plain_key(text) {
                Ok(None) => {}
                Ok(Some((key, comment))) => {
                    let at = Source { path: Arc::clone(&shared), line: number };
                    let restrictions = Restrictions::default();
                    let authority = Authority { account: None, principals: None, restrictions, comment, at };
                    authorities.0.entry(Fingerprint::of(&key)).or_default().push(authority);
                }
                Err(text) => complaints.push(Complaint::error(path, number, text)),
            }
        }
        Ok((authorities, complaints))
    }

    /// Trusts those of another list too, after its own.
    pub fn extend(&mut self, other: &Self) {
        for (key, lines) in &other.0 {
            self.0.entry(*key).or_default().extend_from_slice(lines);
        }
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, line: Line) {
        let Grant { fingerprint, account, comment, restrictions, at } = line.grant;
        let account = line.names_account.then_some(account);
        let authority = Authority { account, principals: line.principals, restrictions, comment, at };
        self.0.entry(fingerprint).or_default().push(authority);
    }

    /// One authority, held to these restrictions.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn trusting(key: &PublicKey, restrictions: Restrictions) -> Self {
        let at = Source { path: Arc::from(Path::new("authorities")), line: 1 };
        let authority =
            Authority { account: None, principals: None, restrictions, comment: String::new(), at };
        Self(HashMap::from([(Fingerprint::of(key), vec![authority])]))
    }

    /// Whether this certificate lets its holder in, and with what rights. russh has checked that the holder has the
    /// certificate's key.
    pub fn check(
        &self,
        certificate: &Certificate,
        login: Login<'_>,
        revocations: &Revocations,
    ) -> Result<CertGrant, CertRefused> {
        let granted = self.judge(certificate, login, revocations)?;
        // Dearer than all the rest, so it comes last; nothing of the judgement leaves here without it.
        let seconds = seconds(login.now).ok_or(CertRefused::NotYetValid)?;
        let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
        certificate.validate_at(seconds, [&authority]).map_err(|_| CertRefused::Signature)?;
        Ok(granted)
    }

    /// Everything but the signature.
    pub(crate) fn judge(
        &self,
        certificate: &Certificate,
        login: Login<'_>,
        revocations: &Revocations,
    ) -> Result<CertGrant, CertRefused> {
        if certificate.cert_type() != CertType::User {
            return Err(CertRefused::NotUser);
        }
        let authority = fingerprint_of(certificate.signature_key());
        let lines = self.0.get(&authority).ok_or(CertRefused::UnknownAuthority(authority))?;
        check_strength(certificate)?;
        if revocations.revokes_certificate(certificate) {
            return Err(CertRefused::Revoked);
        }
        check_time(certificate, login.now)?;
        let demands = Demands::of(certificate)?;
        if demands.source_address.as_ref().is_some_and(|list| !list.admits(login.peer)) {
            return Err(CertRefused::SourceAddress(login.peer));
        }
        let mut refused = CertRefused::UnknownAuthority(authority);
        for line in lines {
            match line.admit(certificate, &demands, login) {
                Ok(granted) => return Ok(granted),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

impl Authority {
    fn admit(
        &self,
        certificate: &Certificate,
        demands: &Demands,
        login: Login<'_>,
    ) -> Result<CertGrant, CertRefused> {
        self.restrictions.admit(&self.at, login.peer, login.now).map_err(CertRefused::Line)?;
        let fingerprint = fingerprint_of(certificate.public_key());
        let (account, names) = self.identity(certificate, fingerprint, login.user)?;
        Ok(CertGrant {
            fingerprint,
            account,
            principals: certificate.valid_principals().to_vec(),
            names,
            restrictions: self.merged(certificate, demands)?,
            key_id: shortened(certificate.key_id()),
            serial: certificate.serial(),
            authority: fingerprint_of(certificate.signature_key()),
            comment: self.comment.clone(),
            at: self.at.clone(),
        })
    }

    /// Whose it is, and the names that it is limited to. `principals=` limits the accounts, never the limits.
    fn identity(
        &self,
        certificate: &Certificate,
        key: Fingerprint,
        user: &str,
    ) -> Result<(Account, Vec<NamePattern>), CertRefused> {
        let principals = certificate.valid_principals();
        if principals.is_empty() {
            return Err(CertRefused::NoPrincipal);
        }
        let vouched = |it: &&String| self.principals.as_ref().is_none_or(|list| list.contains(it));
        if !principals.iter().any(|it| vouched(&it)) {
            return Err(CertRefused::Principal { at: self.at.clone() });
        }
        let names: Vec<NamePattern> = principals.iter().filter_map(|it| it.parse().ok()).collect();
        let is_account = |it: &&String| it.parse::<NamePattern>().is_err();
        let accounts = principals.iter().filter(is_account).filter(vouched);
        let accounts: Vec<_> = accounts.filter_map(|it| AccountName::new(it)).collect();
        let named = accounts.iter().find(|it| it.as_str() == user).or(accounts.first());
        let account = match (&self.account, named) {
            (Some(account), _) => account.clone(),
            (None, Some(name)) => Account::Named(name.clone()),
            (None, None) if !names.is_empty() => Account::Key(key),
            (None, None) => return Err(CertRefused::NoPrincipal),
        };
        Ok((account, names))
    }

    fn merged(&self, certificate: &Certificate, demands: &Demands) -> Result<Restrictions, CertRefused> {
        let mut both = self.restrictions.clone();
        both.forwarding &= demands.forwarding;
        both.pty &= demands.pty;
        both.command = match (both.command, &demands.command) {
            (Some(line), Some(certificate)) if line != *certificate => {
                return Err(CertRefused::Command { at: self.at.clone() });
            }
            (line, certificate) => line.or_else(|| certificate.clone()),
        };
        // The certificate's end is the first second in which it is no longer valid.
        let end = UNIX_EPOCH.checked_add(Duration::from_secs(certificate.valid_before().saturating_sub(1)));
        both.expiry = [both.expiry, end].into_iter().flatten().min();
        Ok(both)
    }
}

impl CertGrant {
    /// Whether the certificate's principals let its holder publish this name, or this wildcard. One that names none
    /// leaves that to [`Restrictions::may_listen`] and the server, which are asked in any case.
    pub fn may_publish(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|pattern| pattern.matches(name))
    }
}

/// What the options of a certificate say.
#[derive(Debug)]
struct Demands {
    source_address: Option<Networks>,
    command: Option<String>,
    forwarding: bool,
    pty: bool,
}

impl Demands {
    fn of(certificate: &Certificate) -> Result<Self, CertRefused> {
        let mut demands = Self { source_address: None, command: None, forwarding: false, pty: false };
        for (name, value) in certificate.critical_options().iter() {
            match name.as_str() {
                "source-address" => {
                    let list = Networks::parse(value).ok_or(CertRefused::Malformed("source-address"))?;
                    demands.source_address = Some(list);
                }
                "force-command" if value.is_empty() => return Err(CertRefused::Malformed("force-command")),
                "force-command" => demands.command = Some(value.clone()),
                // `verify-required` too: whether a token asked for a PIN is in flags that we do not see.
                _ => return Err(CertRefused::CriticalOption(shortened(name))),
            }
        }
        demands.forwarding = flag(certificate.extensions(), "permit-port-forwarding")?;
        demands.pty = flag(certificate.extensions(), "permit-pty")?;
        Ok(demands)
    }
}

/// Extensions that sshd knows carry no data; those that we do not know are passed over.
fn flag(extensions: &OptionsMap, name: &'static str) -> Result<bool, CertRefused> {
    match extensions.get(name) {
        None => Ok(false),
        Some(value) if value.is_empty() => Ok(true),
        Some(_) => Err(CertRefused::Malformed(name)),
    }
}

fn check_strength(certificate: &Certificate) -> Result<(), CertRefused> {
    let algorithm = certificate.signature().algorithm();
    // SHA-1: `ssh-rsa` and `ssh-dss`.
    if matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa) {
        return Err(CertRefused::WeakSignature(algorithm.as_str().to_owned()));
    }
    let keys = [certificate.public_key(), certificate.signature_key()];
    match keys.into_iter().find_map(line::weakness_of) {
        Some(weakness) => Err(CertRefused::WeakKey(weakness)),
        None => Ok(()),
    }
}

/// valid after <= now < valid before (PROTOCOL.certkeys).
fn check_time(certificate: &Certificate, now: SystemTime) -> Result<(), CertRefused> {
    let now = seconds(now).ok_or(CertRefused::NotYetValid)?;
    if now < certificate.valid_after() {
        return Err(CertRefused::NotYetValid);
    }
    if now >= certificate.valid_before() {
        return Err(CertRefused::Expired);
    }
    Ok(())
}

fn seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn fingerprint_of(key: &KeyData) -> Fingerprint {
    Fingerprint::of(&PublicKey::from(key.clone()))
}

/// The key of a line that has nothing else but a comment.
pub(crate) fn plain_key(text: &[u8]) -> Result<Option<(PublicKey, String)>, String> {
    let Some(text) = line::content_of(text)? else { return Ok(None) };
    let (first, rest) = line::split_word(text);
    if !line::is_key_type(first) {
        return Err(format!("begins with {:?} and not with a key of a known type", shortened(first)));
    }
    line::parse_key(first, rest).map(Some)
}
