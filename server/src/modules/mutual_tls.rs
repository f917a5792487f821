//! Mutual TLS: the handshake admits, and the upstream learns who it was (behaviour.md 3.5).

use std::sync::Arc;

use hithe_cli_parser::{Code, MAX_AUTHORITIES, MutualTls, Objection, Pem};
use http::{HeaderName, Request};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::header_values::line;
use super::{BuildError, Flow, Module, Passage, Plan, Visit};
use crate::body::Body;

const COMMON_NAME: HeaderName = HeaderName::from_static("hithe-mtls-subject-cn");
const DNS_NAMES: HeaderName = HeaderName::from_static("hithe-mtls-subject-alt-name-dns");
const EMAILS: HeaderName = HeaderName::from_static("hithe-mtls-email-addresses");
const SERIAL: HeaderName = HeaderName::from_static("hithe-mtls-serial-number");

pub(super) fn build(config: &MutualTls, plan: &mut Plan) -> Result<(), BuildError> {
    let mut roots = RootCertStore::empty();
    for pem in &config.authorities {
        match pem {
            Pem::Inline(text) => add(&mut roots, text)?,
            Pem::Named(name) => add(&mut roots, &plan.commons.client_authorities(name)?)?,
        }
    }
    if roots.len() > MAX_AUTHORITIES {
        let message = format!("--mutual-tls-cas holds more than {MAX_AUTHORITIES} certificates");
        return Err(Objection::new(Code::MUTUAL_TLS_PEM, message).into());
    }
    plan.tls.authorities = Some(Arc::new(roots));
    plan.chain.push(TellWho);
    Ok(())
}

fn add(roots: &mut RootCertStore, pem: &str) -> Result<(), Objection> {
    let unreadable = || Objection::new(Code::MUTUAL_TLS_PEM, "--mutual-tls-cas holds no certificates in PEM");
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| unreadable())?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|_| unreadable())?;
        if !parsed.is_ca() {
            let subject = parsed.subject().to_string();
            let message = format!(
                "{} is not the certificate of an authority (CA:TRUE)",
                hithe_cli_parser::printable(&subject)
            );
            return Err(Objection::new(Code::MUTUAL_TLS_NO_CA, message));
        }
        roots.add(certificate).map_err(|_| unreadable())?;
    }
    if roots.len() == before { Err(unreadable()) } else { Ok(()) }
}

/// What visitors sent under these names is gone already, on all endpoints.
struct TellWho;

impl Module for TellWho {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        let client = visit.tls.as_ref().and_then(|tls| tls.client.as_ref());
        if let Some(client) = client {
            let facts = [
                (COMMON_NAME, client.common_name.clone()),
                (DNS_NAMES, client.dns_names.join(",")),
                (EMAILS, client.emails.join(",")),
                (SERIAL, client.serial.clone()),
            ];
            for (name, value) in facts.into_iter().filter(|(_, value)| !value.is_empty()) {
                request.headers_mut().insert(name, line(&value));
            }
        }
        Passage::Now(Flow::Continue)
    }
}
