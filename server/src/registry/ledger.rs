//! Who claims which name or port, and who held it last.
//!
//! A claim is placed when a forward is asked for and makes nothing public; publishing turns it into a [`Lease`].
//! Dropping either gives the name back, unless the session was evicted in the meantime.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use hithe_cli_parser::{Code, HostName, HostPattern};

use super::{Holder, Refusal, Registry, Slot, ports};
use crate::account::Account;
use crate::endpoint::Endpoint;
use crate::store::{PastOwners, Reservations};

/// One SSH connection of a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId(u64);

impl SessionId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What can be claimed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    Exact(Box<str>),
    /// What follows `*.`.
    Wild(Box<str>),
    Port(u16),
}

impl From<&HostPattern> for Key {
    fn from(pattern: &HostPattern) -> Self {
        match pattern {
            HostPattern::Exact(name) => Self::Exact(name.as_str().into()),
            HostPattern::Wildcard(name) => Self::Wild(name.as_str().into()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wild(name) => write!(f, "*.{name}"),
            Self::Port(port) => write!(f, "port {port}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClaimId(u64);

/// A place in the ledger that is not public.
#[must_use = "the name is free again as soon as the claim is dropped"]
pub(crate) struct Claim {
    pub(super) registry: Registry,
    pub(super) key: Key,
    pub(super) id: ClaimId,
    pub(super) session: SessionId,
    /// Bound but not listening, where the key is a port.
    pub(super) socket: Option<socket2::Socket>,
}

impl Claim {
    /// The port, where the claim is one.
    pub(crate) fn port(&self) -> Option<u16> {
        match self.key {
            Key::Port(port) => Some(port),
            Key::Exact(_) | Key::Wild(_) => None,
        }
    }

    /// Makes endpoints public under the claimed name, all or none.
    ///
    /// # Errors
    /// Another session of the same owner, or this one, already answers there.
    pub(crate) fn publish(self, endpoints: &[(Slot, Arc<Endpoint>)]) -> Result<Lease, Refusal> {
        let registry = self.registry.clone();
        let mut ledger = registry.ledger();
        ledger.publish(&self, endpoints)?;
        for (slot, endpoint) in endpoints {
            registry.route(&self.key, *slot, endpoint);
        }
        drop(ledger);
        Ok(Lease(self))
    }

    /// Makes a TCP endpoint public: listens, and hands the listener to the edge.
    ///
    /// # Errors
    /// As [`Self::publish`]; or the port is in use on this machine, or the server cannot take more ports now.
    pub(crate) async fn publish_port(mut self, endpoint: Arc<Endpoint>) -> Result<Lease, Refusal> {
        let Some(port) = self.port() else { return self.publish(&[(Slot::Plain, endpoint)]) };
        self.registry.ledger().check_slot(&self, Slot::Plain)?;
        let bound = self.socket.take();
        let listener = self.registry.0.range.listen(port, bound).await?;
        let opened = self.registry.0.opened.clone();
        let permit = opened.try_reserve().map_err(|_| ports::too_many_at_once())?;
        let lease = self.publish(&[(Slot::Plain, Arc::clone(&endpoint))])?;
        permit.send(ports::OpenedPort { listener, endpoint });
        Ok(lease)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut ledger = self.registry.ledger();
        self.registry.release(&mut ledger, &self.key, self.id);
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A public name or port. The endpoints behind it are withdrawn when it is dropped.
#[derive(Debug)]
#[must_use = "the endpoint is withdrawn as soon as the lease is dropped"]
pub(crate) struct Lease(#[expect(dead_code, reason = "held for its drop")] Claim);

struct Entry {
    account: Account,
    /// More than one while sessions of one owner wait to settle who publishes.
    holds: Vec<(ClaimId, SessionId)>,
    public: Vec<(Slot, ClaimId, Arc<Endpoint>)>,
    /// A claim alone gives no right to the name afterwards.
    was_public: bool,
}

pub(super) struct Ledger {
    entries: HashMap<Key, Entry>,
    pub(super) sessions: HashMap<SessionId, Arc<dyn Holder>>,
    pub(super) past: PastOwners,
    /// What the operator keeps for whom.
    pub(super) reserved: Reservations,
    next: u64,
}

impl Ledger {
    pub(super) fn new(past: PastOwners, reserved: Reservations) -> Self {
        Self { entries: HashMap::new(), sessions: HashMap::new(), past, reserved, next: 0 }
    }

    pub(super) fn place(&mut self, holder: &dyn Holder, key: Key) -> ClaimId {
        self.next += 1;
        let id = ClaimId(self.next);
        let fresh = || Entry {
            account: holder.account().clone(),
            holds: Vec::new(),
            public: Vec::new(),
            was_public: false,
        };
        self.entries.entry(key).or_insert_with(fresh).holds.push((id, holder.id()));
        id
    }

    /// Forgets a claim and returns what it had made public.
    pub(super) fn release(
        &mut self,
        key: &Key,
        claim: ClaimId,
        now: SystemTime,
    ) -> Vec<(Slot, Arc<Endpoint>)> {
        let Some(entry) = self.entries.get_mut(key) else { return Vec::new() };
        let Some(place) = entry.holds.iter().position(|(held, _)| *held == claim) else { return Vec::new() };
        entry.holds.swap_remove(place);
        let withdrawn = entry.public.extract_if(.., |(_, held, _)| *held == claim);
        let withdrawn = withdrawn.map(|(slot, _, endpoint)| (slot, endpoint)).collect();
        if entry.holds.is_empty() {
            let freed = self.entries.remove(key).filter(|entry| entry.was_public);
            if let Some(entry) = freed {
                self.past.note(key.to_string(), &entry.account, now);
            }
        }
        withdrawn
    }

    pub(super) fn publish(
        &mut self,
        claim: &Claim,
        endpoints: &[(Slot, Arc<Endpoint>)],
    ) -> Result<(), Refusal> {
        for (slot, _) in endpoints {
            self.check_slot(claim, *slot)?;
        }
        self.check_sessions(claim)?;
        let entry = self.entries.get_mut(&claim.key).ok_or_else(evicted)?;
        let public = endpoints.iter().map(|(slot, endpoint)| (*slot, claim.id, Arc::clone(endpoint)));
        entry.public.extend(public);
        if !std::mem::replace(&mut entry.was_public, true) {
            // At once, so that it stays theirs when the server is killed.
            self.past.note(claim.key.to_string(), &entry.account, SystemTime::now());
        }
        Ok(())
    }

    /// Whether the account may have one session more that publishes, if this one does not yet.
    fn check_sessions(&self, claim: &Claim) -> Result<(), Refusal> {
        let Some(holder) = self.sessions.get(&claim.session) else { return Ok(()) };
        let Some(most) = holder.quota().sessions else { return Ok(()) };
        if (self.publishing(holder.account(), claim.session).len() as u64) < most {
            return Ok(());
        }
        let message = format!("your account may publish from {most} sessions at a time");
        Err(Refusal::new(
            Code::SESSION_LIMIT,
            message,
            "end one: ssh HOST sessions, ssh HOST sessions kick NUMBER",
        ))
    }

    /// The sessions of an account that have made something public, but for one.
    pub(super) fn publishing(&self, account: &Account, but: SessionId) -> HashSet<SessionId> {
        let of_account = self.entries.values().filter(|entry| entry.account == *account);
        let sessions = of_account.flat_map(|entry| {
            let is_public = |id: &ClaimId| entry.public.iter().any(|(_, claim, _)| claim == id);
            entry.holds.iter().filter(move |(id, _)| is_public(id)).map(|(_, session)| *session)
        });
        sessions.filter(|session| *session != but).collect()
    }

    pub(super) fn keys_of_account(&self, account: &Account) -> impl Iterator<Item = &Key> {
        self.entries.iter().filter(|(_, entry)| entry.account == *account).map(|(key, _)| key)
    }

    pub(super) fn check_slot(&self, claim: &Claim, slot: Slot) -> Result<(), Refusal> {
        let entry = self.entries.get(&claim.key).ok_or_else(evicted)?;
        let session_of = |id: ClaimId| entry.holds.iter().find(|(held, _)| *held == id).map(|(_, s)| *s);
        session_of(claim.id).ok_or_else(evicted)?;
        let Some((_, holder, _)) = entry.public.iter().find(|(taken, ..)| *taken == slot) else {
            return Ok(());
        };
        if session_of(*holder) == Some(claim.session) {
            return Err(Refusal::new(
                Code::NAME_IN_USE,
                format!("{} is already published by this session", claim.key),
                "leave one of the two -R out",
            ));
        }
        Err(Refusal::new(
            Code::NAME_IN_USE,
            format!("{} is in use by another session of your key, which is alive", claim.key),
            "end that session first, or publish under another name",
        ))
    }

    pub(super) fn is_held(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn holders_of(&self, key: &Key) -> impl Iterator<Item = &Arc<dyn Holder>> {
        let holds = self.entries.get(key).into_iter().flat_map(|entry| &entry.holds);
        holds.filter_map(|(_, session)| self.sessions.get(session))
    }

    pub(super) fn claims_of(&self, session: SessionId) -> Vec<(Key, ClaimId)> {
        let holds = self.entries.iter().flat_map(|(key, entry)| entry.holds.iter().map(move |h| (key, h)));
        holds.filter(|(_, (_, holder))| *holder == session).map(|(key, (id, _))| (key.clone(), *id)).collect()
    }

    /// What is public: name, account and URLs.
    pub(super) fn live(&self) -> impl Iterator<Item = (String, Account, Vec<Arc<str>>)> {
        let public = self.entries.iter().filter(|(_, entry)| !entry.public.is_empty());
        public.map(|(key, entry)| {
            let urls = entry.public.iter().map(|(_, _, endpoint)| endpoint.url.clone()).collect();
            (key.to_string(), entry.account.clone(), urls)
        })
    }

    /// What each session has made public.
    pub(super) fn urls(&self) -> HashMap<SessionId, Vec<Arc<str>>> {
        let mut urls: HashMap<SessionId, Vec<Arc<str>>> = HashMap::new();
        for entry in self.entries.values() {
            for (_, claim, endpoint) in &entry.public {
                let holder = entry.holds.iter().find(|(held, _)| held == claim);
                if let Some((_, session)) = holder {
                    urls.entry(*session).or_default().push(endpoint.url.clone());
                }
            }
        }
        urls
    }

    pub(super) fn claims_of_account(&self, account: &Account) -> usize {
        self.entries.values().filter(|entry| entry.account == *account).map(|entry| entry.holds.len()).sum()
    }

    /// Whether `owner` may have `name`: nobody else holds it, held it lately, or holds something above it, unless it is
    /// the owner's already; and a wildcard covers no name that is somebody else's.
    pub(super) fn check_name(
        &self,
        account: &Account,
        name: &HostPattern,
        domain: &HostName,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let key = Key::from(name);
        self.check_holder(account, &key, now)?;
        let foreign = |above: &Key| self.ruler(above, now).is_some_and(|ruler| ruler != *account);
        if let Some(above) = above(name, domain).into_iter().find(foreign)
            && !self.belongs_to(account, &key, now)
        {
            return Err(taken(
                &key.to_string(),
                &format!("it lies below {above}, which is another account's"),
            ));
        }
        if let HostPattern::Wildcard(base) = name
            && let Some(below) = self.foreign_below(account, base, now)
        {
            return Err(taken(&key.to_string(), &format!("{below} below it is another account's")));
        }
        Ok(())
    }

    /// Whose everything below `above` is. A wildcard holds the names that it covers, and keeps them as it keeps its own.
    fn ruler(&self, above: &Key, now: SystemTime) -> Option<Account> {
        let what = above.to_string();
        let lately = || match above {
            Key::Wild(_) => self.past.owner(&what, now).cloned(),
            Key::Exact(_) | Key::Port(_) => None,
        };
        let live = || self.entries.get(above).map(|entry| entry.account.clone());
        self.reserved.get(&what).cloned().or_else(live).or_else(lately)
    }

    /// Whether `owner` has it or was the last to have it.
    fn belongs_to(&self, account: &Account, key: &Key, now: SystemTime) -> bool {
        match self.entries.get(key) {
            Some(entry) => entry.account == *account,
            None => {
                let what = key.to_string();
                let kept_for = self.reserved.get(&what).or_else(|| self.past.owner(&what, now));
                kept_for == Some(account)
            }
        }
    }

    pub(super) fn check_port(&self, account: &Account, port: u16, now: SystemTime) -> Result<(), Refusal> {
        self.check_holder(account, &Key::Port(port), now)
    }

    /// When a port that nobody holds was given back, as far as that is remembered.
    pub(super) fn last_seen(&self, port: u16) -> Option<i64> {
        self.past.seen(&Key::Port(port).to_string())
    }

    fn check_holder(&self, account: &Account, key: &Key, now: SystemTime) -> Result<(), Refusal> {
        match self.entries.get(key) {
            Some(entry) if entry.account != *account => {
                Err(taken(&key.to_string(), "another account is using it"))
            }
            Some(_) => Ok(()),
            None => self.check_kept(account, &key.to_string(), now),
        }
    }

    /// A reservation counts more than who had it last.
    fn check_kept(&self, account: &Account, what: &str, now: SystemTime) -> Result<(), Refusal> {
        if let Some(kept_for) = self.reserved.get(what) {
            return if kept_for == account {
                Ok(())
            } else {
                Err(taken(what, "it is reserved for another account"))
            };
        }
        match self.past.owner(what, now) {
            Some(last) if last != account => Err(taken(what, "it belongs to another account")),
            _ => Ok(()),
        }
    }

    /// Whether the operator keeps it, or a wildcard above it, for this account.
    pub(super) fn is_reserved_for(&self, account: &Account, name: &HostPattern, domain: &HostName) -> bool {
        let kept_for = self.reserved.get(&Key::from(name).to_string()).or_else(|| {
            let above = above(name, domain).into_iter().filter(|key| matches!(key, Key::Wild(_)));
            above.filter_map(|key| self.reserved.get(&key.to_string())).next()
        });
        kept_for == Some(account)
    }

    fn foreign_below(&self, account: &Account, base: &HostName, now: SystemTime) -> Option<String> {
        let is_below = |what: &str| {
            let left = what.strip_prefix("*.").unwrap_or(what).strip_suffix(base.as_str());
            left.is_some_and(|left| left.ends_with('.') || (left.is_empty() && what.starts_with('*')))
        };
        let foreign = self.entries.iter().filter(|(_, entry)| entry.account != *account);
        let live = foreign.map(|(key, _)| key.to_string()).find(|what| is_below(what));
        live.or_else(|| {
            let reserved = self.reserved.iter().map(|(what, kept_for)| (what.as_str(), kept_for));
            let mut kept = self.past.all(now).chain(reserved).filter(|(_, kept_for)| *kept_for != account);
            kept.find(|(what, _)| is_below(what)).map(|(what, _)| what.to_owned())
        })
    }

    /// Notes all that is live as seen now.
    pub(super) fn note_live(&mut self, now: SystemTime) {
        for (key, entry) in self.entries.iter().filter(|(_, entry)| entry.was_public) {
            self.past.note(key.to_string(), &entry.account, now);
        }
    }
}

/// The keys whose holder rules over `name`: every name above it, and every wildcard that covers it. What lies above
/// the server's own domain rules over none of its names.
fn above(name: &HostPattern, domain: &HostName) -> Vec<Key> {
    let (mut keys, mut rest) = match name {
        HostPattern::Exact(name) => (Vec::new(), name.as_str()),
        HostPattern::Wildcard(base) => (vec![Key::Exact(base.as_str().into())], base.as_str()),
    };
    while let Some((_, parent)) = rest.split_once('.') {
        if parent == domain.as_str() {
            break;
        }
        keys.push(Key::Exact(parent.into()));
        keys.push(Key::Wild(parent.into()));
        rest = parent;
    }
    keys
}

fn taken(what: &str, why: &str) -> Refusal {
    let hint = "choose another one, or leave it out to be given a free one (-R 0:...)";
    Refusal::new(Code::NAME_IN_USE, format!("{what} is not available: {why}"), hint)
}

fn evicted() -> Refusal {
    let hint = "connect again";
    Refusal::new(Code::NAME_IN_USE, "this session was replaced by a newer one of the same key", hint)
}
