//! WebSocket messages (RFC 6455), inflated where `permessage-deflate` was agreed on (RFC 7692).

use std::time::Duration;

use flate2::{Decompress, FlushDecompress, Status};

use super::entry::{Frame, Message};

/// How much of each message is kept, in bytes.
const KEPT: usize = 64 * 1024;

/// Most that one message may become when inflated; beyond it no message of that direction is inflated.
const INFLATED: u64 = 64 << 20;

/// One direction of a WebSocket.
#[derive(Debug)]
pub(super) struct Reader {
    /// The head of a frame as far as it came.
    head: Vec<u8>,
    left: u64,
    mask: Option<[u8; 4]>,
    masked: usize,
    is_control: bool,
    is_last: bool,
    data: Option<Part>,
    control: Option<Part>,
    inflate: Option<Inflate>,
    is_broken: bool,
}

#[derive(Debug)]
struct Inflate {
    state: Decompress,
    forgets: bool,
}

/// A message as far as it came.
#[derive(Debug)]
struct Part {
    kind: &'static str,
    payload: Vec<u8>,
    size: u64,
    was_deflated: bool,
}

impl Part {
    fn push(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        let room = KEPT.saturating_sub(self.payload.len()).min(bytes.len());
        self.payload.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }
}

impl Reader {
    /// For both directions, the visitor's first, if the response switches to WebSocket.
    pub(super) fn pair(response: &Message) -> Option<(Self, Self)> {
        let headers = response.headers();
        headers.iter().find(|it| it.is("upgrade") && it.value.eq_ignore_ascii_case("websocket"))?;
        let extensions = headers.iter().filter(|it| it.is("sec-websocket-extensions"));
        let extensions = extensions.map(|it| it.value.to_ascii_lowercase()).collect::<Vec<_>>().join(",");
        let reader = |forgets: &str| {
            let is_deflated = extensions.contains("permessage-deflate");
            let forgets = extensions.contains(forgets);
            Self::new(is_deflated.then(|| Inflate { state: Decompress::new(false), forgets }))
        };
        Some((reader("client_no_context_takeover"), reader("server_no_context_takeover")))
    }

    fn new(inflate: Option<Inflate>) -> Self {
        Self {
            head: Vec::new(),
            left: 0,
            mask: None,
            masked: 0,
            is_control: false,
            is_last: false,
            data: None,
            control: None,
            inflate,
            is_broken: false,
        }
    }

    pub(super) fn memory(&self) -> usize {
        let part = |part: &Option<Part>| part.as_ref().map_or(0, |it| it.payload.capacity());
        // The window of an inflater, and its tables.
        let inflate = if self.inflate.is_some() { 48 * 1024 } else { 0 };
        size_of::<Self>() + self.head.capacity() + part(&self.data) + part(&self.control) + inflate
    }

    /// # Errors
    /// These are no frames; nothing more is read.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        at: Duration,
        is_request: bool,
        each: &mut dyn FnMut(Frame),
    ) -> Result<(), &'static str> {
        if self.is_broken {
            return Ok(());
        }
        let outcome = self.read(bytes, &mut |part| {
            each(Frame {
                number: 0,
                is_request,
                at,
                kind: part.kind,
                payload: part.payload,
                size: part.size,
                was_deflated: part.was_deflated,
            });
        });
        self.is_broken = outcome.is_err();
        outcome
    }

    fn read(&mut self, mut rest: &[u8], each: &mut dyn FnMut(Part)) -> Result<(), &'static str> {
        loop {
            if self.left > 0 {
                let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                let (payload, behind) = rest.split_at_checked(taken).unwrap_or((rest, &[]));
                rest = behind;
                self.left -= payload.len() as u64;
                self.payload(payload)?;
                if self.left > 0 {
                    return Ok(());
                }
                self.frame_is_over(each)?;
            }
            let Some((byte, behind)) = rest.split_first() else { return Ok(()) };
            rest = behind;
            self.head.push(*byte);
            if self.begin()? && self.left == 0 {
                self.frame_is_over(each)?;
            }
        }
    }

    /// Whether the head of a frame is complete.
    fn begin(&mut self) -> Result<bool, &'static str> {
        let [first, second, rest @ ..] = self.head.as_slice() else { return Ok(false) };
        let wide = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masks = if second & 0x80 == 0 { 0 } else { 4 };
        if rest.len() < wide + masks {
            return Ok(false);
        }
        let (length, mask) = rest.split_at_checked(wide).unwrap_or_default();
        self.left = match wide {
            0 => u64::from(second & 0x7f),
            _ => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        self.mask = mask.try_into().ok();
        self.masked = 0;
        self.is_last = first & 0x80 != 0;
        let (opcode, is_deflated) = (first & 0x0f, first & 0x40 != 0);
        self.head.clear();
        self.is_control = opcode >= 8;
        let kind = match opcode {
            0 if self.data.is_some() => return Ok(true),
            1 => "text",
            2 => "binary",
            8 => "close",
            9 => "ping",
            10 => "pong",
            0 => return Err("a continuation of nothing"),
            _ => return Err("a frame of an unknown kind"),
        };
        if self.is_control && (self.left > 125 || !self.is_last) {
            return Err("a control frame that is too long");
        }
        let was_deflated = is_deflated && !self.is_control && self.inflate.is_some();
        let part = Part { kind, payload: Vec::new(), size: 0, was_deflated };
        *(if self.is_control { &mut self.control } else { &mut self.data }) = Some(part);
        Ok(true)
    }

    fn payload(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        let mut unmasked;
        let mut bytes = bytes;
        if let Some(mask) = self.mask {
            unmasked = bytes.to_vec();
            for (byte, key) in unmasked.iter_mut().zip(mask.iter().cycle().skip(self.masked % 4)) {
                *byte ^= key;
            }
            self.masked = (self.masked + bytes.len()) % 4;
            bytes = &unmasked;
        }
        let part = if self.is_control { &mut self.control } else { &mut self.data };
        let Some(part) = part else { return Ok(()) };
        match &mut self.inflate {
            Some(inflate) if part.was_deflated => inflate.add(bytes, part),
            _ => {
                part.push(bytes);
                Ok(())
            }
        }
    }

    fn frame_is_over(&mut self, each: &mut dyn FnMut(Part)) -> Result<(), &'static str> {
        if self.is_control {
            self.control.take().map(each);
        } else if self.is_last
            && let Some(mut part) = self.data.take()
        {
            if let Some(inflate) = self.inflate.as_mut().filter(|_| part.was_deflated) {
                inflate.add(&[0, 0, 0xff, 0xff], &mut part)?;
                if inflate.forgets {
                    inflate.state.reset(false);
                }
            }
            each(part);
        }
        Ok(())
    }
}

impl Inflate {
    fn add(&mut self, mut bytes: &[u8], part: &mut Part) -> Result<(), &'static str> {
        let mut room = [0; 8192];
        loop {
            let (read, written) = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(bytes, &mut room, FlushDecompress::Sync);
            let status = status.map_err(|_| "a message that cannot be inflated")?;
            let taken = usize::try_from(self.state.total_in() - read).unwrap_or(usize::MAX);
            let made = usize::try_from(self.state.total_out() - written).unwrap_or(usize::MAX);
            part.push(room.get(..made).unwrap_or_default());
            bytes = bytes.get(taken..).unwrap_or_default();
            if part.size > INFLATED {
                return Err("a message that is too large when inflated");
            }
            if status == Status::StreamEnd {
                // A final block: what follows begins anew.
                self.state.reset(false);
            }
            if bytes.is_empty() && made < room.len() || taken == 0 && made == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::inspect::head::Framing;

    fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let bit = if mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(bit | length as u8),
            length => {
                bytes.push(bit | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&mask.unwrap_or_default()[..if mask.is_some() { 4 } else { 0 }]);
        let mask = mask.unwrap_or_default();
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    fn read(reader: &mut Reader, bytes: &[u8], cut: usize) -> Vec<(&'static str, String)> {
        let mut frames = Vec::new();
        for part in bytes.chunks(cut) {
            reader
                .feed(part, Duration::ZERO, true, &mut |frame| {
                    frames.push((frame.kind, String::from_utf8_lossy(&frame.payload).into_owned()));
                })
                .unwrap();
        }
        frames
    }

    fn pair(extensions: &str) -> (Reader, Reader) {
        let head =
            format!("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nSec-WebSocket-Extensions: {extensions}\r\n\r\n");
        Reader::pair(&Message::new(head.clone().into(), head.len(), Framing::Length(0))).unwrap()
    }

    #[test]
    fn messages_are_whole_in_whatever_pieces_they_come() {
        let mask = Some([1, 2, 3, 250]);
        let mut bytes = frame(0x01, b"Hel", mask);
        bytes.extend(frame(0x89, b"are you there", mask));
        bytes.extend(frame(0x80, b"lo", mask));
        bytes.extend(frame(0x82, &[b'x'; 300], None));
        bytes.extend(frame(0x88, b"", mask));
        for cut in 1..bytes.len() {
            let frames = read(&mut pair("").0, &bytes, cut);
            let long = "x".repeat(300);
            let expected = [("ping", "are you there"), ("text", "Hello"), ("binary", &long), ("close", "")];
            assert_eq!(frames, expected.map(|(kind, text)| (kind, text.to_owned())), "{cut}");
        }
    }

    #[test]
    fn deflated_messages_share_their_context_unless_they_agreed_not_to() {
        for (extensions, forgets) in
            [("permessage-deflate", false), ("permessage-deflate; client_no_context_takeover", true)]
        {
            let mut bytes = Vec::new();
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
            for _ in 0..3 {
                if forgets {
                    encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
                }
                let before = encoder.get_ref().len();
                encoder.write_all(b"the same text again and again").unwrap();
                encoder.flush().unwrap();
                let deflated =
                    encoder.get_ref()[before..].strip_suffix(&[0, 0, 0xff, 0xff]).unwrap().to_vec();
                bytes.extend(frame(0xc1, &deflated, Some([9, 8, 7, 6])));
            }
            let frames = read(&mut pair(extensions).0, &bytes, 3);
            assert_eq!(frames, vec![("text", "the same text again and again".to_owned()); 3], "{extensions}");
        }
    }

    #[test]
    fn what_is_no_frame_is_said_once() {
        let mut reader = pair("").0;
        assert!(reader.feed(&[0x83, 0], Duration::ZERO, true, &mut |_| {}).is_err());
        assert!(reader.feed(&[0x83, 0], Duration::ZERO, true, &mut |_| {}).is_ok());
    }

    #[test]
    fn a_long_message_is_cut_and_its_size_known() {
        let mut reader = pair("permessage-deflate").1;
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b'a'; 10 * KEPT]).unwrap();
        encoder.flush().unwrap();
        let deflated = encoder.get_ref().strip_suffix(&[0, 0, 0xff, 0xff]).unwrap().to_vec();
        let mut seen = None;
        reader.feed(&frame(0xc2, &deflated, None), Duration::ZERO, false, &mut |it| seen = Some(it)).unwrap();
        let seen = seen.unwrap();
        assert_eq!((seen.size, seen.payload.len()), (10 * KEPT as u64, KEPT));
    }
}
