//! SIGHUP: what the configuration file says now, as far as a running server can follow.
//!
//! A file that is wrong changes nothing. What needs other sockets or another state directory is named in the log and
//! stays as it was.

use std::time::Duration;

use crate::config::{Config, Options};
use crate::logging::Level;
use crate::modules::check_client_cas;
use crate::registry::{NameChoice, Registry};
use crate::trust::Trust;

/// What can be changed, and what it was made of.
pub(super) struct Reload {
    /// On the command line and in the environment.
    said: Options,
    /// What the server goes by.
    running: Options,
    registry: Registry,
    trust: Trust,
    level: Option<Level>,
    grace: Duration,
}

impl Reload {
    pub(super) fn new(config: &Config, registry: Registry, trust: Trust, level: Option<Level>) -> Self {
        let sources = (*config.sources).clone();
        Self { said: sources.said, running: sources.layered, registry, trust, level, grace: config.grace }
    }

    /// Time for visits to finish at the end.
    pub(super) fn grace(&self) -> Duration {
        self.grace
    }

    /// Reads the file again and takes over what can be. Blocks on the disk.
    pub(super) fn read_again(&mut self) {
        let fresh = match Config::load(self.said.clone()) {
            Ok(fresh) => fresh,
            Err(error) => {
                for problem in error.problems() {
                    tracing::error!("the configuration is wrong: {problem}");
                }
                tracing::error!("keeping the whole configuration of before");
                return;
            }
        };
        let (running, taken, left) = self.running.renewed(&fresh.sources.layered);
        self.running = running;
        self.registry.choose_names(name_choice(&fresh));
        self.trust.set(fresh.proxies);
        self.grace = fresh.grace;
        if let Some(level) = &self.level {
            level.set(fresh.log.level);
        }
        for option in left {
            tracing::warn!("--{} has changed, which needs a restart", flag(option));
        }
        for complaint in fresh.client_cas.iter().flat_map(|path| check_client_cas(path)) {
            tracing::warn!("{complaint}");
        }
        let taken: Vec<String> = taken.into_iter().map(flag).collect();
        tracing::info!(changed = taken.join(", "), "configuration read again");
    }
}

/// Which names may be claimed.
pub(super) fn name_choice(config: &Config) -> NameChoice {
    NameChoice { reserved: config.reserved_labels.clone(), custom: config.allow_domains.clone() }
}

/// The name of a field as it is typed.
fn flag(field: &str) -> String {
    field.replace('_', "-")
}
