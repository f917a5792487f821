//! A registry for the tests of other modules, and holders that are alive or dead as a test says.
#![expect(clippy::unwrap_used, reason = "for tests, and for benches")]
#![cfg_attr(not(test), expect(dead_code, reason = "benches need little of it"))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use hithe_cli_parser::{HostName, HostPattern};
use hithe_keys::Fingerprint;
use tokio::sync::mpsc;

use super::*;
use crate::config::{Config, Options};

/// A publisher that needs no SSH.
pub(crate) struct FakeHolder {
    pub(crate) id: SessionId,
    pub(crate) account: Account,
    pub(crate) rights: Rights,
    pub(crate) alive: AtomicBool,
    pub(crate) displaced: AtomicUsize,
    registry: Registry,
}

impl FakeHolder {
    /// `key` stands for the key pair.
    pub(crate) fn enter(registry: &Registry, key: u8) -> Arc<Self> {
        let account = Account::of_key(fingerprint(key));
        let holder = Self {
            id: SessionId::next(),
            account,
            rights: Rights::default(),
            alive: AtomicBool::new(true),
            displaced: AtomicUsize::new(0),
            registry: registry.clone(),
        };
        let holder = Arc::new(holder);
        registry.enter(Arc::clone(&holder) as _);
        holder
    }
}

impl Holder for FakeHolder {
    fn id(&self) -> SessionId {
        self.id
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn rights(&self) -> &Rights {
        &self.rights
    }

    fn displaced(&self, takeover: Takeover) {
        if self.alive.load(Ordering::Relaxed) {
            takeover.note_living();
        }
        self.displaced.fetch_add(1, Ordering::Relaxed);
    }

    fn about(&self) -> SessionAbout {
        SessionAbout { credential: String::new(), source: String::new(), since: SystemTime::UNIX_EPOCH }
    }

    fn end(&self, _: &str) {
        self.evict();
    }

    fn reconsider(&self) {}

    fn is_alive(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(self.alive.load(Ordering::Relaxed)))
    }

    fn evict(&self) {
        self.registry.forget(self, End::CutOff);
    }
}

fn fingerprint(key: u8) -> Fingerprint {
    let key = russh::keys::ssh_key::public::Ed25519PublicKey([key; 32]);
    Fingerprint::of(&russh::keys::PublicKey::from(key))
}

impl Registry {
    pub(crate) fn for_test() -> Self {
        Self::for_test_on("w.test", 20000..=20999).0
    }

    pub(crate) fn for_test_on(
        domain: &str,
        tcp_ports: RangeInclusive<u16>,
    ) -> (Self, mpsc::Receiver<OpenedPort>) {
        let options = Options { open: Some(true), ..Options::default() };
        let config = Config::try_from(options).unwrap();
        Self::new(RegistryConfig {
            rules: NameRules {
                domain: HostName::parse(domain).unwrap(),
                choice: arc_swap::ArcSwap::from_pointee(NameChoice {
                    reserved: config.reserved_labels,
                    custom: vec![HostPattern::parse("*.custom.test").unwrap()],
                }),
                open: false,
                proofs: true,
                secret: NameSecret::new(&[7; 32]),
            },
            tcp_ports,
            tcp_address: "127.0.0.1".parse().unwrap(),
            past: PastOwners::default(),
            reserved: Reservations::default(),
            hold: Duration::from_secs(5),
        })
    }

    /// A port without a claim, whose listener the test opens.
    pub(crate) fn open_port_for_test(&self, port: u16, endpoint: &Arc<Endpoint>) {
        self.0.routes.put(&Key::Port(port), Slot::Plain, endpoint);
    }

    /// Routes without a claim, for tests of the public side. `*.w.test` is a wildcard.
    #[expect(clippy::needless_pass_by_value, reason = "reads better in tests")]
    pub(crate) fn publish_for_test(&self, name: &str, slot: Slot, endpoint: Arc<Endpoint>) {
        let key = match name.strip_prefix("*.") {
            Some(base) => Key::Wild(base.into()),
            None => Key::Exact(name.into()),
        };
        self.0.routes.put(&key, slot, &endpoint);
    }
}
