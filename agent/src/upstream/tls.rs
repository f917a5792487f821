//! TLS with the upstream, as its client; and with visitors, as their server.

use std::io;
use std::sync::Arc;

use hithe_cli_parser::{Pem, TlsVersion, printable};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
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
    #[error("{flag} holds {holds}, not {wanted}; are --crt and --key swapped?")]
    Swapped { flag: &'static str, holds: &'static str, wanted: &'static str },
    #[error(
        "the key of --key is encrypted, and encrypted keys cannot be used: decrypt it with `openssl pkey -in KEY -out FILE` and name that FILE"
    )]
    Encrypted,
    #[error("--crt and --key do not belong together: the key is that of another certificate")]
    Mismatch,
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
    let certificate = match certificates("--crt", &asked.certificate) {
        Err(_) if has(&asked.certificate, KEY) => {
            let (holds, wanted) = ("a private key", "a certificate");
            return Err(TlsError::Swapped { flag: "--crt", holds, wanted });
        }
        certificate => certificate?,
    };
    let config = builder.with_single_cert(certificate, key(asked.key.expose())?);
    let mut config = config.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch,
        rustls::Error::General(why) => TlsError::Pem("--key", why),
        rustls::Error::InvalidCertificate(why) => TlsError::Pem("--crt", why.to_string()),
        error => TlsError::Rustls(error),
    })?;
    config.alpn_protocols = asked.alpn();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl TlsAtAgent {
    /// What is wrong if visitors of this name (`app`, `app.example.com`, `*.app.example.com`) would not take the certificate.
    /// Of a single label the rest is the server's domain, which is not known here.
    pub(crate) fn not_for(&self, name: &str) -> Option<String> {
        let certificate = certificates("--crt", &self.certificate).ok()?.into_iter().next()?;
        let certificate = ParsedCertificate::try_from(&certificate).ok()?;
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let (label, is_whole) = (name.strip_prefix("*.").unwrap_or(&name), name.contains('.'));
        // Any name that the wildcard stands for, or for a label alone one that no certificate has, to learn which it has.
        let asked = match (name.strip_prefix("*."), is_whole) {
            (Some(rest), _) if rest.contains('.') => format!("any.{rest}"),
            (None, true) => name.clone(),
            _ => "none.invalid".to_owned(),
        };
        let asked = ServerName::try_from(asked).ok()?;
        let names = match rustls::client::verify_server_name(&certificate, &asked) {
            Ok(()) => return None,
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                presented,
                ..
            })) => presented.iter().map(|it| plain_name(it).to_owned()).collect::<Vec<_>>(),
            Err(_) => return None,
        };
        let begins =
            |it: &String| it.split_once('.').is_some_and(|(first, _)| first == label || first == "*");
        let is_label = asked.to_str() == "none.invalid";
        if is_label && (name.starts_with("*.") || names.iter().any(begins)) {
            return None;
        }
        let has = if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") };
        Some(format!(
            "the certificate of --crt is not for {}, and visitors will refuse it: it is for {}",
            printable(&name),
            printable(&has)
        ))
    }
}

/// Of `DnsName("app.example.com")`.
fn plain_name(presented: &str) -> &str {
    presented.split('"').nth(1).unwrap_or(presented)
}

fn key(pem: &Pem) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = text(pem);
    // In a label of PKCS #8 (RFC 7468 §11), or in a header as older OpenSSL wrote it (RFC 1421 §4.6.1.1).
    if text.contains("ENCRYPTED") {
        return Err(TlsError::Encrypted);
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match has(pem, CERTIFICATE) {
        true => {
            let (holds, wanted) = ("a certificate", "a private key");
            TlsError::Swapped { flag: "--key", holds, wanted }
        }
        false => TlsError::Pem("--key", error.to_string()),
    })
}

/// Whether a block has a label that ends so.
fn has(pem: &Pem, label: &str) -> bool {
    text(pem).contains(&format!("{label}-----"))
}

const KEY: &str = "PRIVATE KEY";
const CERTIFICATE: &str = "CERTIFICATE";

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

    const ENCRYPTED: &str =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
    const OLDER: &str = "-----BEGIN EC PRIVATE KEY-----\nProc-Type:\n4,ENCRYPTED\nDEK-Info:\nAES-256-CBC,00\nAA==\n-----END EC PRIVATE KEY-----\n";

    fn at_agent(certificate: String, key: String) -> TlsAtAgent {
        TlsAtAgent {
            certificate: Pem::Inline(certificate),
            key: Secret::new(Pem::Inline(key)),
            authorities: Vec::new(),
            min_version: None,
            protocol: None,
        }
    }

    #[test]
    fn what_is_wrong_with_a_certificate_or_its_key_is_said_of_the_flag() {
        let pair = || rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
        let (one, other) = (pair(), pair());
        let (crt, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        assert!(acceptor(&at_agent(crt.clone(), key.clone())).is_ok());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
        for (certificate, key, said) in [
            (&crt, &other.signing_key.serialize_pem(), "the key is that of another certificate"),
            (&crt, &ENCRYPTED.to_owned(), "decrypt it with `openssl pkey -in"),
            (&crt, &OLDER.to_owned(), "decrypt it with `openssl pkey -in"),
            (&key, &crt, "--crt holds a private key"),
            (&key, &key, "--crt holds a private key"),
            (&crt, &crt, "--key holds a certificate"),
            (&broken, &key, "the PEM of --crt cannot be used"),
        ] {
            let why = acceptor(&at_agent(certificate.clone(), key.clone())).err().unwrap().to_string();
            assert!(why.contains(said), "{said}: {why}");
        }
    }

    #[test]
    fn a_certificate_that_visitors_would_refuse_is_noticed() {
        let of = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|it| (*it).to_owned()).collect();
            let pair = rcgen::generate_simple_self_signed(names).unwrap();
            at_agent(pair.cert.pem(), pair.signing_key.serialize_pem())
        };
        let (app, wild, nobody) = (of(&["app.example.com"]), of(&["*.example.com"]), of(&[]));
        for name in ["app.example.com", "APP.example.com.", "app"] {
            assert_eq!(app.not_for(name), None, "{name}");
        }
        for name in ["www.example.com", "*.example.com", "www", "a.app.example.com"] {
            let why = app.not_for(name).expect(name);
            assert!(why.contains(name) && why.ends_with("it is for app.example.com"), "{why}");
        }
        for name in ["www.example.com", "*.example.com", "anything"] {
            assert_eq!(wild.not_for(name), None, "{name}");
        }
        assert!(wild.not_for("a.b.example.com").is_some());
        assert!(nobody.not_for("app.example.com").unwrap().ends_with("no name at all"));
    }
}
