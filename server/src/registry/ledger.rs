//! Who claims which name or port, and who held it last.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hithe_cli_parser::{Code, HostName, HostPattern};
use tokio::time::Instant;

use super::holdings::Holdings;
use super::{Claim, Holder, Refusal, Slot};
use crate::account::Account;
use crate::endpoint::{Endpoint, Member};
use crate::store::{CameBy, PastOwners, Reservations};

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
    Exact(Arc<str>),
    /// What follows `*.`.
    Wild(Arc<str>),
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

struct Entry {
    account: Account,
    /// More than one while sessions of one account wait to settle who publishes.
    holds: Vec<(ClaimId, SessionId)>,
    public: Vec<Public>,
    /// When it lately passed from one living session to another.
    takeovers: Vec<Instant>,
    /// A claim alone gives no right to the name afterwards.
    was_public: bool,
    came_by: CameBy,
}

impl Entry {
    fn session_of(&self, claim: ClaimId) -> Option<SessionId> {
        self.holds.iter().find(|(held, _)| *held == claim).map(|(_, session)| *session)
    }
}

/// What one claim serves on one side.
struct Public {
    slot: Slot,
    claim: ClaimId,
    /// Shared by the members of a pool.
    endpoint: Arc<Endpoint>,
    member: Arc<Member>,
}

/// What a claim that was published changes for visitors.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) put: Vec<(Slot, Arc<Endpoint>)>,
    /// Those that were put, and those of the pools that were joined.
    pub(super) serving: Vec<Arc<Endpoint>>,
    /// What it took the place of.
    pub(super) displaced: Vec<(Arc<dyn Holder>, Arc<Endpoint>)>,
}

pub(super) struct Ledger {
    entries: HashMap<Key, Entry>,
    holdings: Holdings,
    pub(super) sessions: HashMap<SessionId, Arc<dyn Holder>>,
    pub(super) past: PastOwners,
    /// What the operator keeps for whom.
    pub(super) reserved: Reservations,
    next: u64,
}

impl Ledger {
    pub(super) fn new(past: PastOwners, reserved: Reservations) -> Self {
        let (entries, holdings) = <_>::default();
        Self { entries, holdings, sessions: HashMap::new(), past, reserved, next: 0 }
    }

    pub(super) fn place(&mut self, holder: &dyn Holder, key: Key) -> ClaimId {
        self.next += 1;
        let id = ClaimId(self.next);
        let fresh = || Entry {
            account: holder.account().clone(),
            holds: Vec::new(),
            public: Vec::new(),
            takeovers: Vec::new(),
            was_public: false,
            came_by: CameBy::Asking,
        };
        self.holdings.add(holder.account(), holder.id(), id, key.clone());
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
        let (_, session) = entry.holds.swap_remove(place);
        self.holdings.remove(&entry.account, session, claim);
        let left = entry.public.extract_if(.., |it| it.claim == claim);
        let withdrawn =
            left.filter(|it| !it.endpoint.leave(&it.member)).map(|it| (it.slot, it.endpoint)).collect();
        if entry.holds.is_empty() {
            let freed = self.entries.remove(key).filter(|entry| entry.was_public);
            if let Some(entry) = freed {
                self.past.note(&key.to_string(), &entry.account, entry.came_by, now);
            }
        }
        withdrawn
    }

    /// Nothing is changed where one of the endpoints is refused.
    pub(super) fn publish(
        &mut self,
        claim: &Claim,
        endpoints: &[(Slot, Arc<Endpoint>)],
        member: &Arc<Member>,
    ) -> Result<Changes, Refusal> {
        let pools = self.check(claim, endpoints)?;
        self.check_sessions(claim)?;
        let entry = self.entries.get_mut(&claim.key).ok_or_else(evicted)?;
        let mut changes = Changes::default();
        for ((slot, endpoint), pool) in endpoints.iter().zip(pools) {
            let endpoint = match pool {
                Some(pool) => {
                    pool.join(member);
                    pool
                }
                None => {
                    for it in entry.public.extract_if(.., |it| it.slot == *slot).collect::<Vec<_>>() {
                        let holder =
                            entry.session_of(it.claim).and_then(|session| self.sessions.get(&session));
                        changes.displaced.extend(holder.map(|holder| (Arc::clone(holder), it.endpoint)));
                    }
                    changes.put.push((*slot, Arc::clone(endpoint)));
                    Arc::clone(endpoint)
                }
            };
            changes.serving.push(Arc::clone(&endpoint));
            entry.public.push(Public { slot: *slot, claim: claim.id, endpoint, member: Arc::clone(member) });
        }
        entry.came_by = claim.came_by;
        if !claim.by_proof && !std::mem::replace(&mut entry.was_public, true) {
            // At once, so that it stays theirs when the server is killed.
            let what = claim.key.to_string();
            self.past.note(&what, &entry.account, entry.came_by, SystemTime::now());
        }
        Ok(changes)
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
    pub(super) fn publishing(&self, account: &Account, but: SessionId) -> Vec<SessionId> {
        let is_public = |(claim, key): &(ClaimId, Key)| {
            self.entries.get(key).is_some_and(|entry| entry.public.iter().any(|it| it.claim == *claim))
        };
        let sessions = self.holdings.sessions(account);
        let public = sessions.filter(|(session, claims)| *session != but && claims.iter().any(is_public));
        public.map(|(session, _)| session).collect()
    }

    /// The names and ports that an account has, public or not.
    pub(super) fn keys_of(&self, account: &Account) -> HashSet<&Key> {
        self.holdings.keys(account)
    }

    /// How many claims the sessions of an account have together.
    pub(super) fn count_claims(&self, account: &Account) -> usize {
        self.holdings.sessions(account).map(|(_, claims)| claims.len()).sum()
    }

    /// What a session claims.
    pub(super) fn claims_of(&self, account: &Account, session: SessionId) -> Vec<(ClaimId, Key)> {
        self.holdings.of(account, session).to_vec()
    }

    /// The sessions of an account that claim anything, but for one.
    pub(super) fn others_of(&self, account: &Account, but: SessionId) -> impl Iterator<Item = SessionId> {
        self.holdings.sessions(account).map(|(session, _)| session).filter(move |it| *it != but)
    }

    /// It passed from one living session to another.
    pub(super) fn note_takeover(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.takeovers.push(Instant::now());
        }
    }

    /// Whether these may be made public, and which pool each of them joins.
    pub(super) fn check(
        &mut self,
        claim: &Claim,
        endpoints: &[(Slot, Arc<Endpoint>)],
    ) -> Result<Vec<Option<Arc<Endpoint>>>, Refusal> {
        let entry = self.entries.get_mut(&claim.key).ok_or_else(evicted)?;
        entry.session_of(claim.id).ok_or_else(evicted)?;
        let mut pools = Vec::new();
        let mut takes_over = false;
        for (slot, endpoint) in endpoints {
            let Some(there) = entry.public.iter().find(|it| it.slot == *slot) else {
                pools.push(None);
                continue;
            };
            let mut of_slot = entry.public.iter().filter(|it| it.slot == *slot);
            if of_slot.any(|it| entry.session_of(it.claim) == Some(claim.session)) {
                let message = format!("{} is already published by this session", claim.key);
                return Err(Refusal::new(Code::NAME_IN_USE, message, "leave one of the two -R out"));
            }
            let shares = there.endpoint.command.pools() && endpoint.command.pools();
            if shares && !there.endpoint.serves_like(endpoint) {
                return Err(other_rules(&claim.key));
            }
            takes_over |= !shares;
            pools.push(shares.then(|| Arc::clone(&there.endpoint)));
        }
        entry.takeovers.retain(|at| at.elapsed() < TAKEOVERS_WITHIN);
        if takes_over && entry.takeovers.len() >= MAX_TAKEOVERS {
            return Err(changes_hands(&claim.key));
        }
        Ok(pools)
    }

    pub(super) fn is_held(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    /// What is public: name, account and endpoints, each once.
    pub(super) fn live(&self) -> impl Iterator<Item = (String, Account, Vec<Arc<Endpoint>>)> {
        let public = self.entries.iter().filter(|(_, entry)| !entry.public.is_empty());
        public.map(|(key, entry)| {
            let mut endpoints: Vec<_> = entry.public.iter().map(|it| Arc::clone(&it.endpoint)).collect();
            endpoints.sort_by_key(|it| it.id);
            endpoints.dedup_by_key(|it| it.id);
            (key.to_string(), entry.account.clone(), endpoints)
        })
    }

    /// What each session has made public.
    pub(super) fn urls(&self) -> HashMap<SessionId, Vec<Arc<str>>> {
        let mut urls: HashMap<SessionId, Vec<Arc<str>>> = HashMap::new();
        for entry in self.entries.values() {
            for it in &entry.public {
                if let Some(session) = entry.session_of(it.claim) {
                    urls.entry(session).or_default().push(it.endpoint.url.clone());
                }
            }
        }
        urls
    }

    /// Whether `account` may have `name`: nobody else holds it, held it lately, or holds something above it, unless it
    /// is the account's already; and a wildcard covers no name that is somebody else's.
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

    /// Whether `account` has it or was the last to have it.
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

    /// Whether `account` may have `name` although not all that the operator keeps can be read: what it had lately.
    pub(super) fn check_doubt(
        &self,
        account: &Account,
        name: &HostPattern,
        domain: &HostName,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let key = Key::from(name);
        let above = above(name, domain).into_iter().map(|above| above.to_string());
        match self.reserved.are_in_doubt(&key.to_string(), above) && !self.belongs_to(account, &key, now) {
            true => Err(in_doubt(&key)),
            false => Ok(()),
        }
    }

    /// The same of a port.
    pub(super) fn check_port_doubt(
        &self,
        account: &Account,
        port: u16,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let key = Key::Port(port);
        match self.reserved.are_in_doubt(&key.to_string(), []) && !self.belongs_to(account, &key, now) {
            true => Err(in_doubt(&key)),
            false => Ok(()),
        }
    }

    pub(super) fn check_port(&self, account: &Account, port: u16, now: SystemTime) -> Result<(), Refusal> {
        self.check_holder(account, &Key::Port(port), now)
    }

    /// The ports that an account had within the last day and came by so.
    pub(super) fn past_ports(&self, account: &Account, came_by: CameBy, now: SystemTime) -> HashSet<u16> {
        let port = |what: &Arc<str>| what.strip_prefix("port ").and_then(|port| port.parse().ok());
        self.past.of_by(account, came_by, now).iter().filter_map(port).collect()
    }

    /// Whether the operator keeps a port for another account.
    pub(super) fn is_port_of_another(&self, account: &Account, port: u16) -> bool {
        self.reserved.get(&Key::Port(port).to_string()).is_some_and(|kept_for| kept_for != account)
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
            let mut kept =
                self.past.all(now).chain(self.reserved.iter()).filter(|(_, kept_for)| *kept_for != account);
            kept.find(|(what, _)| is_below(what)).map(|(what, _)| what.to_owned())
        })
    }

    /// Notes all that is live as seen now.
    pub(super) fn note_live(&mut self, now: SystemTime) {
        for (key, entry) in self.entries.iter().filter(|(_, entry)| entry.was_public) {
            self.past.note(&key.to_string(), &entry.account, entry.came_by, now);
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

/// The operator may keep it for somebody, and nobody knows.
fn in_doubt(key: &Key) -> Refusal {
    let message = format!("{key} may be reserved: this server cannot read what its operator keeps for whom");
    let hint =
        "take a random name (-R 443:...), or one that you had within the last day; and tell the operator";
    Refusal::new(Code::NAME_RESERVED, message, hint)
}

fn other_rules(key: &Key) -> Refusal {
    let message = format!("{key} is shared by sessions with other options than these");
    let hint = "give the same options as they have, or publish under another name";
    Refusal::new(Code::POOL_DIFFERS, message, hint)
}

/// Two clients that reconnect by themselves would take it from each other for ever.
fn changes_hands(key: &Key) -> Refusal {
    let message = format!(
        "{key} was taken over {MAX_TAKEOVERS} times within a minute: two of your sessions fight for it"
    );
    let hint = "end one of them, or let them share it: --pooling-enabled in both";
    Refusal::new(Code::NAME_IN_USE, message, hint)
}

fn evicted() -> Refusal {
    let hint = "connect again";
    Refusal::new(Code::NAME_IN_USE, "this session was replaced by a newer one of the same account", hint)
}

/// Within [`TAKEOVERS_WITHIN`].
const MAX_TAKEOVERS: usize = 3;
const TAKEOVERS_WITHIN: Duration = Duration::from_secs(60);
