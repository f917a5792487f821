//! Somebody who has proved who they are.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use hithe_keys::{Fingerprint, Login};
use russh::keys::{Certificate, PublicKey};

use super::Rights;
use crate::account::Account;

/// By what somebody logged in.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    Key(Arc<PublicKey>),
    /// With what the log calls it.
    Certificate(Arc<Certificate>, Arc<str>),
    /// By its public half.
    Token(Arc<str>),
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => Fingerprint::of(key).fmt(f),
            Self::Certificate(_, name) => f.write_str(name),
            Self::Token(id) => write!(f, "token {id}"),
        }
    }
}

/// Who a login is, and what it may do.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) account: Account,
    pub(crate) credential: Credential,
    /// What the operator wrote beside it, printable.
    pub(crate) comment: String,
    pub(crate) rights: Rights,
    /// From where, and by which user name.
    pub(crate) origin: Origin,
}

/// Where a login comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) user: Arc<str>,
    pub(crate) peer: IpAddr,
    /// When it was. Credentials that expire later let nobody in, and end nothing, as in sshd.
    pub(crate) at: SystemTime,
}

impl Origin {
    /// As it is judged, then and later.
    pub(super) fn login(&self) -> Login<'_> {
        Login { user: &self.user, peer: self.peer.to_canonical(), now: self.at }
    }
}
