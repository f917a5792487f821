//! HTTP/2 in the clear (RFC 9113), as the server speaks it with an upstream that wants it: frames of both directions,
//! with the fields of RFC 7541. Heads are kept as the lines HTTP/1.1 would have.

use std::collections::BTreeMap;
use std::time::Duration;

use loona_hpack::Decoder;

use super::collect::Desk;
use super::connection::{Piece, Since, Strange};
use super::entry::{Http, Id, Kind, Message, Response};
use super::head::{Framing, HEAD};
use super::recording::About;

/// What a visitor with prior knowledge begins with.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most requests at a time.
const STREAMS: usize = 2048;

/// Longest frame that is no data, in bytes.
const FRAME: usize = 64 * 1024;

/// Largest table of fields that is followed, in bytes.
const TABLE: u32 = 64 * 1024;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Both directions of a connection that speaks HTTP/2.
#[derive(Debug)]
pub(super) struct Http2 {
    request: Side,
    response: Side,
    streams: BTreeMap<u32, Stream>,
}

#[derive(Debug)]
struct Stream {
    since: Since,
    has_response: bool,
}

/// One direction.
struct Side {
    /// Of the preface.
    skip: usize,
    head: Vec<u8>,
    frame: Option<Frame>,
    /// Fields that go on in the next frame: the stream, and whether they end it.
    block: Option<(u32, bool)>,
    fields: Vec<u8>,
    decoder: Decoder<'static>,
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Side").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    left: usize,
    /// Of data: behind them, once known.
    padding: Option<usize>,
    payload: Vec<u8>,
}

/// Names and values, pseudo fields too.
type Fields = Vec<(String, String)>;

impl Default for Http2 {
    fn default() -> Self {
        Self { request: Side::new(PREFACE.len()), response: Side::new(0), streams: BTreeMap::new() }
    }
}

impl Side {
    fn new(skip: usize) -> Self {
        Self { skip, head: Vec::new(), frame: None, block: None, fields: Vec::new(), decoder: Decoder::new() }
    }

    fn memory(&self) -> usize {
        let frame = self.frame.as_ref().map_or(0, |it| it.payload.capacity());
        // A table of fields has at most the size that was agreed on, which is 4 KiB as a rule.
        frame + self.fields.capacity() + 16 * 1024
    }

    /// The fields of a block, bounded: one byte of it may stand for a whole field.
    fn decode(&mut self) -> Result<Fields, &'static str> {
        let block = std::mem::take(&mut self.fields);
        let (mut fields, mut size) = (Vec::new(), 0);
        let decoded = self.decoder.decode_with_cb(&block, |name, value| {
            size += name.len() + value.len() + 32;
            if size <= HEAD {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                fields.push((text(&name), text(&value)));
            }
        });
        decoded.map_err(|_| "HTTP/2 fields that cannot be read")?;
        Ok(fields)
    }
}

impl Frame {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PUSH_PROMISE: u8 = 5;
    const CONTINUATION: u8 = 9;

    fn begin(head: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = head else { return None };
        let left = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let stream = u32::from_be_bytes(stream.try_into().ok()?) & 0x7fff_ffff;
        Some(Self { kind: *kind, flags: *flags, stream, left, padding: None, payload: Vec::new() })
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The fields of a HEADERS frame, without padding and priority.
    fn block(&self) -> Option<&[u8]> {
        let mut rest = self.payload.as_slice();
        if self.has(PADDED) {
            let (padding, behind) = rest.split_first()?;
            rest = behind.get(..behind.len().checked_sub(usize::from(*padding))?)?;
        }
        if self.has(PRIORITY) { rest.get(5..) } else { Some(rest) }
    }
}

/// Whose bytes are fed.
#[derive(Clone, Copy)]
struct Call<'a> {
    desk: &'a Desk,
    about: &'a About,
    at: Duration,
    is_request: bool,
}

impl Http2 {
    pub(super) fn memory(&self) -> usize {
        let streams = self.streams.len() * (size_of::<Stream>() + 64);
        size_of::<Self>() + self.request.memory() + self.response.memory() + streams
    }

    pub(super) fn open(&self) -> Vec<Since> {
        self.streams.values().map(|stream| stream.since).collect()
    }

    /// # Errors
    /// It is no HTTP/2 any more.
    pub(super) fn feed(
        &mut self,
        desk: &Desk,
        about: &About,
        Piece { bytes, is_request, at }: Piece<'_>,
    ) -> Result<(), Strange> {
        let call = Call { desk, about, at, is_request };
        let mut rest = bytes;
        while !rest.is_empty() {
            self.step(call, &mut rest).map_err(|why| Strange { why, rest: rest.to_vec() })?;
        }
        Ok(())
    }

    fn side(&mut self, is_request: bool) -> &mut Side {
        if is_request { &mut self.request } else { &mut self.response }
    }

    fn step(&mut self, call: Call<'_>, rest: &mut &[u8]) -> Result<(), &'static str> {
        let side = self.side(call.is_request);
        if side.skip > 0 {
            take(rest, &mut side.skip);
            return Ok(());
        }
        let Some(frame) = &mut side.frame else {
            let mut missing = 9 - side.head.len().min(9);
            side.head.extend_from_slice(take(rest, &mut missing));
            if missing == 0 {
                side.frame = Frame::begin(&side.head);
                side.head.clear();
                return self.frame_if_over(call);
            }
            return Ok(());
        };
        if frame.kind == Frame::DATA {
            let (stream, data) = (frame.stream, data(frame, rest));
            if !data.is_empty() {
                self.data(call, stream, data);
            }
        } else {
            if frame.left + frame.payload.len() > FRAME {
                return Err("an HTTP/2 frame of more than 64 KiB that is no data");
            }
            let bytes = take(rest, &mut frame.left);
            frame.payload.extend_from_slice(bytes);
        }
        self.frame_if_over(call)
    }

    fn frame_if_over(&mut self, call: Call<'_>) -> Result<(), &'static str> {
        let side = self.side(call.is_request);
        let Some(frame) = side.frame.take_if(|frame| frame.left == 0 && frame.padding.unwrap_or(0) == 0)
        else {
            return Ok(());
        };
        match frame.kind {
            Frame::DATA if frame.has(END_STREAM) => self.over(call, frame.stream),
            Frame::HEADERS => {
                let block = frame.block().ok_or("an HTTP/2 frame that is too short")?;
                side.fields = block.to_vec();
                side.block = Some((frame.stream, frame.has(END_STREAM)));
                return self.fields_if_over(call, frame.has(END_HEADERS));
            }
            Frame::CONTINUATION => {
                if side.fields.len() + frame.payload.len() > FRAME {
                    return Err("HTTP/2 fields of more than 64 KiB");
                }
                side.fields.extend_from_slice(&frame.payload);
                return self.fields_if_over(call, frame.has(END_HEADERS));
            }
            Frame::PUSH_PROMISE => return Err("a push of HTTP/2"),
            Frame::RST_STREAM => {
                if let Some(stream) = self.streams.remove(&frame.stream) {
                    let duration = call.at.saturating_sub(stream.since.at);
                    call.desk.finish(call.about, stream.since.id, duration, true);
                }
            }
            Frame::SETTINGS if !frame.has(ACK) => self.settings(call, &frame.payload)?,
            _ => {}
        }
        Ok(())
    }

    /// The receiver of fields says how large its table may be.
    fn settings(&mut self, call: Call<'_>, payload: &[u8]) -> Result<(), &'static str> {
        for setting in payload.chunks_exact(6) {
            if let [0, 1, a, b, c, d] = *setting {
                let size = u32::from_be_bytes([a, b, c, d]);
                if size > TABLE {
                    return Err("a table of HTTP/2 fields of more than 64 KiB");
                }
                self.side(!call.is_request).decoder.set_max_allowed_table_size(size.max(4096) as usize);
            }
        }
        Ok(())
    }

    fn fields_if_over(&mut self, call: Call<'_>, is_over: bool) -> Result<(), &'static str> {
        if !is_over {
            return Ok(());
        }
        let side = self.side(call.is_request);
        let Some((stream, ends)) = side.block.take() else {
            return Err("HTTP/2 fields that go on from nothing");
        };
        let fields = side.decode()?;
        if call.is_request {
            self.request(call, stream, &fields)?;
        } else {
            self.response(call, stream, &fields);
        }
        if ends {
            self.over(call, stream);
        }
        Ok(())
    }

    fn request(&mut self, call: Call<'_>, number: u32, fields: &Fields) -> Result<(), &'static str> {
        if let Some(stream) = self.streams.get(&number) {
            let lines = lines(fields);
            change(call, stream.since.id, |http| http.request.trailers = lines.into_bytes());
            return Ok(());
        }
        if self.streams.len() >= STREAMS {
            return Err("too many requests without an answer");
        }
        let pseudo = |name| fields.iter().find(|it| it.0 == name).map_or("", |it| it.1.as_str());
        let (method, target) = (pseudo(":method").into(), pseudo(":path").into());
        let mut head = format!("{method} {target} HTTP/2\r\n");
        if !fields.iter().any(|field| field.0 == "host") {
            head.push_str(&format!("host: {}\r\n", pseudo(":authority")));
        }
        head.push_str(&lines(fields));
        head.push_str("\r\n");
        let http = Http {
            method,
            target,
            version: "HTTP/2",
            request: Message::new(call.desk.keep(head.as_bytes(), &[], false), head.len(), Framing::Close),
            response: None,
            sent: None,
            answered: None,
            upgrade: None,
        };
        let id = call.desk.add(call.about, call.at, Kind::Http(http));
        self.streams.insert(number, Stream { since: Since { id, at: call.at }, has_response: false });
        Ok(())
    }

    fn response(&mut self, call: Call<'_>, number: u32, fields: &Fields) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        let lines = lines(fields);
        if stream.has_response {
            change(call, stream.since.id, |http| {
                if let Some(response) = &mut http.response {
                    response.message.trailers = lines.into_bytes();
                }
            });
            return;
        }
        let status = fields.iter().find(|it| it.0 == ":status").and_then(|it| it.1.parse().ok()).unwrap_or(0);
        if (100..200).contains(&status) {
            return;
        }
        stream.has_response = true;
        let head = format!("HTTP/2 {status}\r\n{lines}\r\n");
        let message = Message::new(call.desk.keep(head.as_bytes(), &[], false), head.len(), Framing::Close);
        let response = Response { status, reason: Default::default(), version: "HTTP/2", message };
        let answered = call.at.saturating_sub(stream.since.at);
        change(call, stream.since.id, |http| {
            http.response = Some(response);
            http.answered = Some(answered);
        });
    }

    fn data(&mut self, call: Call<'_>, number: u32, bytes: &[u8]) {
        let Some(stream) = self.streams.get(&number) else { return };
        let most = call.desk.message;
        change(call, stream.since.id, |http| {
            let response = http.response.as_mut().map(|it| &mut it.message);
            let message = if call.is_request { Some(&mut http.request) } else { response };
            if let Some(message) = message {
                message.push(bytes, most);
            }
        });
    }

    /// One direction of a stream ended.
    fn over(&mut self, call: Call<'_>, number: u32) {
        let Some(stream) = self.streams.get(&number) else { return };
        let duration = call.at.saturating_sub(stream.since.at);
        if call.is_request {
            change(call, stream.since.id, |http| http.sent = Some(duration));
        } else if let Some(stream) = self.streams.remove(&number) {
            call.desk.finish(call.about, stream.since.id, duration, false);
        }
    }
}

fn change(call: Call<'_>, id: Id, change: impl FnOnce(&mut Http)) {
    call.desk.change(id, |entry| {
        if let Some(http) = entry.http_mut() {
            change(http);
        }
    });
}

/// All fields but the pseudo ones. What would end a line does not end it here.
fn lines(fields: &Fields) -> String {
    let clean = |text: &str| text.replace(['\r', '\n'], " ");
    let plain = fields.iter().filter(|field| !field.0.starts_with(':'));
    plain.map(|(name, value)| format!("{}: {}\r\n", clean(name), clean(value))).collect()
}

/// At most so many of the bytes, which are then fewer.
fn take<'a>(rest: &mut &'a [u8], left: &mut usize) -> &'a [u8] {
    let (taken, behind) = rest.split_at_checked(*left).unwrap_or((rest, &[]));
    *left -= taken.len();
    *rest = behind;
    taken
}

/// What of these bytes is data and no padding.
fn data<'a>(frame: &mut Frame, rest: &mut &'a [u8]) -> &'a [u8] {
    if frame.has(PADDED) && frame.padding.is_none() {
        let Some((padding, behind)) = rest.split_first() else { return &[] };
        *rest = behind;
        let padding = usize::from(*padding).min(frame.left.saturating_sub(1));
        frame.left = frame.left.saturating_sub(1 + padding);
        frame.padding = Some(padding);
    }
    let data = take(rest, &mut frame.left);
    if let Some(padding) = frame.padding.as_mut().filter(|_| frame.left == 0) {
        take(rest, padding);
    }
    data
}
