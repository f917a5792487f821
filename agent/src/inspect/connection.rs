//! One connection to an upstream: finds out what is spoken there and hands it to who understands it.

use std::time::Duration;

use super::collect::Desk;
use super::entry::{FIRST, Flow, Id, Kind};
use super::http1::Http1;
use super::http2::{Http2, PREFACE};
use super::recording::About;

/// Bytes that passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) bytes: &'a [u8],
    /// To the upstream.
    pub(super) is_request: bool,
    /// Since the beginning of the connection.
    pub(super) at: Duration,
}

/// What is known of a connection so far.
#[derive(Debug)]
pub(super) struct Connection {
    mode: Mode,
    request_has_ended: bool,
    /// Bytes of a flow, the request's first.
    flowed: [u64; 2],
}

#[derive(Debug)]
enum Mode {
    /// The first bytes of the visitor say too little.
    Undecided(Vec<u8>),
    Http1(Box<Http1>),
    Http2(Box<Http2>),
    Flow(Since),
    /// Nothing more is looked at; these are still open.
    Deaf(Vec<Since>),
}

/// An entry, and when it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since {
    pub(super) id: Id,
    pub(super) at: Duration,
}

/// The bytes are not what they seemed to be.
#[derive(Debug)]
pub(super) struct Strange {
    /// What could not be understood.
    pub(super) why: &'static str,
    /// From there on.
    pub(super) rest: Vec<u8>,
}

impl Default for Connection {
    fn default() -> Self {
        Self { mode: Mode::Undecided(Vec::new()), request_has_ended: false, flowed: [0; 2] }
    }
}

impl Connection {
    /// What is not in an entry yet, in bytes.
    pub(super) fn memory(&self) -> usize {
        match &self.mode {
            Mode::Undecided(first) => first.capacity(),
            Mode::Http1(http) => http.memory(),
            Mode::Http2(http) => http.memory(),
            Mode::Flow(_) => 0,
            Mode::Deaf(open) => open.capacity() * size_of::<Since>(),
        }
    }

    pub(super) fn feed(&mut self, desk: &Desk, about: &About, piece: Piece<'_>) {
        let Piece { bytes, is_request, at } = piece;
        if let Mode::Undecided(first) = &mut self.mode {
            if is_request {
                first.extend_from_slice(bytes);
            }
            let is_odd = !is_request && first.is_empty();
            let first = std::mem::take(first);
            self.mode = match guess(&first) {
                _ if is_odd && are_settings(bytes) => Mode::Http2(Box::default()),
                _ if is_odd => flow(desk, about, &[], at, banner(bytes)),
                Guess::Short if is_request => Mode::Undecided(first.clone()),
                Guess::Http1 => Mode::Http1(Box::default()),
                Guess::Http2 => Mode::Http2(Box::default()),
                // An answer to so little: whatever it is.
                Guess::Short => flow(desk, about, &first, at, ""),
                Guess::Other(protocol) => flow(desk, about, &first, at, protocol),
            };
            match &self.mode {
                Mode::Http1(_) | Mode::Http2(_) if is_request => {
                    self.pass(desk, about, Piece { bytes: &first, is_request: true, at });
                }
                Mode::Http2(_) | Mode::Flow(_) if !is_request => self.pass(desk, about, piece),
                _ => {}
            }
            return;
        }
        self.pass(desk, about, piece);
    }

    fn pass(&mut self, desk: &Desk, about: &About, piece: Piece<'_>) {
        let Piece { bytes, is_request, at } = piece;
        let outcome = match &mut self.mode {
            Mode::Http1(http) => http.feed(desk, about, piece),
            Mode::Http2(http) => http.feed(desk, about, piece),
            Mode::Flow(since) => {
                let [request, response] = &mut self.flowed;
                *(if is_request { request } else { response }) += bytes.len() as u64;
                desk.change(since.id, |entry| {
                    if let Kind::Connection(flow) = &mut entry.what {
                        let way = if is_request { &mut flow.request } else { &mut flow.response };
                        way.push(bytes, at.saturating_sub(since.at));
                    }
                });
                Ok(())
            }
            Mode::Undecided(_) | Mode::Deaf(_) => Ok(()),
        };
        let Err(strange) = outcome else { return };
        for open in self.open() {
            desk.change(open.id, |entry| entry.incomplete = Some(strange.why));
            desk.finish(about, open.id, at.saturating_sub(open.at), true);
        }
        self.mode = flow(desk, about, &[], at, "");
        self.pass(desk, about, Piece { bytes: &strange.rest, ..piece });
    }

    /// Of how many bytes that come next in this direction nothing is kept and only their number is wanted.
    pub(super) fn needless(&self, desk: &Desk, is_request: bool) -> u64 {
        let [request, response] = self.flowed;
        match &self.mode {
            Mode::Http1(http) => http.needless(desk, is_request),
            Mode::Flow(_) if (if is_request { request } else { response }) >= FIRST as u64 => u64::MAX,
            Mode::Deaf(_) => u64::MAX,
            Mode::Undecided(_) | Mode::Http2(_) | Mode::Flow(_) => 0,
        }
    }

    /// So many bytes came, as [`Connection::needless`] allows.
    pub(super) fn skip(&mut self, desk: &Desk, about: &About, bytes: u64, is_request: bool) {
        match &mut self.mode {
            Mode::Http1(http) => {
                if !http.skip(desk, bytes, is_request) {
                    self.give_up(desk, about, "bytes are missing");
                }
            }
            Mode::Flow(since) => desk.change(since.id, |entry| {
                if let Kind::Connection(flow) = &mut entry.what {
                    let way = if is_request { &mut flow.request } else { &mut flow.response };
                    way.total += bytes;
                }
            }),
            Mode::Undecided(_) | Mode::Http2(_) | Mode::Deaf(_) => {}
        }
    }

    /// Nobody sends more in this direction.
    pub(super) fn end(&mut self, desk: &Desk, about: &About, is_request: bool, at: Duration) {
        self.request_has_ended |= is_request;
        if let (Mode::Http1(http), false) = (&mut self.mode, is_request) {
            http.response_ends(desk, about, at);
        }
    }

    /// Nothing more is looked at.
    pub(super) fn give_up(&mut self, desk: &Desk, about: &About, why: &'static str) {
        if matches!(self.mode, Mode::Deaf(_)) {
            return;
        }
        let mut open = self.open();
        if open.is_empty() {
            // Not even that something passed would be seen otherwise.
            let at = about.since.elapsed();
            open.push(Since { id: desk.add(about, at, Kind::Connection(Box::default())), at });
        }
        for since in &open {
            desk.change(since.id, |entry| entry.incomplete = Some(why));
        }
        self.mode = Mode::Deaf(open);
    }

    pub(super) fn close(&mut self, desk: &Desk, about: &About, at: Duration) {
        self.end(desk, about, false, at);
        let is_http = matches!(self.mode, Mode::Http1(_) | Mode::Http2(_));
        if let Mode::Undecided(first) = &self.mode {
            // One that was opened ahead and never used says nothing to anybody.
            if first.is_empty() {
                return;
            }
            self.mode = flow(desk, about, &first.clone(), at, "");
        }
        for open in self.open() {
            desk.finish(about, open.id, at.saturating_sub(open.at), is_http);
        }
    }

    fn open(&self) -> Vec<Since> {
        match &self.mode {
            Mode::Undecided(_) => Vec::new(),
            Mode::Http1(http) => http.open(),
            Mode::Http2(http) => http.open(),
            Mode::Flow(since) => vec![*since],
            Mode::Deaf(open) => open.clone(),
        }
    }
}

fn flow(desk: &Desk, about: &About, first: &[u8], at: Duration, protocol: &'static str) -> Mode {
    let mut flow = Flow { protocol, ..Flow::default() };
    if !first.is_empty() {
        flow.request.push(first, Duration::ZERO);
    }
    Mode::Flow(Since { id: desk.add(about, at, Kind::Connection(Box::new(flow))), at })
}

#[derive(Debug, PartialEq, Eq)]
enum Guess {
    Short,
    Http1,
    Http2,
    Other(&'static str),
}

/// Longest method that is taken for one.
const METHOD: usize = 24;

/// What a visitor who begins like this speaks.
fn guess(first: &[u8]) -> Guess {
    if PREFACE.starts_with(first) && first.len() < PREFACE.len() {
        return Guess::Short;
    }
    if first.starts_with(PREFACE) {
        return Guess::Http2;
    }
    let is_method = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    let method = first.iter().take(METHOD).take_while(|byte| is_method(byte)).count();
    match first.get(method) {
        Some(b' ') if method > 0 => Guess::Http1,
        None if method < METHOD => Guess::Short,
        _ => Guess::Other(banner(first)),
    }
}

/// Whether an upstream begins with the settings of HTTP/2, which it may do before the visitor has said anything (RFC 9113
/// §3.4, §6.5).
fn are_settings(first: &[u8]) -> bool {
    matches!(first, [0, 0, length, 0x4, 0, 0, 0, 0, 0, ..] if length % 6 == 0)
}

fn banner(first: &[u8]) -> &'static str {
    match first {
        [0x16, 0x03, ..] => "TLS",
        [b'S', b'S', b'H', b'-', ..] => "SSH",
        [b'R', b'F', b'B', b' ', ..] => "VNC",
        [0x03, 0x00, 0x00, ..] => "RDP",
        [_, _, _, _, 0x00, 0x03, 0x00, 0x00, ..] => "PostgreSQL",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_say_what_is_spoken() {
        assert_eq!(guess(b"GET / HTTP/1.1\r\n"), Guess::Http1);
        assert_eq!(guess(b"M-SEARCH * HTTP/1.1\r\n"), Guess::Http1);
        assert_eq!(guess(b"PROPFIND /"), Guess::Http1);
        assert_eq!(guess(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0"), Guess::Http2);
        assert_eq!(guess(b"\x16\x03\x01\x02\x00"), Guess::Other("TLS"));
        assert_eq!(guess(b"SSH-2.0-OpenSSH"), Guess::Other("SSH"));
        for short in ["", "G", "GET", "PRI * HTTP/2"] {
            assert_eq!(guess(short.as_bytes()), Guess::Short, "{short}");
        }
        assert_eq!(guess(&[b'A'; METHOD + 1]), Guess::Other(""));
    }
}
