//! A place that visitors know: a name or a port, who stands behind it, and when a visit there is owed an answer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// Turns of its publishers that a place remembers.
const TURNS: usize = 6;

/// What visitors speak there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    Web,
    /// The line protocol of [`super::upstream`] inside of the upstream's own TLS.
    Tls,
    /// The same bare.
    Tcp,
}

/// One place. Its number is what its upstream calls itself, so that an answer of another one shows.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) number: usize,
    /// How reports call it.
    pub(super) name: &'static str,
    pub(super) speech: Speech,
    /// Asks for [`USER`](super::stage::USER) and [`PASSWORD`](super::stage::PASSWORD).
    pub(super) guarded: bool,
    /// URLs without a slash at the end, or one `tcp://HOST:PORT`; none before it is known.
    addresses: Mutex<Vec<String>>,
    /// What disturbs it at the moment.
    unrest: AtomicUsize,
    /// What has disturbed it so far.
    disturbances: AtomicUsize,
    /// What happened to its publishers last, and when; harmless turns too.
    turns: Mutex<VecDeque<(Instant, &'static str)>>,
}

impl Place {
    pub(super) fn new(number: usize, name: &'static str, speech: Speech, guarded: bool) -> Self {
        Self {
            number,
            name,
            speech,
            guarded,
            addresses: Mutex::default(),
            unrest: AtomicUsize::new(0),
            disturbances: AtomicUsize::new(0),
            turns: Mutex::default(),
        }
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From the first publication on it does not change; whether it did is the answer.
    pub(super) fn settle_at(&self, addresses: &[String]) -> bool {
        let mut known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            addresses.clone_into(&mut known);
        }
        *known == addresses
    }

    /// The port of a tcp place.
    pub(super) fn port(&self) -> Option<u16> {
        self.addresses().first()?.rsplit_once(':')?.1.parse().ok()
    }

    /// Remembers what happens to a publisher, for who has to find out why a visit failed.
    pub(super) fn note(&self, turn: &'static str) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.push_back((Instant::now(), turn));
        if turns.len() > TURNS {
            turns.pop_front();
        }
    }

    /// What happened last, the newest at the end.
    pub(super) fn lately(&self) -> String {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let told = turns.iter().map(|(at, turn)| format!("{turn} {:.1} s ago", at.elapsed().as_secs_f64()));
        told.collect::<Vec<_>>().join(", ")
    }

    /// Looks at it for as long as a visit takes.
    pub(super) fn watch(self: &Arc<Self>) -> Watch {
        let disturbances = self.disturbances.load(Ordering::SeqCst);
        let calm = self.unrest.load(Ordering::SeqCst) == 0;
        Watch { place: Arc::clone(self), calm, disturbances }
    }
}

/// What was seen of a place since a visit began.
#[derive(Debug)]
pub(super) struct Watch {
    place: Arc<Place>,
    calm: bool,
    disturbances: usize,
}

impl Watch {
    /// Whether the publisher was public all the while, so that nothing excuses a failure.
    pub(super) fn calm(&self) -> bool {
        self.calm && self.place.disturbances.load(Ordering::SeqCst) == self.disturbances
    }
}

/// From before a publisher is harmed until it is public again.
#[derive(Debug)]
pub(super) struct Unrest(Vec<Arc<Place>>);

impl Unrest {
    pub(super) fn at(places: &[Arc<Place>]) -> Self {
        for place in places {
            place.unrest.fetch_add(1, Ordering::SeqCst);
            place.disturbances.fetch_add(1, Ordering::SeqCst);
        }
        Self(places.to_vec())
    }
}

impl Drop for Unrest {
    fn drop(&mut self) {
        for place in &self.0 {
            place.unrest.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_is_owed_an_answer_only_if_nothing_happened_since_it_began() {
        let place = Arc::new(Place::new(0, "here", Speech::Web, false));
        let places = [Arc::clone(&place)];
        let before = place.watch();
        assert!(before.calm());
        let unrest = Unrest::at(&places);
        let amid = place.watch();
        drop(unrest);
        let after = place.watch();
        assert_eq!([before, amid, after].map(|watch| watch.calm()), [false, false, true]);
    }
}
