//! Whole handshakes in memory: what a visitor who verifies gets to see.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use tempfile::TempDir;

use super::*;
use crate::config::Options;

fn name(text: &str) -> HostName {
    text.parse().unwrap()
}

fn own(state: &TempDir, domain: &str) -> Arc<Certificates> {
    let options = Options {
        domain: Some(name(domain)),
        state_dir: Some(state.path().to_owned()),
        open: Some(true),
        ..Options::default()
    };
    Arc::new(Certificates::load(&Config::load(options).unwrap()).unwrap())
}

fn live(names: &'static [&'static str]) -> IsLive {
    Arc::new(|name| names.contains(&name.to_string().as_str()))
}

/// A client that trusts this file and nothing else.
fn trusting(ca_file: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file).unwrap()).unwrap();
    let provider = Arc::new(default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// The handshake, and what the server has to send afterwards.
pub(super) fn exchange(
    client: &mut ClientConnection,
    server: &mut ServerConnection,
) -> Result<(), rustls::Error> {
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

/// The certificate that the client accepted for this name.
fn visit(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    host: &str,
) -> Result<CertificateDer<'static>, rustls::Error> {
    let host = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), host)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    exchange(&mut client, &mut server)?;
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    Ok(client.peer_certificates().unwrap()[0].clone())
}

/// Shows one certificate whatever the name.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[test]
fn a_visitor_who_trusts_the_authority_verifies_live_names_at_any_depth() {
    let state = TempDir::new().unwrap();
    let certificates = own(&state, "localhost");
    let client = trusting(&certificates.ca_file().unwrap());
    let server = server_config(certificates.resolver(live(&["x.localhost", "a.b.app.localhost"]))).unwrap();
    visit(&server, &client, "x.localhost").unwrap();
    visit(&server, &client, "a.b.app.localhost").unwrap();
}

#[test]
fn a_name_without_endpoint_gets_the_certificate_of_the_domain() {
    let state = TempDir::new().unwrap();
    let certificates = own(&state, "tunnel.example");
    let client = trusting(&certificates.ca_file().unwrap());
    let server = server_config(certificates.resolver(live(&["live.tunnel.example"]))).unwrap();
    let shown = visit(&server, &client, "gone.tunnel.example").unwrap();
    assert_eq!(visit(&server, &client, "other.tunnel.example").unwrap(), shown);
    assert_eq!(visit(&server, &client, "tunnel.example").unwrap(), shown);
    assert_ne!(visit(&server, &client, "live.tunnel.example").unwrap(), shown);
    // Below the wildcard's one label the handshake goes through, and the visitor's program warns.
    assert!(visit(&server, &client, "deep.gone.tunnel.example").is_err());
}

#[test]
fn a_visitor_without_sni_gets_the_certificate_of_the_domain() {
    let state = TempDir::new().unwrap();
    let resolver = Resolver::new(own(&state, "tunnel.example"), live(&[]));
    assert!(Arc::ptr_eq(
        &resolver.choose(None).unwrap(),
        &resolver.choose(Some("a.tunnel.example")).unwrap()
    ));
}

#[test]
fn a_name_outside_of_the_domain_gets_no_certificate() {
    let state = TempDir::new().unwrap();
    let certificates = own(&state, "tunnel.example");
    assert!(certificates.covers(&name("a.tunnel.example")) && !certificates.covers(&name("example.org")));
    let client = trusting(&certificates.ca_file().unwrap());
    let server = server_config(certificates.resolver(live(&["example.org"]))).unwrap();
    assert!(visit(&server, &client, "example.org").is_err());
}

#[test]
fn the_authority_is_worthless_for_names_outside_of_the_domain() {
    let state = TempDir::new().unwrap();
    let (authority, _) = Authority::load_or_create(state.path(), &name("tunnel.example")).unwrap();
    let client = trusting(authority.certificate_file());
    for (host, trusted) in [("a.tunnel.example", true), ("bank.example", false), ("atunnel.example", false)] {
        let server = server_config(Arc::new(Always(authority.certify(&name(host)).unwrap()))).unwrap();
        assert_eq!(visit(&server, &client, host).is_ok(), trusted, "{host}");
    }
}

#[test]
fn openssl_agrees_about_the_constraints() {
    let state = TempDir::new().unwrap();
    let (authority, _) = Authority::load_or_create(state.path(), &name("tunnel.example")).unwrap();
    for (host, trusted) in [("a.b.tunnel.example", true), ("tunnel.example", true), ("bank.example", false)] {
        let leaf = state.path().join("leaf.der");
        fs::write(&leaf, &authority.certify(&name(host)).unwrap().cert[0]).unwrap();
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", host, "-CAfile"])
            .arg(authority.certificate_file())
            .arg(&leaf)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), trusted, "{host}: {told}");
        assert!(trusted || told.contains("permitted subtree violation"), "{told}");
    }
}
