//! The secret of an endpoint, and every comparison with what comes of it: in constant time.

use std::fmt::{self, Write as _};
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::{digest, hmac};
use subtle::ConstantTimeEq;

use super::delivery::Reason;

/// The bytes with which a provider signs. Does not print.
pub(super) struct Key(Vec<u8>);

#[derive(Clone, Copy, Debug)]
pub(super) enum Digest {
    Sha1,
    Sha256,
    Sha512,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Encoding {
    Hex,
    Base64,
}

/// What a signature must be. Does not print.
pub(super) struct Expected {
    text: String,
    encoding: Encoding,
}

impl Key {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn begin(&self, digest: Digest) -> hmac::Context {
        let algorithm = match digest {
            Digest::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Digest::Sha256 => hmac::HMAC_SHA256,
            Digest::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::Context::with_key(&hmac::Key::new(algorithm, &self.0))
    }

    /// The HMAC of these parts, one behind the other.
    pub(super) fn sign(&self, digest: Digest, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = self.begin(digest);
        parts.iter().for_each(|part| context.update(part));
        context.sign()
    }

    pub(super) fn expect(&self, digest: Digest, encoding: Encoding, parts: &[&[u8]]) -> Expected {
        Expected::of(self.sign(digest, parts).as_ref(), encoding)
    }

    /// The same of what `write` writes, of which no copy is made.
    pub(super) fn expect_written(
        &self,
        digest: Digest,
        encoding: Encoding,
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> io::Result<Expected> {
        let mut context = Writer(self.begin(digest));
        write(&mut context)?;
        Ok(Expected::of(context.0.sign().as_ref(), encoding))
    }

    /// Whether the key itself was presented. Compares digests, so that not even its length can be timed.
    pub(super) fn is(&self, presented: &[u8]) -> bool {
        let hash = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes);
        hash(&self.0).as_ref().ct_eq(hash(presented).as_ref()).into()
    }
}

struct Writer(hmac::Context);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Expected {
    pub(super) fn of(bytes: &[u8], encoding: Encoding) -> Self {
        let text = match encoding {
            Encoding::Hex => hex(bytes),
            Encoding::Base64 => STANDARD_NO_PAD.encode(bytes),
        };
        Self { text, encoding }
    }

    /// Hexadecimal digits may be of either case, and base64 may lack its padding.
    pub(super) fn is(&self, presented: &str) -> bool {
        let presented = match self.encoding {
            Encoding::Hex => presented.to_ascii_lowercase(),
            Encoding::Base64 => presented.trim_end_matches('=').to_owned(),
        };
        // The length is that of the digest, which is no secret.
        self.text.as_bytes().ct_eq(presented.as_bytes()).into()
    }

    pub(super) fn check(&self, presented: &str) -> Result<(), Reason> {
        if self.is(presented) { Ok(()) } else { Err(Reason::Mismatch) }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}
