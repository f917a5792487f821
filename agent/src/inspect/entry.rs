//! What is kept of one request, or of one connection whose bytes are no HTTP.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use compact_str::CompactString;

use super::chunks::{Chunks, Piece};
use super::head::{Framing, Header};

/// By which an entry is known, as long as the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(pub(super) u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_id = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten().ok_or(())
    }
}

/// A request with its response, or a connection.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: Id,
    pub(super) connection: u64,
    pub(super) endpoint: Arc<str>,
    pub(super) visitor: SocketAddr,
    pub(super) start: SystemTime,
    pub(super) replay_of: Option<Id>,
    /// Why not everything that passed is here.
    pub(super) incomplete: Option<&'static str>,
    /// None as long as it goes on.
    pub(super) duration: Option<Duration>,
    /// It ended before its end.
    pub(super) is_cut: bool,
    pub(super) what: Kind,
    /// When it changed last, counted by the store.
    pub(super) revision: u64,
}

#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are requests, and a box is one more to make and to free"
)]
pub(super) enum Kind {
    Http(Http),
    Connection(Box<Flow>),
}

/// A request with its response.
#[derive(Clone, Debug)]
pub(super) struct Http {
    pub(super) method: CompactString,
    pub(super) target: CompactString,
    pub(super) version: &'static str,
    pub(super) request: Message,
    pub(super) response: Option<Response>,
    /// When the request had passed as a whole, from its first byte.
    pub(super) sent: Option<Duration>,
    /// When the response began.
    pub(super) answered: Option<Duration>,
    /// After a 101.
    pub(super) upgrade: Option<Box<Upgrade>>,
}

#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) reason: CompactString,
    pub(super) version: &'static str,
    pub(super) message: Message,
}

/// What was spoken after a 101.
#[derive(Clone, Debug)]
pub(super) enum Upgrade {
    WebSocket(Talk),
    Other(Flow),
}

/// Head and body, as they were on the wire.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The first bytes, `head` of which are the head.
    pub(super) raw: Raw,
    pub(super) head: usize,
    pub(super) framing: Framing,
    /// Bytes on the wire, kept or not.
    pub(super) size: u64,
    /// Lines of fields behind the body, of HTTP/2.
    pub(super) trailers: Vec<u8>,
}

/// Bytes of a message.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    /// As long as no more came than at first.
    first: Bytes,
    all: Vec<u8>,
}

impl Deref for Raw {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.all.is_empty() { &self.first } else { &self.all }
    }
}

impl Raw {
    fn growing(&mut self) -> &mut Vec<u8> {
        if self.all.is_empty() {
            self.all = std::mem::take(&mut self.first).into();
        }
        &mut self.all
    }

    fn memory(&self) -> usize {
        self.first.len() + self.all.capacity()
    }
}

impl Message {
    /// A head of that length, with the beginning of its body as far as that is there.
    pub(super) fn new(raw: Bytes, head: usize, framing: Framing) -> Self {
        Self {
            head,
            size: raw.len() as u64,
            raw: Raw { first: raw, all: Vec::new() },
            framing,
            trailers: Vec::new(),
        }
    }

    /// More of the body; kept up to that many bytes of the message.
    pub(super) fn push(&mut self, bytes: &[u8], most: usize) {
        self.size += bytes.len() as u64;
        let room = most.saturating_sub(self.raw.len()).min(bytes.len());
        let kept = bytes.get(..room).unwrap_or(bytes);
        if kept.is_empty() {
            return;
        }
        let raw = self.raw.growing();
        if raw.capacity() - raw.len() < kept.len() {
            // By half, and never beyond the bound, of which the last half would be air.
            let wanted = (raw.len() + kept.len()).max(raw.len() * 3 / 2).min(most);
            raw.reserve_exact(wanted.saturating_sub(raw.len()).max(kept.len()));
        }
        raw.extend_from_slice(kept);
    }

    pub(super) fn is_truncated(&self) -> bool {
        self.size > self.raw.len() as u64
    }

    pub(super) fn head(&self) -> &[u8] {
        self.raw.get(..self.head).unwrap_or(&self.raw)
    }

    pub(super) fn headers(&self) -> Vec<Header> {
        super::head::headers(self.head())
    }

    /// The first header of that name.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        self.headers().into_iter().find(|header| header.is(name)).map(|header| header.value)
    }

    /// The body without its chunks, and its trailers.
    pub(super) fn body(&self) -> (Vec<u8>, Vec<Header>) {
        let wire = self.raw.get(self.head..).unwrap_or_default();
        if self.framing != Framing::Chunked {
            return (wire.to_vec(), super::head::fields(&self.trailers));
        }
        let (mut body, mut trailers) = (Vec::new(), Vec::new());
        let _ = Chunks::default().feed(wire, &mut |piece| match piece {
            Piece::Data(bytes) => body.extend_from_slice(bytes),
            Piece::Trailer(bytes) => trailers.extend_from_slice(bytes),
        });
        (body, super::head::fields(&trailers))
    }

    fn memory(&self) -> usize {
        self.raw.memory() + self.trailers.capacity()
    }
}

/// Bytes in both directions, of which the first are kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow {
    /// What it seems to be.
    pub(super) protocol: &'static str,
    pub(super) request: Way,
    pub(super) response: Way,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Way {
    pub(super) total: u64,
    pub(super) first: Vec<u8>,
    /// When the first byte came, from the beginning of the entry.
    pub(super) since: Option<Duration>,
}

/// How many first bytes are kept of each direction.
pub(super) const FIRST: usize = 4096;

impl Way {
    pub(super) fn push(&mut self, bytes: &[u8], at: Duration) {
        self.since.get_or_insert(at);
        self.total += bytes.len() as u64;
        let room = FIRST.saturating_sub(self.first.len()).min(bytes.len());
        self.first.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }
}

/// The messages of a WebSocket.
#[derive(Clone, Debug, Default)]
pub(super) struct Talk {
    pub(super) frames: VecDeque<Frame>,
    /// How many there were, kept or not.
    pub(super) count: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    /// What did not follow the rules.
    pub(super) broken: Option<&'static str>,
    memory: usize,
}

/// A message of a WebSocket, or a control frame.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) number: u64,
    pub(super) is_request: bool,
    pub(super) at: Duration,
    /// `text`, `binary`, `ping`, `pong`, `close`.
    pub(super) kind: &'static str,
    /// Unmasked and inflated, cut at a bound.
    pub(super) payload: Vec<u8>,
    /// Of the payload as a whole, inflated.
    pub(super) size: u64,
    pub(super) was_deflated: bool,
}

/// What a frame costs beside its payload.
const FRAME: usize = 128;

impl Talk {
    /// One more, numbered; the oldest go if these would take more than that many bytes.
    pub(super) fn push(&mut self, mut frame: Frame, most: usize) {
        self.count += 1;
        frame.number = self.count;
        frame.payload.shrink_to_fit();
        self.memory += frame.payload.capacity() + FRAME;
        self.frames.push_back(frame);
        while self.memory > most {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.memory -= oldest.payload.capacity() + FRAME;
        }
    }
}

/// What an entry costs beside its bytes.
const ENTRY: usize = 1024;

/// What it takes beside itself, in bytes.
fn heap(text: &CompactString) -> usize {
    if text.is_heap_allocated() { text.capacity() } else { 0 }
}

impl Entry {
    pub(super) fn memory(&self) -> usize {
        let flow = |flow: &Flow| flow.request.first.capacity() + flow.response.first.capacity();
        ENTRY
            + match &self.what {
                Kind::Connection(it) => flow(it),
                Kind::Http(http) => {
                    let response = http.response.as_ref();
                    let upgrade = match http.upgrade.as_deref() {
                        None => 0,
                        // A ring of frames has up to twice their number.
                        Some(Upgrade::WebSocket(talk)) => talk.memory + talk.frames.capacity() * FRAME,
                        Some(Upgrade::Other(it)) => flow(it),
                    };
                    heap(&http.method)
                        + heap(&http.target)
                        + http.request.memory()
                        + response.map_or(0, |it| it.message.memory() + heap(&it.reason))
                        + upgrade
                }
            }
    }

    pub(super) fn http(&self) -> Option<&Http> {
        match &self.what {
            Kind::Http(http) => Some(http),
            Kind::Connection(_) => None,
        }
    }

    pub(super) fn http_mut(&mut self) -> Option<&mut Http> {
        match &mut self.what {
            Kind::Http(http) => Some(http),
            Kind::Connection(_) => None,
        }
    }

    /// The visitor's address: connections to the upstream are shared, and the server says whose a request is.
    pub(super) fn remote(&self) -> String {
        let said = self.http().and_then(|http| http.request.header("x-forwarded-for"));
        let said = said.and_then(|it| it.split(',').next().map(|first| first.trim().to_owned()));
        said.filter(|it| it.parse::<std::net::IpAddr>().is_ok()).unwrap_or_else(|| self.visitor.to_string())
    }
}

impl Http {
    pub(super) fn status(&self) -> Option<u16> {
        self.response.as_ref().map(|response| response.status)
    }

    /// Bytes on the wire in both directions.
    pub(super) fn size(&self) -> u64 {
        let upgrade = match self.upgrade.as_deref() {
            None => 0,
            Some(Upgrade::WebSocket(talk)) => talk.request_bytes + talk.response_bytes,
            Some(Upgrade::Other(flow)) => flow.request.total + flow.response.total,
        };
        self.request.size + self.response.as_ref().map_or(0, |it| it.message.size) + upgrade
    }
}
