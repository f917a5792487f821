//! A visitor that writes its HTTP/2 frames by hand, as no honest client would (RFC 9113 §4.1).

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Tls, Visitor};
use crate::wait::within;

/// The types of frames (RFC 9113 §6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Their flags.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it came.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A connection on which nothing but frames is known.
#[derive(Debug)]
pub struct Frames {
    stream: Tls,
}

impl Visitor {
    /// HTTP/2 to this name, with the preface and these settings sent.
    pub async fn frames(&self, name: &str, settings: &[(u16, u32)]) -> Frames {
        self.try_frames(name, settings).await.expect("HTTP/2 is spoken")
    }

    /// The same, of a server that may refuse.
    pub async fn try_frames(&self, name: &str, settings: &[(u16, u32)]) -> std::io::Result<Frames> {
        let mut frames = Frames { stream: self.try_tls(name, &["h2"]).await? };
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let begin = [PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat();
        frames.write(&begin).await?;
        Ok(frames)
    }
}

impl Frames {
    /// Sends these bytes, which may be several frames.
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next frame; `None` once the server has closed.
    pub async fn next(&mut self) -> Option<Incoming> {
        let read = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let [high, middle, low, kind, flags, a, b, c, d] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(Incoming { kind, flags, stream: u32::from_be_bytes([a, b, c, d]), payload })
        };
        within("a frame", read).await
    }

    /// Reads until this stream is answered or reset, or the connection ends. Gives the status of an answer.
    pub async fn outcome(&mut self, stream: u32) -> Option<u16> {
        while let Some(frame) = self.next().await {
            match frame.kind {
                HEADERS if frame.stream == stream => return status(&frame.payload),
                RST_STREAM if frame.stream == stream => return None,
                GOAWAY if frame.payload.get(4..8) != Some(&[0; 4]) => return None,
                SETTINGS if frame.flags & ACK == 0 => self.acknowledge().await,
                _ => {}
            }
        }
        None
    }

    async fn acknowledge(&mut self) {
        // The server may have closed by now.
        let _ = self.write(&frame(SETTINGS, ACK, 0, &[])).await;
    }
}

/// A frame in bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload of less than 16 MiB").to_be_bytes();
    [length.get(1..).unwrap_or_default(), &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A block of fields: each a literal that is not indexed, neither compressed nor checked (RFC 7541 §6.2.2).
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: impl IntoIterator<Item = (N, V)>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(name.as_ref(), &mut block);
        literal(value.as_ref(), &mut block);
    }
    block
}

/// A string of HPACK (RFC 7541 §5.2).
pub fn literal(bytes: &[u8], into: &mut Vec<u8>) {
    const PREFIX: usize = 127;
    if bytes.len() < PREFIX {
        into.push(u8::try_from(bytes.len()).expect("less than the prefix"));
    } else {
        into.push(127);
        let mut rest = bytes.len() - PREFIX;
        while rest >= 128 {
            into.push(u8::try_from(rest & 127).expect("seven bits") | 128);
            rest >>= 7;
        }
        into.push(u8::try_from(rest).expect("seven bits"));
    }
    into.extend_from_slice(bytes);
}

/// The status with which a block of response fields begins, as a server writes it whose table has size 0.
fn status(block: &[u8]) -> Option<u16> {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let start = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    match block.get(start..)? {
        [first, ..] if first & 0x80 != 0 => INDEXED.get(usize::from(first & 0x7f).checked_sub(8)?).copied(),
        [0x08 | 0x18 | 0x48, length, rest @ ..] => {
            let text = rest.get(..usize::from(length & 0x7f))?;
            if length & 0x80 == 0 { std::str::from_utf8(text).ok()?.parse().ok() } else { digits(text) }
        }
        _ => None,
    }
}

/// Three digits in the code of RFC 7541 appendix B.
fn digits(coded: &[u8]) -> Option<u16> {
    let mut bits = coded.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let code = (0..5).try_fold(0, |code, _| Some(code << 1 | bits.next()?))?;
        let digit = if code < 3 { code } else { (code << 1 | bits.next()?).checked_sub(0b01_1001)? + 3 };
        number = number * 10 + digit;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_however_it_is_written() {
        for (block, number) in [
            (&[0x88][..], 200),
            (&[0x20, 0x8c], 400),
            (&[0x48, 3, b'4', b'2', b'1'], 421),
            // From RFC 7541 appendix C.6.1 and C.6.2.
            (&[0x48, 0x82, 0x64, 0x02], 302),
            (&[0x48, 0x83, 0x64, 0x0e, 0xff], 307),
        ] {
            assert_eq!(status(block), Some(number), "{block:?}");
        }
    }

    #[test]
    fn long_strings_have_a_long_length() {
        let mut written = Vec::new();
        literal(&[b'x'; 1337 + 127], &mut written);
        // 1337 in a prefix of any width (RFC 7541 appendix C.1.2).
        assert_eq!(written.get(..3), Some(&[127, 0b1011_1001, 0b0000_1010][..]));
    }
}
