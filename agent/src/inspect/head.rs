//! Heads of HTTP/1.1 messages: where they end, what they say, and how the body behind them is framed
//! (RFC 9112 §6.3).

use std::mem::MaybeUninit;

use compact_str::CompactString;
use httparse::Status;

/// Longest head that is looked at, in bytes.
pub(super) const HEAD: usize = 64 * 1024;

/// Most fields of a head that are looked at.
const FIELDS: usize = 256;

/// A field as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) value: String,
}

impl Header {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    /// The end of the connection, or of the HTTP/2 stream.
    Close,
}

/// A request's first line, and what follows for its body.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) method: CompactString,
    pub(super) target: CompactString,
    pub(super) version: &'static str,
    pub(super) framing: Framing,
    /// What comes behind it may be another protocol.
    pub(super) may_upgrade: bool,
}

/// A response's first line, and what follows for its body.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    pub(super) reason: CompactString,
    pub(super) version: &'static str,
    pub(super) framing: Framing,
}

/// It is no head.
#[derive(Debug)]
pub(super) struct Malformed;

impl From<httparse::Error> for Malformed {
    fn from(_: httparse::Error) -> Self {
        Self
    }
}

/// Where the head in these bytes ends, behind its empty line. The first `searched` have been looked at before.
pub(super) fn end_of(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(3);
    let rest = bytes.get(from..)?;
    let lines = rest.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    lines.map(|(found, _)| found + 1).find_map(|at| match rest.get(at..)? {
        [b'\n', ..] => Some(from + at + 1),
        [b'\r', b'\n', ..] => Some(from + at + 2),
        _ => None,
    })
}

/// A head, its bytes and those behind them.
type Split<'a, H> = (H, &'a [u8], &'a [u8]);

/// None if the head does not end in these bytes.
///
/// # Errors
/// It is no head of a request, or its body has no knowable end.
pub(super) fn request(bytes: &[u8]) -> Result<Option<Split<'_, RequestHead>>, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let Status::Complete(end) = parsed.parse_with_uninit_headers(bytes, &mut fields)? else {
        return Ok(None);
    };
    let framing = match coding(parsed.headers)? {
        Some(Framing::Close) => return Err(Malformed),
        framing => framing.unwrap_or(Framing::Length(0)),
    };
    let method = parsed.method.ok_or(Malformed)?;
    let may_upgrade = method == "CONNECT" || values(parsed.headers, "upgrade").next().is_some();
    let head = RequestHead {
        method: method.into(),
        target: parsed.path.ok_or(Malformed)?.into(),
        version: version(parsed.version),
        framing,
        may_upgrade,
    };
    let (raw, behind) = bytes.split_at_checked(end).ok_or(Malformed)?;
    Ok(Some((head, raw, behind)))
}

/// Of a response to a request of that method. None if the head does not end in these bytes.
///
/// # Errors
/// It is no head of a response.
pub(super) fn response<'a>(
    bytes: &'a [u8],
    method: &str,
) -> Result<Option<Split<'a, ResponseHead>>, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let Status::Complete(end) = parser.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields)?
    else {
        return Ok(None);
    };
    let status = parsed.code.ok_or(Malformed)?;
    let framing = if method == "HEAD" || status < 200 || status == 204 || status == 304 {
        Framing::Length(0)
    } else {
        coding(parsed.headers)?.unwrap_or(Framing::Close)
    };
    let head = ResponseHead {
        status,
        reason: parsed.reason.unwrap_or_default().into(),
        version: version(parsed.version),
        framing,
    };
    let (raw, behind) = bytes.split_at_checked(end).ok_or(Malformed)?;
    Ok(Some((head, raw, behind)))
}

fn version(minor: Option<u8>) -> &'static str {
    if minor == Some(0) { "HTTP/1.0" } else { "HTTP/1.1" }
}

fn values<'a>(fields: &'a [httparse::Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// What the fields say of the body's end. A transfer coding counts before a length.
fn coding(fields: &[httparse::Header<'_>]) -> Result<Option<Framing>, Malformed> {
    if let Some(last) = values(fields, "transfer-encoding").last() {
        let last = last.rsplit(|byte| *byte == b',').next().unwrap_or_default();
        let is_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        return Ok(Some(if is_chunked { Framing::Chunked } else { Framing::Close }));
    }
    let Some(length) = values(fields, "content-length").next() else { return Ok(None) };
    let text = std::str::from_utf8(length.trim_ascii()).map_err(|_| Malformed)?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed);
    }
    text.parse().map(|length| Some(Framing::Length(length))).map_err(|_| Malformed)
}

/// The fields behind the first line, in order and case as received.
pub(super) fn headers(head: &[u8]) -> Vec<Header> {
    let behind = head.iter().position(|byte| *byte == b'\n').map_or(head.len(), |at| at + 1);
    fields(head.get(behind..).unwrap_or_default())
}

/// Lines of fields. Bytes that are no UTF-8 are shown as such.
pub(super) fn fields(lines: &[u8]) -> Vec<Header> {
    let mut all: Vec<Header> = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        if text.starts_with([' ', '\t']) {
            if let Some(last) = all.last_mut() {
                last.value.push(' ');
                last.value.push_str(text.trim());
            }
            continue;
        }
        // The names of HTTP/2's pseudo fields begin with a colon.
        let colon = text.get(1..).and_then(|rest| rest.find(':'));
        let Some(colon) = colon else { continue };
        let (name, value) = text.split_at(colon + 1);
        all.push(Header {
            name: name.trim().to_owned(),
            value: value.get(1..).unwrap_or_default().trim().to_owned(),
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_wherever_the_search_went_on() {
        let head = b"GET / HTTP/1.1\r\nA: b\r\n\r\nbody";
        for searched in 0..24 {
            assert_eq!(end_of(head, searched), Some(24), "{searched}");
        }
        assert_eq!(end_of(b"GET / HTTP/1.1\n\nrest", 0), Some(16));
        assert_eq!(end_of(b"GET / HTTP/1.1\r\nA: b\r\n", 0), None);
    }

    #[test]
    fn the_body_of_a_response_is_framed_as_the_standard_says() {
        let framing = |head: &str, method| {
            response(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), method).unwrap().unwrap().0.framing
        };
        assert_eq!(framing("200 OK\r\nContent-Length: 5", "GET"), Framing::Length(5));
        assert_eq!(framing("200 OK\r\nContent-Length: 5", "HEAD"), Framing::Length(0));
        assert_eq!(framing("304 Not Modified\r\nContent-Length: 5", "GET"), Framing::Length(0));
        assert_eq!(framing("204 No Content", "GET"), Framing::Length(0));
        assert_eq!(framing("101 Switching Protocols", "GET"), Framing::Length(0));
        assert_eq!(
            framing("200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: gzip, Chunked", "GET"),
            Framing::Chunked
        );
        assert_eq!(framing("200 OK", "GET"), Framing::Close);
    }

    #[test]
    fn a_length_that_is_no_number_is_malformed() {
        for length in ["-1", "+5", "5, 5", "x", ""] {
            let head = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
            assert!(request(head.as_bytes()).is_err(), "{length}");
        }
    }

    #[test]
    fn fields_keep_their_order_and_case() {
        let all = headers(b"GET / HTTP/1.1\r\nX-b: 1\r\nx-A:2\r\nX-b: \xff\r\n folded\r\n\r\n");
        let shown: Vec<_> = all.iter().map(|it| format!("{}={}", it.name, it.value)).collect();
        assert_eq!(shown, ["X-b=1", "x-A=2", "X-b=\u{fffd} folded"]);
    }
}
