//! Values as they come out, whatever visitors and upstreams send.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::line::MAX_VALUE;
use super::*;
use crate::visit::{Reached, Visitor};

fn visit(secure: bool) -> Visit {
    let visitor = Visitor::new("[::ffff:192.0.2.7]:4000".parse().unwrap(), "192.0.2.1:8443".parse().ok());
    Visit::new(visitor, secure.then(Arc::default).as_ref(), &"https://*.app.test:8443".into())
}

fn request(uri: &str, headers: &[(HeaderName, &[u8])]) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri.parse().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
    }
    request
}

fn filled(template: &str, facts: &Facts<'_>) -> String {
    let value = facts.fill(&template.parse().unwrap());
    String::from_utf8(value.as_bytes().to_vec()).unwrap()
}

#[test]
fn variables_say_what_the_reference_says() {
    let mut visit = visit(true);
    visit.reached = Some(Reached { reused: false, dialled: Duration::from_micros(12_345) });
    let request = request(
        "/a/b%20c?q=1",
        &[(HOST, b"x.app.test"), (USER_AGENT, b"a\xffb"), (CONTENT_ENCODING, b"gzip")],
    );
    let asked = Asked::of(&request, &visit);
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    let facts = Facts { visit: &visit, asked: Some(&asked), response: Some(&response) };
    for (template, value) in [
        ("${conn.client_ip}:${conn.client_port}", "192.0.2.7:4000"),
        ("${conn.server_ip}:${conn.server_port}", "192.0.2.1:8443"),
        ("${endpoint.url}|${endpoint.host}|${endpoint.port}", "https://*.app.test:8443|*.app.test|8443"),
        ("${endpoint.addr} ${endpoint.protocol}", "*.app.test:8443 https"),
        ("${req.method} ${req.version}", "GET HTTP/1.1"),
        ("${req.url}", "https://x.app.test/a/b%20c?q=1"),
        ("${req.url.scheme} ${req.url.host} ${req.url.port}", "https x.app.test 443"),
        ("${req.url.path} ${req.url.query} ${req.url.uri}", "/a/b%20c q=1 /a/b%20c?q=1"),
        ("${req.user_agent} ${req.content_encoding}", "a\u{fffd}b gzip"),
        ("${res.status_code} ${res.content_type}${res.location}", "200 text/html"),
        ("${.backend.connection_reused} ${.backend.dial_duration}", "false 12.3ms"),
        ("[${.basic_auth.username}${.ip_policy.decision}${.backend.id}${conn.tls.sni}]", "[]"),
        ("costs $5 or $${x}", "costs $5 or ${x}"),
    ] {
        assert_eq!(filled(template, &facts), value, "{template}");
    }
    for time in ["${conn.ts.start}", "${time.now}"] {
        let shown = filled(time, &facts);
        assert!(shown.starts_with("20") && shown.ends_with('Z'), "{shown}");
    }
}

#[test]
fn what_is_not_known_yet_stays_empty() {
    let visit = visit(false);
    let facts = Facts { visit: &visit, asked: None, response: None };
    assert_eq!(filled("<${req.url}${res.status_code}${.backend.dial_duration}>", &facts), "<>");
}

#[test]
fn one_request_has_one_number() {
    let (first, second) = (visit(true), visit(true));
    let of = |visit| filled("${.ngrok.request_id}", &Facts { visit, asked: None, response: None });
    assert_eq!((of(&first).len(), of(&first)), (32, of(&first)));
    assert_ne!(of(&first), of(&second));
}

#[test]
fn only_values_that_show_the_request_keep_it() {
    let shows = |value: &str| {
        let rule = HeaderRule { name: "a".to_owned(), value: value.parse().unwrap() };
        Rules::new(&[rule], &[]).unwrap().shows_request()
    };
    assert!(["${req.host}", "a ${req.url.port}", "${.basic_auth.username}"].into_iter().all(shows));
    assert!(!["a", "$${req.host}", "${conn.client_ip}", "${res.location}"].into_iter().any(shows));
}

#[test]
fn removal_comes_first_and_every_addition_stays() {
    let rule = |name: &str, value: &str| HeaderRule { name: name.to_owned(), value: value.parse().unwrap() };
    let add = [rule("X-A", "1"), rule("X-A", "${conn.client_port}"), rule("x-b", "3"), rule("X-A", "4")];
    let rules = Rules::new(&add, &["x-a".to_owned(), "X-Gone".to_owned()]).unwrap();
    let visit = visit(true);
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-a", "0"), ("x-a", "00"), ("x-b", "2"), ("x-gone", "1")] {
        headers.append(name, HeaderValue::from_static(value));
    }
    let filled = rules.fill(&Facts { visit: &visit, asked: None, response: None });
    rules.apply(&mut headers, filled);
    let all = |name| headers.get_all(name).iter().map(|it| it.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!((all("x-a"), all("x-b")), (vec!["1", "4000", "4"], vec!["2", "3"]));
    assert!(!headers.contains_key("x-gone"));
}

#[test]
fn a_user_name_is_that_of_the_pair() {
    let of =
        |value: &str| user_name(&Asked { authorization: Some(value.parse().unwrap()), ..Asked::default() });
    assert_eq!(of("Basic YWRhOmNvcnJlY3QtaG9yc2U=").as_deref(), Some("ada"));
    assert_eq!(of("basic YWRhOmNvcnJlY3QtaG9yc2U").as_deref(), Some("ada"));
    assert_eq!(of("Bearer x"), None);
}

/// As hyper takes them: anything but control characters.
fn header() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\t'), 0x20_u8..0x7f, 0x80_u8..=0xff];
    prop_oneof![
        prop::collection::vec(byte, 0..60),
        (0_usize..9000, prop::sample::select(vec![b'a', b'\t', 0x85, 0xe9]))
            .prop_map(|(n, byte)| vec![byte; n]),
    ]
}

proptest! {
    #[test]
    fn a_value_is_always_one_line(text in "(\\PC|\r|\n|\0|\x7f|\t|\u{85}|é){0,200}") {
        let value = line(&text);
        prop_assert!(value.as_bytes().iter().all(|&byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f)));
        let kept: String = text.chars().filter(|c| !c.is_control() || *c == '\t').collect();
        prop_assert_eq!(value.as_bytes(), kept.trim_matches([' ', '\t']).as_bytes());
    }

    #[test]
    fn nothing_that_is_sent_splits_a_message(
        (agent, kind, host) in (header(), header(), header()),
        names in prop::collection::vec(prop::sample::select(vec![
            "x", " ", "\t", "${req.user_agent}", "${req.content_type}", "${req.host}", "${req.url}", "${req.url.host}",
            "${req.url.port}", "${req.url.query}", "${req.method}", "${res.location}", "${time.now}", "$${",
        ]), 0..8),
    ) {
        let visit = visit(true);
        let request = request("/%0d%0aevil:1?%00\u{e9}", &[(USER_AGENT, &agent), (CONTENT_TYPE, &kind), (HOST, &host)]);
        let asked = Asked::of(&request, &visit);
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(LOCATION, HeaderValue::from_bytes(&agent).unwrap());
        let facts = Facts { visit: &visit, asked: Some(&asked), response: Some(&response) };
        let value = facts.fill(&names.concat().parse().unwrap());
        prop_assert!(value.len() <= MAX_VALUE);
        prop_assert!(std::str::from_utf8(value.as_bytes()).unwrap().chars().all(|c| !c.is_control() || c == '\t'));
        prop_assert_eq!(value.as_bytes().trim_ascii(), value.as_bytes());
    }
}
