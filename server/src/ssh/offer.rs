//! The ciphers that a client offers, read from its first key exchange message (RFC 4253 §7.1) before russh sees it.
//!
//! In SSH the client's order decides, and OpenSSH asks for ChaCha20 first, which costs us twice the CPU. So what we
//! want must be all that we offer, and that only to a client that has it.

/// Both directions, in the client's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CipherOffer {
    up: String,
    down: String,
}

impl CipherOffer {
    /// Finds the lists in what a client has sent so far: its version line, then the message. `None` while that is not
    /// all there, or is no such message.
    pub(super) fn find(seen: &[u8]) -> Option<Self> {
        let after_version = seen.iter().position(|byte| *byte == b'\n')? + 1;
        let (length, packet) = seen.get(after_version..)?.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let message = packet.get(..length)?.get(1..)?;
        let (kind, rest) = message.split_first()?;
        let mut rest = rest.get(COOKIE..).filter(|_| *kind == KEXINIT)?;
        let mut list = || {
            let (length, after) = rest.split_first_chunk()?;
            let (names, after) =
                after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
            rest = after;
            std::str::from_utf8(names).ok().map(str::to_owned)
        };
        let (_key_exchange, _host_keys) = (list()?, list()?);
        Some(Self { up: list()?, down: list()? })
    }

    /// Whether the client has one of these for each direction.
    pub(super) fn has_any(&self, wanted: &[&str]) -> bool {
        let has = |list: &str| list.split(',').any(|name| wanted.contains(&name));
        has(&self.up) && has(&self.down)
    }
}

const KEXINIT: u8 = 20;
const COOKIE: usize = 16;
/// A version line and the largest packet that an implementation must take (RFC 4253 §6.1).
pub(super) const MAX_OPENING: usize = 255 + 35_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(lists: &[&str]) -> Vec<u8> {
        let mut message = vec![KEXINIT];
        message.extend([7; COOKIE]);
        for list in lists {
            message.extend(u32::try_from(list.len()).unwrap().to_be_bytes());
            message.extend(list.as_bytes());
        }
        let mut all = b"SSH-2.0-test\r\n".to_vec();
        all.extend(u32::try_from(message.len() + 1 + 4).unwrap().to_be_bytes());
        all.push(4);
        all.extend(message);
        all.extend([0; 4]);
        all
    }

    #[test]
    fn the_ciphers_of_both_directions_are_found() {
        let all = opening(&["curve25519-sha256", "ssh-ed25519", "chacha20,aes128-gcm", "aes128-gcm", "", ""]);
        let offer = CipherOffer::find(&all).unwrap();
        assert!(offer.has_any(&["aes128-gcm", "aes256-gcm"]));
        assert!(!offer.has_any(&["chacha20"]) && !offer.has_any(&["aes128"]));
    }

    #[test]
    fn a_part_of_the_message_and_nonsense_are_no_offer() {
        let all = opening(&["a", "b", "c", "d"]);
        for length in 0..all.len() {
            assert_eq!(CipherOffer::find(&all[..length]), None, "{length}");
        }
        assert_eq!(
            CipherOffer::find(b"SSH-2.0-x\n\xff\xff\xff\xff\x14aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            None
        );
        assert_eq!(CipherOffer::find(&opening(&["a"])), None);
    }
}
