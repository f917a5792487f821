//! Compression of responses (behaviour.md 3.3; RFC 9110 §8.4 and §12.5.3).

mod body;
mod coding;

use hithe_cli_parser::Compression;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use self::body::Compressed;
pub(super) use self::coding::Wanted;
use super::{BuildError, Flow, Module, Passage, Plan, Visit};
use crate::body::Body;

#[expect(clippy::unnecessary_wraps, reason = "as all modules are built")]
pub(super) fn build(config: &Compression, plan: &mut Plan) -> Result<(), BuildError> {
    if config.enabled {
        plan.chain.push(Compressor);
    }
    Ok(())
}

struct Compressor;

/// What is compressed, beside `text/*` and what ends in `+json` or `+xml`.
const TYPES: [&str; 16] = [
    "application/javascript",
    "application/json",
    "application/ld+json",
    "application/manifest+json",
    "application/ndjson",
    "application/rtf",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/x-yaml",
    "application/xml",
    "application/yaml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/svg+xml",
];

/// Fewer bytes than this fit into one packet anyway.
const MIN_LENGTH: u64 = 1024;

/// Describe the bytes of a body, which are others when it is compressed.
const OF_BYTES: [HeaderName; 4] = [
    CONTENT_LENGTH,
    ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
];

impl Module for Compressor {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        // An answer to HEAD has no body whose coding could be told.
        if *request.method() != Method::HEAD {
            visit.wanted_coding = Wanted::of(&request.headers().get_all(ACCEPT_ENCODING));
        }
        Passage::Now(Flow::Continue)
    }

    fn response(&self, response: &mut Response<Body>, visit: &mut Visit) {
        let Some(kind) = kind(response) else { return };
        vary(response.headers_mut());
        let Some(coding) = visit.wanted_coding.best(kind == Kind::Stream) else { return };
        let Ok(encoder) = coding.encoder() else { return };
        visit.passed.compression = Some(coding.as_str());
        let headers = response.headers_mut();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        for name in OF_BYTES {
            headers.remove(name);
        }
        weaken(headers);
        let inner = std::mem::replace(response.body_mut(), Body::empty());
        *response.body_mut() = Body::made(Compressed::new(inner, encoder));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Document,
    /// Stays open, and comes bit by bit.
    Stream,
}

/// `None` where a response is to be left as it is.
fn kind(response: &Response<Body>) -> Option<Kind> {
    let headers = response.headers();
    let bare = matches!(
        response.status(),
        StatusCode::NO_CONTENT
            | StatusCode::RESET_CONTENT
            | StatusCode::PARTIAL_CONTENT
            | StatusCode::NOT_MODIFIED
    );
    if bare || response.status().is_informational() || is_encoded(headers) || forbids(headers) {
        return None;
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length < MIN_LENGTH) {
        return None;
    }
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media = content_type.split(';').next()?.trim().to_ascii_lowercase();
    if media == "text/event-stream" {
        return Some(Kind::Stream);
    }
    let gains = media.starts_with("text/")
        || TYPES.contains(&media.as_str())
        || media.ends_with("+json")
        || media.ends_with("+xml");
    gains.then_some(Kind::Document)
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn forbids(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case("no-transform"))
}

fn vary(headers: &mut HeaderMap) {
    let values = headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok());
    let covers = |part: &str| part == "*" || part.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str());
    if !values.flat_map(|value| value.split(',')).any(|part| covers(part.trim())) {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// The same document, but not the same bytes (RFC 9110 §8.8.1).
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(ETAG) else { return };
    if !tag.as_bytes().starts_with(b"W/") {
        let weak = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat());
        match weak {
            Ok(weak) => headers.insert(ETAG, weak),
            Err(_) => headers.remove(ETAG),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(lines: &[(&'static str, &'static str)]) -> Response<Body> {
        let mut response = Response::new(Body::full("x".repeat(2000)));
        for (name, value) in lines {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        response
    }

    #[test]
    fn only_what_gains_is_compressed() {
        for (lines, gains) in [
            (&[("content-type", "text/html; charset=utf-8")][..], true),
            (&[("content-type", "Application/JSON")], true),
            (&[("content-type", "application/problem+json")], true),
            (&[("content-type", "image/svg+xml")], true),
            (&[("content-type", "image/png")], false),
            (&[("content-type", "video/mp4")], false),
            (&[], false),
            (&[("content-type", "text/html"), ("content-encoding", "gzip")], false),
            (&[("content-type", "text/html"), ("content-encoding", "identity")], true),
            (&[("content-type", "text/html"), ("cache-control", "public, no-transform")], false),
            (&[("content-type", "text/html"), ("content-length", "1023")], false),
            (&[("content-type", "text/html"), ("content-length", "1024")], true),
        ] {
            assert_eq!(kind(&response(lines)).is_some(), gains, "{lines:?}");
        }
        for status in [204, 205, 206, 304] {
            let mut response = response(&[("content-type", "text/html")]);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            assert_eq!(kind(&response), None, "{status}");
        }
        assert_eq!(kind(&response(&[("content-type", "text/event-stream")])), Some(Kind::Stream));
    }

    #[test]
    fn caches_are_told_once() {
        for (said, told) in [
            (&[][..], &["accept-encoding"][..]),
            (&[("vary", "origin")], &["origin", "accept-encoding"]),
            (&[("vary", "origin, Accept-Encoding")], &["origin, Accept-Encoding"]),
            (&[("vary", "*")], &["*"]),
        ] {
            let mut response = response(said);
            vary(response.headers_mut());
            assert_eq!(response.headers().get_all(VARY).iter().collect::<Vec<_>>(), told);
        }
    }

    #[test]
    fn a_strong_tag_becomes_weak() {
        for (said, tag) in [("\"a\"", "W/\"a\""), ("W/\"a\"", "W/\"a\"")] {
            let mut response = response(&[("etag", said)]);
            weaken(response.headers_mut());
            assert_eq!(response.headers()[ETAG], tag);
        }
    }
}
