//! What visitors reach: a name or a port, a protocol, a module chain and a tunnel.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use crate::limits::{Overdrawn, VisitPlace};
use crate::modules::ModuleChain;
use crate::tunnel::Tunnel;
use crate::visit::VisitLogRef;

/// Tells an endpoint from any other that has been or will be live in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EndpointId(u64);

impl EndpointId {
    pub(crate) fn next() -> Self {
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
    /// What a visitor types, such as `https://app.example.com`.
    pub(crate) url: Arc<str>,
    pub(crate) modules: Arc<ModuleChain>,
    /// For handshakes with its visitors, where it has demands of its own.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Shared by the two endpoints that `--schemes http,https` makes of one forward.
    pub(crate) tunnel: Arc<Tunnel>,
    pub(crate) log: VisitLogRef,
    /// Cancelled when the endpoint is withdrawn: its listener closes, running visits go on.
    pub(crate) withdrawn: CancellationToken,
}

impl Endpoint {
    /// Counts a visit for the publisher's account, or tells the publisher why there can be none.
    pub(crate) fn begin_visit(&self) -> Result<VisitPlace, Overdrawn> {
        let place = self.tunnel.usage.begin_visit();
        if let (Err(overdrawn), Some(log)) = (&place, &self.log) {
            log.advise(overdrawn.advice());
        }
        place
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("id", &self.id).field("url", &self.url).finish_non_exhaustive()
    }
}
