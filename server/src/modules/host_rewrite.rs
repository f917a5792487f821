//! Host rewriting: the upstream sees another host than the public one, and visitors do not notice (behaviour.md 4.4).

use hithe_cli_parser::{Code, HostRewrite, Objection, PRESERVE};
use http::header::{CONTENT_LOCATION, HOST, LOCATION, SET_COOKIE};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};

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
        Rewritten::note(visit, request.headers(), self.0.clone());
        request.headers_mut().insert(HOST, self.0.clone());
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
    /// The first of several rewritings knows the public host.
    pub(super) fn note(visit: &mut Visit, headers: &HeaderMap, upstream: HeaderValue) {
        match &mut visit.rewritten {
            Some(rewritten) => rewritten.upstream = upstream,
            None => {
                let Some(public) = headers.get(HOST).cloned() else { return };
                visit.rewritten = Some(Box::new(Self { public, upstream }));
            }
        }
    }
}

pub(super) fn is_host(value: &HeaderValue) -> bool {
    let authority = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    authority.is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'))
}

/// Turns what points at the rewritten host to the public one.
pub(super) fn restore(response: &mut Response<Body>, visit: &Visit) {
    let Some(rewritten) = &visit.rewritten else { return };
    let (Ok(public), Ok(upstream)) = (rewritten.public.to_str(), rewritten.upstream.to_str()) else { return };
    for name in [LOCATION, CONTENT_LOCATION] {
        turn(response.headers_mut(), &name, visit.scheme(), public, upstream);
    }
    free_cookies(response.headers_mut(), host_of(upstream));
}

fn turn(headers: &mut HeaderMap, name: &HeaderName, scheme: &str, public: &str, upstream: &str) {
    let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) else { return };
    let Some((said_scheme, rest)) = value.split_once("://") else { return };
    if !["http", "https"].iter().any(|known| said_scheme.eq_ignore_ascii_case(known)) {
        return;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_same(authority, upstream) {
        return;
    }
    if let Ok(turned) = HeaderValue::try_from(format!("{scheme}://{public}{path}")) {
        headers.insert(name, turned);
    }
}

/// Whether a URL's authority is the rewritten host; a usual port may be left out on either side.
fn is_same(said: &str, upstream: &str) -> bool {
    let port = |authority: &str| {
        let port = authority.strip_prefix(host_of(authority)).and_then(|port| port.strip_prefix(':'));
        port.filter(|port| !["", "80", "443"].contains(port)).map(str::to_owned)
    };
    host_of(said).eq_ignore_ascii_case(host_of(upstream)) && port(said) == port(upstream)
}

fn host_of(authority: &str) -> &str {
    let end = match authority.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(end) => end + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    authority.get(..end).unwrap_or(authority)
}

/// Takes the `Domain` of the rewritten host, or of one above it, from cookies: the browser then keeps them for the
/// public host.
fn free_cookies(headers: &mut HeaderMap, upstream: &str) {
    if !headers.contains_key(SET_COOKIE) {
        return;
    }
    let cookies: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    for cookie in cookies {
        let kept = cookie
            .as_bytes()
            .split(|&byte| byte == b';')
            .enumerate()
            .filter(|(index, attribute)| *index == 0 || !is_domain_of(attribute, upstream))
            .map(|(_, attribute)| attribute)
            .collect::<Vec<_>>()
            .join(&b';');
        headers.append(SET_COOKIE, HeaderValue::from_bytes(&kept).unwrap_or(cookie));
    }
}

fn is_domain_of(attribute: &[u8], upstream: &str) -> bool {
    let Ok(text) = std::str::from_utf8(attribute) else { return false };
    let Some((name, value)) = text.split_once('=') else { return false };
    let value = value.trim().trim_start_matches('.').trim_end_matches('.');
    let upstream = upstream.trim_end_matches('.');
    if !name.trim().eq_ignore_ascii_case("domain") || value.is_empty() {
        return false;
    }
    let Some(at) = upstream.len().checked_sub(value.len()) else { return false };
    let (above, end) = upstream.split_at_checked(at).unwrap_or((upstream, ""));
    end.eq_ignore_ascii_case(value) && (above.is_empty() || above.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::visit::Visitor;

    fn restored(name: HeaderName, value: &str, upstream: &'static str) -> String {
        let mut visit = Visit::new(Visitor::new("127.0.0.1:7".parse().unwrap(), None), Some(&Arc::default()), &"https://app.test:8443".into());
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("app.test:8443"))]);
        Rewritten::note(&mut visit, &headers, HeaderValue::from_static(upstream));
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(&name, value.parse().unwrap());
        restore(&mut response, &visit);
        response.headers()[name].to_str().unwrap().to_owned()
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
    }
}
