//! Who may talk to the inspector: only what names it as this machine, and changes nothing from another site.
//! The first is against names that lead here (DNS rebinding), the second against forms of other pages.

use std::net::IpAddr;
use std::str::FromStr;

use http::{HeaderMap, Method, header};
use ipnet::IpNet;

/// A line of `web_allow_hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AllowedHost {
    Network(IpNet),
    Exact(String),
    /// With the dot in front.
    Suffix(String),
}

/// A line that is neither an address, a network, a host nor a suffix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("“{0}” is no IP address, CIDR, host or .suffix")]
pub(crate) struct NoHost(String);

impl FromStr for AllowedHost {
    type Err = NoHost;

    fn from_str(text: &str) -> Result<Self, NoHost> {
        let text = text.trim().to_ascii_lowercase();
        if let Ok(network) = text.parse() {
            return Ok(Self::Network(network));
        }
        let host = without_port(&text).unwrap_or_default();
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        let name = host.strip_prefix('.').unwrap_or(host);
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if name.is_empty() || !name.bytes().all(letter) {
            return Err(NoHost(text));
        }
        Ok(if host.starts_with('.') { Self::Suffix(host.to_owned()) } else { Self::Exact(host.to_owned()) })
    }
}

impl AllowedHost {
    fn admits(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Self::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Self::Exact(name) => host == name,
            Self::Suffix(suffix) => address.is_none() && host.ends_with(suffix),
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) why: String,
}

fn refuse<T>(status: u16, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status, why: why.into() })
}

/// # Errors
/// The request is none of our own.
pub(super) fn check(method: &Method, headers: &HeaderMap, allowed: &[AllowedHost]) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) {
        (Some(host), None) => host.to_ascii_lowercase(),
        _ => return refuse(400, "a request needs one Host"),
    };
    if !is_ours(&host, allowed) {
        let shown = hithe_cli_parser::printable(&host);
        return refuse(
            403,
            format!("the inspector does not answer for “{shown}”; web_allow_hosts can allow it"),
        );
    }
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if authority != Some(host.as_str()) {
            return refuse(403, "pages of other sites may not change anything here");
        }
    }
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    if matches!(site, Some("cross-site" | "same-site")) {
        return refuse(403, "pages of other sites may not change anything here");
    }
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let is_json = kind.is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("application/json")
    });
    // No page can send a DELETE elsewhere without asking first, and clients of ngrok's API send it without a type.
    if is_json || (*method == Method::DELETE && kind.is_none()) {
        return Ok(());
    }
    refuse(415, "what changes something needs Content-Type: application/json")
}

fn is_ours(host: &str, allowed: &[AllowedHost]) -> bool {
    let Some(host) = without_port(host) else { return false };
    let host = host.strip_suffix('.').unwrap_or(host);
    let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    let is_local = host == "localhost"
        || host.ends_with(".localhost")
        || address.is_some_and(|address| address.is_loopback());
    is_local || allowed.iter().any(|allowed| allowed.admits(host, address))
}

/// Without brackets, too.
fn without_port(host: &str) -> Option<&str> {
    if let Some(rest) = host.strip_prefix('[') {
        let (address, behind) = rest.split_once(']')?;
        let is_port = behind.is_empty() || behind.strip_prefix(':').is_some_and(is_number);
        return is_port.then_some(address);
    }
    match host.split_once(':') {
        // An IPv6 address without brackets has no port.
        Some((_, rest)) if rest.contains(':') => Some(host),
        Some((name, port)) => is_number(port).then_some(name),
        None => Some(host),
    }
}

fn is_number(port: &str) -> bool {
    port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &Method, headers: &[(&'static str, &str)], allowed: &[&str]) -> Result<(), u16> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers: HeaderMap = headers.collect();
        let allowed: Vec<_> = allowed.iter().map(|it| it.parse().unwrap()).collect();
        check(method, &headers, &allowed).map_err(|refusal| refusal.status)
    }

    #[test]
    fn only_names_of_this_machine_are_answered_for() {
        for host in [
            "localhost",
            "LOCALHOST:4040",
            "127.0.0.1:4040",
            "127.8.8.8",
            "[::1]:4040",
            "a.localhost",
            "localhost.",
        ] {
            assert_eq!(request(&Method::GET, &[("host", host)], &[]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "notlocalhost",
            "192.168.0.7",
            "localhost:80:80",
            "localhost:x",
            "[::1",
            "0.0.0.0",
            "",
        ] {
            assert_eq!(request(&Method::GET, &[("host", host)], &[]), Err(403), "{host}");
        }
        assert_eq!(request(&Method::GET, &[], &[]), Err(400));
    }

    #[test]
    fn hosts_are_allowed_by_address_network_name_or_suffix() {
        let allowed = ["192.168.0.7", "10.0.0.0/8", "box.lan:4040", ".dev.example", "2001:db8::/32"];
        for (host, is_allowed) in [
            ("192.168.0.7:4040", true),
            ("192.168.0.8", false),
            ("10.1.2.3", true),
            ("11.1.2.3", false),
            ("BOX.lan", true),
            ("other.box.lan", false),
            ("a.dev.example:99", true),
            ("dev.example", false),
            ("adev.example", false),
            ("[2001:db8::1]:4040", true),
            ("[2001:db9::1]", false),
        ] {
            assert_eq!(request(&Method::GET, &[("host", host)], &allowed).is_ok(), is_allowed, "{host}");
        }
        for wrong in ["", ".", "a b", "http://a", "*"] {
            assert!(wrong.parse::<AllowedHost>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn other_sites_change_nothing() {
        let json = ("content-type", "application/json; charset=utf-8");
        let host = ("host", "127.0.0.1:4040");
        assert_eq!(request(&Method::POST, &[host, json], &[]), Ok(()));
        assert_eq!(request(&Method::POST, &[host, json, ("origin", "http://127.0.0.1:4040")], &[]), Ok(()));
        for origin in ["null", "https://evil.example", "http://127.0.0.1:8080", "http://localhost:4040"] {
            assert_eq!(request(&Method::POST, &[host, json, ("origin", origin)], &[]), Err(403), "{origin}");
            assert_eq!(request(&Method::DELETE, &[host, ("origin", origin)], &[]), Err(403), "{origin}");
        }
        assert_eq!(request(&Method::POST, &[host, json, ("sec-fetch-site", "cross-site")], &[]), Err(403));
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            assert_eq!(request(&Method::POST, &[host, ("content-type", kind)], &[]), Err(415), "{kind}");
            assert_eq!(request(&Method::DELETE, &[host, ("content-type", kind)], &[]), Err(415), "{kind}");
        }
        assert_eq!(request(&Method::POST, &[host], &[]), Err(415));
        assert_eq!(request(&Method::DELETE, &[host], &[]), Ok(()));
    }
}
