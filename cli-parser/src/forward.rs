//! What a `-R` asks for: an address and a port, exactly as the client sends them (RFC 4254 §7.1).

use std::fmt;

use crate::{HostName, HostPattern, NameError};

/// The bind part of a `-R`. The client compares it byte for byte, so it is kept as it came.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bind {
    pub address: String,
    pub port: u32,
}

impl Bind {
    /// Whether the address is a name, and none of the strings that mean "any".
    pub fn has_name(&self) -> bool {
        !NO_NAME.contains(&self.address.as_str())
    }

    /// The name that is asked for, if the address is one: a bare label lies below the server's domain.
    ///
    /// # Errors
    /// The address is neither a host name nor one of the strings that mean "any".
    pub fn requested_name(&self, domain: &HostName) -> Result<Option<HostPattern>, NameError> {
        if !self.has_name() {
            return Ok(None);
        }
        let below = |name: HostName| match name.as_str().contains('.') || name == *domain {
            true => Ok(name),
            false => HostName::parse(&format!("{name}.{domain}")),
        };
        Ok(Some(match HostPattern::parse(&self.address)? {
            HostPattern::Exact(name) => HostPattern::Exact(below(name)?),
            HostPattern::Wildcard(base) => HostPattern::Wildcard(below(base)?),
        }))
    }
}

/// As one types it after `-R`.
impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address.as_str() {
            "localhost" => write!(f, "{}", self.port),
            address if address.contains(':') => write!(f, "[{address}]:{}", self.port),
            address => write!(f, "{address}:{}", self.port),
        }
    }
}

/// What clients send for a `-R` without a name, with `*`, or with an address of their own.
const NO_NAME: [&str; 7] = ["", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "*"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(address: &str) -> Option<String> {
        let bind = Bind { address: address.to_owned(), port: 443 };
        bind.requested_name(&HostName::parse("example.com").unwrap()).unwrap().map(|name| name.to_string())
    }

    #[test]
    fn a_forward_without_a_name_asks_for_none() {
        for address in ["", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "*"] {
            assert_eq!(asked(address), None, "{address}");
        }
    }

    #[test]
    fn a_bare_label_lies_below_the_domain() {
        assert_eq!(asked("app").as_deref(), Some("app.example.com"));
        assert_eq!(asked("*.app").as_deref(), Some("*.app.example.com"));
        assert_eq!(asked("app.example.com").as_deref(), Some("app.example.com"));
        assert_eq!(asked("shop.example.net").as_deref(), Some("shop.example.net"));
    }

    #[test]
    fn a_bind_is_shown_as_it_was_typed() {
        let show = |address: &str| Bind { address: address.to_owned(), port: 443 }.to_string();
        assert_eq!(show("localhost"), "443");
        assert_eq!(show(""), ":443");
        assert_eq!(show("::"), "[::]:443");
        assert_eq!(show("app"), "app:443");
    }

    proptest! {
        #[test]
        fn no_address_panics(address in ".*", port: u32) {
            let _ = Bind { address, port }.requested_name(&HostName::parse("localhost").unwrap());
        }
    }
}
