//! One logged-in publisher, as the registry and the session's tasks see it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use russh::Disconnect;
use russh::server::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::console::Ended;
use super::link::Pulse;
use super::text;
use crate::access::{Access, Identity, Rights};
use crate::account::Account;
use crate::drain::DrainWatch;
use crate::limits::{Quota, Usage};
use crate::registry::{End, HeldPlaces, Holder, Registry, SessionAbout, SessionId, Takeover};
use crate::store::{Class, Entry, Recorder};
use crate::tunnel::channel::Inboxes;

pub(super) struct Publisher {
    pub(super) session: SessionId,
    pub(super) identity: Arc<Identity>,
    pub(super) peer: SocketAddr,
    pub(super) since: SystemTime,
    pub(super) handle: Handle,
    /// Bounds the channel opens in flight.
    pub(super) opens: Arc<Semaphore>,
    pub(super) kill: CancellationToken,
    pub(super) pulse: Arc<Pulse>,
    pub(super) tasks: DrainWatch,
    pub(super) registry: Registry,
    pub(super) access: Access,
    pub(super) audit: Recorder,
    /// One question at a time: a client that answers none must not gather a queue of them.
    pub(super) asking: Arc<AtomicBool>,
    pub(super) ended: Arc<Ended>,
    /// Nobody has to wait for the client to return.
    pub(super) in_order: AtomicBool,
    /// Where visitors wait for the client to return.
    pub(super) held: Mutex<HeldPlaces>,
    /// Another session has taken the place of an endpoint of this one.
    pub(super) displaced: Notify,
    /// What its account has of the server.
    pub(super) usage: Arc<Usage>,
    /// What arrives for visits.
    pub(super) inboxes: Arc<Inboxes>,
}

impl Publisher {
    /// Ends the connection with a text that the client shows. Only the first is sent.
    pub(super) fn disconnect(&self, text: &str) {
        self.in_order.store(true, Ordering::Release);
        let (handle, kill) = (self.handle.clone(), self.kill.clone());
        let text = disconnect_text(text);
        self.tasks.spawn(async move {
            // A client that reads slowly must not keep its session longer.
            let farewell = handle.disconnect(Disconnect::ByApplication, text, String::new());
            let _ = timeout(FAREWELL, farewell).await;
            cut_after_farewell(kill).await;
        });
    }

    /// Gives everything back that the session holds. Only the first time has an effect.
    pub(super) fn forget(&self) {
        let end = if self.in_order.load(Ordering::Acquire) { End::InOrder } else { End::CutOff };
        let places = self.registry.forget(self, end);
        if !places.is_empty() {
            *self.held.lock().unwrap_or_else(PoisonError::into_inner) = places;
        }
    }

    /// The client has said that it leaves, which is known only after its connection is over.
    pub(super) fn has_left(&self) {
        let places = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        self.registry.hold_no_longer(&places);
    }

    /// Writes into the audit log what this publisher did, and what came of it.
    pub(super) fn record(&self, action: &str, object: impl Into<String>, result: impl Into<String>) {
        let source = self.peer.ip().to_canonical().to_string();
        let class = if self.access.is_admin(&self.identity) { Class::Admin } else { Class::Anybody };
        let entry = Entry::now(self.identity.account.to_string(), source, action, object, result);
        self.audit.note(entry.of_class(class));
    }

    /// A wait before more is read from the client: for the disk, or because its account is ahead of its rate. What is not
    /// read slows the client down.
    pub(super) fn pause(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let (full, settled) = (self.inboxes.is_full(), self.usage.settle());
        if !full && settled.is_none() {
            return None;
        }
        let inboxes = full.then(|| Arc::clone(&self.inboxes));
        Some(async move {
            if let Some(inboxes) = inboxes {
                inboxes.has_room().await;
            }
            if let Some(settled) = settled {
                settled.await;
            }
        })
    }

    /// Cuts a client of which nothing is heard for three intervals; before that it is asked for a sign of life. russh's own
    /// keepalive begins before the login, where its request is an error (RFC 4252 §6): it would end the connection of
    /// everybody who takes longer than that for a passphrase or a token.
    pub(super) async fn watch_over(self: Arc<Self>) {
        let (mut heard, mut silent) = (Instant::now(), 0);
        loop {
            tokio::select! {
                () = self.kill.cancelled() => return,
                () = sleep_until(heard + SILENCE * (silent + 1)) => {}
            }
            let last = self.pulse.last_beat();
            if last > heard {
                (heard, silent) = (last, 0);
            } else if self.reads_nothing() {
                (heard, silent) = (Instant::now(), 0);
            } else if silent < QUESTIONS {
                silent += 1;
                self.ask();
            } else {
                tracing::debug!(session = %self.session, "the client gives no sign of life: cut");
                self.kill.cancel();
                return;
            }
        }
    }

    /// Nothing is read, and so nothing heard, while the session waits for the disk or is slowed.
    fn reads_nothing(&self) -> bool {
        self.inboxes.is_full() || self.usage.owed().is_some()
    }

    fn ask(&self) {
        if self.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let (handle, asking) = (self.handle.clone(), Arc::clone(&self.asking));
        self.tasks.spawn(async move {
            // Every client refuses this request at once and shows nothing of it.
            let _ = handle.forward_tcpip(String::new(), 0).await;
            asking.store(false, Ordering::Release);
        });
    }
}

impl Holder for Publisher {
    fn id(&self) -> SessionId {
        self.session
    }

    fn account(&self) -> &Account {
        &self.identity.account
    }

    fn rights(&self) -> &Rights {
        &self.identity.rights
    }

    fn quota(&self) -> Quota {
        self.usage.quota()
    }

    fn about(&self) -> SessionAbout {
        SessionAbout {
            credential: self.identity.credential.to_string(),
            source: self.peer.to_string(),
            since: self.since,
        }
    }

    fn end(&self, why: &str) {
        self.disconnect(why);
    }

    fn displaced(&self, takeover: Takeover) {
        self.displaced.notify_one();
        self.ask();
        let (pulse, kill) = (Arc::clone(&self.pulse), self.kill.clone());
        self.tasks.spawn(async move {
            if pulse.beats_within(ANSWER_WAIT).await && !kill.is_cancelled() {
                takeover.note_living();
            }
        });
    }

    fn reconsider(&self) {
        if !self.access.still_admits(&self.identity) {
            tracing::info!(session = %self.session, account = %self.identity.account, "login taken away");
            self.disconnect(&text::login_taken_away());
        }
    }

    fn is_alive(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            self.ask();
            let beats = self.pulse.beats_within(ANSWER_WAIT).await || self.reads_nothing();
            !self.kill.is_cancelled() && beats
        })
    }

    fn evict(&self) {
        // First, so that what it is just publishing elsewhere is not claimed again in between.
        self.kill.cancel();
        self.forget();
    }
}

/// After a disconnect russh waits for the client to close the connection, for as long as that takes.
pub(super) async fn cut_after_farewell(kill: CancellationToken) {
    // Cancelled by the end of the connection, which is what usually follows.
    let _ = timeout(FAREWELL, kill.cancelled()).await;
    kill.cancel();
}

/// Clients show one line; longer texts and control characters are cut.
pub(super) fn disconnect_text(text: &str) -> String {
    text.chars()
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { ' ' })
        .take(MAX_DISCONNECT)
        .collect()
}

const MAX_DISCONNECT: usize = 299;
/// How long a client may take to answer whether it is still there.
const ANSWER_WAIT: Duration = Duration::from_millis(700);
/// Without a byte from a client, after which it is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(5);
/// So often, before the next such silence is its end.
const QUESTIONS: u32 = 2;
/// Time for a disconnect to reach the client before the connection is cut.
const FAREWELL: Duration = Duration::from_secs(2);
