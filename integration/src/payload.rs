//! Bytes that differ wherever one looks, so that a piece that is lost, doubled or out of place shows.

use std::sync::OnceLock;

use bytes::Bytes;
use futures_util::stream::{self, Stream};

/// Their period, a prime: no buffer's size divides it.
const PERIOD: usize = 1_048_573;
/// Bytes of one piece, at most.
const PIECE: usize = 64 * 1024;

/// The bytes `from..to`, in pieces.
pub fn payload(from: u64, to: u64) -> impl Iterator<Item = Bytes> + Send + Sync + 'static {
    let mut at = from;
    std::iter::from_fn(move || {
        let left = usize::try_from(to - at).unwrap_or(usize::MAX);
        let piece = piece(at, left.min(PIECE));
        at += piece.len() as u64;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The first `length` bytes, each piece told to `told` as it goes.
pub fn streamed(length: u64, told: impl Fn(u64) + Send + Sync + 'static) -> impl Stream<Item = Bytes> {
    stream::iter(payload(0, length).inspect(move |piece| told(piece.len() as u64)))
}

/// The bytes `from..to` as a stream.
pub fn stretch(from: u64, to: u64) -> impl Stream<Item = Bytes> + Send + Sync + 'static {
    stream::iter(payload(from, to))
}

/// Compares what arrives with what was sent.
#[derive(Debug, Default)]
pub struct Checker {
    seen: u64,
}

impl Checker {
    /// For what begins in the middle of the payload.
    pub fn starting_at(from: u64) -> Self {
        Self { seen: from }
    }

    /// Takes the next bytes, which must be the next of the payload.
    pub fn take(&mut self, bytes: &[u8]) {
        self.check(bytes).unwrap_or_else(|wrong| panic!("{wrong}"));
    }

    /// Takes the next bytes; says where they are not the next of the payload.
    pub fn check(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let expected = piece(self.seen, bytes.len());
            let (now, later) = bytes.split_at(expected.len());
            let end = self.seen + now.len() as u64;
            if now != expected {
                return Err(format!("other bytes between {} and {end}", self.seen));
            }
            self.seen = end;
            bytes = later;
        }
        Ok(())
    }

    /// Where it is: bytes so far, for what began at the beginning.
    pub fn seen(&self) -> u64 {
        self.seen
    }
}

/// At most `most` bytes from `at` on.
fn piece(at: u64, most: usize) -> Bytes {
    static BLOCK: OnceLock<Bytes> = OnceLock::new();
    let block = BLOCK.get_or_init(|| noise().take(PERIOD).collect());
    let begin = usize::try_from(at % PERIOD as u64).expect("less than the period");
    block.slice(begin..PERIOD.min(begin + most))
}

/// Marsaglia's xorshift.
fn noise() -> impl Iterator<Item = u8> {
    let mut state = 0x9e37_79b9_u32;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_accepted_in_any_pieces() {
        let length = 2 * PERIOD as u64 + 77;
        let all: Vec<u8> = payload(0, length).flatten().collect();
        assert_eq!(all.len() as u64, length);
        let mut checker = Checker::default();
        for part in all.chunks(30_011) {
            checker.take(part);
        }
        assert_eq!(checker.seen(), length);
    }

    #[test]
    #[should_panic(expected = "other bytes between 3 and")]
    fn a_lost_piece_is_noticed() {
        let mut checker = Checker::default();
        let all: Vec<u8> = payload(0, 100).flatten().collect();
        checker.take(&all[..3]);
        checker.take(&all[4..]);
    }
}
