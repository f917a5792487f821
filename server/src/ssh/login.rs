//! A login: keys that are offered, and tokens in place of a password (RFC 4252, RFC 4256). It says why it fails where
//! the protocol lets a client see a reason.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use hithe_cli_parser::Code;
use hithe_keys::Fingerprint;
use russh::keys::Certificate;
use russh::server::{Auth, PublicKeyOffer, VerifiedPublicKey};
use russh::{MethodKind, MethodSet};

use crate::access::{Access, Identity, Origin};

/// What a client has shown so far.
#[derive(Debug)]
pub(super) struct Login {
    /// What it calls itself; says only what to do, never who it is.
    pub(super) user: String,
    peer: IpAddr,
    pub(super) identity: Option<Arc<Identity>>,
    offered: Option<Fingerprint>,
    /// A key that would do, for which there was no signature.
    unsigned: Option<Fingerprint>,
    /// Rounds of questions that it was sent.
    rounds: u8,
    /// Whether it has shown anything. To ask which ways there are (the method `none`) is nothing.
    tried: Arc<AtomicBool>,
}

impl Login {
    pub(super) fn from(peer: IpAddr) -> Self {
        Self {
            user: String::new(),
            peer,
            identity: None,
            offered: None,
            unsigned: None,
            rounds: 0,
            tried: Arc::default(),
        }
    }

    fn origin(&self, user: &str) -> Origin {
        Origin { user: user.into(), peer: self.peer, at: SystemTime::now() }
    }

    /// Becomes true when the client tries to log in, right or wrong.
    pub(super) fn tried(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.tried)
    }

    /// Whether it is worth a signature.
    pub(super) fn offer(&mut self, access: &Access, user: &str, offer: &PublicKeyOffer<'_>) -> Auth {
        self.tried.store(true, Ordering::Relaxed);
        let fingerprint = Fingerprint::of(offer.public_key);
        let may_do = access.may_know(offer.public_key, offer.algorithm, &self.origin(user));
        if may_do {
            self.unsigned = Some(fingerprint);
        }
        self.offered = Some(fingerprint);
        if may_do { Auth::Accept } else { Auth::reject() }
    }

    /// The client has proved to hold the key.
    pub(super) fn key(&mut self, access: &Access, user: &str, key: &VerifiedPublicKey<'_>) -> Auth {
        self.unsigned = None;
        self.is_in(user, access.by_key(key.public_key, key.algorithm, &self.origin(user)))
    }

    /// The client has proved to hold the certificate's key.
    pub(super) fn certificate(&mut self, access: &Access, user: &str, certificate: &Certificate) -> Auth {
        self.unsigned = None;
        self.is_in(user, access.by_certificate(certificate, &self.origin(user)))
    }

    /// What was typed as a password is a token, or nothing.
    pub(super) fn password(&mut self, access: &Access, user: &str, password: &str) -> Auth {
        self.is_in(user, access.by_token(password, &self.origin(user)))
    }

    /// The first round tells why no key helped, and asks for a token where there are any. It is the only place where a
    /// client that cannot log in is shown a reason.
    pub(super) fn question(&mut self, access: &Access) -> Auth {
        let asks = access.knows_tokens();
        let most = if asks { TRIES } else { 1 };
        if self.rounds >= most {
            return rejected_for_good();
        }
        self.rounds += 1;
        let instructions = match self.rounds {
            1 => self.refusal_text(asks),
            _ => format!("{}: this is no token of this server, or it has expired.", Code::UNKNOWN_KEY),
        };
        let prompts = if asks { vec![("Access token: ".into(), false)] } else { Vec::new() };
        Auth::Partial { name: "".into(), instructions: instructions.into(), prompts: prompts.into() }
    }

    /// The answer to the questions of a round.
    pub(super) fn answer(&mut self, access: &Access, user: &str, answer: Option<&[u8]>) -> Auth {
        let token = answer.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
        match self.is_in(user, access.by_token(token, &self.origin(user))) {
            Auth::Accept => Auth::Accept,
            _ if self.rounds < TRIES && access.knows_tokens() => Auth::reject(),
            _ => rejected_for_good(),
        }
    }

    /// In words that are right for ssh, the agent and other clients.
    fn refusal_text(&self, asks: bool) -> String {
        let or_token = if asks { " Or type an access token." } else { "" };
        match (&self.unsigned, &self.offered) {
            (Some(fingerprint), _) => format!(
                "{}: your client offered the key {fingerprint} and then did not sign with it: perhaps its passphrase was not \
                 given. Put it into ssh-agent with ssh-add, or name another key with -i.{or_token}",
                Code::UNKNOWN_KEY
            ),
            (None, Some(fingerprint)) => format!(
                "{}: your key {fingerprint} is not known to this server. Ask its operator to add the public key, or name \
                 another key with -i.{or_token}",
                Code::UNKNOWN_KEY
            ),
            (None, None) => format!(
                "{}: your client offered no public key. Make one with ssh-keygen -t ed25519, or name one with -i.{or_token}",
                Code::NO_KEY
            ),
        }
    }

    fn is_in(&mut self, user: &str, identity: Option<Identity>) -> Auth {
        self.tried.store(true, Ordering::Relaxed);
        user.clone_into(&mut self.user);
        self.identity = identity.map(Arc::new);
        if self.identity.is_some() { Auth::Accept } else { Auth::reject() }
    }
}

/// Nothing but another key could help.
fn rejected_for_good() -> Auth {
    let only_keys = MethodSet::from([MethodKind::PublicKey].as_slice());
    Auth::Reject { proceed_with_methods: Some(only_keys), partial_success: false }
}

/// Rounds in which a token can be typed, as OpenSSH's NumberOfPasswordPrompts.
const TRIES: u8 = 3;
