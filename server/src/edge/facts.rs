//! What is known of a visitor's TLS connection once its handshake is over.

use rustls::pki_types::CertificateDer;
use rustls::{ProtocolVersion, ServerConnection};
use x509_parser::extensions::GeneralName;

use crate::visit::{ClientFacts, TlsFacts};

pub(super) fn facts(connection: &ServerConnection) -> TlsFacts {
    let version = connection.protocol_version().and_then(|version| match version {
        ProtocolVersion::TLSv1_2 => Some("1.2"),
        ProtocolVersion::TLSv1_3 => Some("1.3"),
        _ => None,
    });
    let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
    let alpn = match connection.alpn_protocol() {
        Some(b"h2") => Some("h2"),
        Some(b"http/1.1") => Some("http/1.1"),
        _ => None,
    };
    TlsFacts {
        version,
        cipher_suite: suite.and_then(|suite| suite.as_str()),
        sni: connection.server_name().map(Box::from),
        alpn,
        client: connection.peer_certificates().and_then(<[_]>::first).and_then(client).map(Box::new),
    }
}

/// The handshake has verified it.
fn client(certificate: &CertificateDer<'_>) -> Option<ClientFacts> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let common_name = certificate.subject().iter_common_name().find_map(|it| it.as_str().ok());
    let mut facts = ClientFacts {
        common_name: common_name.unwrap_or_default().to_owned(),
        serial: certificate.raw_serial_as_string().replace(':', ""),
        ..ClientFacts::default()
    };
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    for name in alternatives.iter().flat_map(|it| &it.value.general_names) {
        match name {
            GeneralName::DNSName(name) => facts.dns_names.push((*name).to_owned()),
            GeneralName::RFC822Name(email) => facts.emails.push((*email).to_owned()),
            _ => {}
        }
    }
    Some(facts)
}
