//! One line of `authorized_keys`: options, the key, a comment.

use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, PublicKey};

use crate::complaint::shortened;
use crate::options::{self, Options};
use crate::{Account, Fingerprint, Grant, Source};

/// Bits of the smallest RSA key, as in sshd.
const MIN_RSA_BITS: u32 = 1024;
const DSA: &str = "ssh-dss keys are not secure: make a new one with ssh-keygen -t ed25519";

/// A line with a key in it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) grant: Grant,
    /// `cert-authority`: the key signs certificates, and does not log in itself.
    pub(crate) authority: bool,
    pub(crate) principals: Option<Vec<String>>,
    /// Whether the line says whose account it is.
    pub(crate) names_account: bool,
    pub(crate) warnings: Vec<String>,
}

/// A line, nothing (a blank line or a comment), or why the line admits nobody.
pub(crate) fn parse(
    line: &[u8],
    path: &Arc<Path>,
    number: usize,
    zone: &TimeZone,
) -> Result<Option<Line>, String> {
    let Some(line) = content_of(line)? else { return Ok(None) };
    let (first, rest) = split_word(line);
    let (options, key_type, rest) = if is_key_type(first) {
        (Options::default(), first, rest)
    } else {
        let (options, key) = split_options(line)?;
        let (key_type, rest) = split_word(key);
        if !is_key_type(key_type) {
            return Err(format!("has no key of a known type after {:?}", shortened(first)));
        }
        (options::parse(options, zone)?, key_type, rest)
    };
    let (key, comment) = parse_key(key_type, rest)?;
    let fingerprint = Fingerprint::of(&key);
    let names_account = options.account.is_some();
    let grant = Grant {
        fingerprint,
        account: options.account.map_or(Account::Key(fingerprint), Account::Named),
        comment,
        restrictions: options.restrictions,
        at: Source { path: Arc::clone(path), line: number },
    };
    let Options { authority, principals, warnings, .. } = options;
    Ok(Some(Line { grant, authority, principals, names_account, warnings }))
}

/// The text of a line that is neither blank nor a comment.
pub(crate) fn content_of(line: &[u8]) -> Result<Option<&str>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "is not UTF-8, so it admits nobody".to_owned())?.trim();
    if line.contains('\0') {
        return Err("has a NUL in it, so it admits nobody".to_owned());
    }
    Ok((!line.is_empty() && !line.starts_with('#')).then_some(line))
}

/// The key of `type base64 [comment]` and its comment.
pub(crate) fn parse_key(key_type: &str, rest: &str) -> Result<(PublicKey, String), String> {
    if key_type.contains("-cert-v01@") {
        return Err(
            "is a certificate, not a key: give the key of its authority, with the option cert-authority"
                .to_owned(),
        );
    }
    if key_type == Algorithm::Dsa.as_str() {
        return Err(DSA.to_owned());
    }
    let (blob, comment) = split_word(rest);
    let key = PublicKey::from_openssh(&format!("{key_type} {blob}"))
        .map_err(|error| format!("is not a valid {} key: {}", shortened(key_type), told(&error)))?;
    if let Some(weakness) = weakness_of(key.key_data()) {
        return Err(weakness);
    }
    Ok((key, shortened(comment)))
}

/// What the library says repeats bytes of the key as they are.
pub(crate) fn told(error: &impl std::fmt::Display) -> String {
    shortened(&error.to_string())
}

/// Why this key proves nothing.
pub(crate) fn weakness_of(key: &KeyData) -> Option<String> {
    let bits = key.rsa().map(|rsa| rsa.key_size());
    if key.algorithm() == Algorithm::Dsa {
        return Some(DSA.to_owned());
    }
    bits.filter(|bits| *bits < MIN_RSA_BITS).map(|bits| {
        format!("an RSA key of {bits} bits is not secure: make a new one with ssh-keygen -t ed25519")
    })
}

pub(crate) fn is_key_type(word: &str) -> bool {
    word.starts_with("ssh-") || word.starts_with("ecdsa-sha2-") || word.starts_with("sk-")
}

/// The options end at the first blank outside of double quotes; `\"` does not end a quotation.
fn split_options(line: &str) -> Result<(&str, &str), String> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => {
                let (options, rest) = line.split_at(at);
                return Ok((options, rest.trim_start()));
            }
            _ => {}
        }
        escaped = c == '\\';
    }
    if quoted {
        return Err("has a quotation without an end".to_owned());
    }
    Ok((line, ""))
}

pub(crate) fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, rest.trim_start())
}
