//! The chunked coding of RFC 9112 §7.1, from one direction of a connection in whatever pieces it comes.

/// Where in a chunked body we are.
#[derive(Clone, Debug)]
pub(super) struct Chunks {
    state: State,
    /// Of lines that are no data, since the last data.
    line: usize,
}

#[derive(Clone, Debug)]
enum State {
    Size {
        size: u64,
        digits: u8,
    },
    /// What stands behind the size.
    Extension {
        size: u64,
    },
    Data(u64),
    /// The end of line behind data.
    DataEnd,
    /// The beginning of a line of trailers: an empty one ends the body.
    Trailer {
        is_empty: bool,
    },
}

impl Default for Chunks {
    fn default() -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, line: 0 }
    }
}

/// What a chunked body is made of.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    Data(&'a [u8]),
    Trailer(&'a [u8]),
}

/// It is no chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Longest line of a size with its extensions, and longest trailers, in bytes.
const LINE: usize = 16 * 1024;

impl Chunks {
    /// How many of these bytes belong to the body, and whether it ends there.
    ///
    /// # Errors
    /// They do not follow the grammar, or a line has no end.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(Piece<'_>),
    ) -> Result<(usize, bool), Malformed> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let State::Data(left) = self.state {
                let rest = bytes.get(at..).unwrap_or_default();
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                each(Piece::Data(rest.get(..taken).unwrap_or_default()));
                at += taken;
                let left = left - taken as u64;
                self.line = 0;
                self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                continue;
            }
            at += 1;
            self.line += 1;
            if self.line > LINE {
                return Err(Malformed);
            }
            if self.step(byte, each)? {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Whether this byte ends the body.
    fn step(&mut self, byte: u8, each: &mut dyn FnMut(Piece<'_>)) -> Result<bool, Malformed> {
        self.state = match self.state {
            State::Size { size, digits } => match char::from(byte).to_digit(16) {
                Some(_) if digits == 16 => return Err(Malformed),
                Some(digit) => State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 },
                None if digits == 0 => return Err(Malformed),
                None if byte == b'\n' => Self::behind(size),
                None if matches!(byte, b';' | b'\r' | b' ' | b'\t') => State::Extension { size },
                None => return Err(Malformed),
            },
            State::Extension { size } if byte == b'\n' => Self::behind(size),
            State::DataEnd => match byte {
                b'\r' => State::DataEnd,
                b'\n' => State::Size { size: 0, digits: 0 },
                _ => return Err(Malformed),
            },
            State::Trailer { is_empty } => {
                each(Piece::Trailer(&[byte]));
                match byte {
                    b'\n' if is_empty => return Ok(true),
                    b'\n' => State::Trailer { is_empty: true },
                    b'\r' => State::Trailer { is_empty },
                    _ => State::Trailer { is_empty: false },
                }
            }
            State::Extension { .. } | State::Data(_) => return Ok(false),
        };
        Ok(false)
    }

    fn behind(size: u64) -> State {
        if size == 0 { State::Trailer { is_empty: true } } else { State::Data(size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8], cut: usize) -> Result<(Vec<u8>, Vec<u8>, usize, bool), Malformed> {
        let (mut data, mut trailers, mut at, mut is_over) = (Vec::new(), Vec::new(), 0, false);
        let mut chunks = Chunks::default();
        for part in body.chunks(cut) {
            let (taken, over) = chunks.feed(part, &mut |piece| match piece {
                Piece::Data(bytes) => data.extend_from_slice(bytes),
                Piece::Trailer(bytes) => trailers.extend_from_slice(bytes),
            })?;
            at += taken;
            if over {
                is_over = true;
                break;
            }
        }
        Ok((data, trailers, at, is_over))
    }

    #[test]
    fn a_body_ends_at_its_last_chunk_in_whatever_pieces_it_comes() {
        let body = b"4;ext=\"a\"\r\nWiki\r\nA\r\n0123456789\r\n0\r\nDigest: x\r\n\r\nGET /";
        for cut in 1..=body.len() {
            let (data, trailers, at, over) = read(body, cut).unwrap();
            assert_eq!(data, b"Wiki0123456789", "{cut}");
            assert_eq!(trailers, b"Digest: x\r\n\r\n");
            assert_eq!(at, body.len() - 5);
            assert!(over);
        }
    }

    #[test]
    fn what_is_no_chunk_is_malformed() {
        for body in ["\r\n", "x\r\n", "5\r\nhelloX", "11111111111111111\r\n", "-1\r\n"] {
            assert_eq!(read(body.as_bytes(), 3), Err(Malformed), "{body:?}");
        }
        let endless = format!("0;{}", "x".repeat(LINE));
        assert_eq!(read(endless.as_bytes(), 100), Err(Malformed));
    }

    #[test]
    fn the_largest_size_does_not_overflow() {
        let (data, _, _, over) = read(b"ffffffffffffffff\r\nhello", 4).unwrap();
        assert_eq!((data.as_slice(), over), (&b"hello"[..], false));
    }
}
