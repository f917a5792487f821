//! What is looked at every few seconds: changed certificates and keys, and names to remember.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hithe_keys::{AuthorizedKeys, Complaint, Severity};
use tokio::time::{Instant, interval_at};

use super::with_causes;
use crate::certs::Certificates;
use crate::config::KeyPolicy;
use crate::registry::Registry;
use crate::ssh::KeyRing;
use crate::store::Store;

pub(super) struct Upkeep {
    pub(super) certificates: Arc<Certificates>,
    pub(super) keys: KeyRing,
    pub(super) policy: KeyPolicy,
    pub(super) registry: Registry,
    pub(super) store: Store,
}

impl Upkeep {
    /// Never ends.
    pub(super) async fn run(&self) {
        let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
        let mut keys_seen = self.key_files();
        let mut saved = Instant::now();
        loop {
            ticks.tick().await;
            self.certificates.refresh();
            let keys_now = self.key_files();
            if keys_now != keys_seen {
                keys_seen = keys_now;
                self.reload_keys();
            }
            if self.registry.owners_changed() || saved.elapsed() > SAVE_AT_LEAST_EVERY {
                saved = Instant::now();
                self.save();
            }
        }
    }

    /// A full disk must not end the server: names are then remembered in memory only.
    pub(super) fn save(&self) {
        if let Err(error) = self.store.save_past_owners(&self.registry.past_owners()) {
            tracing::error!(error = with_causes(&error), "cannot remember who holds which name");
        }
    }

    fn reload_keys(&self) {
        let (KeyRing::Authorized(keys), KeyPolicy::Authorized(path)) = (&self.keys, &self.policy) else {
            return;
        };
        match AuthorizedKeys::load_unrestricted(path) {
            Ok((new, complaints)) => {
                complain(&complaints);
                tracing::info!(path = %path.display(), keys = new.len(), "authorized keys read again");
                keys.store(Arc::new(new));
            }
            Err(error) => {
                tracing::error!(error = with_causes(&error), "keeping the authorized keys of before")
            }
        }
    }

    /// Name and time of change of each file of keys.
    fn key_files(&self) -> Vec<(PathBuf, Option<SystemTime>)> {
        let KeyPolicy::Authorized(path) = &self.policy else { return Vec::new() };
        let changed = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
        let mut files = vec![(path.clone(), changed(path))];
        if let Ok(entries) = std::fs::read_dir(path) {
            files.extend(entries.flatten().map(|entry| (entry.path(), changed(&entry.path()))));
        }
        files.sort();
        files
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

const EVERY: Duration = Duration::from_secs(2);
/// So that names in use stay with their key when the server is killed.
const SAVE_AT_LEAST_EVERY: Duration = Duration::from_secs(600);
