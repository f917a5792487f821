//! What one login may do: the restrictions of its key, token or certificate.

use std::fmt;

use hithe_cli_parser::{HostName, HostPattern};

use crate::account::Acl;

/// Nothing restricted by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) acl: Acl,
}

impl Rights {
    /// Whether an http or tls endpoint may have this name.
    pub(crate) fn allow_name(&self, name: &HostPattern, domain: &HostName) -> bool {
        self.acl.allows_name(name, domain)
    }

    /// Whether a tcp endpoint may have this port.
    pub(crate) fn allow_port(&self, port: u16, domain: &HostName) -> bool {
        self.acl.allows_port(port, domain)
    }
}

impl fmt::Display for Rights {
    /// The rules, for who has to keep to them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.acl.is_everything() { f.write_str("bind:*") } else { self.acl.fmt(f) }
    }
}
