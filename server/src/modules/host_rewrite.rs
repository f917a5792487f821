//! Host rewriting: the upstream sees another host than the public one, and visitors do not notice (behaviour.md 4.4).

use hithe_cli_parser::{Code, HostRewrite, Objection, PRESERVE, is_authority};
use http::header::{CONTENT_LOCATION, HOST, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, Response};

use super::{BuildError, Flow, Module, Passage, Plan, Visit};
use crate::body::Body;

pub(super) fn build(config: &HostRewrite, plan: &mut Plan) -> Result<(), BuildError> {
    let Some(host) = config.host.as_deref().filter(|host| *host != PRESERVE) else { return Ok(()) };
    let wrong = |_| Objection::new(Code::BAD_FLAG, "--host-header takes a host and perhaps a port");
    plan.chain.push(Rewrite(host.parse().map_err(wrong)?));
    Ok(())
}

struct Rewrite(HeaderValue);

impl Module for Rewrite {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        rewrite(request, visit, self.0.clone());
        Passage::Now(Flow::Continue)
    }

    fn response(&self, response: &mut Response<Body>, visit: &mut Visit) {
        restore(response, visit);
    }
}

/// The two hosts of a request whose host was rewritten.
#[derive(Debug)]
pub(crate) struct Rewritten {
    public: HeaderValue,
    upstream: HeaderValue,
}

impl Rewritten {
    pub(super) fn public(&self) -> &HeaderValue {
        &self.public
    }
}

/// Asks the upstream for another host. The first of several rewritings knows the public one.
pub(super) fn rewrite(request: &mut Request<Body>, visit: &mut Visit, host: HeaderValue) {
    let before = request.headers_mut().insert(HOST, host.clone());
    match (&mut visit.rewritten, before) {
        (Some(rewritten), _) => rewritten.upstream = host,
        (none, Some(public)) => *none = Some(Box::new(Rewritten { public, upstream: host })),
        (None, None) => {}
    }
}

pub(super) fn is_host(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(is_authority)
}

/// Turns what points at the rewritten host to the public one.
pub(super) fn restore(response: &mut Response<Body>, visit: &Visit) {
    let Some(rewritten) = &visit.rewritten else { return };
    let (Ok(public), Ok(upstream)) = (rewritten.public.to_str(), rewritten.upstream.to_str()) else { return };
    let headers = response.headers_mut();
    for name in [LOCATION, CONTENT_LOCATION] {
        let value = headers.get(&name).map(HeaderValue::as_bytes);
        if let Some(turned) = value.and_then(|value| turned(value, visit.scheme(), public, upstream)) {
            headers.insert(name, turned);
        }
    }
    free_cookies(headers, split_authority(public).0, split_authority(upstream).0);
}

/// The same place at the public host, if a URL is one of the rewritten host. What has no authority is there already.
fn turned(url: &[u8], scheme: &str, public: &str, upstream: &str) -> Option<HeaderValue> {
    let (said_scheme, rest) = url.split_at_checked(url.windows(2).position(|two| two == b"//")?)?;
    if ![b"" as &[u8], b"http:", b"https:"].iter().any(|known| said_scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let rest = rest.strip_prefix(b"//")?;
    let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    if !is_same(std::str::from_utf8(authority).ok()?, upstream) {
        return None;
    }
    let mut turned = format!("{scheme}://{public}").into_bytes();
    turned.extend_from_slice(path);
    HeaderValue::try_from(turned).ok()
}

/// Whether a URL's authority is the rewritten host; a usual port may be left out on either side.
fn is_same(said: &str, upstream: &str) -> bool {
    let usual = |port| ["", "80", "443"].contains(&port);
    let ((host, port), (known, known_port)) = (split_authority(said), split_authority(upstream));
    host.eq_ignore_ascii_case(known) && (port == known_port || (usual(port) && usual(known_port)))
}

/// Host and port; the port may be left out.
pub(super) fn split_authority(authority: &str) -> (&str, &str) {
    let end = match authority.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(end) => end + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at_checked(end).unwrap_or((authority, ""));
    (host, port.strip_prefix(':').unwrap_or(port))
}

/// Takes the `Domain` of the rewritten host, or of one above it, from cookies: the browser then keeps them for the
/// public host. One that is above the public host too is as good as before.
fn free_cookies(headers: &mut HeaderMap, public: &str, upstream: &str) {
    let is_lost = |attribute: &[u8]| {
        domain(attribute).is_some_and(|domain| is_below(upstream, domain) && !is_below(public, domain))
    };
    if !headers.get_all(SET_COOKIE).iter().any(|cookie| attributes(cookie).skip(1).any(is_lost)) {
        return;
    }
    let cookies: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    for cookie in cookies {
        let kept = attributes(&cookie).enumerate().filter(|(index, it)| *index == 0 || !is_lost(it));
        let kept = kept.map(|(_, attribute)| attribute).collect::<Vec<_>>().join(&b';');
        headers.append(SET_COOKIE, HeaderValue::try_from(kept).unwrap_or(cookie));
    }
}

/// What stands between semicolons; the first is the cookie itself.
fn attributes(cookie: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    cookie.as_bytes().split(|&byte| byte == b';')
}

/// The value of a `Domain`, without the dots that mean nothing (RFC 6265 §5.2.3).
fn domain(attribute: &[u8]) -> Option<&str> {
    let (name, value) = std::str::from_utf8(attribute).ok()?.split_once('=')?;
    let value = value.trim().trim_matches('.');
    (name.trim().eq_ignore_ascii_case("domain") && !value.is_empty()).then_some(value)
}

/// Whether a host is a domain itself or a name in it.
fn is_below(host: &str, domain: &str) -> bool {
    let host = host.trim_end_matches('.');
    let parts = host.len().checked_sub(domain.len()).and_then(|at| host.split_at_checked(at));
    parts.is_some_and(|(before, end)| {
        end.eq_ignore_ascii_case(domain) && (before.is_empty() || before.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderName;

    use super::*;
    use crate::visit::Visitor;

    fn restored(name: HeaderName, value: &str, upstream: &'static str) -> String {
        let mut visit = Visit::new(
            Visitor::new("127.0.0.1:7".parse().unwrap(), None),
            Some(&Arc::default()),
            &"https://app.test:8443".into(),
        );
        let mut request = Request::new(Body::empty());
        request.headers_mut().insert(HOST, HeaderValue::from_static("app.test:8443"));
        rewrite(&mut request, &mut visit, HeaderValue::from_static(upstream));
        assert_eq!(request.headers()[HOST], upstream);
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(&name, value.parse().unwrap());
        restore(&mut response, &visit);
        String::from_utf8(response.headers()[name].as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_location_at_the_rewritten_host_is_turned_to_the_public_one() {
        for (said, upstream, turned) in [
            ("http://localhost:3000/a?b#c", "localhost:3000", "https://app.test:8443/a?b#c"),
            ("https://LOCALHOST:3000", "localhost:3000", "https://app.test:8443"),
            ("http://localhost/", "localhost", "https://app.test:8443/"),
            ("http://localhost:80/", "localhost", "https://app.test:8443/"),
            ("http://[::1]:3000/", "[::1]:3000", "https://app.test:8443/"),
            ("http://localhost:3001/", "localhost:3000", "http://localhost:3001/"),
            ("http://localhost.evil.test/", "localhost", "http://localhost.evil.test/"),
            ("http://localhost@evil.test/", "localhost", "http://localhost@evil.test/"),
            ("//localhost:3000/a", "localhost:3000", "https://app.test:8443/a"),
            ("http://localhost/\u{fc}ber", "localhost", "https://app.test:8443/\u{fc}ber"),
            ("/a?next=http://localhost/", "localhost", "/a?next=http://localhost/"),
            ("a//localhost/", "localhost", "a//localhost/"),
            ("http://localhost", "localhost:443", "https://app.test:8443"),
            ("/relative", "localhost", "/relative"),
            ("ftp://localhost/", "localhost", "ftp://localhost/"),
        ] {
            assert_eq!(restored(LOCATION, said, upstream), turned, "{said}");
        }
    }

    #[test]
    fn cookies_of_the_rewritten_host_become_those_of_the_public_one() {
        for (said, kept) in [
            ("a=1; Domain=app.internal; Path=/", "a=1; Path=/"),
            ("a=1; domain=.INTERNAL", "a=1"),
            ("a=1; Domain=other.test", "a=1; Domain=other.test"),
            ("a=1; Domain=p.internal", "a=1; Domain=p.internal"),
            ("domain=app.internal; Secure", "domain=app.internal; Secure"),
        ] {
            assert_eq!(restored(SET_COOKIE, said, "app.internal:3000"), kept);
        }
        // Above the public name too: the browser keeps it as it is.
        assert_eq!(restored(SET_COOKIE, "a=1; Domain=test", "v2.app.test"), "a=1; Domain=test");
        assert_eq!(restored(SET_COOKIE, "a=1; Domain=v2.app.test", "v2.app.test"), "a=1");
    }

    #[test]
    fn the_last_of_several_rewritings_counts_and_the_first_knows_the_public_host() {
        let mut visit =
            Visit::new(Visitor::new("127.0.0.1:7".parse().unwrap(), None), None, &"http://app.test".into());
        let mut request = Request::new(Body::empty());
        request.headers_mut().insert(HOST, HeaderValue::from_static("app.test"));
        for host in ["a.internal", "b.internal"] {
            rewrite(&mut request, &mut visit, HeaderValue::from_static(host));
        }
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("http://b.internal/x"));
        restore(&mut response, &visit);
        assert_eq!(response.headers()[LOCATION], "http://app.test/x");
    }
}
