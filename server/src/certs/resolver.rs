//! Which certificate a TLS handshake shows, by the name that the visitor asks for (SNI, RFC 6066 §3).

use std::fmt;
use std::sync::Arc;

use hithe_cli_parser::HostName;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::ca::Authority;
use super::{Certificates, Source};

/// Whether an endpoint answers for a name now.
pub(crate) type IsLive = Arc<dyn Fn(&HostName) -> bool + Send + Sync>;

pub(super) struct Resolver {
    certificates: Arc<Certificates>,
    live: IsLive,
}

impl Resolver {
    pub(super) fn new(certificates: Arc<Certificates>, live: IsLive) -> Self {
        Self { certificates, live }
    }

    /// `None` ends the handshake.
    pub(super) fn choose(&self, sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let domain = &self.certificates.domain;
        let name = match sni {
            Some(sni) => sni.parse::<HostName>().ok()?,
            None => domain.clone(),
        };
        match &self.certificates.source {
            Source::Given(directory) => directory.find(&name),
            Source::Own(authority) => self.own(authority, &name),
        }
    }

    /// Only live names get one of their own, so that nobody can make the server issue certificates without end. Below
    /// a domain of one label (`localhost`) every name does, within the bounds of the cache: `*.localhost` is a
    /// wildcard that clients do not accept.
    fn own(&self, authority: &Authority, name: &HostName) -> Option<Arc<CertifiedKey>> {
        if !authority.permits(name) {
            return None;
        }
        let domain = &self.certificates.domain;
        let has_wildcard = domain.as_str().contains('.');
        let shown = if !has_wildcard || (self.live)(name) { name } else { domain };
        authority
            .certify(shown)
            .inspect_err(|error| tracing::error!(%error, name = %shown, "no certificate for a visitor"))
            .ok()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}
