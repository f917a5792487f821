//! Whole handshakes in memory, with visitors that have certificates and remember sessions.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConnection, SupportedProtocolVersion};
use tempfile::TempDir;

use super::*;
use crate::certs::AnyCertificate;
use crate::certs::tests::exchange;
use crate::config::{Config, Options};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn roots(authority: &Authority) -> Option<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    Some(Arc::new(roots))
}

/// A certificate and its key, in PEM.
fn signed(authority: &Authority, adjust: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    adjust(&mut params);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

fn own() -> Shown {
    let (certificate, key) = signed(&authority(), |_| {});
    Shown::Own(pair(&certificate, &key).unwrap())
}

/// What a server that demands this shakes hands with.
fn server(demands: &Demands) -> Arc<ServerConfig> {
    let state = TempDir::new().unwrap();
    let options = Options {
        state_dir: Some(state.path().to_owned()),
        open: Some(true),
        domain: Some("example".parse().unwrap()),
        ..Options::default()
    };
    let certificates = Arc::new(Certificates::load(&Config::load(options).unwrap()).unwrap());
    let usual = certificates.resolver(Arc::new(|_| true));
    demands.config(&certificates, usual).unwrap()
}

/// A visitor that remembers its sessions.
fn visitor(
    version: &'static SupportedProtocolVersion,
    client: Option<&(String, String)>,
) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::new(Arc::new(default_provider()))));
    let mut config = match client {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    config.alpn_protocols = super::super::web_protocols();
    Arc::new(config)
}

/// The handshake, and what the server has to send afterwards.
fn shake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Result<ServerConnection, rustls::Error> {
    let name = ServerName::try_from("a.example").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    exchange(&mut client, &mut server)?;
    Ok(server)
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

#[test]
fn only_a_valid_certificate_of_the_authority_gets_through() {
    let ours = authority();
    let server = server(&Demands { authorities: roots(&ours), ..Demands::default() });
    let valid = signed(&ours, |_| {});
    let expired = signed(&ours, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let early = signed(&ours, |params| params.not_before = rcgen::date_time_ymd(2999, 1, 1));
    let foreign = signed(&authority(), |_| {});
    for version in VERSIONS {
        let connection = shake(&server, &visitor(version, Some(&valid))).unwrap();
        assert_eq!(connection.peer_certificates().map(<[_]>::len), Some(1));
        for wrong in [None, Some(&expired), Some(&early), Some(&foreign)] {
            assert!(shake(&server, &visitor(version, wrong)).is_err());
        }
    }
}

#[test]
fn a_certificate_is_shown_at_each_connection() {
    let ours = authority();
    let server = server(&Demands { authorities: roots(&ours), ..Demands::default() });
    let valid = signed(&ours, |_| {});
    for version in VERSIONS {
        let visitor = visitor(version, Some(&valid));
        for _ in 0..2 {
            let connection = shake(&server, &visitor).unwrap();
            assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
        }
    }
}

#[test]
fn a_session_is_good_for_the_endpoint_that_it_was_begun_with_and_no_other() {
    let demands = Demands { certificate: Some(own()), ..Demands::default() };
    let (one, other) = (server(&demands), server(&demands));
    for version in VERSIONS {
        let visitor = visitor(version, None);
        let kind = |server| shake(server, &visitor).unwrap().handshake_kind();
        assert_eq!(kind(&one), Some(HandshakeKind::Full));
        assert_eq!(kind(&one), Some(HandshakeKind::Resumed));
        assert_eq!(kind(&other), Some(HandshakeKind::Full));
        let usual = super::super::server_config(Arc::new(SingleCertAndKey::from(match own() {
            Shown::Own(pair) => pair,
            Shown::Named(_) => unreachable!(),
        })));
        assert_eq!(kind(&usual.unwrap()), Some(HandshakeKind::Full));
    }
}

#[test]
fn the_least_version_holds() {
    let server = server(&Demands { min_version: Some(TlsVersion::V1_3), ..Demands::default() });
    assert!(shake(&server, &visitor(&TLS12, None)).is_err());
    assert_eq!(shake(&server, &visitor(&TLS13, None)).unwrap().alpn_protocol(), Some(&b"h2"[..]));
}

#[test]
fn raw_bytes_have_no_protocol_to_agree_on() {
    let server = server(&Demands { raw: true, ..Demands::default() });
    for version in VERSIONS {
        assert_eq!(shake(&server, &visitor(version, None)).unwrap().alpn_protocol(), None);
    }
}

#[test]
fn a_pair_that_cannot_be_used_says_why() {
    let ours = authority();
    let ((one, key), (other, _)) = (signed(&ours, |_| {}), signed(&ours, |_| {}));
    let fault = |certificate: &str, key: &str| pair(certificate, key).unwrap_err().to_string();
    assert!(pair(&(one.clone() + &other), &key).is_ok());
    assert!(fault(&other, &key).contains("do not belong together"));
    assert!(fault(&(other + &one), &key).contains("comes first"));
    assert!(fault(&key, &one).contains("--crt holds no certificate"));
    assert!(fault(&one, &one).contains("--key holds no private key"));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(fault(broken, &key).contains("--crt"));
}
