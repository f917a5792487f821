//! What an operator sees of the registry: who is there and who has which name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use super::{Registry, SessionId};
use crate::account::Account;
use crate::store::{PastOwners, Reservations};

/// What a session says of itself.
#[derive(Clone, Debug)]
pub(crate) struct SessionAbout {
    /// By what it logged in.
    pub(crate) credential: String,
    /// Address and port of the client.
    pub(crate) source: String,
    pub(crate) since: SystemTime,
}

/// A name or a port, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct NameAbout {
    pub(crate) name: String,
    pub(crate) account: Account,
    /// What it serves now.
    pub(crate) urls: Vec<Arc<str>>,
    /// Sessions that share it, and how many of them could not be reached lately.
    pub(crate) members: (usize, usize),
    pub(crate) reserved: bool,
    /// When it was live last, in seconds since 1970.
    pub(crate) seen: Option<i64>,
}

impl NameAbout {
    pub(crate) fn state(&self) -> String {
        let live = !self.urls.is_empty();
        let state = match (live, self.reserved) {
            (true, true) => "live, reserved",
            (true, false) => "live",
            (false, true) => "reserved",
            (false, false) => "kept",
        };
        match self.members {
            (0 | 1, 0) => state.to_owned(),
            (all, 0) => format!("{state}, {all} members"),
            (all, rest) => format!("{state}, {rest} of {all} members not reached"),
        }
    }
}

/// The names and ports that are kept for an account or for anybody, without those that are live.
pub(crate) fn names_of(past: &PastOwners, reserved: &Reservations, of: Option<&Account>) -> Vec<NameAbout> {
    kept(past, reserved, of).into_values().collect()
}

/// A reservation counts more than who had a name last.
fn kept(past: &PastOwners, reserved: &Reservations, of: Option<&Account>) -> BTreeMap<String, NameAbout> {
    let about = |name: &str, account: &Account, reserved| {
        let (name, account, seen) = (name.to_owned(), account.clone(), past.seen(name));
        (name.clone(), NameAbout { name, account, urls: Vec::new(), members: (0, 0), reserved, seen })
    };
    let left = past.all(SystemTime::now()).filter(|(name, _)| reserved.get(name).is_none());
    let left = left.map(|(name, account)| (name, account, false));
    let kept = left.chain(reserved.iter().map(|(name, account)| (name, account, true)));
    let wanted = kept.filter(|(_, account, _)| of.is_none_or(|of| of == *account));
    wanted.map(|(name, account, reserved)| about(name, account, reserved)).collect()
}

impl Registry {
    /// The names and ports that are live or kept for an account or for anybody, by name.
    pub(crate) fn names(&self, of: Option<&Account>) -> Vec<NameAbout> {
        let ledger = self.ledger();
        let mut names = kept(&ledger.past, &ledger.reserved, of);
        for (name, account, endpoints) in ledger.live() {
            if of.is_some_and(|of| *of != account) {
                continue;
            }
            let reserved = ledger.reserved.get(&name).is_some();
            let urls = endpoints.iter().map(|endpoint| endpoint.url.clone()).collect();
            let all = endpoints.iter().map(|endpoint| endpoint.members()).max_by_key(|all| all.len());
            let all = all.unwrap_or_default();
            let members = (all.len(), all.iter().filter(|member| member.rests()).count());
            let about = NameAbout { name: name.clone(), account, urls, members, reserved, seen: None };
            names.insert(name, about);
        }
        names.into_values().collect()
    }

    /// How many sessions there are, and what they serve.
    pub(crate) fn count(&self) -> (usize, usize) {
        let ledger = self.ledger();
        let endpoints = ledger.live().map(|(_, _, urls)| urls.len()).sum();
        (ledger.sessions.len(), endpoints)
    }

    /// What each session serves.
    pub(crate) fn urls(&self) -> HashMap<SessionId, Vec<Arc<str>>> {
        self.ledger().urls()
    }
}
