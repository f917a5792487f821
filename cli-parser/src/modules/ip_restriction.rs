//! IP restriction: what can be said about it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::{Definition, Kind, Manual, Objection, Stage};
use crate::Code;

/// Admits visitors by their address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IpRestriction {
    /// Admit only visitors from these networks (10.0.0.0/8,2001:db8::/32); repeat or separate by commas
    #[arg(long = "cidr-allow", value_name = "CIDR", value_delimiter = ',', id = "cidr-allow")]
    pub allow: Vec<Network>,
    /// Refuse visitors from these networks, even where --cidr-allow admits them
    #[arg(long = "cidr-deny", value_name = "CIDR", value_delimiter = ',', id = "cidr-deny")]
    pub deny: Vec<Network>,
}

impl Definition for IpRestriction {
    const STAGE: Stage = Stage::Connect;
    const ON: &'static [Kind] = &Kind::ALL;
    const MANUAL: Manual = Manual {
        what: "Admits a visitor whose address lies in one of the allowed networks and in none of the denied ones. What \
               counts is the address that the connection comes from; headers such as `X-Forwarded-For` are not \
               believed. An IPv4 address that is written inside an IPv6 one (`::ffff:192.0.2.1`) is that IPv4 address.",
        line: "ssh -R 443:localhost:80 HOST http --cidr-allow 10.0.0.0/8,2001:db8::/32 --cidr-deny 10.9.0.0/16",
        defaults: "A bare address stands for itself alone. An http endpoint refuses with status 403; a tls or tcp \
                   endpoint closes the connection without a byte.",
        codes: &[Code::IP_RESTRICTED, Code::CIDR, Code::CIDR_DENY_ALONE],
    };

    fn check(&self) -> Result<(), Objection> {
        if self.allow.is_empty() && !self.deny.is_empty() {
            let message = "--cidr-deny without --cidr-allow would admit nobody; to admit all others, add \
                           --cidr-allow 0.0.0.0/0,::/0";
            return Err(Objection::new(Code::CIDR_DENY_ALONE, message));
        }
        if self.allow.len() > MAX_NETWORKS || self.deny.len() > MAX_NETWORKS {
            let message = format!("--cidr-allow and --cidr-deny take {MAX_NETWORKS} networks each at most");
            return Err(Objection::new(Code::BAD_FLAG, message));
        }
        Ok(())
    }

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        let list =
            |networks: &[Network]| networks.iter().map(Network::to_string).collect::<Vec<_>>().join(",");
        for (flag, networks) in [("--cidr-allow", &self.allow), ("--cidr-deny", &self.deny)] {
            if !networks.is_empty() {
                flags.push((flag, Some(list(networks))));
            }
        }
    }
}

/// A range of addresses (RFC 4632). Host bits are cleared, IPv4 ranges inside IPv6 are IPv4 ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

impl Network {
    /// `address` is not an IPv4 address inside an IPv6 one.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for Network {
    type Err = Objection;

    fn from_str(text: &str) -> Result<Self, Objection> {
        let network = match text.parse::<IpNet>() {
            Ok(network) => network,
            Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| not_a_network(text))?),
        };
        let network = network.trunc();
        let mapped = match network {
            IpNet::V6(six) if six.prefix_len() >= MAPPED => {
                six.addr().to_ipv4_mapped().map(|four| (four, six.prefix_len() - MAPPED))
            }
            _ => None,
        };
        match mapped {
            Some((four, length)) => {
                Ipv4Net::new(four, length).map(|four| Self(IpNet::V4(four))).map_err(|_| not_a_network(text))
            }
            None => Ok(Self(network)),
        }
    }
}

fn not_a_network(text: &str) -> Objection {
    let shown: String = text.chars().take(64).collect();
    let message = format!("{} is not a range of addresses such as 10.0.0.0/8", crate::printable(&shown));
    Objection::new(Code::CIDR, message)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Network {
    type Error = Objection;

    fn try_from(text: String) -> Result<Self, Objection> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

/// Where IPv4 addresses begin within `::ffff:0:0/96` (RFC 4291 §2.5.5.2).
const MAPPED: u8 = 96;

/// All of them are looked at for each visitor.
const MAX_NETWORKS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        text.parse::<Network>().unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
    }

    #[test]
    fn a_network_is_written_by_its_first_address() {
        for (text, network) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:DB8:0:0::1/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ] {
            assert_eq!(read(text), network);
        }
    }

    #[test]
    fn everything_else_has_its_code() {
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "fe80::/129", "localhost", "10.0.0.0/-1", "10.0.0.0/8/8"]
        {
            assert_eq!(wrong.parse::<Network>().map_err(|error| error.code), Err(Code::CIDR), "{wrong}");
        }
    }

    #[test]
    fn denying_alone_would_admit_nobody() {
        let restriction = IpRestriction { deny: vec!["10.0.0.0/8".parse().unwrap()], ..Default::default() };
        let objection = restriction.check().unwrap_err();
        assert_eq!(objection.code, Code::CIDR_DENY_ALONE);
        assert!(objection.message.contains("--cidr-allow 0.0.0.0/0,::/0"));
    }
}
