//! Lists of addresses: `from="…"` of a line, and `source-address` of a certificate.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::complaint::shortened;
use crate::patterns::wildcard;

/// Entries of one list.
const MAX_ENTRIES: usize = 4096;

/// `from="pattern-list"`: addresses, networks and patterns, of which one must match and none behind a `!` may.
///
/// As in sshd without `UseDNS`, its default: patterns are compared with the address as text, and names are not looked
/// up. One that could only match a name matches nothing (a warning); behind a `!` it would have to keep somebody out,
/// and makes the line unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPatterns(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    negated: bool,
    pattern: AddressPattern,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum AddressPattern {
    Network(IpNet),
    /// In lower case.
    Text(String),
}

impl AddressPatterns {
    /// The list and warnings about entries without effect, or why it cannot be used.
    pub(crate) fn parse(text: &str) -> Result<(Self, Vec<String>), String> {
        let mut warnings = Vec::new();
        let mut entries = Vec::new();
        for item in text.split(',') {
            let (negated, item) = item.strip_prefix('!').map_or((false, item), |rest| (true, rest));
            let pattern = AddressPattern::parse(item)?;
            if pattern.needs_dns() {
                let shown = shortened(item);
                if negated {
                    return Err(format!(
                        "cannot keep out !{shown}, because names of addresses are not looked up"
                    ));
                }
                warnings
                    .push(format!("{shown} in from= matches nobody: names of addresses are not looked up"));
            }
            entries.push(Entry { negated, pattern });
        }
        if entries.len() > MAX_ENTRIES {
            return Err(format!("has more than {MAX_ENTRIES} patterns in from="));
        }
        Ok((Self(entries), warnings))
    }

    /// Whether this address may come. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn admits(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let text = peer.to_string();
        let mut hits = self.0.iter().filter(|entry| entry.pattern.matches(peer, &text)).peekable();
        hits.peek().is_some() && hits.all(|entry| !entry.negated)
    }
}

impl AddressPattern {
    fn parse(item: &str) -> Result<Self, String> {
        if item.is_empty() {
            return Err("has an empty pattern in from=".to_owned());
        }
        if let Some(network) = parse_network(item)? {
            return Ok(Self::Network(network));
        }
        let is_wild = item.contains(['*', '?']);
        let like_address =
            item.contains([':', '/', '%']) || item.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        // sshd reads some of these (10.1 for 10.0.0.1) and lets others match nothing; neither is worth a guess.
        if !is_wild && like_address || item.contains(['/', '%']) {
            return Err(format!(
                "has {:?} in from=, which is neither an address nor a network",
                shortened(item)
            ));
        }
        Ok(Self::Text(item.to_ascii_lowercase()))
    }

    /// Whether no address, written as text, could ever match.
    fn needs_dns(&self) -> bool {
        let Self::Text(text) = self else { return false };
        let foreign = |c: char| !c.is_ascii_hexdigit() && !matches!(c, '.' | ':' | '*' | '?');
        let letters = text.contains(|c: char| c.is_ascii_alphabetic());
        text.contains(foreign) || letters && text.contains('.') && !text.contains(':')
    }

    fn matches(&self, peer: IpAddr, text: &str) -> bool {
        match self {
            Self::Network(network) => network.contains(&peer),
            Self::Text(pattern) => wildcard(pattern, text),
        }
    }
}

/// `source-address` of a certificate: addresses and networks, no patterns (PROTOCOL.certkeys).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Networks(Vec<IpNet>);

impl Networks {
    /// The list, unless an entry is malformed: then nobody may come.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let networks: Option<Vec<_>> =
            text.split(',').map(|item| parse_network(item).ok().flatten()).collect();
        networks.filter(|list| list.len() <= MAX_ENTRIES).map(Self)
    }

    pub(crate) fn admits(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }
}

/// An address or a network; nothing if it is neither; an error if bits beyond its mask are set, as in sshd.
fn parse_network(item: &str) -> Result<Option<IpNet>, String> {
    if let Ok(address) = item.parse::<IpAddr>() {
        return Ok(Some(IpNet::from(address)));
    }
    let Ok(network) = item.parse::<IpNet>() else { return Ok(None) };
    if network.trunc() == network {
        return Ok(Some(network));
    }
    Err(format!("has {item} in from=, whose address has bits beyond the mask: write {}", network.trunc()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn admits(list: &str, peer: &str) -> bool {
        AddressPatterns::parse(list).unwrap().0.admits(peer.parse().unwrap())
    }

    #[test]
    fn a_list_admits_what_one_pattern_matches() {
        for (list, peer, admitted) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("192.168.0.?", "192.168.0.7", true),
            ("192.168.0.?", "192.168.0.77", false),
            ("192.168.*", "192.168.9.9", true),
            ("*", "2001:db8::1", true),
            ("2001:DB8::*", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("!10.0.0.1,10.0.0.0/8", "10.0.0.1", false),
            ("10.0.0.0/8,!10.0.0.1", "10.0.0.1", false),
            ("!10.0.0.1,10.0.0.0/8", "10.0.0.2", true),
            ("!10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
        ] {
            assert_eq!(admits(list, peer), admitted, "{list} and {peer}");
        }
    }

    #[test]
    fn a_name_matches_nobody_and_is_warned_about() {
        let (list, warnings) = AddressPatterns::parse("*.example.com,127.0.0.1,host.bad").unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(list.admits("127.0.0.1".parse().unwrap()));
        assert!(!list.admits("127.0.0.2".parse().unwrap()));
    }

    #[test]
    fn a_name_that_has_to_be_kept_out_makes_the_list_unusable() {
        assert!(AddressPatterns::parse("!*.dialup.example.com,*").unwrap_err().contains("cannot keep out"));
    }

    #[test]
    fn a_list_with_a_fault_is_unusable() {
        for list in
            ["", "127.0.0.1,", "!", "10.0.0.1/8", "10.0.0.0/33", "10.1", "fe80::1%eth0", "10.0.0.0/x", "*/8"]
        {
            assert!(AddressPatterns::parse(list).is_err(), "{list:?}");
        }
    }

    #[test]
    fn source_addresses_are_networks_and_nothing_else() {
        let list = Networks::parse("10.0.0.0/8,::1").unwrap();
        assert!(list.admits("10.2.3.4".parse().unwrap()) && list.admits("::1".parse().unwrap()));
        assert!(!list.admits("11.0.0.1".parse().unwrap()));
        for text in ["", "10.0.0.0/8,", "*", "10.*", "!10.0.0.0/8", "10.0.0.1/8", "localhost", "10.0.0.0/8 "]
        {
            assert_eq!(Networks::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_list_makes_a_panic(text in "[0-9a-f.:/,!*?%x]{0,24}", peer: IpAddr) {
            if let Ok((list, _)) = AddressPatterns::parse(&text) {
                let _ = list.admits(peer);
            }
            let _ = Networks::parse(&text);
        }
    }
}
