//! Answers `-R` requests at once, from the registry and what this session has asked for so far.
//!
//! A grant makes nothing public: it places a claim and gives the number by which the client will know the forward.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use hithe_cli_parser::{Bind, Code, Command, HostPattern, printable};

use super::publisher::Publisher;
use crate::registry::{Claim, Refusal, Registry};

/// One granted `-R` of a session.
#[derive(Debug)]
pub(super) struct Forward {
    /// Exactly as asked, which is what the client compares; the port is 0 where it left the choice to us.
    pub(super) bind: Bind,
    /// The number by which the client knows the forward: the port it asked for, or the one it was given.
    pub(super) tag: u32,
    /// `None` where only the command tells what to claim, or where the name has to be proved first.
    pub(super) claim: Option<Claim>,
    /// Set where the `-R` names something.
    pub(super) name: Option<HostPattern>,
    /// While this lives, the same `-R` is a duplicate.
    #[expect(dead_code, reason = "held for its drop")]
    alive: Arc<()>,
}

impl Forward {
    /// Whether the server chooses its name or port. The flags of the command may still name one.
    pub(super) fn is_random(&self) -> bool {
        let names_port = self.bind.port != 0 && self.claim.as_ref().and_then(Claim::port).is_some();
        self.name.is_none() && !names_port
    }
}

/// A refused `-R` as it will be told: a request may be much longer than any name, and refusals are kept.
pub(super) fn to_be_told(bind: &Bind) -> Bind {
    Bind { address: printable(&bind.address).into_owned(), port: bind.port }
}

/// The forwards that this session's client believes to have.
#[derive(Debug, Default)]
pub(super) struct ForwardTable {
    granted: Vec<Granted>,
    /// Numbers given out on this connection are never given again, nor accepted as explicit ports.
    given: HashSet<u32>,
}

#[derive(Debug)]
struct Granted {
    address: String,
    tag: u32,
    alive: Weak<()>,
}

impl ForwardTable {
    /// # Errors
    /// Says why the forward cannot be had, as far as that does not depend on the command.
    pub(super) fn grant(
        &mut self,
        publisher: &Publisher,
        user_command: Option<&Command>,
        bind: Bind,
    ) -> Result<Forward, Refusal> {
        self.granted.retain(|granted| granted.alive.strong_count() > 0);
        if self.granted.len() >= MAX_FORWARDS {
            let message = format!("a session has at most {MAX_FORWARDS} forwards");
            return Err(Refusal::new(Code::NO_FORWARD, message, "open another connection"));
        }
        if bind.port != 0 {
            self.check_number(&bind)?;
        }
        let registry = &publisher.registry;
        allow(publisher, &bind)?;
        let name = bind.requested_name(registry.domain())?;
        let claim = claim(registry, publisher, user_command, &bind, name.as_ref())?;
        let tag = match bind.port {
            0 => self.number(claim.as_ref())?,
            asked => asked,
        };
        let alive = Arc::new(());
        self.granted.push(Granted { address: bind.address.clone(), tag, alive: Arc::downgrade(&alive) });
        Ok(Forward { bind, tag, claim, name, alive })
    }

    /// Whether the client had this forward.
    pub(super) fn cancel(&mut self, address: &str, tag: u32) -> bool {
        let place = self.granted.iter().position(|granted| granted.address == address && granted.tag == tag);
        place.map(|place| self.granted.swap_remove(place)).is_some()
    }

    fn check_number(&self, bind: &Bind) -> Result<(), Refusal> {
        let asked_before = |g: &Granted| g.address == bind.address && g.tag == bind.port;
        if self.granted.iter().any(asked_before) {
            let message = "this forward is already there; the client would use the first of the two only";
            return Err(Refusal::new(Code::NAME_IN_USE, message, "leave one of the two -R out"));
        }
        if self.given.contains(&bind.port) {
            let message = format!("this connection was given {} for another -R 0", bind.port);
            return Err(Refusal::new(Code::NAME_IN_USE, message, "use -R 0:... to let the server choose"));
        }
        Ok(())
    }

    /// The number in the answer to port 0: the claimed TCP port, otherwise any that is not in use here.
    fn number(&mut self, claim: Option<&Claim>) -> Result<u32, Refusal> {
        let used = |tag: &u32| self.given.contains(tag) || self.granted.iter().any(|g| g.tag == *tag);
        let number = match claim.and_then(Claim::port) {
            Some(port) => Some(u32::from(port)).filter(|port| !used(port)),
            None => None,
        };
        let number = number.or_else(|| (1..=u32::from(u16::MAX)).rev().find(|tag| !used(tag)));
        let number = number.ok_or_else(|| {
            Refusal::new(Code::NO_FORWARD, "this connection has used up its numbers", "connect again")
        })?;
        self.given.insert(number);
        Ok(number)
    }
}

/// `permitlisten` and its like.
pub(super) fn allow(publisher: &Publisher, bind: &Bind) -> Result<(), Refusal> {
    if !publisher.access.still_admits(&publisher.identity) {
        let message = "your key or token is no longer what it was on this server";
        return Err(Refusal::new(Code::UNKNOWN_KEY, message, "connect again, or ask its operator"));
    }
    let rights = &publisher.identity.rights;
    if rights.allow_forward(bind, publisher.registry.domain()) {
        return Ok(());
    }
    let message = format!("your key may not bind {}", printable(&bind.to_string()));
    Err(Refusal::new(
        Code::NAME_NOT_GRANTED,
        message,
        format!("it may bind {rights}; ask the operator for more"),
    ))
}

fn claim(
    registry: &Registry,
    publisher: &Publisher,
    user_command: Option<&Command>,
    bind: &Bind,
    name: Option<&HostPattern>,
) -> Result<Option<Claim>, Refusal> {
    let web_only = matches!(user_command, Some(Command::Http(_) | Command::Tls(_)));
    match (bind.port, name) {
        (0 | 80 | 443, Some(name)) => registry.claim_name(publisher, name),
        // The command may turn out to be tcp, and then the answer must hold the port.
        (0, None) if !web_only => Ok(registry.claim_port(publisher, None).ok()),
        (0 | 80 | 443, None) => Ok(None),
        (port, name) => {
            let is_domain = |name: &HostPattern| *name == HostPattern::Exact(registry.domain().clone());
            if let Some(name) = name.filter(|name| !is_domain(name)) {
                let message = format!("{name} can be had on port 80 or 443, not on {port}");
                let hint = "a tcp endpoint has a port and no name: leave the name out";
                return Err(Refusal::new(Code::TCP_WITH_NAME, message, hint));
            }
            let port = u16::try_from(port).map_err(|_| outside(registry, port))?;
            registry.claim_port(publisher, Some(port)).map(Some)
        }
    }
}

fn outside(registry: &Registry, port: u32) -> Refusal {
    let range = registry.tcp_ports();
    let message = format!("port {port} is outside of this server's range {}-{}", range.start(), range.end());
    let hint = "use -R 0:... to let the server choose; http has 80 or 443, tls has 443";
    Refusal::new(Code::PORT_NOT_FOR_COMMAND, message, hint)
}

const MAX_FORWARDS: usize = 32;
