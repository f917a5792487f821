//! Who may publish: a key that the operator knows, or any key on an open server.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hithe_cli_parser::Code;
use hithe_keys::{AuthorizedKeys, Fingerprint};
use russh::keys::{Algorithm, PublicKey};

use crate::account::Account;

/// The keys that may log in.
#[derive(Clone)]
pub(crate) enum KeyRing {
    /// `--open`.
    Open,
    /// Replaced when the file changes.
    Authorized(Arc<ArcSwap<AuthorizedKeys>>),
}

/// A publisher that has proved to hold its key.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) account: Account,
    pub(super) fingerprint: Fingerprint,
    /// The comment of its line in `authorized_keys`, printable.
    pub(super) comment: String,
}

impl Identity {
    fn of(fingerprint: Fingerprint, comment: String) -> Self {
        Self { account: Account::of_key(fingerprint), fingerprint, comment }
    }
}

impl KeyRing {
    /// The identity of a key, if it may log in.
    pub(super) fn identify(&self, key: &PublicKey, algorithm: &Algorithm) -> Option<Identity> {
        if *algorithm == (Algorithm::Rsa { hash: None }) {
            return None;
        }
        match self {
            Self::Open => Some(Identity::of(Fingerprint::of(key), "anyone".to_owned())),
            Self::Authorized(keys) => {
                keys.load().get(key).map(|known| Identity::of(known.fingerprint, known.comment.clone()))
            }
        }
    }
}

/// What is said to a client whose login fails, where the protocol lets it see a reason.
pub(super) fn refusal_text(offered: Option<Fingerprint>) -> String {
    match offered {
        Some(fingerprint) => format!(
            "{}: your key {fingerprint} is not known to this server. Ask its operator to add the public key to \
             authorized_keys, or name another key with ssh -i.",
            Code::UNKNOWN_KEY
        ),
        None => format!(
            "{}: your client offered no public key. Make one with ssh-keygen -t ed25519, or name one with ssh -i.",
            Code::NO_KEY
        ),
    }
}
