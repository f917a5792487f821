//! The SHA-256 fingerprint of a public key: the name of a publisher in the registry, the store and the log.

use std::fmt;
use std::str::FromStr;

use russh::keys::ssh_key::Fingerprint as AnyFingerprint;
use russh::keys::{HashAlg, PublicKey};

/// SHA-256 of a public key as it stands on the wire (RFC 4253 §6.6), shown as `ssh-keygen -l` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

/// The text is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint of the form SHA256:… that ssh-keygen -l prints")]
pub struct FingerprintError;

impl Fingerprint {
    pub fn of(key: &PublicKey) -> Self {
        Self::sha256(key.fingerprint(HashAlg::Sha256))
            .unwrap_or_else(|| unreachable!("SHA-256 was asked for"))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn sha256(any: AnyFingerprint) -> Option<Self> {
        any.sha256().map(Self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        AnyFingerprint::Sha256(self.0).fmt(f)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<AnyFingerprint>().ok().and_then(Self::sha256).ok_or(FingerprintError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    /// What `ssh-keygen -l` of OpenSSH prints for the key above.
    const PRINTED: &str = "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE";

    #[test]
    fn a_fingerprint_reads_as_ssh_keygen_prints_it() {
        let key = PublicKey::from_openssh(KEY).unwrap();
        assert_eq!(Fingerprint::of(&key).to_string(), PRINTED);
    }

    #[test]
    fn a_printed_fingerprint_can_be_read_back() {
        let key = PublicKey::from_openssh(KEY).unwrap();
        assert_eq!(PRINTED.parse(), Ok(Fingerprint::of(&key)));
    }

    #[test]
    fn anything_else_is_not_a_fingerprint() {
        let md5 = "MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48";
        for text in ["", "SHA256:", "SHA256:abc", md5, &PRINTED[7..]] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text}");
        }
        let sha512 = PublicKey::from_openssh(KEY).unwrap().fingerprint(HashAlg::Sha512).to_string();
        assert_eq!(sha512.parse::<Fingerprint>(), Err(FingerprintError));
    }
}
