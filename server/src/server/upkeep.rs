//! What is looked at every few seconds: changed certificates and keys, and names to remember.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hithe_keys::{Complaint, Severity};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::with_causes;
use crate::access::Access;
use crate::admin::reconsider;
use crate::certs::Certificates;
use crate::limits::{Accounts, Visitors};
use crate::registry::Registry;
use crate::store::{Recorder, Store};

pub(super) struct Upkeep {
    pub(super) certificates: Arc<Certificates>,
    pub(super) access: Access,
    pub(super) registry: Registry,
    pub(super) store: Store,
    pub(super) accounts: Accounts,
    pub(super) visitors: Arc<Visitors>,
    pub(super) audit: Recorder,
}

impl Upkeep {
    /// Looks at once, and at everything: somebody asked for it.
    pub(super) fn look_again(&self) {
        self.certificates.refresh();
        self.access.forget_look();
        self.look_at_logins();
    }

    /// Never ends. It looks on a thread of its own: the disk, and other programs that hold the database, may take their
    /// time, and the thread of this task accepts connections.
    pub(super) async fn run(self: &Arc<Self>) {
        let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut noted, mut counted) = (Instant::now(), Instant::now());
        loop {
            ticks.tick().await;
            let due = |last: &mut Instant, every| {
                let is_due = last.elapsed() > every;
                if is_due {
                    *last = Instant::now();
                }
                is_due
            };
            let (notes, counts) = (due(&mut noted, NOTE_EVERY), due(&mut counted, COUNT_EVERY));
            let this = Arc::clone(self);
            let looked = tokio::task::spawn_blocking(move || this.look(notes, counts));
            if let Err(error) = looked.await {
                tracing::error!(%error, "the upkeep failed");
            }
        }
    }

    fn look(&self, notes: bool, counts: bool) {
        self.certificates.refresh();
        self.registry.let_go();
        self.look_at_logins();
        self.look_at_releases();
        self.visitors.forget();
        if notes {
            self.registry.note_live();
        }
        if counts {
            self.save_traffic();
        }
        self.save();
    }

    /// What accounts have moved. A crash loses what came after the last time.
    pub(super) fn save_traffic(&self) {
        let (month, moved) = self.accounts.take_unstored(SystemTime::now());
        if moved.is_empty() {
            return;
        }
        // Where nothing can be written, it is counted in memory only.
        let read_only = self.store.database.read_only().is_some();
        if let Err(error) = if read_only { Ok(()) } else { self.store.database.add_traffic(month, &moved) } {
            tracing::error!(
                error = with_causes(&error),
                "cannot remember how many bytes accounts have moved"
            );
            self.accounts.give_back(month, moved);
        }
    }

    /// A full disk must not end the server: names are then remembered in memory only.
    pub(super) fn save(&self) {
        self.audit.flush(&self.store.database);
        let changes = self.registry.take_changes();
        if changes.is_empty() || self.store.database.read_only().is_some() {
            return;
        }
        if let Err(error) = self.store.database.save_past_owners(&changes) {
            tracing::error!(error = with_causes(&error), "cannot remember who holds which name");
            self.registry.give_back_changes(changes);
        }
    }

    /// Who would not be let in any more goes.
    fn look_at_logins(&self) {
        let complaints = match self.access.refresh() {
            Ok((false, _)) => return self.resolve_doubts(),
            Ok((true, complaints)) => complaints,
            Err(error) => {
                tracing::error!(error = with_causes(&error), "keeping the keys and accounts of before");
                return;
            }
        };
        complain(&complaints);
        match self.store.database.reservations() {
            Ok(reservations) => self.registry.set_reservations(reservations),
            Err(error) => tracing::error!(error = with_causes(&error), "keeping the reservations of before"),
        }
        self.accounts.apply(|account| self.access.limits(account));
        reconsider(&self.registry);
    }

    /// What `hithed admin` has taken from who had it last.
    fn look_at_releases(&self) {
        if self.store.database.read_only().is_some() {
            return;
        }
        match self.store.database.take_released() {
            Ok(released) => {
                released.iter().for_each(|(what, at)| self.registry.forget_released(what, *at));
            }
            Err(error) => {
                tracing::error!(error = with_causes(&error), "cannot see which names were released")
            }
        }
    }

    /// Reservations that could not be read at the start: the database may have been held, or the disk have failed, for a
    /// moment.
    fn resolve_doubts(&self) {
        if self.registry.doubts_reservations()
            && let Ok(reservations) = self.store.database.reservations()
        {
            tracing::info!("reservations can be read again");
            self.registry.set_reservations(reservations);
        }
    }
}

/// Lines of `authorized_keys` that are not used, or not as a whole.
pub(super) fn complain(complaints: &[Complaint]) {
    for Complaint { path, line, severity, text } in complaints {
        match severity {
            Severity::Error => tracing::warn!(path = %path.display(), line, "this key is not used: {text}"),
            Severity::Warning => tracing::warn!(path = %path.display(), line, "{text}"),
        }
    }
}

/// How often the bytes of accounts are stored.
const COUNT_EVERY: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(2);
/// So that names in use stay with their account when the server is killed.
const NOTE_EVERY: Duration = Duration::from_secs(600);
