//! Who holds what: the ledger seen from accounts and sessions, so that no question about one of them looks at all.

use std::collections::{HashMap, HashSet};

use super::SessionId;
use super::ledger::{ClaimId, Key};
use crate::account::Account;

/// Of each account that claims anything: its sessions and their claims, none of them empty.
#[derive(Default)]
pub(super) struct Holdings(HashMap<Account, HashMap<SessionId, Vec<(ClaimId, Key)>>>);

impl Holdings {
    pub(super) fn add(&mut self, account: &Account, session: SessionId, claim: ClaimId, key: Key) {
        let sessions = match self.0.get_mut(account) {
            Some(sessions) => sessions,
            None => self.0.entry(account.clone()).or_default(),
        };
        sessions.entry(session).or_default().push((claim, key));
    }

    pub(super) fn remove(&mut self, account: &Account, session: SessionId, claim: ClaimId) {
        let Some(sessions) = self.0.get_mut(account) else { return };
        if let Some(claims) = sessions.get_mut(&session) {
            claims.retain(|(held, _)| *held != claim);
            if claims.is_empty() {
                sessions.remove(&session);
            }
        }
        if sessions.is_empty() {
            self.0.remove(account);
        }
    }

    /// What one session claims.
    pub(super) fn of(&self, account: &Account, session: SessionId) -> &[(ClaimId, Key)] {
        let claims = self.0.get(account).and_then(|sessions| sessions.get(&session));
        claims.map_or(&[], Vec::as_slice)
    }

    /// The sessions of an account that claim anything, and their claims.
    pub(super) fn sessions(&self, account: &Account) -> impl Iterator<Item = (SessionId, &[(ClaimId, Key)])> {
        let sessions = self.0.get(account).into_iter().flatten();
        sessions.map(|(session, claims)| (*session, claims.as_slice()))
    }

    /// What an account has, each once, whichever of its sessions have it.
    pub(super) fn keys(&self, account: &Account) -> HashSet<&Key> {
        self.sessions(account).flat_map(|(_, claims)| claims).map(|(_, key)| key).collect()
    }
}
