//! How a server is named: `[ssh://][user@]host[:port]`, as ssh takes it.

use super::ConnectError;

/// A server as it is named, before anything is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) user: Option<String>,
    /// A name, an address without brackets, or an alias of ssh_config.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl Named {
    /// # Errors
    /// It has no host, or a port that is none.
    pub(super) fn parse(text: &str) -> Result<Self, ConnectError> {
        let refuse = |why: &str| {
            let advice = "Name it as ssh does: HOST, USER@HOST, HOST:PORT, ssh://USER@HOST:PORT, or an alias of ssh_config.";
            ConnectError::option(format!("{text:?} names no server: {why}"), advice)
        };
        let rest = text.trim();
        let rest = match rest.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("ssh") => rest.trim_end_matches('/'),
            Some((scheme, _)) => return Err(refuse(&format!("{scheme} is not ssh"))),
            None => rest,
        };
        // The last one, as ssh: there are user names with an @.
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        if user == Some("") {
            return Err(refuse("the user before @ is missing"));
        }
        let (host, port) = split_port(place).ok_or_else(|| refuse("after the host there is no port"))?;
        let port = match port {
            Some(port) => {
                Some(port_number(port).ok_or_else(|| refuse("the port is no number from 1 to 65535"))?)
            }
            None => None,
        };
        if host.is_empty() {
            return Err(refuse("the host is missing"));
        }
        // A host goes into command lines, known_hosts and requests to proxies, where these would have a meaning.
        let odd = |c: char| c.is_whitespace() || c.is_control() || "/,?#|\\\"'".contains(c);
        if host.starts_with('-') || host.contains(odd) {
            return Err(refuse("this is no host"));
        }
        Ok(Self { user: user.map(Into::into), host: host.into(), port })
    }
}

/// `host:port`, `[address]:port`, `address` of IPv6 without brackets.
fn split_port(place: &str) -> Option<(&str, Option<&str>)> {
    if let Some(bracketed) = place.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match place.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Some((place, None)),
        Some((host, port)) => Some((host, Some(port))),
        None => Some((place, None)),
    }
}

fn port_number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> (Option<String>, String, Option<u16>) {
        let Named { user, host, port } = Named::parse(text).unwrap();
        (user, host, port)
    }

    #[test]
    fn a_server_is_named_in_the_ways_of_ssh() {
        assert_eq!(named("example.com"), (None, "example.com".into(), None));
        assert_eq!(named("ada@example.com:2222"), (Some("ada".into()), "example.com".into(), Some(2222)));
        assert_eq!(named("ssh://example.com/"), (None, "example.com".into(), None));
        assert_eq!(named("SSH://v2@[::1]:22"), (Some("v2".into()), "::1".into(), Some(22)));
        assert_eq!(named("2001:db8::1"), (None, "2001:db8::1".into(), None));
        assert_eq!(named("a@b@host"), (Some("a@b".into()), "host".into(), None));
    }

    #[test]
    fn what_names_no_server_is_refused() {
        for text in [
            "",
            "@host",
            "host:",
            "host:0",
            "host:65536",
            "http://host",
            "-oProxyCommand=x",
            "[::1",
            "[::1]x",
            "a b",
        ] {
            let error = Named::parse(text).unwrap_err();
            assert_eq!(error.exit_status(), crate::exit::USAGE, "{text}");
            assert!(error.is_final());
        }
    }
}
