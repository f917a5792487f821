//! TLS with the upstream, as its client; and with visitors, as their server.

use std::io;
use std::sync::Arc;

use hithe_cli_parser::{Pem, TlsVersion};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::tcp::Tcp;
use crate::{TlsAtAgent, TlsToUpstream};

/// How TLS with one upstream begins.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamTls {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

/// Why TLS cannot be spoken as was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{0} is no name that a certificate can be for")]
    Name(String),
    #[error("this machine trusts no certificate authority; name one: --upstream-tls-verify-cas FILE")]
    NoRoots,
    #[error("the PEM of {0} cannot be used: {1}")]
    Pem(&'static str, String),
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

impl UpstreamTls {
    /// # Errors
    /// What was asked for cannot be done.
    pub(crate) fn new(host: &str, asked: &TlsToUpstream, alpn: Vec<Vec<u8>>) -> Result<Self, TlsError> {
        let name = asked.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name))?;
        let provider = Arc::new(default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let mut config = if asked.verify {
            let roots = match &asked.authorities {
                Some(pem) => roots("--upstream-tls-verify-cas", std::slice::from_ref(pem))?,
                None => system_roots()?,
            };
            builder.with_root_certificates(roots).with_no_client_auth()
        } else {
            let any = Arc::new(AnyCertificate(provider));
            builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth()
        };
        config.alpn_protocols = alpn;
        Ok(Self { name, config: Arc::new(config) })
    }

    pub(super) async fn connect(&self, stream: Tcp) -> io::Result<TlsStream<Tcp>> {
        TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), stream).await
    }
}

/// Ends TLS of visitors here.
///
/// # Errors
/// Certificate, key or authorities cannot be used.
pub(crate) fn acceptor(asked: &TlsAtAgent) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = match asked.min_version {
        Some(TlsVersion::V1_3) => builder.with_protocol_versions(&[&rustls::version::TLS13])?,
        Some(TlsVersion::V1_2) | None => builder.with_safe_default_protocol_versions()?,
    };
    let builder = if asked.authorities.is_empty() {
        builder.with_no_client_auth()
    } else {
        let roots = Arc::new(roots("--mutual-tls-cas", &asked.authorities)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        builder.with_client_cert_verifier(
            verifier.map_err(|error| TlsError::Pem("--mutual-tls-cas", error.to_string()))?,
        )
    };
    let key = PrivateKeyDer::from_pem_slice(text(asked.key.expose()).as_bytes());
    let key = key.map_err(|error| TlsError::Pem("--key", error.to_string()))?;
    let mut config = builder.with_single_cert(certificates("--crt", &asked.certificate)?, key)?;
    config.alpn_protocols = asked.alpn();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(flag: &'static str, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text(pem).as_bytes()).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(TlsError::Pem(flag, "there is no certificate in it".to_owned())),
        Err(error) => Err(TlsError::Pem(flag, error.to_string())),
    }
}

fn roots(flag: &'static str, pems: &[Pem]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for pem in pems {
        for certificate in certificates(flag, pem)? {
            roots.add(certificate).map_err(|error| TlsError::Pem(flag, error.to_string()))?;
        }
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}

fn text(pem: &Pem) -> &str {
    match pem {
        Pem::Inline(text) => text,
        Pem::Named(_) => "",
    }
}

/// Takes any certificate, but only from who has its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use hithe_cli_parser::{HttpVersion, Secret};
    use tokio::net::TcpListener;
    use tokio::process::Command;

    use super::*;

    /// What `openssl s_client` says of a handshake in which it offers these protocols.
    async fn shake(protocol: Option<HttpVersion>, offered: &str) -> String {
        let pair = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
        let asked = TlsAtAgent {
            certificate: Pem::Inline(pair.cert.pem()),
            key: Secret::new(Pem::Inline(pair.signing_key.serialize_pem())),
            authorities: Vec::new(),
            min_version: None,
            protocol,
        };
        let acceptor = acceptor(&asked).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", &address]).stdin(Stdio::null());
        if !offered.is_empty() {
            client.args(["-alpn", offered]);
        }
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            drop(acceptor.accept(stream).await);
        };
        let (said, ()) = tokio::join!(client.output(), serve);
        let said = said.unwrap();
        String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
    }

    #[tokio::test]
    async fn visitors_are_offered_what_the_upstream_speaks_and_nothing_if_nobody_said() {
        for (protocol, offered, agreed) in [
            (None, "h2,http/1.1", "No ALPN negotiated"),
            (None, "", "No ALPN negotiated"),
            (Some(HttpVersion::Http1), "h2,http/1.1", "ALPN protocol: http/1.1"),
            (Some(HttpVersion::Http1), "h2", "no application protocol"),
            (Some(HttpVersion::Http2), "h2,http/1.1", "ALPN protocol: h2"),
            (Some(HttpVersion::Http2), "http/1.1", "no application protocol"),
            (Some(HttpVersion::Http2), "", "No ALPN negotiated"),
        ] {
            let said = shake(protocol, offered).await;
            assert!(said.contains(agreed), "{protocol:?}, {offered}: {said}");
        }
    }
}
