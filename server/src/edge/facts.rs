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
    // The first one, or none: to take the next where it cannot be read would be to choose another name.
    let common_name = certificate.subject().iter_common_name().next().and_then(|it| it.as_str().ok());
    let mut facts = ClientFacts {
        common_name: common_name.unwrap_or_default().to_owned(),
        serial: hexadecimal(certificate.raw_serial()),
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

/// As `openssl x509 -serial` writes it, in lower case: without the zero that DER puts before a first bit that is set.
fn hexadecimal(number: &[u8]) -> String {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len().saturating_sub(1));
    number.get(start..).unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, SerialNumber};

    use super::*;

    #[test]
    fn a_certificate_tells_whose_it_is() {
        let mut params =
            CertificateParams::new(vec!["ada.example".to_owned(), "192.0.2.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Ada");
        params.subject_alt_names.push(SanType::Rfc822Name("ada@example.com".try_into().unwrap()));
        params.serial_number = Some(SerialNumber::from(vec![0x0f, 0xab]));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let facts = client(certificate.der()).unwrap();
        assert_eq!((facts.common_name.as_str(), facts.serial.as_str()), ("Ada", "0fab"));
        assert_eq!(
            (facts.dns_names, facts.emails),
            (vec!["ada.example".to_owned()], vec!["ada@example.com".to_owned()])
        );
        assert!(client(&CertificateDer::from(vec![1, 2, 3])).is_none());
    }

    #[test]
    fn a_serial_number_has_no_zero_of_its_coding() {
        for (number, written) in [(&[0, 0x8f, 0][..], "8f00"), (&[1], "01"), (&[0], "00"), (&[], "")] {
            assert_eq!(hexadecimal(number), written);
        }
    }
}
