//! Certificates and keys within a command line: PEM as it is, PEM in base64, or the name of a file of the server.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Objection;
use crate::Code;

/// PEM (RFC 7468), or a name by which the server knows some.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pem {
    /// Each block on lines of its own.
    Inline(String),
    Named(String),
}

impl FromStr for Pem {
    type Err = Objection;

    fn from_str(text: &str) -> Result<Self, Objection> {
        if text.len() > MAX_LENGTH {
            return Err(Objection::new(
                Code::BAD_FLAG,
                format!("a PEM value is longer than {MAX_LENGTH} bytes"),
            ));
        }
        if let Some(pem) = blocks(text) {
            return Ok(Self::Inline(pem));
        }
        let packed: String = text.split_ascii_whitespace().collect();
        let decoded = STANDARD.decode(&packed).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some(pem) = decoded.as_deref().and_then(blocks) {
            return Ok(Self::Inline(pem));
        }
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(letter) && !text.starts_with(['.', '-']) {
            return Ok(Self::Named(text.to_owned()));
        }
        let message = "this is neither PEM, nor PEM in base64 (base64 -w0 FILE), nor a name that the server may know; \
                       the server cannot read files of your machine";
        Err(Objection::new(Code::BAD_FLAG, message))
    }
}

/// The blocks of a text, one label or line to a line again: a shell may have made blanks of the line ends.
fn blocks(text: &str) -> Option<String> {
    let mut pem = String::new();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once("-----BEGIN ") {
        let (label, behind) = behind.split_once("-----")?;
        let (body, behind) = behind.split_once("-----END ")?;
        let (end, behind) = behind.split_once("-----")?;
        if label != end || label.len() > MAX_NAME {
            return None;
        }
        pem.push_str(&format!("-----BEGIN {label}-----\n"));
        for line in body.split_ascii_whitespace() {
            pem.push_str(line);
            pem.push('\n');
        }
        pem.push_str(&format!("-----END {label}-----\n"));
        rest = behind;
    }
    (!pem.is_empty()).then_some(pem)
}

const MAX_LENGTH: usize = 32 << 10;
const MAX_NAME: usize = 64;

/// May hold a key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline(..)"),
            Self::Named(name) => f.debug_tuple("Named").field(name).finish(),
        }
    }
}

impl From<Pem> for String {
    fn from(pem: Pem) -> Self {
        match pem {
            Pem::Inline(text) => STANDARD.encode(text),
            Pem::Named(name) => name,
        }
    }
}

impl TryFrom<String> for Pem {
    type Error = Objection;

    fn try_from(text: String) -> Result<Self, Objection> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn pem_comes_as_it_is_with_blanks_for_line_ends_or_in_base64() {
        let inline = Ok(Pem::Inline(PEM.to_owned()));
        assert_eq!(PEM.parse(), inline);
        assert_eq!(PEM.trim_end().replace('\n', " ").parse(), inline);
        assert_eq!(format!("# mine\r\n{}", PEM.replace('\n', "\r\n")).parse(), inline);
        assert_eq!(STANDARD.encode(PEM).parse(), inline);
        assert_eq!(String::from(Pem::Inline(PEM.to_owned())).parse(), inline);
        assert_eq!("corp-ca".parse(), Ok(Pem::Named("corp-ca".to_owned())));
    }

    #[test]
    fn everything_else_is_refused() {
        for wrong in
            ["", "/etc/ssl/cert.pem", "../ca", ".ca", "a b", "-----BEGIN X-----\nAA\n-----END Y-----"]
        {
            assert!(wrong.parse::<Pem>().is_err(), "{wrong}");
        }
    }
}
