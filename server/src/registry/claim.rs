//! What a session holds of the registry: claims, and leases of what is public.
//!
//! A claim is placed when a forward is asked for and makes nothing public; publishing turns it into a [`Lease`].
//! Dropping either gives the name back, unless the session was evicted in the meantime.

use std::fmt;
use std::net::TcpListener;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::ledger::{ClaimId, Key};
use super::{End, Refusal, Registry, SessionId, Slot, ports};
use crate::endpoint::{Endpoint, Member};
use crate::store::CameBy;

/// A place in the ledger that is not public.
#[must_use = "the name is free again as soon as the claim is dropped"]
pub(crate) struct Claim {
    pub(super) registry: Registry,
    pub(super) key: Key,
    pub(super) id: ClaimId,
    pub(super) session: SessionId,
    /// Bound but not listening, where the key is a port.
    pub(super) socket: Option<socket2::Socket>,
    /// It is theirs as long as they can prove it, and is not kept for them afterwards: names change hands.
    pub(super) by_proof: bool,
    pub(super) came_by: CameBy,
}

impl Claim {
    /// The port, where the claim is one.
    pub(crate) fn port(&self) -> Option<u16> {
        match self.key {
            Key::Port(port) => Some(port),
            Key::Exact(_) | Key::Wild(_) => None,
        }
    }

    /// Makes endpoints public under the claimed name, all or none. Where another session of the account answers there,
    /// this one joins it if both share the address, and otherwise takes its place.
    ///
    /// # Errors
    /// This session already answers there, the pool has other rules, or the place changes hands too often.
    pub(crate) fn publish(
        self,
        endpoints: &[(Slot, Arc<Endpoint>)],
        member: &Arc<Member>,
    ) -> Result<Lease, Refusal> {
        self.publish_at(endpoints, member, None)
    }

    /// With the permit to hand over a listener, or to the one that is open.
    fn publish_at(
        self,
        endpoints: &[(Slot, Arc<Endpoint>)],
        member: &Arc<Member>,
        listens: Option<&mpsc::OwnedPermit<ports::OpenedPort>>,
    ) -> Result<Lease, Refusal> {
        let registry = self.registry.clone();
        let mut ledger = registry.ledger();
        if let (Key::Port(port), None) = (&self.key, listens)
            && !registry.0.routes.is_open(*port)
        {
            return Err(ports::closed_just_now(*port));
        }
        let changes = ledger.publish(&self, endpoints, member)?;
        for (slot, endpoint) in &changes.put {
            registry.0.routes.put(&self.key, *slot, endpoint);
        }
        drop(ledger);
        for (session, endpoint) in changes.displaced {
            endpoint.withdrawn.cancel();
            session.displaced(Takeover { registry: registry.clone(), key: self.key.clone() });
        }
        Ok(Lease { claim: self, endpoints: changes.serving })
    }

    /// A listener, unless there is one already. A predecessor may still be closing its own, or another session of the
    /// account opening it, which is worth a short wait.
    async fn listen(&mut self, port: u16) -> Result<Option<TcpListener>, Refusal> {
        let deadline = Instant::now() + ports::PREDECESSOR_WAIT;
        loop {
            let bound = self.socket.take();
            if self.registry.0.routes.is_open(port) {
                return Ok(None);
            }
            match self.registry.0.range.listen(port, bound) {
                Ok(listener) => return Ok(Some(listener)),
                Err(refusal) if Instant::now() >= deadline => return Err(refusal),
                Err(_) => sleep(ports::PREDECESSOR_STEP).await,
            }
        }
    }

    /// Makes a TCP endpoint public: listens, and hands the listener to the edge.
    ///
    /// # Errors
    /// As [`Self::publish`]; or the port is in use on this machine, or the server cannot take more ports now.
    pub(crate) async fn publish_port(
        mut self,
        endpoint: Arc<Endpoint>,
        member: &Arc<Member>,
    ) -> Result<Lease, Refusal> {
        let endpoints = [(Slot::Plain, endpoint)];
        let Some(port) = self.port() else { return self.publish(&endpoints, member) };
        self.registry.ledger().check(&self, &endpoints)?;
        let Some(listener) = self.listen(port).await? else { return self.publish(&endpoints, member) };
        let opened = self.registry.0.opened.clone();
        let permit = opened.try_reserve_owned().map_err(|_| ports::too_many_at_once())?;
        let lease = self.publish_at(&endpoints, member, Some(&permit))?;
        permit.send(ports::OpenedPort { listener, port });
        Ok(lease)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut ledger = self.registry.ledger();
        self.registry.release(&mut ledger, &self.key, self.id, End::InOrder);
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
pub(crate) struct Lease {
    #[expect(dead_code, reason = "held for its drop")]
    claim: Claim,
    endpoints: Vec<Arc<Endpoint>>,
}

impl Lease {
    /// What serves there: the endpoints that were published, or those of the pool that they joined.
    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }
}

/// One session has taken the place of another.
#[derive(Clone, Debug)]
pub(crate) struct Takeover {
    registry: Registry,
    key: Key,
}

impl Takeover {
    /// The other one is still there: the two may be fighting. Of who is cut off, and comes again and again, nothing is
    /// counted.
    pub(crate) fn note_living(&self) {
        self.registry.ledger().note_takeover(&self.key);
    }
}
