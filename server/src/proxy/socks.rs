//! Recognises a forward without a target: `ssh -R 0` makes the publisher's client a SOCKS server.
//!
//! On the wire such a forward looks like any other. Visitors must not reach into the publisher's network through
//! it, so nothing behind a SOCKS greeting is passed on before the upstream has answered, and an answer of a SOCKS
//! server ends the visit.

use super::tcp::Heard;

/// Longer than any greeting of a client that means it: user and host name of SOCKS4a have 255 bytes at most.
const LONGEST: usize = 8 + 256 + 256;

/// Looks at the first bytes of both sides of a stream.
#[derive(Debug, Default)]
pub(crate) struct SocksWatch {
    /// The first bytes of the visitor, until they are no greeting, or a whole one.
    opening: Vec<u8>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Opening,
    /// The visitor greeted in this version; the upstream has not answered.
    Greeted(u8),
    Settled,
}

/// What the first bytes of a visitor are.
enum Opening {
    Partial,
    Greeting { version: u8, length: usize },
    Other,
}

impl SocksWatch {
    /// For streams that cannot be the begin of a SOCKS connection.
    pub(crate) fn off() -> Self {
        Self { opening: Vec::new(), phase: Phase::Settled }
    }

    /// Whether nothing has to be held back any more.
    pub(super) fn is_settled(&self) -> bool {
        self.phase == Phase::Settled
    }

    /// How many of these bytes may go before the upstream has answered, if not all.
    pub(super) fn visitor_said(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.phase {
            Phase::Settled => return None,
            Phase::Greeted(_) => return Some(0),
            Phase::Opening => {}
        }
        let before = self.opening.len();
        let room = LONGEST.saturating_sub(before).min(bytes.len());
        self.opening.extend_from_slice(bytes.get(..room).unwrap_or_default());
        match opening(&self.opening) {
            Opening::Partial => None,
            Opening::Other => {
                *self = Self::off();
                None
            }
            Opening::Greeting { version, length } => {
                *self = Self { opening: Vec::new(), phase: Phase::Greeted(version) };
                Some(length.saturating_sub(before))
            }
        }
    }

    pub(super) fn upstream_said(&mut self, bytes: &[u8]) -> Heard {
        let Some(&first) = bytes.first() else { return Heard::Pass(None) };
        let socks = match self.phase {
            Phase::Settled => false,
            Phase::Greeted(5) => first == 5,
            // A reply of SOCKS4 begins with 0 and a status of 90 to 93.
            Phase::Greeted(_) => first == 0 && matches!(bytes.get(1), Some(90..=93)),
            Phase::Opening => false,
        };
        if socks {
            return Heard::Socks;
        }
        *self = Self::off();
        Heard::Pass(None)
    }
}

/// RFC 1928 §3, and SOCKS4 with its extension 4a.
fn opening(bytes: &[u8]) -> Opening {
    match bytes {
        [] | [5] | [4] => Opening::Partial,
        [5, count, ..] if *count > 0 => complete(bytes, 5, Some(2 + usize::from(*count))),
        [4, 1 | 2, rest @ ..] => match rest.get(2..6) {
            None => Opening::Partial,
            Some(&[0, 0, 0, last]) if last != 0 => {
                let host = end_of_text(bytes, 8).and_then(|user| end_of_text(bytes, user));
                complete(bytes, 4, host)
            }
            Some(_) => complete(bytes, 4, end_of_text(bytes, 8)),
        },
        _ => Opening::Other,
    }
}

fn complete(bytes: &[u8], version: u8, length: Option<usize>) -> Opening {
    match length {
        Some(length) if length <= bytes.len() => Opening::Greeting { version, length },
        _ if bytes.len() >= LONGEST => Opening::Other,
        _ => Opening::Partial,
    }
}

/// Behind the NUL that ends a text.
fn end_of_text(bytes: &[u8], from: usize) -> Option<usize> {
    Some(from + bytes.get(from..)?.iter().position(|&byte| byte == 0)? + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_greeting_waits_however_it_is_cut_into_pieces() {
        let mut watch = SocksWatch::default();
        assert_eq!(watch.visitor_said(&[5]), None);
        assert_eq!(watch.visitor_said(&[2, 0]), None);
        assert_eq!(watch.visitor_said(&[2, 5, 1, 0]), Some(1));
        assert_eq!(watch.visitor_said(&[1]), Some(0));
        assert!(matches!(watch.upstream_said(&[5, 0]), Heard::Socks));
    }

    #[test]
    fn socks4_is_known_by_its_reply() {
        let mut watch = SocksWatch::default();
        assert_eq!(watch.visitor_said(&[4, 1, 0, 80, 0, 0, 0, 1, b'u', 0, b'h', 0, b'G']), Some(12));
        assert!(matches!(watch.upstream_said(&[0, 90, 0, 0, 0, 0, 0, 0]), Heard::Socks));
    }

    #[test]
    fn a_server_that_speaks_first_is_no_socks_server() {
        let mut watch = SocksWatch::default();
        assert!(matches!(watch.upstream_said(b"SSH-2.0-x\r\n"), Heard::Pass(None)));
        assert_eq!(watch.visitor_said(&[5, 1, 0, 9]), None);
        assert!(matches!(watch.upstream_said(&[5, 0]), Heard::Pass(None)));
    }

    #[test]
    fn other_protocols_are_not_held() {
        for bytes in [b"GET /".as_slice(), &[5, 0, 11, 3], &[4, 0, 0, 0], &[0x16, 3, 1]] {
            assert_eq!(SocksWatch::default().visitor_said(bytes), None);
        }
    }
}
