//! What one line permits, to whom, from where and until when.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::complaint::printable;
use crate::{AddressPatterns, Fingerprint, ListenPattern, OpenPattern, expiry};

/// Characters of an account's name.
const MAX_ACCOUNT: usize = 128;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub path: Arc<Path>,
    /// From 1.
    pub line: usize,
}

/// Whom names and ports belong to: a key alone, or everybody who was given the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    Key(Fingerprint),
    Named(AccountName),
}

/// The name of an account: up to 128 printable ASCII characters, without blanks and `" , : * ? /`.
///
/// So it is never taken for a fingerprint or a pattern, and stands in a log as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccountName(String);

/// A key that may publish, by one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub fingerprint: Fingerprint,
    pub account: Account,
    /// The comment of the line, printable ASCII with everything else escaped; empty when there is none.
    pub comment: String,
    pub restrictions: Restrictions,
    pub at: Source,
}

/// What a line or a certificate restricts. The default restricts nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restrictions {
    /// `permitlisten`: if given, one has to match. Says nothing where `forwarding` is false.
    pub listen: Option<Vec<ListenPattern>>,
    /// `permitopen`: if given, one has to match. Says nothing where `forwarding` is false.
    pub open: Option<Vec<OpenPattern>>,
    /// `from`.
    pub from: Option<AddressPatterns>,
    /// `command`: stands in place of whatever the client asks to run.
    pub command: Option<String>,
    /// `expiry-time`, the earliest of several; with a certificate the earlier one of its end and the line's.
    pub expiry: Option<SystemTime>,
    /// Whether ports may be forwarded at all.
    pub forwarding: bool,
    /// Whether a terminal may be asked for.
    pub pty: bool,
}

/// Why a key does not get in. For the log: the client learns no more than that it is denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("no line admits this key")]
    Unknown,
    #[error("{at} does not admit this key from {peer}")]
    Address { at: Source, peer: IpAddr },
    #[error("{at} has expired")]
    Expired { at: Source },
    #[error("the key is revoked")]
    Revoked,
}

impl Grant {
    /// Whether this line lets its key in from this address at this time.
    pub fn admits(&self, peer: IpAddr, now: SystemTime) -> Result<(), Refused> {
        self.restrictions.admit(&self.at, peer, now)
    }
}

impl Restrictions {
    /// Whether nothing is restricted.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `ssh -R` may ask for this bind address, as the client sent it, and port; 0 is the server's choice.
    pub fn may_listen(&self, host: &str, port: u32) -> bool {
        self.forwarding
            && self.listen.as_ref().is_none_or(|list| list.iter().any(|it| it.matches(host, port)))
    }

    /// Whether `ssh -L` may ask for this target.
    pub fn may_open(&self, host: &str, port: u32) -> bool {
        self.forwarding && self.open.as_ref().is_none_or(|list| list.iter().any(|it| it.matches(host, port)))
    }

    /// In the order of sshd: the time, then the address.
    pub(crate) fn admit(&self, at: &Source, peer: IpAddr, now: SystemTime) -> Result<(), Refused> {
        if self.expiry.is_some_and(|expiry| expiry::is_over(expiry, now)) {
            return Err(Refused::Expired { at: at.clone() });
        }
        match &self.from {
            Some(from) if !from.admits(peer) => Err(Refused::Address { at: at.clone(), peer }),
            _ => Ok(()),
        }
    }
}

impl Default for Restrictions {
    fn default() -> Self {
        Self {
            listen: None,
            open: None,
            from: None,
            command: None,
            expiry: None,
            forwarding: true,
            pty: true,
        }
    }
}

impl AccountName {
    /// The name, if it is one.
    pub fn new(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_graphic() && !b"\",:*?/".contains(&byte);
        let fits = !text.is_empty() && text.len() <= MAX_ACCOUNT && text.bytes().all(allowed);
        fits.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(fingerprint) => fingerprint.fmt(f),
            Self::Named(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", printable(&self.path.to_string_lossy()), self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_an_account_is_no_fingerprint_and_no_pattern() {
        for name in ["ada", "ada@example.com", "corp\\ada", "Ada.L-1_2+x"] {
            assert!(AccountName::new(name).is_some(), "{name}");
        }
        for text in ["", "SHA256:abc", "a b", "*", "a,b", "\"", "ädä", "a\nb", "../x", &"a".repeat(129)] {
            assert_eq!(AccountName::new(text), None, "{text:?}");
        }
    }

    #[test]
    fn permissions_say_nothing_where_forwarding_is_off() {
        let mut permitted =
            Restrictions { listen: Some(vec!["443".parse().unwrap()]), ..Restrictions::default() };
        assert!(permitted.may_listen("a.test", 443) && !permitted.may_listen("a.test", 80));
        assert!(permitted.may_open("localhost", 80), "permitlisten does not restrict -L");
        permitted.forwarding = false;
        assert!(!permitted.may_listen("a.test", 443) && !permitted.may_open("localhost", 80));
    }
}
