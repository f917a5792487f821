//! Patterns as OpenSSH has them (ssh_config(5), PATTERNS), and what they say of forwards and names.

use std::fmt;
use std::str::FromStr;

/// Characters of a host in an option; sshd has the same bound (NI_MAXHOST).
const MAX_HOST: usize = 1024;

/// `*` stands for any run of characters, dots too, `?` for one.
///
/// The text may be a wildcard itself, a bind address like `*.example.com`. Only `*` stands for a `*` there: what a
/// `?` permits is one name and never all of them.
pub(crate) fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` stands, and up to where it stands for the text.
    let mut retry = None;
    while let Some(have) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, t));
                p += 1;
                continue;
            }
            Some(want) if want == have || (*want == b'?' && *have != b'*') => {
                p += 1;
                t += 1;
                continue;
            }
            _ => {}
        }
        let Some((star, upto)) = retry else { return false };
        retry = Some((star, upto + 1));
        p = star + 1;
        t = upto + 1;
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// `permitlisten="[host:]port"`: what `ssh -R` may ask for.
///
/// sshd compares the host with the bind address as the client sent it, in lower case; a bare port means any host
/// there (sshd reads `8080` as `*:8080`), and so any name here. Only `*` as the port admits port 0. What differs from
/// sshd: capitals in the pattern do no harm (there they match nothing), and a service name like `https` is refused as
/// a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenPattern {
    /// In lower case, without brackets.
    host: String,
    port: Option<u16>,
}

/// `permitopen="host:port"`: what `ssh -L` may ask for. The host is literal as in sshd, but for a lone `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPattern {
    host: String,
    port: Option<u16>,
}

/// A host name, or a pattern of host names, that a certificate's principal stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamePattern(String);

/// The text is not of the form that the option wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("is not of the form [host:]port")]
    Form,
    #[error("has a host of more than 1024 characters, or with blanks in it")]
    Host,
    #[error("has no port from 1 to 65535 or *")]
    Port,
    #[error("is neither a host name with a dot nor a pattern of such names")]
    Name,
}

impl ListenPattern {
    /// Whether this bind address and port may be asked for.
    pub fn matches(&self, host: &str, port: u32) -> bool {
        port_matches(self.port, port) && wildcard(&self.host, &host.to_ascii_lowercase())
    }
}

impl FromStr for ListenPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = if text.contains(':') { split(text)? } else { ("*", text) };
        Ok(Self { host: checked_host(host)?, port: parse_port(port)? })
    }
}

impl OpenPattern {
    /// Whether this target may be asked for.
    pub fn matches(&self, host: &str, port: u32) -> bool {
        port_matches(self.port, port) && (self.host == "*" || self.host.eq_ignore_ascii_case(host))
    }
}

impl FromStr for OpenPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = split(text)?;
        Ok(Self { host: checked_host(host)?, port: parse_port(port)? })
    }
}

impl NamePattern {
    /// Whether it stands for this name, or for this wildcard and so for all that is below it.
    pub fn matches(&self, name: &str) -> bool {
        wildcard(&self.0, &name.to_ascii_lowercase())
    }

    /// In lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NamePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*' | '?');
        let labels = text.split('.');
        let named = text.len() <= 253 && text.contains('.') && text.chars().all(allowed);
        // A pattern without a letter or digit (`*.*`) names nothing.
        if !named || labels.clone().any(str::is_empty) || !text.contains(|c: char| c.is_ascii_alphanumeric())
        {
            return Err(PatternError::Name);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

fn port_matches(pattern: Option<u16>, port: u32) -> bool {
    pattern.is_none_or(|it| u32::from(it) == port)
}

/// `host:port`, `[address]:port`.
fn split(text: &str) -> Result<(&str, &str), PatternError> {
    match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").ok_or(PatternError::Form),
        None => text.split_once(':').ok_or(PatternError::Form),
    }
}

fn checked_host(host: &str) -> Result<String, PatternError> {
    if host.len() >= MAX_HOST || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(PatternError::Host);
    }
    Ok(host.to_ascii_lowercase())
}

fn parse_port(text: &str) -> Result<Option<u16>, PatternError> {
    if text == "*" {
        return Ok(None);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PatternError::Port);
    }
    text.parse().ok().filter(|port| *port != 0).map(Some).ok_or(PatternError::Port)
}

impl fmt::Display for ListenPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_pair(f, &self.host, self.port)
    }
}

impl fmt::Display for OpenPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_pair(f, &self.host, self.port)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn write_pair(f: &mut fmt::Formatter<'_>, host: &str, port: Option<u16>) -> fmt::Result {
    let port = port.map_or_else(|| "*".to_owned(), |port| port.to_string());
    if host.contains([':', ']']) || host.starts_with('[') {
        write!(f, "[{host}]:{port}")
    } else {
        write!(f, "{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listen(pattern: &str) -> ListenPattern {
        pattern.parse().unwrap_or_else(|error| panic!("{pattern}: {error}"))
    }

    #[test]
    fn a_bare_port_is_that_port_on_any_name() {
        let pattern = listen("8080");
        assert!(
            pattern.matches("localhost", 8080)
                && pattern.matches("", 8080)
                && pattern.matches("a.test", 8080)
        );
        assert!(!pattern.matches("localhost", 8081) && !pattern.matches("localhost", 0));
    }

    #[test]
    fn a_host_is_compared_as_the_client_sent_it_whatever_its_case() {
        assert!(listen("App.Example.com:443").matches("app.EXAMPLE.com", 443));
        assert!(!listen("localhost:443").matches("127.0.0.1", 443));
        assert!(listen("[::1]:443").matches("::1", 443));
        assert!(listen(":443").matches("", 443) && !listen(":443").matches("localhost", 443));
    }

    #[test]
    fn stars_and_question_marks_are_sshds() {
        let pattern = listen("*.ada.example.com:*");
        for (host, matches) in [
            ("x.ada.example.com", true),
            ("x.y.ada.example.com", true),
            ("*.ada.example.com", true),
            ("ada.example.com", false),
            ("xada.example.com", false),
            ("x.ada.example.com.evil", false),
        ] {
            assert_eq!(pattern.matches(host, 1), matches, "{host}");
        }
        assert!(pattern.matches("x.ada.example.com", 0));
        assert!(
            listen("app?.test:1").matches("app7.test", 1) && !listen("app?.test:1").matches("app.test", 1)
        );
    }

    #[test]
    fn a_question_mark_permits_one_name_and_not_a_wildcard() {
        assert!(!listen("?.example.com:443").matches("*.example.com", 443));
        assert!(!"?.example.com".parse::<NamePattern>().unwrap().matches("*.example.com"));
    }

    #[test]
    fn what_sshd_refuses_as_a_permission_is_refused() {
        for text in [
            "", "none", "any", "host:", "host:0", "0", "65536", "-1", "+80", " 80", "[::1]80", "[::1",
            "a b:1",
        ] {
            assert!(text.parse::<ListenPattern>().is_err(), "{text:?}");
        }
        for text in ["", "80", "::1:80", "host:https"] {
            assert!(text.parse::<OpenPattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_host_of_permitopen_is_literal() {
        let pattern: OpenPattern = "*.example.com:80".parse().unwrap();
        assert!(!pattern.matches("a.example.com", 80));
        assert!("*:80".parse::<OpenPattern>().unwrap().matches("a.example.com", 80));
    }

    #[test]
    fn principals_with_a_dot_are_names_and_others_are_not() {
        for name in ["app.example.com", "*.ada.example.com", "a*.Example.com", "_x.example.com"] {
            assert!(name.parse::<NamePattern>().is_ok(), "{name}");
        }
        for account in ["ada", "ada@example.com", "*", "*.*", ".", "a..b", "a.b.", "a b.c", "", "corp\\ada.b"]
        {
            assert!(account.parse::<NamePattern>().is_err(), "{account:?}");
        }
    }

    /// The definition, without a thought for speed.
    fn slow(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => slow(rest, text),
            (Some((b'*', rest)), Some((_, later))) => slow(rest, text) || slow(pattern, later),
            (Some((b'?', rest)), Some((have, later))) => *have != b'*' && slow(rest, later),
            (Some((want, rest)), Some((have, later))) => want == have && slow(rest, later),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_wildcard_matches_what_its_definition_says(pattern in "[ab*?.]{0,8}", text in "[ab*.]{0,10}") {
            prop_assert_eq!(wildcard(&pattern, &text), slow(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn a_permission_is_written_as_it_is_read(text in "[a-z*:\\[\\]0-9.]{0,12}") {
            if let Ok(pattern) = text.parse::<ListenPattern>() {
                prop_assert_eq!(pattern.to_string().parse(), Ok(pattern));
            }
        }

        #[test]
        fn a_permitted_wildcard_permits_all_that_is_below_it(pattern in "[ab*?.]{0,6}", host in "[ab.]{0,5}", label in "[ab]{1,3}") {
            if wildcard(&pattern, &format!("*.{host}")) {
                let below = format!("{}.{}", label, host);
                prop_assert!(wildcard(&pattern, &below));
            }
        }
    }
}
