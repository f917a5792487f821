//! Certificates for the https side: from the operator's directory, or from an authority of the server's own.
//!
//! [`Certificates`] answers by name; [`server_config`] puts a resolver into a TLS configuration.

mod any;
mod ca;
mod demands;
mod directory;
mod resolver;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hithe_cli_parser::{HostName, HostPattern};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ServerConfig};

use crate::config::Config;
use ca::Authority;
use directory::Directory;
use resolver::Resolver;

pub(crate) use any::AnyCertificate;
pub(crate) use ca::AuthorityError;
pub(crate) use demands::{Demands, Shown, pair};
pub(crate) use directory::PairError;
pub(crate) use resolver::IsLive;

/// Where the server's certificates come from.
#[derive(Debug)]
pub(crate) struct Certificates {
    domain: HostName,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Own(Box<Authority>),
    Given(Directory),
}

/// Why the server has no certificates to start with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("{}", one_per_line(.0))]
    Pairs(Vec<PairError>),
}

fn one_per_line(errors: &[PairError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Something to log about certificates, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Message {
    /// All is well: what is used from now on.
    Changed(String),
    /// The operator has to do something.
    Complaint(String),
}

impl Message {
    fn log(&self) {
        match self {
            Self::Changed(text) => tracing::info!("{text}"),
            Self::Complaint(text) => tracing::warn!("{text}"),
        }
    }
}

impl Certificates {
    /// Reads the certificates of the directory, or makes or reads the own authority, and logs which. Blocks on
    /// the disk.
    pub(crate) fn load(config: &Config) -> Result<Self, CertError> {
        let domain = config.domain.clone();
        let (source, messages) = match &config.certificates {
            Some(path) => {
                let (directory, messages) = Directory::load(path).map_err(CertError::Pairs)?;
                (Source::Given(directory), messages)
            }
            None => {
                let (authority, messages) = Authority::load_or_create(&config.state_dir, &domain)?;
                (Source::Own(Box::new(authority)), messages)
            }
        };
        messages.iter().for_each(Message::log);
        Ok(Self { domain, source })
    }

    /// Chooses by SNI. `live` says whether an endpoint answers for a name now; it is called within handshakes.
    ///
    /// The own authority makes a certificate for a live name, and shows one for the domain and the names directly
    /// below it to everybody else, so that an error page can be read. Names outside of the domain get none.
    pub(crate) fn resolver(self: &Arc<Self>, live: IsLive) -> Arc<dyn ResolvesServerCert> {
        Arc::new(Resolver::new(Arc::clone(self), live))
    }

    /// Whether visitors of this name can be shown a certificate.
    pub(crate) fn covers(&self, name: &HostName) -> bool {
        match &self.source {
            Source::Own(authority) => authority.permits(name),
            Source::Given(directory) => directory.find(name).is_some(),
        }
    }

    /// The certificate in a folder of the operator's directory.
    pub(crate) fn in_folder(&self, folder: &str) -> Option<Arc<CertifiedKey>> {
        match &self.source {
            Source::Own(_) => None,
            Source::Given(directory) => directory.in_folder(folder).map(|(pair, _)| pair),
        }
    }

    /// Whether the certificate in that folder is for this name.
    pub(crate) fn folder_covers(&self, folder: &str, name: &HostPattern) -> bool {
        let Source::Given(directory) = &self.source else { return false };
        let Some((_, names)) = directory.in_folder(folder) else { return false };
        let (wanted, wildcard) = match name {
            HostPattern::Exact(name) => {
                (name.as_str().to_owned(), name.as_str().split_once('.').map(|(_, rest)| format!("*.{rest}")))
            }
            HostPattern::Wildcard(base) => (format!("*.{base}"), None),
        };
        names.iter().any(|it| *it == wanted || Some(it) == wildcard.as_ref())
    }

    /// What a visitor has to trust, when the server is its own authority.
    pub(crate) fn ca_file(&self) -> Option<PathBuf> {
        match &self.source {
            Source::Own(authority) => Some(authority.certificate_file().to_owned()),
            Source::Given(_) => None,
        }
    }

    /// Reads files that changed, and logs it. To be called every few seconds; a few stat calls when nothing changed.
    pub(crate) fn refresh(&self) {
        if let Source::Given(directory) = &self.source {
            directory.refresh().iter().for_each(Message::log);
        }
    }
}

fn web_protocols() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

/// All that is wrong with a directory for `--certificates`, for `hithed check`.
pub(crate) fn check_directory(path: &Path) -> Vec<String> {
    match Directory::load(path) {
        Ok((_, messages)) => {
            let complaint = |message| match message {
                Message::Complaint(text) => Some(text),
                Message::Changed(_) => None,
            };
            messages.into_iter().filter_map(complaint).collect()
        }
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// The suites in the order in which we take them, whatever a visitor likes best: all are strong, and AES-128 costs the
/// least where there are instructions for it, which is nearly everywhere.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = default_provider();
    let is_cheapest = |suite: CipherSuite| suite.as_str().is_some_and(|name| name.contains("AES_128_GCM"));
    provider.cipher_suites.sort_by_key(|it| !is_cheapest(it.suite()));
    Arc::new(provider)
}

/// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN (RFC 7301), tickets for resumption.
///
/// # Errors
/// When the machine has no randomness.
pub(crate) fn server_config(
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = web_protocols();
    config.ignore_client_order = true;
    config.ticketer = Ticketer::new()?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
