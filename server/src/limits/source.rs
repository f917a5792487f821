//! What counts as one source.

use std::net::{IpAddr, Ipv6Addr};

/// The smallest network that is given to somebody: an IPv4 address, and with IPv6 a /64 (RFC 6177), of which a single
/// host has all addresses.
pub(super) fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}
