//! Compression of responses (behaviour.md 3.3; RFC 9110 §8.4 and §12.5.3).

mod body;
mod coding;

use hithe_cli_parser::Compression;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use http_body::Body as _;

use self::body::Compressed;
use self::coding::Coding;
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

/// Of the bytes of a body, with their coding: those of the message and those of the representation alike, and the
/// forms that these headers had before (RFC 9530 §2 and §3; RFC 9110 §8.1).
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

impl Module for Compressor {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        visit.wanted_coding = Wanted::of(&request.headers().get_all(ACCEPT_ENCODING));
        visit.asks_head = *request.method() == Method::HEAD;
        Passage::Now(Flow::Continue)
    }

    fn response(&self, response: &mut Response<Body>, visit: &mut Visit) {
        let length = length(response, visit.asks_head);
        let Some(kind) = kind(response, length) else { return };
        vary(response.headers_mut());
        let Some(coding) = visit.wanted_coding.best(kind == Kind::Stream) else { return };
        // An answer to HEAD has the headers of one to GET (RFC 9110 §9.3.2), and no body to encode.
        if !visit.asks_head {
            let Ok(encoder) = coding.encoder(length) else { return };
            let inner = std::mem::replace(response.body_mut(), Body::empty());
            *response.body_mut() = Body::made(Compressed::new(inner, encoder));
        }
        visit.passed.compression = Some(coding.as_str());
        describe(response.headers_mut(), coding);
    }
}

fn describe(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    for name in [CONTENT_LENGTH, ACCEPT_RANGES].iter().chain(&DIGESTS) {
        headers.remove(name);
    }
    weaken(headers);
}

/// Of the body that a response has, or would have to a GET.
fn length(response: &Response<Body>, asks_head: bool) -> Option<u64> {
    if asks_head {
        return response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    }
    // That is what `Content-Length` said, where there was one: it may be known without, over HTTP/2.
    response.body().size_hint().exact()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Document,
    /// Stays open, and comes bit by bit.
    Stream,
}

/// `None` where a response is to be left as it is.
fn kind(response: &Response<Body>, length: Option<u64>) -> Option<Kind> {
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
    if length.is_some_and(|length| length < MIN_LENGTH) {
        return None;
    }
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media = content_type.split(';').next()?.trim().to_ascii_lowercase();
    if media == "text/event-stream" {
        return Some(Kind::Stream);
    }
    // Its frames have their own coding, and its clients look for no other.
    if media.starts_with("application/grpc") {
        return None;
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
            (&[("content-type", "application/grpc+json")], false),
        ] {
            assert_eq!(kind(&response(lines), None).is_some(), gains, "{lines:?}");
        }
        for status in [204, 205, 206, 304] {
            let mut response = response(&[("content-type", "text/html")]);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            assert_eq!(kind(&response, None), None, "{status}");
        }
        assert_eq!(kind(&response(&[("content-type", "text/event-stream")]), None), Some(Kind::Stream));
    }

    #[test]
    fn few_bytes_are_not_compressed_whoever_says_how_many_they_are() {
        let html = response(&[("content-type", "text/html")]);
        for (known, gains) in [(Some(0), false), (Some(1023), false), (Some(1024), true), (None, true)] {
            assert_eq!(kind(&html, known).is_some(), gains, "{known:?}");
        }
        assert_eq!((length(&html, false), length(&html, true)), (Some(2000), None));
        let mut head = response(&[("content-length", "7")]);
        *head.body_mut() = Body::empty();
        assert_eq!((length(&head, false), length(&head, true)), (Some(0), Some(7)));
    }

    #[test]
    fn what_the_bytes_were_digested_to_goes_with_them() {
        let mut headers = HeaderMap::new();
        let gone =
            ["content-length", "accept-ranges", "content-digest", "repr-digest", "digest", "content-md5"];
        for name in gone.iter().chain(&["content-type", "want-repr-digest"]) {
            headers.insert(*name, HeaderValue::from_static("a"));
        }
        describe(&mut headers, Coding::Br);
        assert!(gone.iter().all(|name| !headers.contains_key(*name)), "{headers:?}");
        assert_eq!(
            (headers.len(), headers.get(CONTENT_ENCODING)),
            (3, Some(&HeaderValue::from_static("br")))
        );
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
