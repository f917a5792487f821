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

/// All names and ports that are kept for anybody, without those that are live.
pub(crate) fn names_of(past: &PastOwners, reserved: &Reservations) -> Vec<NameAbout> {
    kept(past, reserved).into_values().collect()
}

/// A reservation counts more than who had a name last.
fn kept(past: &PastOwners, reserved: &Reservations) -> BTreeMap<String, NameAbout> {
    let mut names = BTreeMap::new();
    for (name, account) in past.all(SystemTime::now()) {
        let seen = past.seen(name);
        let about = NameAbout {
            name: name.to_owned(),
            account: account.clone(),
            urls: Vec::new(),
            members: (0, 0),
            reserved: false,
            seen,
        };
        names.insert(name.to_owned(), about);
    }
    for (name, account) in reserved {
        let seen = past.seen(name);
        let about = NameAbout {
            name: name.clone(),
            account: account.clone(),
            urls: Vec::new(),
            members: (0, 0),
            reserved: true,
            seen,
        };
        names.insert(name.clone(), about);
    }
    names
}

impl Registry {
    /// All names and ports that are live or kept for anybody, by name.
    pub(crate) fn names(&self) -> Vec<NameAbout> {
        let ledger = self.ledger();
        let mut names = kept(&ledger.past, &ledger.reserved);
        for (name, account, endpoints) in ledger.live() {
            let reserved = ledger.reserved.contains_key(&name);
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
