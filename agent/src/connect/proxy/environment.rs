//! The proxy that the environment names: `http_proxy`, `https_proxy`, `all_proxy`, and `no_proxy` for what needs none.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Proxy;
use crate::connect::ConnectError;

/// In this order: the first is what tunnel agents go by, the second what CONNECT is usually meant for.
const NAMES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];

/// What the environment says of proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::connect) struct Environment {
    /// The variable that was set, and what it says.
    proxy: Option<(&'static str, String)>,
    no_proxy: String,
}

impl Environment {
    pub(in crate::connect) fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
            // Under CGI, HTTP_PROXY is a header of a request.
            let upper = (name != "http_proxy" || variable("REQUEST_METHOD").is_none())
                .then(|| name.to_ascii_uppercase());
            set(name).or_else(|| set(&upper?))
        };
        let proxy = NAMES.into_iter().find_map(|name| Some((name, either(name)?)));
        Self { proxy, no_proxy: either("no_proxy").unwrap_or_default() }
    }

    /// The proxy for a host, if there is one.
    ///
    /// # Errors
    /// What the variable says is no proxy.
    pub(in crate::connect) fn for_host(&self, host: &str, port: u16) -> Result<Option<Proxy>, ConnectError> {
        let Some((name, url)) = &self.proxy else { return Ok(None) };
        if self.is_direct(host, port) {
            return Ok(None);
        }
        Proxy::parse(url).map(Some).map_err(|error| match error {
            ConnectError::Option { what, advice } => {
                ConnectError::Option { what: format!("{name}: {what}"), advice }
            }
            other => other,
        })
    }

    fn is_direct(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let entries = self.no_proxy.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty());
        entries.into_iter().any(|entry| is_meant(&entry.to_ascii_lowercase(), &host, address, port))
    }
}

/// `*`, an address or network, a name with all below it, each with a port if only that is meant.
fn is_meant(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some(address) = address {
        let network = entry.parse::<IpNet>().is_ok_and(|network| network.contains(&address));
        let exact = entry.trim_start_matches('[').trim_end_matches(']').parse() == Ok(address);
        let socket = entry.parse() == Ok(std::net::SocketAddr::new(address, port));
        return network || exact || socket;
    }
    let (name, only) = match entry.rsplit_once(':') {
        Some((name, number)) => (name, Some(number.parse())),
        None => (entry, None),
    };
    let name = name.trim_start_matches('*').trim_start_matches('.');
    let below = host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    !name.is_empty() && below && only.is_none_or(|only| only == Ok(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(set: &[(&str, &str)]) -> Environment {
        let set: Vec<_> = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Environment::of(|name| set.iter().find(|(set, _)| set == name).map(|(_, value)| value.clone()))
    }

    fn proxy(environment: &Environment, host: &str) -> Option<String> {
        environment.for_host(host, 443).unwrap().map(|proxy| proxy.to_string())
    }

    #[test]
    fn the_variables_count_in_order_and_in_either_case() {
        let both = environment(&[
            ("all_proxy", "socks5://a"),
            ("HTTPS_PROXY", "http://b:1"),
            ("https_proxy", "http://c:1"),
        ]);
        assert_eq!(proxy(&both, "example.com").as_deref(), Some("http://c:1"));
        let cgi = environment(&[("HTTP_PROXY", "http://evil"), ("REQUEST_METHOD", "GET")]);
        assert_eq!(proxy(&cgi, "example.com"), None);
        assert_eq!(proxy(&environment(&[("http_proxy", " ")]), "example.com"), None);
    }

    #[test]
    fn what_no_proxy_names_is_reached_directly() {
        let no_proxy = "example.com,.sub.org:443, *.wild.net:22,10.0.0.0/8,192.0.2.1,[2001:db8::1]:443";
        let environment = environment(&[("http_proxy", "http://p:1"), ("no_proxy", no_proxy)]);
        for direct in [
            "example.com",
            "a.example.com.",
            "A.SUB.ORG",
            "10.1.2.3",
            "192.0.2.1",
            "2001:db8::1",
            "localhost",
            "127.0.0.9",
            "::1",
        ] {
            assert_eq!(proxy(&environment, direct), None, "{direct}");
        }
        for through in ["notexample.com", "a.wild.net", "11.0.0.1", "2001:db8::2", "example.org"] {
            assert!(proxy(&environment, through).is_some(), "{through}");
        }
    }

    #[test]
    fn a_variable_that_is_no_proxy_is_named() {
        let error = environment(&[("http_proxy", "ftp://p")]).for_host("example.com", 22).unwrap_err();
        assert!(error.to_string().starts_with("http_proxy: "), "{error}");
    }
}
