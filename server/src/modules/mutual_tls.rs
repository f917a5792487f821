//! Mutual TLS: the handshake admits, and the upstream learns who it was (behaviour.md 3.5).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hithe_cli_parser::{Code, MAX_AUTHORITIES, MutualTls, Objection, Pem, printable};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{BuildError, Flow, Module, Passage, Plan, Refusal, Visit};
use crate::body::Body;
use crate::visit::ClientFacts;

const COMMON_NAME: HeaderName = HeaderName::from_static("hithe-mtls-subject-cn");
const DNS_NAMES: HeaderName = HeaderName::from_static("hithe-mtls-subject-alt-name-dns");
const EMAILS: HeaderName = HeaderName::from_static("hithe-mtls-email-addresses");
const SERIAL: HeaderName = HeaderName::from_static("hithe-mtls-serial-number");

/// Bytes of one of these headers: half of what many servers take for all.
const MAX_VALUE: usize = 8 << 10;

pub(super) fn build(config: &MutualTls, plan: &mut Plan) -> Result<(), BuildError> {
    let mut roots = RootCertStore::empty();
    for pem in &config.authorities {
        let known;
        let pem = match pem {
            Pem::Inline(text) => text,
            Pem::Named(name) => {
                known = plan.commons.client_cas.read(name)?;
                &known
            }
        };
        for authority in authorities(pem)? {
            roots.add(authority).map_err(|_| Fault::Unreadable)?;
        }
    }
    if roots.len() > MAX_AUTHORITIES {
        return Err(Fault::TooMany.into());
    }
    plan.tls.authorities = Some(Arc::new(roots));
    plan.chain.push(TellWho);
    Ok(())
}

/// Why a text holds no authorities.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("no certificates in PEM")]
    Unreadable,
    #[error("{0} is not the certificate of an authority (CA:TRUE)")]
    NoAuthority(String),
    #[error("more than {MAX_AUTHORITIES} certificates")]
    TooMany,
}

impl From<Fault> for BuildError {
    fn from(fault: Fault) -> Self {
        let code = match fault {
            Fault::Unreadable | Fault::TooMany => Code::MUTUAL_TLS_PEM,
            Fault::NoAuthority(_) => Code::MUTUAL_TLS_NO_CA,
        };
        Objection::new(code, format!("--mutual-tls-cas: {fault}")).into()
    }
}

fn authorities(pem: &str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.ok().filter(|found| !found.is_empty()).ok_or(Fault::Unreadable)?;
    for certificate in &found {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| Fault::Unreadable)?;
        if !parsed.is_ca() {
            return Err(Fault::NoAuthority(printable(&parsed.subject().to_string()).into_owned()));
        }
    }
    Ok(found)
}

/// The authorities that the operator lets publishers name: files `NAME.pem` of a directory.
#[derive(Debug, Default)]
pub(super) struct Known(Option<PathBuf>);

impl Known {
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        Self(directory)
    }

    /// In PEM.
    fn read(&self, name: &str) -> Result<String, Objection> {
        let objection = |message| Err(Objection::new(Code::MUTUAL_TLS_PEM, message));
        let Some(directory) = &self.0 else {
            let message = "this server knows no authorities by name; give them as PEM: \
                           --mutual-tls-cas \"$(base64 -w0 ca.pem)\"";
            return objection(message.to_owned());
        };
        match std::fs::read_to_string(directory.join(format!("{name}.pem"))) {
            Ok(pem) => Ok(pem),
            Err(_) => {
                let known = names(directory).unwrap_or_default();
                let shown = known.iter().take(MAX_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
                let rest = if known.len() > MAX_SHOWN { ", …" } else { "" };
                let known = if shown.is_empty() { "none".to_owned() } else { shown + rest };
                objection(format!("this server knows no authorities by the name of {name}; it knows {known}"))
            }
        }
    }
}

/// Names in an error message.
const MAX_SHOWN: usize = 20;

/// Those that can be said, in order.
fn names(directory: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let file = entry?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".pem"));
        names.extend(name.filter(|name| matches!(name.parse(), Ok(Pem::Named(_)))).map(str::to_owned));
    }
    names.sort_unstable();
    Ok(names)
}

/// All that is wrong with a directory for `--client-cas`, for the operator.
pub(crate) fn check_directory(directory: &Path) -> Vec<String> {
    let names = match names(directory) {
        Ok(names) if names.is_empty() => {
            return vec![format!(
                "there are no authorities in {0}: expected {0}/NAME.pem",
                directory.display()
            )];
        }
        Ok(names) => names,
        Err(error) => {
            return vec![format!("cannot read the authorities in {}: {error}", directory.display())];
        }
    };
    let paths = names.iter().map(|name| directory.join(format!("{name}.pem")));
    let fault = |path: PathBuf| {
        let fault = match std::fs::read_to_string(&path) {
            Ok(pem) => match authorities(&pem) {
                Ok(found) if found.len() <= MAX_AUTHORITIES => return None,
                Ok(_) => Fault::TooMany.to_string(),
                Err(fault) => fault.to_string(),
            },
            Err(error) => error.to_string(),
        };
        Some(format!("cannot use the authorities in {}: {fault}", path.display()))
    };
    paths.filter_map(fault).collect()
}

/// What visitors sent under these names is gone already, on all endpoints.
struct TellWho;

impl Module for TellWho {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        // Its certificate was verified; only one that can be read tells whose it is, and nobody goes unnamed.
        let Some(client) = visit.tls.as_ref().and_then(|tls| tls.client.as_ref()) else {
            return Passage::Now(UNREADABLE.into());
        };
        request.headers_mut().extend(headers(client));
        Passage::Now(Flow::Continue)
    }
}

const UNREADABLE: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    code: Code::BAD_REQUEST,
    text: "The certificate that your program showed cannot be read",
    hint: "Use another certificate.",
    header: None,
};

/// What is not in the certificate, or too long, is not said.
fn headers(client: &ClientFacts) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let facts = [
        (COMMON_NAME, encoded(&client.common_name, "")),
        (DNS_NAMES, list(&client.dns_names)),
        (EMAILS, list(&client.emails)),
        (SERIAL, client.serial.clone()),
    ];
    let said = |(_, value): &(HeaderName, String)| (1..=MAX_VALUE).contains(&value.len());
    facts
        .into_iter()
        .filter(said)
        .filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)))
}

/// As many as there is room for, each of them whole.
fn list(names: &[String]) -> String {
    let mut list = String::new();
    for name in names {
        let name = encoded(name, ",");
        if list.len() + 1 + name.len() > MAX_VALUE {
            break;
        }
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(&name);
    }
    list
}

/// A name on one line: control characters, what is not ASCII, blanks at its ends, `%` itself and what is `special` stand
/// as in a URL (RFC 3986 §2.1). Nothing is left out, or one name could be made to look like another.
fn encoded(name: &str, special: &str) -> String {
    let last = name.len().saturating_sub(1);
    let mut line = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        let plain = match byte {
            b' ' => at != 0 && at != last,
            b'%' => false,
            _ => byte.is_ascii_graphic() && !special.as_bytes().contains(&byte),
        };
        if plain {
            line.push(char::from(byte));
        } else {
            line.push_str(&format!("%{byte:02X}"));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use tempfile::TempDir;

    use super::super::Commons;
    use super::*;
    use crate::visit::{TlsFacts, Visitor};

    fn certificate(is_ca: bool) -> String {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn planned(authorities: &[&str], directory: Option<&TempDir>) -> Result<Plan, (Code, String)> {
        let authorities = authorities.iter().map(|text| text.parse().unwrap()).collect();
        let commons = Arc::new(Commons::new(directory.map(|it| it.path().to_owned())));
        let mut plan = Plan::of(&[], &commons).unwrap();
        build(&MutualTls { authorities }, &mut plan).map_err(|error| (error.code(), error.to_string()))?;
        Ok(plan)
    }

    fn said(client: &ClientFacts) -> Vec<(String, String)> {
        headers(client).map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn authorities_come_from_the_command_and_from_the_directory() {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("corp.pem"), certificate(true) + &certificate(true)).unwrap();
        let plan = planned(&[&certificate(true), "corp"], Some(&directory)).unwrap();
        assert_eq!(plan.tls.authorities.unwrap().len(), 3);
        let (code, message) = planned(&["crop"], Some(&directory)).map(drop).unwrap_err();
        assert_eq!(code, Code::MUTUAL_TLS_PEM);
        assert!(message.ends_with("it knows corp"), "{message}");
        assert_eq!(planned(&["corp"], None).map(drop).unwrap_err().0, Code::MUTUAL_TLS_PEM);
    }

    #[test]
    fn what_is_no_authority_or_too_many_is_refused() {
        let refused = |pem: &str| planned(&[pem], None).map(drop).unwrap_err().0;
        assert_eq!(refused(&(certificate(true) + &certificate(false))), Code::MUTUAL_TLS_NO_CA);
        assert_eq!(
            refused("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
            Code::MUTUAL_TLS_PEM
        );
        assert_eq!(refused(&KeyPair::generate().unwrap().serialize_pem()), Code::MUTUAL_TLS_PEM);
        assert_eq!(refused(&certificate(true).repeat(MAX_AUTHORITIES + 1)), Code::MUTUAL_TLS_PEM);
    }

    #[test]
    fn an_operator_is_told_what_is_wrong_with_the_directory() {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(check_directory(&at("missing"))[0].contains("cannot read"));
        assert!(check_directory(directory.path())[0].contains("NAME.pem"));
        std::fs::write(at("good.pem"), certificate(true)).unwrap();
        std::fs::write(at("README"), "").unwrap();
        assert_eq!(check_directory(directory.path()), [""; 0]);
        std::fs::write(at("leaf.pem"), certificate(false)).unwrap();
        std::fs::write(at("none.pem"), "").unwrap();
        let told = check_directory(directory.path());
        assert_eq!(told.len(), 2);
        assert!(told[0].contains("leaf.pem") && told[0].contains("CA:TRUE") && told[1].contains("none.pem"));
    }

    #[test]
    fn no_two_names_look_alike_in_a_header() {
        for (name, shown) in [
            ("Ada Lovelace, Countess", "Ada Lovelace, Countess"),
            (" ada ", "%20ada%20"),
            ("ad\u{0}a\r\nx: y", "ad%00a%0D%0Ax: y"),
            ("ad\u{e9}", "ad%C3%A9"),
            ("ad%C3%A9", "ad%25C3%25A9"),
            ("", ""),
        ] {
            assert_eq!(encoded(name, ""), shown);
        }
        let names = ["a.example,b.example", "c.example"].map(str::to_owned);
        assert_eq!(list(&names), "a.example%2Cb.example,c.example");
    }

    #[test]
    fn only_what_a_certificate_says_is_told_and_no_part_of_a_name() {
        let client = ClientFacts { serial: "0f".to_owned(), ..ClientFacts::default() };
        assert_eq!(said(&client), [("hithe-mtls-serial-number".to_owned(), "0f".to_owned())]);
        let long = vec!["a".repeat(MAX_VALUE - 10), "b".repeat(20), "c".to_owned()];
        let client = ClientFacts {
            common_name: "\u{e9}".repeat(MAX_VALUE / 2),
            dns_names: long.clone(),
            ..ClientFacts::default()
        };
        assert_eq!(said(&client), [("hithe-mtls-subject-alt-name-dns".to_owned(), long[0].clone())]);
    }

    #[test]
    fn nobody_passes_unnamed() {
        let visitor = Visitor::new("192.0.2.7:4000".parse().unwrap(), None);
        for tls in [None, Some(Arc::new(TlsFacts::default()))] {
            let visit = &mut Visit::new(visitor, tls.as_ref(), &Arc::from("https://a.example"));
            let mut request = Request::new(Body::empty());
            let passage = TellWho.request(&mut request, visit);
            assert!(matches!(passage, Passage::Now(Flow::Refuse(_))));
        }
    }
}
