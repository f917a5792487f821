//! What one login may do: the restrictions of its key, token or certificate.

use std::fmt;

use hithe_cli_parser::{Bind, HostName, HostPattern};
use hithe_keys::{NamePattern, Restrictions};

use crate::account::Acl;

/// Nothing restricted by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Of a key or token in the database.
    pub(crate) acl: Acl,
    /// Of a line of `authorized_keys`, or a certificate.
    pub(crate) options: Restrictions,
    /// Principals of a certificate that are names: if there are any, nothing else may be bound.
    pub(crate) names: Vec<NamePattern>,
}

impl Rights {
    /// Whether an http or tls endpoint may have this name.
    pub(crate) fn allow_name(&self, name: &HostPattern, domain: &HostName) -> bool {
        let written = name.to_string();
        let by_principal = self.names.is_empty() || self.names.iter().any(|it| it.matches(&written));
        by_principal && self.acl.allows_name(name, domain)
    }

    /// Whether a tcp endpoint may have this port.
    pub(crate) fn allow_port(&self, port: u16, domain: &HostName) -> bool {
        self.names.is_empty() && self.acl.allows_port(port, domain)
    }

    /// Whether `-R` may ask for this, in any way to write the name: as it was typed, in full, or as one label below the
    /// domain. `permitlisten` of sshd(8), where a name stands in place of a host.
    pub(crate) fn allow_forward(&self, bind: &Bind, domain: &HostName) -> bool {
        let listens = |host: &str| self.options.may_listen(host, bind.port);
        if listens(&bind.address) {
            return true;
        }
        let Ok(Some(name)) = bind.requested_name(domain) else { return false };
        let full = name.to_string();
        let label = full.strip_suffix(domain.as_str()).and_then(|it| it.strip_suffix('.'));
        listens(&full) || label.is_some_and(listens)
    }

    /// What runs in place of whatever the client asks for.
    pub(crate) fn forced_command(&self) -> Option<&str> {
        self.options.command.as_deref()
    }

    /// Whether nothing is restricted but when and from where it may be used.
    pub(crate) fn are_whole(&self) -> bool {
        let Restrictions { from: _, expiry: _, listen, open, command, forwarding, pty: _ } = &self.options;
        let whole = listen.is_none() && open.is_none() && command.is_none() && *forwarding;
        whole && self.acl.is_everything() && self.names.is_empty()
    }
}

impl fmt::Display for Rights {
    /// The rules, for who has to keep to them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.options.forwarding {
            return f.write_str("nothing");
        }
        if !self.names.is_empty() {
            let names: Vec<_> = self.names.iter().map(|name| format!("bind:{}", name.as_str())).collect();
            return f.write_str(&names.join(" "));
        }
        if !self.acl.is_everything() {
            return self.acl.fmt(f);
        }
        match self.options.listen {
            Some(_) => f.write_str("what permitlisten in its line says"),
            None => f.write_str("bind:*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> HostName {
        HostName::parse("w.test").unwrap()
    }

    fn permits(pattern: &str, address: &str, port: u32) -> bool {
        let options =
            Restrictions { listen: Some(vec![pattern.parse().unwrap()]), ..Restrictions::default() };
        let rights = Rights { options, ..Rights::default() };
        rights.allow_forward(&Bind { address: address.to_owned(), port }, &domain())
    }

    #[test]
    fn a_name_may_be_written_short_or_in_full_on_either_side() {
        for pattern in ["app:443", "app.w.test:443"] {
            for address in ["app", "app.w.test", "APP.w.test"] {
                assert!(permits(pattern, address, 443), "{pattern} for {address}");
            }
            assert!(!permits(pattern, "other", 443) && !permits(pattern, "app", 80), "{pattern}");
        }
    }

    #[test]
    fn patterns_and_bare_ports_mean_what_they_mean_to_sshd() {
        assert!(permits("*:443", "anything", 443) && permits("443", "localhost", 443));
        assert!(!permits("443", "localhost", 0), "whichever the server chooses is more than one port");
        assert!(permits("localhost:*", "localhost", 0));
    }

    #[test]
    fn without_forwarding_nothing_may_be_bound() {
        let options = Restrictions { forwarding: false, ..Restrictions::default() };
        let rights = Rights { options, ..Rights::default() };
        assert!(!rights.allow_forward(&Bind { address: "app".to_owned(), port: 443 }, &domain()));
        assert!(!rights.are_whole());
    }
}
