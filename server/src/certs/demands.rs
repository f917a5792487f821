//! What an endpoint demands of TLS: a configuration of its own, made when it is published.

use std::fmt;
use std::sync::Arc;

use hithe_cli_parser::TlsVersion;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use super::Certificates;

/// What an endpoint demands. Nothing by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demands {
    /// A visitor needs a certificate that one of these signed.
    pub(crate) authorities: Option<Arc<RootCertStore>>,
    pub(crate) min_version: Option<TlsVersion>,
    pub(crate) certificate: Option<Shown>,
    /// Raw bytes inside, and so no application protocol to agree on.
    pub(crate) raw: bool,
}

/// A certificate that an endpoint shows, whatever name visitors ask for.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    Own(Arc<CertifiedKey>),
    /// A folder of the operator's directory: it may be renewed.
    Named(String),
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PairFault {
    #[error("--crt holds no certificate in PEM")]
    NoCertificate,
    #[error("--key holds no private key in PEM, or one with a passphrase")]
    NoKey,
    #[error("--crt and --key do not belong together; in --crt the certificate comes first, then its chain")]
    Mismatch,
    #[error("--crt with --key cannot be used: {0}")]
    Unusable(#[source] rustls::Error),
}

/// A certificate with its chain, and its key, both in PEM.
pub(crate) fn pair(certificate: &str, key: &str) -> Result<Arc<CertifiedKey>, PairFault> {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(PairFault::NoCertificate)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| PairFault::NoKey)?;
    // This compares the two.
    CertifiedKey::from_der(chain, key, &default_provider()).map(Arc::new).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => PairFault::Mismatch,
        error => PairFault::Unusable(error),
    })
}

impl Demands {
    pub(crate) fn is_none(&self) -> bool {
        self.authorities.is_none() && self.min_version.is_none() && self.certificate.is_none() && !self.raw
    }

    /// A configuration that shares no session with another: its tickets have a key of their own, so that no
    /// resumption carries a visitor past these demands. Where a certificate is asked for there are no sessions at all:
    /// one would go on after that certificate has expired (RFC 5246 §F.1.4), and rustls does not look again.
    ///
    /// # Errors
    /// The machine has no randomness, or no visitor's certificate could ever be verified.
    pub(crate) fn config(
        &self,
        certificates: &Arc<Certificates>,
        usual: Arc<dyn ResolvesServerCert>,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let provider = super::provider();
        let versions = match self.min_version {
            Some(TlsVersion::V1_3) => &[&TLS13][..],
            Some(TlsVersion::V1_2) | None => &[&TLS13, &TLS12],
        };
        let verifier: Arc<dyn ClientCertVerifier> = match &self.authorities {
            None => Arc::new(NoClientAuth),
            Some(roots) => {
                WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider))
                    .build()
                    .map_err(|error| rustls::Error::General(error.to_string()))?
            }
        };
        let resolver: Arc<dyn ResolvesServerCert> = match &self.certificate {
            None => usual,
            Some(Shown::Own(pair)) => Arc::new(SingleCertAndKey::from(Arc::clone(pair))),
            Some(Shown::Named(folder)) => {
                Arc::new(Named { certificates: Arc::clone(certificates), folder: folder.clone() })
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(resolver);
        config.ignore_client_order = true;
        if !self.raw {
            config.alpn_protocols = super::web_protocols();
        }
        if self.authorities.is_some() {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = Ticketer::new()?;
        }
        Ok(Arc::new(config))
    }
}

struct Named {
    certificates: Arc<Certificates>,
    folder: String,
}

impl ResolvesServerCert for Named {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificates.in_folder(&self.folder)
    }
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").field("folder", &self.folder).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
