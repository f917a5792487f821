//! The proxies in front of the server, and what they may say of the connections that they pass on.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{ListenerKind, Proxies};

/// Whom to believe about where a connection comes from. May change while the server runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust(Arc<ArcSwap<Proxies>>);

impl Trust {
    pub(crate) fn new(proxies: Proxies) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(proxies)))
    }

    /// Holds for connections and requests that begin from now on.
    pub(crate) fn set(&self, proxies: Proxies) {
        self.0.store(Arc::new(proxies));
    }

    /// Whether this address is a trusted proxy's.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.load().trusted.iter().any(|network| network.contains(address))
    }

    /// Whether a connection from there has to begin with a PROXY header.
    pub(crate) fn expects_header(&self, listener: ListenerKind, address: IpAddr) -> bool {
        self.0.load().announced.contains(&listener) && self.trusts(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_networks_are_believed_and_only_some_listeners_expect_a_header() {
        let trust = Trust::new(Proxies {
            trusted: ["10.0.0.0/8", "2001:db8::1"].map(|network| network.parse().unwrap()).to_vec(),
            announced: vec![ListenerKind::Https],
        });
        let of = |address: &str| address.parse::<IpAddr>().unwrap();
        assert!(trust.trusts(of("10.1.2.3")) && trust.trusts(of("::ffff:10.1.2.3")));
        assert!(trust.trusts(of("2001:db8::1")) && !trust.trusts(of("2001:db8::2")));
        assert!(trust.expects_header(ListenerKind::Https, of("10.1.2.3")));
        assert!(!trust.expects_header(ListenerKind::Http, of("10.1.2.3")));
        assert!(!trust.expects_header(ListenerKind::Https, of("11.1.2.3")));
        trust.set(Proxies::default());
        assert!(!trust.trusts(of("10.1.2.3")));
    }
}
