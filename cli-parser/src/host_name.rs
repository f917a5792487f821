//! Host names and wildcard patterns, checked once and then never wrong.

use std::fmt;
use std::str::FromStr;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Code, printable};

/// A DNS host name in lower case, without a trailing dot, with international labels as punycode (UTS 46).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Box<str>);

impl HostName {
    /// # Errors
    /// Says which label breaks which rule of host names (RFC 1123 §2.1, RFC 5890).
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if is_plain(text) {
            return Ok(Self(text.into()));
        }
        if text.len() > MAX_TEXT {
            return Err(NameError::new(Code::NAME_LENGTH, text, "a host name has at most 253 characters"));
        }
        text.split('.').try_for_each(check_characters)?;
        if text.is_ascii() {
            text.split('.').try_for_each(|label| check_label(&label.to_ascii_lowercase()))?;
        }
        let ascii = Uts46::new()
            .to_ascii(text.as_bytes(), AsciiDenyList::STD3, Hyphens::Allow, DnsLength::Ignore)
            .map_err(|_| NameError::new(Code::NAME_PUNYCODE, text, "it cannot be written as a host name"))?;
        ascii.split('.').try_for_each(check_label)?;
        if ascii.len() > MAX_NAME {
            return Err(NameError::new(Code::NAME_LENGTH, text, "a host name has at most 253 characters"));
        }
        Ok(Self(ascii.into()))
    }

    /// The host of an HTTP authority (`Host`, `:authority`): without port. `None` for addresses and invalid names.
    pub fn from_authority(authority: &str) -> Option<Self> {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            Some(_) => return None,
            None => authority,
        };
        let is_address = host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok();
        if is_address { None } else { Self::parse(host).ok() }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From left to right.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// The name without its first label.
    pub fn parent(&self) -> Option<Self> {
        self.0.split_once('.').map(|(_, parent)| Self(parent.into()))
    }

    /// Whether this name ends in `.above`.
    pub fn is_below(&self, above: &Self) -> bool {
        self.0.strip_suffix(above.as_str()).is_some_and(|left| left.ends_with('.'))
    }
}

/// The usual case, decided without allocating: lower-case ASCII that breaks no rule.
fn is_plain(text: &str) -> bool {
    text.len() <= MAX_NAME && !text.is_empty() && text.split('.').all(is_plain_label)
}

fn is_plain_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    (1..=MAX_LABEL).contains(&bytes.len())
        && bytes.iter().all(inner)
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
        && bytes.get(2..4) != Some(b"--")
}

/// ASCII that no label holds, in whatever script the rest of it is.
fn check_characters(label: &str) -> Result<(), NameError> {
    if label.contains('_') {
        let why = "a host name has no underscore: use a hyphen";
        return Err(NameError::new(Code::NAME_UNDERSCORE, label, why));
    }
    if !label.chars().all(|it| !it.is_ascii() || it.is_ascii_alphanumeric() || it == '-') {
        let why = "a label has letters, digits and hyphens only";
        return Err(NameError::new(Code::NAME_CHARACTERS, label, why));
    }
    Ok(())
}

fn check_label(label: &str) -> Result<(), NameError> {
    let fail = |code, why| Err(NameError::new(code, label, why));
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = label.as_bytes();
    if bytes.is_empty() {
        return fail(Code::NAME_EMPTY_LABEL, "a label is empty: look for two dots in a row");
    }
    if bytes.len() > MAX_LABEL {
        return fail(Code::NAME_LABEL_LENGTH, "a label has at most 63 characters");
    }
    if !alphanumeric(bytes.first()) {
        return fail(Code::NAME_LABEL_START, "a label begins with a letter or digit");
    }
    if !alphanumeric(bytes.last()) {
        return fail(Code::NAME_LABEL_END, "a label ends with a letter or digit");
    }
    if bytes.get(2..4) == Some(b"--") && !label.starts_with("xn--") {
        return fail(Code::NAME_DOUBLE_HYPHEN, "hyphens in third and fourth place are for punycode (xn--)");
    }
    Ok(())
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl Serialize for HostName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A name, or everything below one at any depth.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    Exact(HostName),
    /// What follows `*.`.
    Wildcard(HostName),
}

impl HostPattern {
    /// # Errors
    /// As [`HostName::parse`]; a star anywhere but as the whole first label.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let starred = text.strip_prefix("*.");
        let rest = starred.unwrap_or(text);
        if rest.contains('*') {
            let why = "a * stands for the whole first label only, such as *.app";
            return Err(NameError::new(Code::NAME_LABEL_START, text, why));
        }
        let name = HostName::parse(rest)?;
        Ok(if starred.is_some() { Self::Wildcard(name) } else { Self::Exact(name) })
    }

    /// Whether who has this has `other` with it: a wildcard covers itself and all below it.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(own), Self::Exact(name)) => own == name,
            (Self::Wildcard(base), Self::Exact(name)) => name.is_below(base),
            (Self::Wildcard(base), Self::Wildcard(name)) => name == base || name.is_below(base),
            (Self::Exact(_), Self::Wildcard(_)) => false,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Wildcard(base) => write!(f, "*.{base}"),
        }
    }
}

impl FromStr for HostPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

/// A text that is not a host name: the fault of whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{label}\" is not a host name: {why}")]
pub struct NameError {
    code: Code,
    label: String,
    why: &'static str,
}

impl NameError {
    fn new(code: Code, label: &str, why: &'static str) -> Self {
        Self { code, label: printable(label).into_owned(), why }
    }

    pub const fn code(&self) -> Code {
        self.code
    }
}

const MAX_LABEL: usize = 63;
const MAX_NAME: usize = 253;
/// Bytes that are looked at: a name of 253 characters has no more in any script.
const MAX_TEXT: usize = 4 * MAX_NAME;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(text: &str) -> Code {
        HostPattern::parse(text).expect_err(text).code()
    }

    #[test]
    fn names_become_lower_case_without_a_final_dot() {
        assert_eq!(HostName::parse("App.Example.COM.").unwrap().as_str(), "app.example.com");
    }

    #[test]
    fn a_wildcard_covers_itself_and_all_below_it() {
        let covers =
            |one, other| HostPattern::parse(one).unwrap().covers(&HostPattern::parse(other).unwrap());
        for below in ["a.w.test", "b.a.w.test", "*.w.test", "*.a.w.test"] {
            assert!(covers("*.w.test", below), "{below}");
        }
        for other in ["w.test", "aw.test", "*.test", "*.aw.test"] {
            assert!(!covers("*.w.test", other), "{other}");
        }
        assert!(covers("w.test", "w.test") && !covers("w.test", "*.w.test") && !covers("w.test", "a.w.test"));
    }

    #[test]
    fn international_names_become_punycode() {
        assert_eq!(HostName::parse("B\u{fc}cher.example").unwrap().as_str(), "xn--bcher-kva.example");
    }

    #[test]
    fn each_rule_has_its_code() {
        assert_eq!(code("a b"), Code::NAME_CHARACTERS);
        assert_eq!(code("a..b"), Code::NAME_EMPTY_LABEL);
        assert_eq!(code(""), Code::NAME_EMPTY_LABEL);
        assert_eq!(code("-a.b"), Code::NAME_LABEL_START);
        assert_eq!(code("a-.b"), Code::NAME_LABEL_END);
        assert_eq!(code("ab--c.d"), Code::NAME_DOUBLE_HYPHEN);
        assert_eq!(code("a_b.c"), Code::NAME_UNDERSCORE);
        assert_eq!(code("b\u{fc}_b.c"), Code::NAME_UNDERSCORE);
        assert_eq!(code("b\u{fc} b.c"), Code::NAME_CHARACTERS);
        assert_eq!(code(&"a".repeat(64)), Code::NAME_LABEL_LENGTH);
        assert_eq!(code(&vec!["a".repeat(60); 5].join(".")), Code::NAME_LENGTH);
        assert_eq!(code(&"a.".repeat(100_000)), Code::NAME_LENGTH);
        assert_eq!(code("xn--a\u{fffd}"), Code::NAME_PUNYCODE);
        assert_eq!(code("app.*.example.com"), Code::NAME_LABEL_START);
        assert_eq!(code("*-app.example.com"), Code::NAME_LABEL_START);
    }

    #[test]
    fn what_is_wrong_is_shown_escaped_once() {
        let said = HostName::parse("a\x1bb").unwrap_err().to_string();
        assert!(said.starts_with(r#""a\u{1b}b" is not a host name: "#), "{said}");
    }

    #[test]
    fn an_authority_gives_its_host() {
        let host = |text| HostName::from_authority(text).map(|name| name.to_string());
        assert_eq!(host("App.localhost:8080").as_deref(), Some("app.localhost"));
        assert_eq!(host("app.localhost").as_deref(), Some("app.localhost"));
        assert_eq!(host("[::1]:8080"), None);
        assert_eq!(host("127.0.0.1:80"), None);
        assert_eq!(host("app:x"), None);
    }

    #[test]
    fn below_means_a_whole_label_below() {
        let name = |text| HostName::parse(text).unwrap();
        assert!(name("a.example.com").is_below(&name("example.com")));
        assert!(!name("aexample.com").is_below(&name("example.com")));
        assert!(!name("example.com").is_below(&name("example.com")));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_a_parsed_name_parses_to_itself(text in ".*") {
            if let Ok(name) = HostName::parse(&text) {
                let allowed = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || b"-.".contains(&it);
                prop_assert!(name.as_str().bytes().all(allowed));
                prop_assert_eq!(HostName::parse(name.as_str()).unwrap(), name);
            }
            let _ = HostPattern::parse(&text);
            let _ = HostName::from_authority(&text);
        }
    }
}
