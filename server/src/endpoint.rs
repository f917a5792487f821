//! What visitors reach: a name or a port, a protocol, a module chain and the tunnels behind them.

mod held;
mod members;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hithe_cli_parser::Command;
use tokio_util::sync::CancellationToken;

pub(crate) use held::{Crowd, Held};
pub(crate) use members::{Member, Turn};

use crate::account::Account;
use crate::modules::ModuleChain;
use crate::workers::Worker;
use members::Members;

/// Tells an endpoint from any other that has been or will be live in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EndpointId(u64);

impl EndpointId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The protocol that visitors speak to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Https,
    /// Passed through by SNI, never decrypted.
    Tls,
    /// TLS that ends here, with raw bytes inside.
    TlsEnded,
    Tcp,
}

pub(crate) struct Endpoint {
    pub(crate) id: EndpointId,
    pub(crate) protocol: Protocol,
    /// Whose it is.
    pub(crate) account: Account,
    /// What a visitor types, such as `https://app.example.com`.
    pub(crate) url: Arc<str>,
    pub(crate) modules: Arc<ModuleChain>,
    /// For handshakes with its visitors, where it has demands of its own.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// What it was asked for with. Members of one pool have rules that are alike.
    pub(crate) command: Arc<Command>,
    members: Members,
    /// Cancelled when the endpoint is withdrawn or another one takes its place: running visits go on.
    pub(crate) withdrawn: CancellationToken,
    /// What becomes of its place, once it is withdrawn.
    held: OnceLock<Arc<Held>>,
}

/// What an endpoint is made of.
pub(crate) struct Parts {
    pub(crate) protocol: Protocol,
    pub(crate) account: Account,
    pub(crate) url: Arc<str>,
    pub(crate) modules: Arc<ModuleChain>,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) command: Arc<Command>,
    pub(crate) member: Arc<Member>,
}

impl Endpoint {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { protocol, account, url, modules, tls, command, member } = parts;
        let (id, members, withdrawn) = (EndpointId::next(), Members::of(member), CancellationToken::new());
        Arc::new(Self {
            id,
            protocol,
            account,
            url,
            modules,
            tls,
            command,
            members,
            withdrawn,
            held: OnceLock::new(),
        })
    }

    /// Who serves the next visit. None where the last publisher has just left.
    pub(crate) fn choose(&self) -> Option<Turn> {
        self.members.choose(&[])
    }

    /// Who else could serve it.
    pub(crate) fn choose_another(&self, tried: &[Arc<Member>]) -> Option<Turn> {
        self.members.choose(tried)
    }

    /// One more publisher shares the address.
    pub(crate) fn join(&self, member: &Arc<Member>) {
        self.members.add(member);
    }

    /// A publisher has left; whether others are there still.
    pub(crate) fn leave(&self, member: &Arc<Member>) -> bool {
        self.members.remove(member)
    }

    pub(crate) fn members(&self) -> Arc<Vec<Arc<Member>>> {
        self.members.all()
    }

    /// The thread of the publisher that was first, and so of most visits.
    pub(crate) fn worker(&self) -> Option<Worker> {
        self.members.first().map(|member| member.tunnel.worker.clone())
    }

    /// What becomes of its place: none while it is live, and where its publisher left in order.
    pub(crate) fn held(&self) -> Option<&Arc<Held>> {
        self.held.get()
    }

    /// To be said once, before it is withdrawn.
    pub(crate) fn hold(&self, held: Arc<Held>) {
        let _ = self.held.set(held);
    }

    /// Whether it could serve in place of the other without a visitor noticing: what was admitted there may go on here.
    pub(crate) fn serves_like(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.command.serves_like(&other.command)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("id", &self.id).field("url", &self.url).finish_non_exhaustive()
    }
}

#[cfg(any(test, feature = "bench"))]
impl Endpoint {
    /// An endpoint of a bare command.
    pub(crate) fn for_test(
        protocol: Protocol,
        url: &str,
        modules: ModuleChain,
        member: Arc<Member>,
    ) -> Arc<Self> {
        let Ok(hithe_cli_parser::Parsed::Publish(command)) = hithe_cli_parser::parse("http") else {
            unreachable!("http is a command")
        };
        let Ok(account) = "ada".parse() else { unreachable!("ada is an account") };
        let (url, modules, command) = (url.into(), Arc::new(modules), Arc::from(command));
        Self::new(Parts { protocol, account, url, modules, tls: None, command, member })
    }
}
