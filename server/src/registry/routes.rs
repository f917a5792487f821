//! What is public, as visits read it: concurrent maps beside the ledger and without its lock.
//!
//! When a publisher is cut off, its places are *held* for a moment: visitors wait there for it to return instead of
//! being told that nothing is there. Who leaves in order leaves no held place.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;

use super::ledger::Key;
use crate::account::Account;
use crate::endpoint::{Crowd, Endpoint, Held};

/// The two public sides of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    /// The HTTP port, or the port of a tcp endpoint.
    Plain,
    /// The HTTPS port: an `https` or a `tls` endpoint.
    Secure,
}

/// What answers at a name or port.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Live(Arc<Endpoint>),
    /// Its publisher was cut off a moment ago: what was there, and what becomes of it.
    Held(Arc<Endpoint>, Arc<Held>),
}

impl Place {
    pub(crate) fn live(self) -> Option<Arc<Endpoint>> {
        match self {
            Self::Live(endpoint) => Some(endpoint),
            Self::Held(..) => None,
        }
    }

    /// The endpoint that is or was there.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        match self {
            Self::Live(endpoint) | Self::Held(endpoint, _) => endpoint,
        }
    }
}

#[derive(Default)]
struct Sides {
    plain: Option<Place>,
    secure: Option<Place>,
}

impl Sides {
    fn side(&mut self, slot: Slot) -> &mut Option<Place> {
        match slot {
            Slot::Plain => &mut self.plain,
            Slot::Secure => &mut self.secure,
        }
    }

    fn at(&self, slot: Slot) -> Option<&Place> {
        let side = match slot {
            Slot::Plain => self.plain.as_ref(),
            Slot::Secure => self.secure.as_ref(),
        };
        side.filter(|place| !is_over(place))
    }
}

/// All that is public.
#[derive(Default)]
pub(super) struct Routes {
    exact: DashMap<Arc<str>, Sides>,
    /// Keyed by what follows `*.`.
    wild: DashMap<Arc<str>, Sides>,
    ports: DashMap<u16, Place>,
    /// Visitors that wait at held places.
    waiting: Crowd,
}

impl Routes {
    /// What answers for a host name: the exact one, otherwise that of the longest matching wildcard.
    pub(super) fn web(&self, host: &str, slot: Slot) -> Option<Place> {
        if let Some(place) = self.exact.get(host).and_then(|sides| sides.at(slot).cloned()) {
            return Some(place);
        }
        if self.wild.is_empty() {
            return None;
        }
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(place) = self.wild.get(parent).and_then(|sides| sides.at(slot).cloned()) {
                return Some(place);
            }
            rest = parent;
        }
        None
    }

    pub(super) fn port(&self, port: u16) -> Option<Place> {
        let place = self.ports.get(&port).map(|place| place.clone());
        place.filter(|place| !is_over(place))
    }

    /// Whether a listener is open for the port, though it may be for nobody any more.
    pub(super) fn is_open(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    /// Whether the port's listener is another account's, or was a moment ago: visitors of that one may be in its queue.
    pub(super) fn is_port_of_another(&self, port: u16, account: &Account) -> bool {
        self.ports.get(&port).is_some_and(|place| place.endpoint().account != *account)
    }

    /// Lets an endpoint answer, in place of what was there. A visit that was admitted there goes on here only if both are
    /// one account's: where a name has changed hands, who waits for it may ask again, and what was admitted ends.
    pub(super) fn put(&self, key: &Key, slot: Slot, endpoint: &Arc<Endpoint>) {
        match self.change(key, slot, Some(Place::Live(Arc::clone(endpoint)))) {
            Some(Place::Held(was, held)) => {
                held.settle((was.account == endpoint.account).then(|| Arc::clone(endpoint)));
            }
            // A visit of the one that is displaced may find its session gone.
            Some(Place::Live(displaced)) => {
                let held = Held::new(Duration::ZERO, &endpoint.account, &self.waiting);
                held.settle(Some(Arc::clone(endpoint)));
                displaced.hold(held);
            }
            None => {}
        }
    }

    /// Holds the place of an endpoint, if it is still there.
    pub(super) fn hold(&self, key: &Key, slot: Slot, endpoint: &Arc<Endpoint>, time: Duration) {
        if self.is_there(key, slot, endpoint) {
            let held = Held::new(time, &endpoint.account, &self.waiting);
            endpoint.hold(Arc::clone(&held));
            self.change(key, slot, Some(Place::Held(Arc::clone(endpoint), held)));
        }
    }

    /// Nobody is waited for any more in the place of an endpoint.
    pub(super) fn hold_no_longer(&self, key: &Key, slot: Slot, endpoint: &Endpoint) {
        let is_held = |place: &Place| matches!(place, Place::Held(was, _) if was.id == endpoint.id);
        if self.look(key, slot, is_held)
            && let Some(Place::Held(_, held)) = self.change(key, slot, None)
        {
            held.settle(None);
        }
    }

    /// Removes an endpoint, only if it is still there: a late farewell must not evict a successor.
    /// Whether it was.
    pub(super) fn remove(&self, key: &Key, slot: Slot, endpoint: &Arc<Endpoint>) -> bool {
        let is_there = self.is_there(key, slot, endpoint);
        if is_there {
            self.change(key, slot, None);
        }
        is_there
    }

    /// Nobody listens there any more.
    pub(super) fn abandon_port(&self, port: u16) {
        self.ports.remove(&port);
    }

    /// Whether nobody answers there, and nobody is waited for.
    pub(super) fn close_port(&self, port: u16) -> bool {
        self.ports.remove_if(&port, |_, place| is_over(place));
        !self.ports.contains_key(&port)
    }

    /// Gives up the places whose time is over.
    pub(super) fn let_go(&self) {
        let sweep = |table: &DashMap<Arc<str>, Sides>| {
            table.retain(|_, sides| {
                for slot in [Slot::Plain, Slot::Secure] {
                    if sides.side(slot).as_ref().is_some_and(is_over) {
                        *sides.side(slot) = None;
                    }
                }
                sides.plain.is_some() || sides.secure.is_some()
            });
        };
        sweep(&self.exact);
        sweep(&self.wild);
        // Of ports the listener itself looks when the time is over.
    }

    fn is_there(&self, key: &Key, slot: Slot, endpoint: &Endpoint) -> bool {
        self.look(key, slot, |place| matches!(place, Place::Live(live) if live.id == endpoint.id))
    }

    fn look(&self, key: &Key, slot: Slot, is_so: impl Fn(&Place) -> bool) -> bool {
        match key {
            Key::Exact(name) => self.exact.get(name).is_some_and(|sides| sides.at(slot).is_some_and(is_so)),
            Key::Wild(name) => self.wild.get(name).is_some_and(|sides| sides.at(slot).is_some_and(is_so)),
            Key::Port(port) => self.ports.get(port).is_some_and(|place| is_so(&place)),
        }
    }

    /// Gives what was there. All changes are made under the ledger's lock, one after another.
    fn change(&self, key: &Key, slot: Slot, place: Option<Place>) -> Option<Place> {
        let in_table = |table: &DashMap<Arc<str>, Sides>, name: &Arc<str>, place: Option<Place>| {
            let before = std::mem::replace(table.entry(Arc::clone(name)).or_default().side(slot), place);
            table.remove_if(name, |_, sides| sides.plain.is_none() && sides.secure.is_none());
            before
        };
        match (key, place) {
            (Key::Exact(name), place) => in_table(&self.exact, name, place),
            (Key::Wild(name), place) => in_table(&self.wild, name, place),
            (Key::Port(port), Some(place)) => self.ports.insert(*port, place),
            (Key::Port(port), None) => self.ports.remove(port).map(|(_, place)| place),
        }
    }
}

fn is_over(place: &Place) -> bool {
    matches!(place, Place::Held(_, held) if held.is_over())
}
