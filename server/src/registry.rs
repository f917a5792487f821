//! Which endpoint answers for which name or port, and to whom names and ports belong.
//!
//! Two halves: the [ledger](ledger) says who claims what and changes rarely, under one lock; the routes say what is
//! public and are read by every visit without it. `ssh` claims, `edge` looks up; they meet only here.

mod claim;
mod holdings;
mod ledger;
mod names;
mod overview;
mod ports;
mod routes;

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use hithe_cli_parser::{Code, CommandError, HostName, HostPattern, NameError};
use tokio::sync::mpsc;

pub(crate) use claim::{Claim, Lease, Takeover};
pub(crate) use ledger::SessionId;
pub(crate) use names::{NameChoice, NameRules, NameSecret};
pub(crate) use overview::{SessionAbout, names_of};
pub(crate) use ports::OpenedPort;
pub(crate) use routes::{Place, Slot};

use crate::access::Rights;
use crate::account::Account;
use crate::config::ListenIp;
use crate::endpoint::Endpoint;
use crate::limits::Quota;
use crate::proof::Proof;
use crate::store::{CameBy, Changes, PastOwners, Released, Reservations};
use ledger::{Key, Ledger};
use names::Leave;
use routes::Routes;

/// Handle of the one registry of the process.
#[derive(Clone)]
pub(crate) struct Registry(Arc<Inner>);

struct Inner {
    routes: Routes,
    /// For how long the places of who was cut off are held.
    hold: Duration,
    ledger: Mutex<Ledger>,
    rules: NameRules,
    range: ports::PortRange,
    opened: mpsc::Sender<OpenedPort>,
}

/// What the registry must know of a session that holds names. Implemented by `ssh`, faked in tests.
pub(crate) trait Holder: Send + Sync {
    fn id(&self) -> SessionId;
    fn account(&self) -> &Account;
    /// What it may bind.
    fn rights(&self) -> &Rights;
    fn about(&self) -> SessionAbout;
    /// What its account may have.
    fn quota(&self) -> Quota {
        Quota::default()
    }
    /// Ends the session with a text that its client shows.
    fn end(&self, why: &str);
    /// Ends the session if its login would not be let in as it is any more.
    fn reconsider(&self);
    /// Asks the publisher's client whether it is still there; answers within a second.
    fn is_alive(&self) -> BoxFuture<'_, bool>;
    /// Ends the session at once. Its names are free when this returns.
    fn evict(&self);
    /// Another session has taken the place of one of its endpoints.
    fn displaced(&self, takeover: Takeover);
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client said so, or we did: nobody waits for its return.
    InOrder,
    /// The connection broke, or nothing was heard any more.
    CutOff,
}

/// Why a name or a port was not given. The publisher reads it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) hint: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Self::new(error.code(), error.to_string(), "names are letters, digits and hyphens, with dots between")
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        let hint = error.advice().unwrap_or("see ssh HOST http --help").to_owned();
        Self::new(error.code(), error.message(), hint)
    }
}

/// What [`Registry::new`] needs.
pub(crate) struct RegistryConfig {
    pub(crate) rules: NameRules,
    pub(crate) tcp_ports: RangeInclusive<u16>,
    pub(crate) tcp_address: ListenIp,
    pub(crate) past: PastOwners,
    pub(crate) reserved: Reservations,
    pub(crate) hold: Duration,
}

impl Registry {
    /// The receiver is for `edge::tcp`, which accepts on the ports that publishers open.
    pub(crate) fn new(config: RegistryConfig) -> (Self, mpsc::Receiver<OpenedPort>) {
        let (opened, receiver) = mpsc::channel(ports::OPENED_BACKLOG);
        let inner = Inner {
            routes: Routes::default(),
            hold: config.hold,
            ledger: Mutex::new(Ledger::new(config.past, config.reserved)),
            rules: config.rules,
            range: ports::PortRange::new(config.tcp_ports, config.tcp_address),
            opened,
        };
        (Self(Arc::new(inner)), receiver)
    }

    /// What answers for a host name: the exact one, otherwise that of the longest matching wildcard.
    /// `host` is lower case, without port and trailing dot.
    pub(crate) fn web(&self, host: &str, slot: Slot) -> Option<Place> {
        self.0.routes.web(host, slot)
    }

    /// What answers at a TCP port.
    pub(crate) fn at_port(&self, port: u16) -> Option<Place> {
        self.0.routes.port(port)
    }

    /// Whether nobody answers at a TCP port any more, and nobody will before it is opened anew.
    pub(crate) fn close_port(&self, port: u16) -> bool {
        let _ledger = self.ledger();
        self.0.routes.close_port(port)
    }

    /// Closes the port of an endpoint that was withdrawn, if it still has it.
    pub(crate) fn close_port_of(&self, port: u16, endpoint: &Arc<Endpoint>) -> bool {
        let _ledger = self.ledger();
        self.0.routes.remove(&Key::Port(port), Slot::Plain, endpoint)
    }

    /// Its listener is lost, whoever has it.
    pub(crate) fn abandon_port(&self, port: u16) {
        let _ledger = self.ledger();
        self.0.routes.abandon_port(port);
    }

    /// Whether any endpoint answers for `host`, or will in a moment.
    pub(crate) fn is_live(&self, host: &str) -> bool {
        self.web(host, Slot::Secure).is_some() || self.web(host, Slot::Plain).is_some()
    }

    pub(crate) fn domain(&self) -> &HostName {
        &self.0.rules.domain
    }

    /// Which names may be claimed from now on; those that are live stay.
    pub(crate) fn choose_names(&self, choice: NameChoice) {
        self.0.rules.choice.store(Arc::new(choice));
    }

    pub(crate) fn tcp_ports(&self) -> &RangeInclusive<u16> {
        self.0.range.ports()
    }

    /// Makes a session known, so that its key can claim names. Undone by [`Self::forget`].
    pub(crate) fn enter(&self, holder: Arc<dyn Holder>) {
        self.ledger().sessions.insert(holder.id(), holder);
    }

    /// Takes back everything that a session still holds. Where it was cut off, visitors wait there for its return.
    pub(crate) fn forget(&self, holder: &dyn Holder, end: End) -> HeldPlaces {
        let mut ledger = self.ledger();
        ledger.sessions.remove(&holder.id());
        let mut held = Vec::new();
        for (claim, key) in ledger.claims_of(holder.account(), holder.id()) {
            let withdrawn = self.release(&mut ledger, &key, claim, end);
            held.extend(withdrawn.into_iter().map(|(slot, endpoint)| (key.clone(), slot, endpoint)));
        }
        if end == End::InOrder {
            held.clear();
        }
        HeldPlaces(held)
    }

    /// The client of a session that ended will not return after all.
    pub(crate) fn hold_no_longer(&self, places: &HeldPlaces) {
        let _ledger = self.ledger();
        for (key, slot, endpoint) in &places.0 {
            self.0.routes.hold_no_longer(key, *slot, endpoint);
        }
    }

    /// Gives up places whose publishers have not returned in time.
    pub(crate) fn let_go(&self) {
        let _ledger = self.ledger();
        self.0.routes.let_go();
    }

    /// Everybody who is there.
    pub(crate) fn sessions(&self) -> Vec<Arc<dyn Holder>> {
        self.ledger().sessions.values().cloned().collect()
    }

    /// The other sessions of an account that claim anything, whose life has to be asked before it is known which of its
    /// random names and ports are free.
    pub(crate) fn others_of(&self, account: &Account, session: SessionId) -> Vec<Arc<dyn Holder>> {
        let ledger = self.ledger();
        let others = ledger.others_of(account, session).filter_map(|id| ledger.sessions.get(&id));
        others.take(MAX_ASKED).cloned().collect()
    }

    /// Whether names outside the domain can be claimed with a proof.
    pub(crate) fn takes_proofs(&self) -> bool {
        self.0.rules.proofs
    }

    /// Places a claim on a name, without making anything public. `None` where a proof has to come first: who has none
    /// must not keep the name from others.
    ///
    /// # Errors
    /// The name is not valid here, or another account holds it, is above it with a live name, or held it last.
    pub(crate) fn claim_name(
        &self,
        holder: &dyn Holder,
        name: &HostPattern,
    ) -> Result<Option<Claim>, Refusal> {
        self.claim_name_with(holder, name, None)
    }

    /// The same for who has proved that the name is theirs.
    pub(crate) fn claim_proved_name(
        &self,
        holder: &dyn Holder,
        name: &HostPattern,
        proof: &Proof,
    ) -> Result<Claim, Refusal> {
        let claim = self.claim_name_with(holder, name, Some(proof))?;
        claim.ok_or_else(|| {
            let message = format!("{name} is another one than was proved to be yours");
            Refusal::new(Code::CUSTOM_DOMAIN, message, "publish again")
        })
    }

    fn claim_name_with(
        &self,
        holder: &dyn Holder,
        name: &HostPattern,
        proof: Option<&Proof>,
    ) -> Result<Option<Claim>, Refusal> {
        let rights = holder.rights();
        if !rights.allow_name(name, self.domain()) {
            return Err(not_allowed(Code::NAME_NOT_GRANTED, &name.to_string(), rights));
        }
        let mut ledger = self.ledger();
        let leave = match ledger.is_reserved_for(holder.account(), name, self.domain()) {
            true => Leave::Given,
            false => self.0.rules.check(name)?,
        };
        let now = SystemTime::now();
        ledger.check_name(holder.account(), name, self.domain(), now)?;
        ledger.check_doubt(holder.account(), name, self.domain(), now)?;
        let key = Key::from(name);
        self.check_quota(&ledger, holder, Some(&key))?;
        let proved = proof.is_some_and(|proof| proof.is_for(holder.account(), name));
        if leave == Leave::AfterProof && !proved {
            return Ok(None);
        }
        let mut claim = self.place(&mut ledger, holder, key);
        claim.by_proof = leave == Leave::AfterProof;
        Ok(Some(claim))
    }

    /// Places a claim on the first random name of this key that it has not live.
    ///
    /// # Errors
    /// The key has used up its share of names.
    pub(crate) fn claim_random_name(&self, holder: &dyn Holder) -> Result<(Claim, HostPattern), Refusal> {
        let mut ledger = self.ledger();
        self.check_quota(&ledger, holder, None)?;
        for index in 0..names::MAX_INDEX {
            let name = HostPattern::Exact(self.0.rules.random(holder.account(), index)?);
            let key = Key::from(&name);
            let allowed = ledger.check_name(holder.account(), &name, self.domain(), SystemTime::now());
            if !holder.rights().allow_name(&name, self.domain()) {
                return Err(not_allowed(Code::NAME_NOT_GRANTED, "a random name", holder.rights()));
            }
            let free = !ledger.is_held(&key) && allowed.is_ok();
            if free {
                let mut claim = self.place(&mut ledger, holder, key);
                claim.came_by = CameBy::Chance;
                return Ok((claim, name));
            }
        }
        Err(Refusal::new(
            Code::NAME_IN_USE,
            "this account has used up its random names",
            "end tunnels that you no longer need, or ask for a name with -R NAME:443:...",
        ))
    }

    /// Places a claim on a TCP port: the one asked for, otherwise the first of this key that is free.
    /// The socket is bound if it can be, but does not listen.
    ///
    /// # Errors
    /// The port is outside the range, held by another key, or in use on this machine.
    pub(crate) fn claim_port(&self, holder: &dyn Holder, port: Option<u16>) -> Result<Claim, Refusal> {
        let mut ledger = self.ledger();
        let wanted = port.map(Key::Port);
        self.check_quota(&ledger, holder, wanted.as_ref())?;
        Self::check_ports(&ledger, holder, wanted.as_ref())?;
        let Some(port) = port else { return self.claim_random_port(&mut ledger, holder) };
        self.0.range.check(port)?;
        if !holder.rights().allow_port(port, self.domain()) {
            return Err(not_allowed(Code::PORT_NOT_GRANTED, &format!("port {port}"), holder.rights()));
        }
        if self.0.rules.open {
            return Err(ports::not_chosen_when_open());
        }
        let now = SystemTime::now();
        ledger.check_port(holder.account(), port, now)?;
        ledger.check_port_doubt(holder.account(), port, now)?;
        let key = Key::Port(port);
        // Held by another session of this key: who has the port is settled when publishing.
        let is_open = ledger.is_held(&key) || self.0.routes.is_open(port);
        let socket = if is_open { None } else { Some(self.0.range.bind(port)?) };
        let mut claim = self.place(&mut ledger, holder, key);
        claim.socket = socket;
        Ok(claim)
    }

    fn claim_random_port(&self, ledger: &mut Ledger, holder: &dyn Holder) -> Result<Claim, Refusal> {
        let now = SystemTime::now();
        let mut remembered = Vec::new();
        let mut any_allowed = false;
        let mut in_doubt = None;
        let account = holder.account();
        let candidates = || self.0.range.candidates(&self.0.rules.secret, account);
        // What it was given once it is given again, whether another one has become free in the meantime or not; and what it
        // asked for, in this session or another, it will ask for again.
        let given = ledger.past_ports(account, CameBy::Chance, now);
        let asked_for = ledger.past_ports(account, CameBy::Asking, now);
        let again = candidates().filter(|port| given.contains(port));
        for port in again.chain(candidates()) {
            if !holder.rights().allow_port(port, self.domain()) {
                continue;
            }
            any_allowed = true;
            let of_another = ledger.is_port_of_another(holder.account(), port)
                || self.0.routes.is_port_of_another(port, holder.account());
            if ledger.is_held(&Key::Port(port)) || of_another {
                continue;
            }
            if let Err(refusal) = ledger.check_port_doubt(holder.account(), port, now) {
                in_doubt = Some(refusal);
                continue;
            }
            if asked_for.contains(&port) || ledger.check_port(holder.account(), port, now).is_err() {
                remembered.push(port);
            } else if let Ok(claim) = self.bind_port(ledger, holder, port) {
                return Ok(claim);
            }
        }
        if !any_allowed {
            return Err(not_allowed(Code::RANDOM_PORT_NOT_GRANTED, "a tcp port", holder.rights()));
        }
        // Those who have gone must not keep the range from those who are here.
        remembered.sort_by_key(|port| ledger.last_seen(*port));
        let claim = remembered.into_iter().find_map(|port| self.bind_port(ledger, holder, port).ok());
        claim.ok_or_else(|| in_doubt.unwrap_or_else(|| ports::range_exhausted(self.0.range.ports())))
    }

    fn bind_port(&self, ledger: &mut Ledger, holder: &dyn Holder, port: u16) -> Result<Claim, Refusal> {
        // Where its listener waits for the return of who was cut off, which is this account.
        let is_open = self.0.routes.is_open(port);
        let socket = if is_open { None } else { Some(self.0.range.bind(port)?) };
        let mut claim = self.place(ledger, holder, Key::Port(port));
        (claim.socket, claim.came_by) = (socket, CameBy::Chance);
        Ok(claim)
    }

    /// What is held already, by another session of the account, is no more when this one has it too.
    fn check_quota(&self, ledger: &Ledger, holder: &dyn Holder, wanted: Option<&Key>) -> Result<(), Refusal> {
        let account = holder.account();
        if let Some(most) = holder.quota().endpoints
            && !wanted.is_some_and(|key| ledger.is_held(key))
            && ledger.keys_of(account).len() as u64 >= most
        {
            let message = format!("your account may have {most} names and ports at a time");
            return Err(Refusal::new(Code::ENDPOINT_LIMIT, message, "end a tunnel that you no longer need"));
        }
        if self.0.rules.open && ledger.count_claims(account) >= OPEN_ENDPOINTS_PER_KEY {
            return Err(Refusal::new(
                Code::NAME_IN_USE,
                format!("an open server gives each key {OPEN_ENDPOINTS_PER_KEY} endpoints at a time"),
                "end a tunnel that you no longer need",
            ));
        }
        Ok(())
    }

    fn check_ports(ledger: &Ledger, holder: &dyn Holder, wanted: Option<&Key>) -> Result<(), Refusal> {
        let is_port = |key: &&&Key| matches!(key, Key::Port(_));
        if let Some(most) = holder.quota().ports
            && !wanted.is_some_and(|key| ledger.is_held(key))
            && ledger.keys_of(holder.account()).iter().filter(is_port).count() as u64 >= most
        {
            let message = format!("your account may have {most} tcp ports at a time");
            return Err(Refusal::new(
                Code::PORT_LIMIT,
                message,
                "end a tcp endpoint that you no longer need",
            ));
        }
        Ok(())
    }

    /// The other sessions that publish, where their account may have no more of them.
    pub(crate) fn others_at_limit(&self, holder: &dyn Holder) -> Vec<Arc<dyn Holder>> {
        let Some(most) = holder.quota().sessions else { return Vec::new() };
        let ledger = self.ledger();
        let others = ledger.publishing(holder.account(), holder.id());
        if (others.len() as u64) < most {
            return Vec::new();
        }
        others.iter().filter_map(|id| ledger.sessions.get(id)).take(MAX_ASKED).cloned().collect()
    }

    fn place(&self, ledger: &mut Ledger, holder: &dyn Holder, key: Key) -> Claim {
        let id = ledger.place(holder, key.clone());
        let (registry, session, came_by) = (self.clone(), holder.id(), CameBy::Asking);
        Claim { registry, key, id, session, socket: None, by_proof: false, came_by }
    }

    /// What is remembered of owners and was not stored since the last question.
    pub(crate) fn take_changes(&self) -> Changes {
        self.ledger().past.take_changes()
    }

    /// They could not be stored.
    pub(crate) fn give_back_changes(&self, changes: Changes) {
        self.ledger().past.give_back(changes);
    }

    /// Notes all that is live as seen now, to be stored with the next changes.
    pub(crate) fn note_live(&self) {
        self.ledger().note_live(SystemTime::now());
    }

    /// What the operator keeps for whom, from now on.
    pub(crate) fn set_reservations(&self, reserved: Reservations) {
        self.ledger().reserved = reserved;
    }

    /// Whether not all of that could be read.
    pub(crate) fn doubts_reservations(&self) -> bool {
        self.ledger().reserved.are_incomplete()
    }

    /// Forgets who had `what` last, if nobody has it now. Whether that was known.
    pub(crate) fn forget_owner(&self, what: &str) -> bool {
        self.ledger().past.forget(what)
    }

    /// The same of what was released at that moment, in seconds since 1970, unless somebody was seen there afterwards.
    pub(crate) fn forget_released(&self, what: &Released, at: i64) {
        let past = &mut self.ledger().past;
        let names = match what {
            Released::One(name) => vec![name.as_str().into()],
            Released::AllOf(account) => past.of(account),
        };
        for name in names {
            if past.seen(&name).is_some_and(|seen| seen <= at) {
                past.forget(&name);
            }
        }
    }

    /// Forgets what an account had.
    pub(crate) fn forget_account(&self, account: &Account) {
        self.ledger().past.forget_account(account);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(
        &self,
        ledger: &mut Ledger,
        key: &Key,
        claim: ledger::ClaimId,
        end: End,
    ) -> Vec<(Slot, Arc<Endpoint>)> {
        let withdrawn = ledger.release(key, claim, SystemTime::now());
        for (slot, endpoint) in &withdrawn {
            match end {
                End::CutOff if !self.0.hold.is_zero() => {
                    self.0.routes.hold(key, *slot, endpoint, self.0.hold);
                }
                End::CutOff | End::InOrder => {
                    self.0.routes.remove(key, *slot, endpoint);
                }
            }
            endpoint.withdrawn.cancel();
        }
        withdrawn
    }
}

/// The places where a session that was cut off is waited for.
#[derive(Debug, Default)]
pub(crate) struct HeldPlaces(Vec<(Key, Slot, Arc<Endpoint>)>);

impl HeldPlaces {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// `what` is not among the rules of who asked for it.
fn not_allowed(code: Code, what: &str, rights: &Rights) -> Refusal {
    let message = format!("your key or token may not bind {what}");
    Refusal::new(code, message, format!("it may bind {rights}; ask the operator for more"))
}

/// More sessions of one account than this are not asked whether they live: the question costs each a round trip.
const MAX_ASKED: usize = 64;

/// `--open` lets anyone publish, so each key gets a small share.
const OPEN_ENDPOINTS_PER_KEY: usize = 4;

#[cfg(any(test, feature = "bench"))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
