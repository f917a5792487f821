//! The headers of a request on its way to the upstream, and of a response on its way back.
//!
//! What belongs to one connection only goes (RFC 9110 §7.6.1), what a visitor says about where it comes from is
//! replaced by what is known, and cookies stay with the endpoint that sets them.

use std::net::{IpAddr, SocketAddr};

use http::header::{CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::body::{ERROR_CODE, remove_claims, remove_false_claims};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What is told to the upstream of where a request came from.
pub(crate) struct Origin {
    /// The address that it came from.
    pub(crate) address: HeaderValue,
    /// `http` or `https`.
    pub(crate) scheme: HeaderValue,
    /// Whether it came from a trusted proxy, which knows more.
    pub(crate) is_proxy: bool,
}

/// Prepares the headers of a request for the upstream, all but `Host`. Gives the protocol that the visitor asks
/// to change to, if it is one that can be carried.
pub(super) fn prepare_request(headers: &mut HeaderMap, origin: &Origin) -> Option<HeaderValue> {
    let upgrade = requested_upgrade(headers);
    let wants_trailers = tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    strip_hop_by_hop(headers);
    headers.remove(EXPECT);
    headers.remove(HTTP2_SETTINGS);
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    join_cookies(headers);
    if origin.is_proxy {
        extend_forwarded(headers, origin)
    } else {
        replace_forwarded(headers, origin)
    }
    upgrade
}

/// Prepares the headers of a response for the modules, and then for the visitor but for its cookies.
pub(super) fn prepare_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(ERROR_CODE);
}

/// Asks the other side to change to `protocol`.
pub(super) fn insert_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// The `Upgrade` of a request that asks for one, or of a 101.
///
/// HTTP/2 over an upgraded connection would pass the modules by, so that is never carried; neither is TLS.
pub(super) fn requested_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    if !tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let carried = tokens(headers, &UPGRADE).all(|token| {
        let name = token.split('/').next().unwrap_or(token);
        !["h2", "h2c", "http", "tls"].iter().any(|refused| name.eq_ignore_ascii_case(refused))
    });
    carried.then(|| protocol.clone())
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|token| token.split(';').next().unwrap_or(token).trim())
        .filter(|token| !token.is_empty())
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Empty, and so not allocated, on nearly every request: what `Connection` names most is its own options.
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter(|token| !is_option(token))
        .filter_map(|token| token.parse().ok())
        // Without these two a message would mean something else to the next reader.
        .filter(|name| name != HOST && name != http::header::CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

fn is_option(token: &str) -> bool {
    ["keep-alive", "close", "upgrade", "te"].iter().any(|option| token.eq_ignore_ascii_case(option))
}

/// HTTP/2 may split `Cookie`; HTTP/1.1 may not (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut values = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (values.next(), values.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(value.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}

fn replace_forwarded(headers: &mut HeaderMap, origin: &Origin) {
    remove_claims(headers);
    headers.insert(X_FORWARDED_FOR, origin.address.clone());
    headers.insert(X_FORWARDED_PROTO, origin.scheme.clone());
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// Adds the proxy to what it says of the way that a request has come.
fn extend_forwarded(headers: &mut HeaderMap, origin: &Origin) {
    remove_false_claims(headers);
    append_to_list(headers, X_FORWARDED_FOR, origin.address.as_bytes());
    // RFC 7239 §4: no name is made up for a proxy that leaves it to `X-Forwarded-For`.
    if headers.contains_key(FORWARDED) {
        let (address, scheme) = (origin.address.as_bytes(), origin.scheme.as_bytes());
        let quote: &[u8] = if address.contains(&b':') { b"\"[" } else { b"" };
        let unquote: &[u8] = if quote.is_empty() { b"" } else { b"]\"" };
        let hop = [b"for=", quote, address, unquote, b";proto=", scheme].concat();
        append_to_list(headers, FORWARDED, &hop);
    }
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, origin.scheme.clone());
    }
    if let Some(host) = headers.get(HOST).cloned().filter(|_| !headers.contains_key(X_FORWARDED_HOST)) {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// Makes one line of a list that may have many (RFC 9110 §5.3), and puts `last` at its end.
fn append_to_list(headers: &mut HeaderMap, name: HeaderName, last: &[u8]) {
    let mut list = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(last);
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        headers.insert(name, list);
    }
}

/// Whether a proxy says that it ended TLS.
pub(super) fn came_over_tls(headers: &HeaderMap) -> bool {
    let mut said = headers.get_all(X_FORWARDED_PROTO).iter();
    let scheme = said.next().filter(|_| said.next().is_none());
    scheme.is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// On whose behalf a trusted proxy asks: the last address in `X-Forwarded-For` that is no trusted proxy's. What stands
/// before it was written by nobody that is trusted. `None` if the proxy does not say.
pub(super) fn visitor_of(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut farthest = None;
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        let Ok(list) = value.to_str() else { return farthest };
        for hop in list.rsplit(',').map(str::trim).filter(|hop| !hop.is_empty()) {
            let Some(address) = address_of(hop) else { return farthest };
            farthest = Some(address);
            if !is_trusted(address) {
                return farthest;
            }
        }
    }
    farthest
}

/// Some write a port too, and brackets around IPv6.
fn address_of(hop: &str) -> Option<IpAddr> {
    let bare = || hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop).parse().ok();
    let address = hop.parse::<SocketAddr>().map(|socket| socket.ip()).ok().or_else(bare)?;
    Some(address.to_canonical())
}

/// Takes the `Domain` attribute from cookies that would reach beyond this endpoint's own names. `domain` is the
/// server's. Comes after the modules: a publisher's own header rule may set a cookie too.
pub(super) fn keep_cookies_here(headers: &mut HeaderMap, domain: &str) {
    if !headers.get_all(SET_COOKIE).iter().any(|cookie| reaches_beyond(cookie, domain)) {
        return;
    }
    let cookies: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    for cookie in cookies {
        let kept =
            if reaches_beyond(&cookie, domain) { without_wide_domain(&cookie, domain) } else { Some(cookie) };
        if let Some(kept) = kept {
            headers.append(SET_COOKIE, kept);
        }
    }
}

fn reaches_beyond(cookie: &HeaderValue, domain: &str) -> bool {
    attributes(cookie).any(|attribute| is_wide_domain(attribute, domain))
}

fn without_wide_domain(cookie: &HeaderValue, domain: &str) -> Option<HeaderValue> {
    let kept: Vec<&[u8]> = cookie
        .as_bytes()
        .split(|&byte| byte == b';')
        .enumerate()
        .filter(|(index, attribute)| *index == 0 || !is_wide_domain(attribute, domain))
        .map(|(_, attribute)| attribute)
        .collect();
    HeaderValue::from_bytes(&kept.join(&b';')).ok()
}

fn attributes(cookie: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    cookie.as_bytes().split(|&byte| byte == b';').skip(1)
}

/// Whether an attribute is a `Domain` that is the server's domain or one above it.
fn is_wide_domain(attribute: &[u8], domain: &str) -> bool {
    let mut parts = attribute.splitn(2, |&byte| byte == b'=');
    let (Some(name), Some(value)) = (parts.next(), parts.next()) else { return false };
    if !name.trim_ascii().eq_ignore_ascii_case(b"domain") {
        return false;
    }
    let value = value.trim_ascii();
    let value = value.strip_prefix(b".").unwrap_or(value);
    let value = value.strip_suffix(b".").unwrap_or(value);
    let domain = domain.as_bytes();
    let Some((above, end)) = domain.len().checked_sub(value.len()).and_then(|at| domain.split_at_checked(at))
    else {
        return false;
    };
    !value.is_empty() && end.eq_ignore_ascii_case(value) && (above.is_empty() || above.ends_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
            .collect()
    }

    fn prepared(lines: &[(&str, &str)]) -> HeaderMap {
        prepared_from(lines, false)
    }

    fn prepared_from(lines: &[(&str, &str)], is_proxy: bool) -> HeaderMap {
        let mut headers = headers(lines);
        let origin = Origin {
            address: HeaderValue::from_static("192.0.2.7"),
            scheme: HeaderValue::from_static("https"),
            is_proxy,
        };
        prepare_request(&mut headers, &origin);
        headers
    }

    #[test]
    fn hop_by_hop_headers_and_those_that_connection_names_go() {
        let headers = prepared(&[
            ("host", "a.test"),
            ("connection", "keep-alive, X-Secret, host, content-length"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("x-secret", "1"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
            ("trailer", "x-sum"),
            ("accept", "*/*"),
        ]);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "content-length",
                "host",
                "trailer",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto"
            ]
        );
    }

    #[test]
    fn te_keeps_trailers_and_nothing_else() {
        let headers = prepared(&[("te", "gzip;q=0.5, Trailers")]);
        assert_eq!(
            (&headers[TE], &headers[CONNECTION]),
            (&"trailers".parse().unwrap(), &"te".parse().unwrap())
        );
        assert!(!prepared(&[("te", "gzip")]).contains_key(TE));
    }

    #[test]
    fn what_a_visitor_claims_of_its_origin_is_replaced() {
        let headers = prepared(&[
            ("host", "a.test:8443"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-host", "evil.test"),
            ("x-forwarded-port", "1"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            ("x_real-ip", "10.0.0.1"),
            ("x_forwarded_for", "10.0.0.1"),
            ("hithe-mtls-subject-cn", "root"),
            ("Hithe_MTLS-subject_cn", "root"),
        ]);
        assert_eq!(headers.len(), 4);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "a.test:8443");
    }

    #[test]
    fn what_a_trusted_proxy_says_is_kept_and_it_is_added_itself() {
        let headers = prepared_from(
            &[
                ("host", "a.test:8443"),
                ("x-forwarded-for", "203.0.113.9"),
                ("x-forwarded-for", "10.0.0.2"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "shown.test"),
                ("x-forwarded-port", "80"),
                ("forwarded", "for=203.0.113.9"),
                ("x-real-ip", "203.0.113.9"),
                ("x_real-ip", "10.0.0.1"),
                ("x_forwarded_for", "10.0.0.1"),
                ("hithe-mtls-subject-cn", "root"),
            ],
            true,
        );
        assert_eq!(headers.len(), 7);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 10.0.0.2, 192.0.2.7");
        assert_eq!(headers["forwarded"], "for=203.0.113.9, for=192.0.2.7;proto=https");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "shown.test");
        assert_eq!(headers["x-real-ip"], "203.0.113.9");
        let silent = prepared_from(&[("host", "a.test")], true);
        assert_eq!(silent["x-forwarded-for"], "192.0.2.7");
        assert_eq!(silent["x-forwarded-host"], "a.test");
        assert!(!silent.contains_key("forwarded"));
    }

    #[test]
    fn the_visitor_is_the_last_address_that_no_trusted_proxy_has() {
        let of = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let is_trusted = |address: IpAddr| address.to_string().starts_with("10.");
            visitor_of(&headers(&lines), is_trusted).map(|address| address.to_string())
        };
        for (lines, visitor) in [
            (&["1.2.3.4, 203.0.113.9"][..], Some("203.0.113.9")),
            (&["1.2.3.4, 203.0.113.9, 10.0.0.2,, 10.0.0.3"], Some("203.0.113.9")),
            (&["1.2.3.4", "203.0.113.9", "10.0.0.2"], Some("203.0.113.9")),
            (&["203.0.113.9:4711"], Some("203.0.113.9")),
            (&["[2001:db8::1]:4711"], Some("2001:db8::1")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            (&["::ffff:203.0.113.9"], Some("203.0.113.9")),
            (&["10.0.0.1, 10.0.0.2"], Some("10.0.0.1")),
            (&["1.2.3.4, unknown, 10.0.0.2"], Some("10.0.0.2")),
            (&["1.2.3.4, unknown"], None),
            (&["1.2.3.4, \u{e4}"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(of(lines).as_deref(), visitor, "{lines:?}");
        }
    }

    #[test]
    fn an_upgrade_needs_both_headers_and_is_never_to_http() {
        let of = |connection: &str, upgrade: &str| {
            requested_upgrade(&headers(&[("connection", connection), ("upgrade", upgrade)]))
        };
        assert_eq!(of("keep-alive, Upgrade", "websocket").unwrap(), "websocket");
        assert_eq!(of("keep-alive", "websocket"), None);
        assert_eq!(of("upgrade, http2-settings", "h2c"), None);
        assert_eq!(of("upgrade", "websocket, h2c"), None);
        assert_eq!(of("upgrade", "HTTP/2.0"), None);
    }

    #[test]
    fn split_cookies_are_joined() {
        assert_eq!(
            prepared(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")])[COOKIE],
            "a=1; b=2; c=3"
        );
    }

    #[test]
    fn a_cookie_for_the_servers_domain_stays_with_its_endpoint() {
        for (cookie, kept) in [
            ("a=1; Domain=tunnel.example.com; Path=/", "a=1; Path=/"),
            ("a=1; domain=.Example.COM", "a=1"),
            ("a=1;DOMAIN = com.;Secure", "a=1;Secure"),
            ("a=1; Domain=app.tunnel.example.com", "a=1; Domain=app.tunnel.example.com"),
            ("a=1; Domain=nel.example.com", "a=1; Domain=nel.example.com"),
            ("domain=tunnel.example.com; Domain=", "domain=tunnel.example.com; Domain="),
        ] {
            let mut headers = headers(&[("set-cookie", "first=1"), ("set-cookie", cookie)]);
            keep_cookies_here(&mut headers, "tunnel.example.com");
            let cookies: Vec<&HeaderValue> = headers.get_all(SET_COOKIE).iter().collect();
            assert_eq!(cookies, ["first=1", kept]);
        }
    }

    #[test]
    fn an_upstream_cannot_set_the_error_code() {
        let mut headers = headers(&[("hithe-error-code", "ERR_HITHE_3200"), ("hithe-error-code", "2")]);
        prepare_response(&mut headers);
        assert!(headers.is_empty());
    }
}
