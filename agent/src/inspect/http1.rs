//! HTTP/1.1 on one connection: requests, their responses in the same order, and what follows a 101.

use std::collections::VecDeque;
use std::time::Duration;

use super::chunks::Chunks;
use super::collect::Desk;
use super::connection::{Piece, Since, Strange};
use super::entry::{Flow, Http, Kind, Message, Response, Talk, Upgrade};
use super::head::{self, Framing, HEAD};
use super::recording::About;
use super::websocket::Reader;

/// Most requests that wait for their response; more would be a flood.
const PIPELINE: usize = 1024;

/// Both directions of a connection that speaks HTTP/1.1.
#[derive(Debug, Default)]
pub(super) struct Http1 {
    request: Side,
    response: Side,
    /// Requests whose response is not over, oldest first.
    waiting: VecDeque<Waiting>,
    /// Whose body the visitor sends; it may be answered already.
    sending: Option<(Since, bool)>,
    /// How much there was so far of the request that is sent, and of the response, in bytes.
    sizes: [u64; 2],
    upgrade: Option<Switched>,
}

#[derive(Debug)]
struct Waiting {
    since: Since,
    /// If that matters for its response: HEAD or CONNECT.
    method: &'static str,
    may_upgrade: bool,
}

/// After a 101.
#[derive(Debug)]
struct Switched {
    since: Since,
    /// The two directions of a WebSocket.
    readers: Option<Box<(Reader, Reader)>>,
}

/// One direction.
#[derive(Debug)]
enum Side {
    Head {
        bytes: Vec<u8>,
        since: Option<Duration>,
    },
    Length(u64),
    Chunked(Box<Chunks>),
    Close,
    /// A request whose response decides what its bytes are.
    Held(Vec<u8>),
}

impl Default for Side {
    fn default() -> Self {
        Self::Head { bytes: Vec::new(), since: None }
    }
}

impl Side {
    fn body(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::default()),
            Framing::Close => Self::Close,
        }
    }

    /// Behind a request that may be answered by an upgrade.
    fn next_request(may_upgrade: bool) -> Self {
        if may_upgrade { Self::Held(Vec::new()) } else { Self::default() }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Head { bytes, .. } | Self::Held(bytes) => bytes.capacity(),
            Self::Chunked(_) => size_of::<Chunks>(),
            Self::Length(_) | Self::Close => 0,
        }
    }
}

/// Whose bytes are fed.
#[derive(Clone, Copy)]
struct Call<'a> {
    desk: &'a Desk,
    about: &'a About,
    at: Duration,
}

impl Http1 {
    pub(super) fn memory(&self) -> usize {
        let waiting = self.waiting.capacity() * size_of::<Waiting>();
        let readers = self.upgrade.as_ref().and_then(|it| it.readers.as_ref());
        let readers = readers.map_or(0, |both| both.0.memory() + both.1.memory());
        size_of::<Self>() + self.request.memory() + self.response.memory() + waiting + readers
    }

    pub(super) fn open(&self) -> Vec<Since> {
        let upgraded = self.upgrade.iter().map(|it| it.since);
        self.waiting.iter().map(|it| it.since).chain(upgraded).collect()
    }

    /// # Errors
    /// It is no HTTP/1.1 any more.
    pub(super) fn feed(
        &mut self,
        desk: &Desk,
        about: &About,
        Piece { bytes, is_request, at }: Piece<'_>,
    ) -> Result<(), Strange> {
        let call = Call { desk, about, at };
        let mut rest = bytes;
        while !rest.is_empty() {
            let before = rest.len();
            if self.upgrade.is_some() {
                self.upgraded(call, rest, is_request);
                return Ok(());
            }
            let outcome = match if is_request { &mut self.request } else { &mut self.response } {
                Side::Head { .. } => self.head(call, &mut rest, is_request),
                Side::Held(held) if held.len() + rest.len() > HEAD => {
                    Err("more came before the answer to an upgrade")
                }
                Side::Held(held) => {
                    held.extend_from_slice(rest);
                    return Ok(());
                }
                _ => self.body(call, &mut rest, is_request),
            };
            outcome.map_err(|why| Strange { why, rest: rest.to_vec() })?;
            debug_assert!(rest.len() < before || self.upgrade.is_some() || rest.is_empty());
            // What came behind an upgrade that was refused, or taken.
            self.release(call)?;
        }
        Ok(())
    }

    /// Takes from these bytes what belongs to a head.
    fn head(&mut self, call: Call<'_>, rest: &mut &[u8], is_request: bool) -> Result<(), &'static str> {
        let side = if is_request { &mut self.request } else { &mut self.response };
        let Side::Head { bytes, since } = side else { return Ok(()) };
        if bytes.is_empty() {
            // Empty lines before a head are allowed (RFC 9112 §2.2).
            *rest = rest.trim_ascii_start_lines();
            if rest.is_empty() {
                return Ok(());
            }
        }
        let since = *since.get_or_insert(call.at);
        let searched = bytes.len();
        let next = rest.get(..HEAD - searched).unwrap_or(rest);
        if searched == 0
            && let Some(taken) = self.whole_head(call, next, since, is_request)?
        {
            *rest = rest.get(taken..).unwrap_or_default();
            return Ok(());
        }
        let side = if is_request { &mut self.request } else { &mut self.response };
        let Side::Head { bytes, .. } = side else { return Ok(()) };
        bytes.extend_from_slice(next);
        if head::end_of(bytes, searched).is_none() {
            *rest = &[];
            return if bytes.len() < HEAD { Ok(()) } else { Err("a head of more than 64 KiB") };
        }
        let held = std::mem::take(bytes);
        let taken = self.whole_head(call, &held, since, is_request)?.ok_or("a head that does not end")?;
        *rest = rest.get(taken.saturating_sub(searched)..).unwrap_or_default();
        Ok(())
    }

    /// Takes the head with which these bytes begin and, of a response, what there is of its body. Says how many bytes those
    /// are; None if the head is not there as a whole.
    fn whole_head(
        &mut self,
        call: Call<'_>,
        bytes: &[u8],
        since: Duration,
        is_request: bool,
    ) -> Result<Option<usize>, &'static str> {
        if is_request {
            self.request_head(call, bytes, since)
        } else {
            self.response_head(call, bytes, since)
        }
    }

    fn request_head(
        &mut self,
        call: Call<'_>,
        bytes: &[u8],
        since: Duration,
    ) -> Result<Option<usize>, &'static str> {
        let head = head::request(bytes).map_err(|_| "no head of an HTTP/1.1 request")?;
        let Some((head, raw, _)) = head else { return Ok(None) };
        if self.waiting.len() >= PIPELINE {
            return Err("too many requests without an answer");
        }
        let is_over = head.framing == Framing::Length(0);
        let method = match head.method.as_str() {
            "HEAD" => "HEAD",
            "CONNECT" => "CONNECT",
            _ => "",
        };
        let http = Http {
            method: head.method,
            target: head.target,
            version: head.version,
            request: Message::new(call.desk.keep(raw, &[], is_over), raw.len(), head.framing),
            response: None,
            sent: is_over.then(|| call.at.saturating_sub(since)),
            answered: None,
            upgrade: None,
        };
        let id = call.desk.add(call.about, since, Kind::Http(http));
        let since = Since { id, at: since };
        self.waiting.push_back(Waiting { since, method, may_upgrade: head.may_upgrade });
        if is_over {
            self.request = Side::next_request(head.may_upgrade);
        } else {
            self.sending = Some((since, head.may_upgrade));
            self.request = Side::body(head.framing);
            self.sizes[0] = raw.len() as u64;
        }
        Ok(Some(raw.len()))
    }

    fn response_head(
        &mut self,
        call: Call<'_>,
        bytes: &[u8],
        since: Duration,
    ) -> Result<Option<usize>, &'static str> {
        let Some(first) = self.waiting.front() else { return Err("a response without a request") };
        let head = head::response(bytes, first.method).map_err(|_| "no head of an HTTP/1.1 response")?;
        let Some((head, raw, behind)) = head else { return Ok(None) };
        let is_switch =
            first.may_upgrade && matches!((first.method, head.status), (_, 101) | ("CONNECT", 200..300));
        if head.status < 200 && !is_switch {
            self.response = Side::default();
            return Ok(Some(raw.len()));
        }
        let began = first.since;
        let framing = if is_switch { Framing::Length(0) } else { head.framing };
        let (body, left) = match framing {
            Framing::Length(length) => {
                let body =
                    usize::try_from(length).ok().and_then(|length| behind.get(..length)).unwrap_or(behind);
                (body, Framing::Length(length - body.len() as u64))
            }
            framing => (&[][..], framing),
        };
        let kept = body.get(..call.desk.message.saturating_sub(raw.len())).unwrap_or(body);
        let mut message =
            Message::new(call.desk.keep(raw, kept, left == Framing::Length(0)), raw.len(), framing);
        message.size += (body.len() - kept.len()) as u64;
        let readers = if is_switch { Reader::pair(&message) } else { None };
        let upgrade = is_switch.then(|| match readers {
            Some(_) => Box::new(Upgrade::WebSocket(Talk::default())),
            None => Box::new(Upgrade::Other(Flow::default())),
        });
        let response = Response { status: head.status, reason: head.reason, version: head.version, message };
        call.desk.change(began.id, |entry| {
            if let Some(http) = entry.http_mut() {
                http.response = Some(response);
                http.answered = Some(since.saturating_sub(began.at));
                http.upgrade = upgrade;
            }
        });
        self.response = Side::body(left);
        self.sizes[1] = (raw.len() + body.len()) as u64;
        if is_switch {
            self.waiting.pop_front();
            self.response = Side::default();
            self.upgrade = Some(Switched { since: began, readers: readers.map(Box::new) });
        } else if left == Framing::Length(0) {
            self.response_is_over(call);
        }
        Ok(Some(raw.len() + body.len()))
    }

    /// Takes from these bytes what belongs to a body.
    fn body(&mut self, call: Call<'_>, rest: &mut &[u8], is_request: bool) -> Result<(), &'static str> {
        let answered = self.waiting.front().map(|it| it.since);
        let since = if is_request { self.sending.map(|it| it.0) } else { answered };
        let Some(Since { id, .. }) = since else { return Err("a body without a head") };
        let side = if is_request { &mut self.request } else { &mut self.response };
        let (taken, is_over) = match side {
            Side::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *left -= taken as u64;
                (taken, *left == 0)
            }
            Side::Chunked(chunks) => {
                chunks.feed(rest, &mut |_| {}).map_err(|_| "a chunked body that is none")?
            }
            Side::Close => (rest.len(), false),
            Side::Head { .. } | Side::Held(_) => (0, true),
        };
        let (bytes, behind) = rest.split_at_checked(taken).unwrap_or((rest, &[]));
        let most = call.desk.message;
        let [request, response] = &mut self.sizes;
        *(if is_request { request } else { response }) += bytes.len() as u64;
        call.desk.change(id, |entry| {
            let Some(http) = entry.http_mut() else { return };
            let response = http.response.as_mut().map(|it| &mut it.message);
            let message = if is_request { Some(&mut http.request) } else { response };
            if let Some(message) = message {
                message.push(bytes, most);
            }
        });
        *rest = behind;
        match (is_over, is_request) {
            (true, true) => self.request_is_over(call),
            (true, false) => self.response_is_over(call),
            _ => {}
        }
        Ok(())
    }

    /// See [`Connection::needless`](super::connection::Connection::needless).
    pub(super) fn needless(&self, desk: &Desk, is_request: bool) -> u64 {
        let [request, response] = self.sizes;
        let (side, size) = if is_request { (&self.request, request) } else { (&self.response, response) };
        match side {
            Side::Length(left) if size >= desk.message as u64 => *left,
            Side::Close if size >= desk.message as u64 => u64::MAX,
            _ => 0,
        }
    }

    /// So many bytes came of a body. False if that cannot be.
    pub(super) fn skip(&mut self, desk: &Desk, bytes: u64, is_request: bool) -> bool {
        let (side, since) = if is_request {
            (&mut self.request, self.sending.map(|it| it.0))
        } else {
            (&mut self.response, self.waiting.front().map(|it| it.since))
        };
        match side {
            Side::Length(left) if *left > bytes => *left -= bytes,
            Side::Close => {}
            _ => return false,
        }
        let Some(Since { id, .. }) = since else { return false };
        desk.change(id, |entry| {
            let Some(http) = entry.http_mut() else { return };
            let response = http.response.as_mut().map(|it| &mut it.message);
            if let Some(message) = if is_request { Some(&mut http.request) } else { response } {
                message.size += bytes;
            }
        });
        true
    }

    fn request_is_over(&mut self, call: Call<'_>) {
        let Some((since, may_upgrade)) = self.sending.take() else { return };
        let sent = call.at.saturating_sub(since.at);
        call.desk.change(since.id, |entry| {
            if let Some(http) = entry.http_mut() {
                http.sent = Some(sent);
            }
        });
        self.request = Side::next_request(may_upgrade);
    }

    fn response_is_over(&mut self, call: Call<'_>) {
        if let Some(Waiting { since, .. }) = self.waiting.pop_front() {
            call.desk.finish(call.about, since.id, call.at.saturating_sub(since.at), false);
        }
        self.response = Side::default();
    }

    /// Hands on what was held while an upgrade was not decided.
    fn release(&mut self, call: Call<'_>) -> Result<(), Strange> {
        let is_decided = self.upgrade.is_some() || self.waiting.is_empty();
        let Side::Held(held) = &mut self.request else { return Ok(()) };
        if !is_decided {
            return Ok(());
        }
        let held = std::mem::take(held);
        self.request = Side::default();
        if held.is_empty() {
            Ok(())
        } else {
            self.feed(call.desk, call.about, Piece { bytes: &held, is_request: true, at: call.at })
        }
    }

    fn upgraded(&mut self, call: Call<'_>, bytes: &[u8], is_request: bool) {
        let Some(Switched { since, readers }) = &mut self.upgrade else { return };
        let at = call.at.saturating_sub(since.at);
        let mut frames = Vec::new();
        let mut broken = None;
        if let Some(both) = readers {
            let reader = if is_request { &mut both.0 } else { &mut both.1 };
            broken = reader.feed(bytes, at, is_request, &mut |frame| frames.push(frame)).err();
        }
        let most = call.desk.message;
        call.desk.change(since.id, |entry| {
            match entry.http_mut().and_then(|http| http.upgrade.as_deref_mut()) {
                Some(Upgrade::WebSocket(talk)) => {
                    let total = if is_request { &mut talk.request_bytes } else { &mut talk.response_bytes };
                    *total += bytes.len() as u64;
                    talk.broken = talk.broken.or(broken);
                    for frame in frames {
                        talk.push(frame, most);
                    }
                }
                Some(Upgrade::Other(flow)) => {
                    let way = if is_request { &mut flow.request } else { &mut flow.response };
                    way.push(bytes, at);
                }
                None => {}
            }
        });
    }

    /// The upstream sends no more: the end of a body without a length.
    pub(super) fn response_ends(&mut self, desk: &Desk, about: &About, at: Duration) {
        let call = Call { desk, about, at };
        if matches!(self.response, Side::Close) {
            self.response_is_over(call);
        }
        if let Some(Switched { since, .. }) = self.upgrade.take() {
            desk.finish(about, since.id, at.saturating_sub(since.at), false);
        }
    }
}

trait Lines {
    fn trim_ascii_start_lines(&self) -> &Self;
}

impl Lines for [u8] {
    fn trim_ascii_start_lines(&self) -> &Self {
        let empty = self.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.get(empty..).unwrap_or_default()
    }
}
