//! Which endpoint a request reaches, and what is refused on the way.

use hithe_cli_parser::{BasicAuth, Credential, ModuleConfig, Secret};

use super::*;
use crate::modules::Plan;

#[tokio::test]
async fn a_name_without_an_endpoint_gives_404() {
    let response = Bench::new().refusal("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 404") && response.contains("hithe-error-code: ERR_HITHE_3200"));
}

#[tokio::test]
async fn a_request_for_no_name_or_for_two_gives_400() {
    let bench = Bench::new();
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a.test\r\n\r\n",
        "GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n",
        "GET http://u@a.test/ HTTP/1.1\r\nHost: u@a.test\r\n\r\n",
        "GET a.test HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ] {
        let response = bench.refusal(request).await;
        assert!(response.starts_with("HTTP/1.1 400"), "{request:?}: {response}");
    }
}

#[tokio::test]
async fn connect_is_refused() {
    let response = Bench::new().refusal("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 405") && response.contains("allow: GET"), "{response}");
}

#[tokio::test]
async fn an_absolute_target_reaches_its_endpoint_as_a_path() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(b"GET http://A.test:8080/x?y HTTP/1.1\r\nHost: a.test:8080\r\n\r\n").await.unwrap();
    let head = answer(&mut bench.upstream().await, OK).await;
    assert!(head.starts_with("GET /x?y HTTP/1.1\r\n") && head.contains("host: a.test:8080\r\n"), "{head}");
}

#[tokio::test]
async fn plain_http_to_an_https_endpoint_is_sent_there() {
    let bench = Bench::bare();
    bench.publish("a.test", Protocol::Https, "https://a.test:8443", ModuleChain::default());
    bench.publish("*.w.test", Protocol::Https, "https://*.w.test", ModuleChain::default());
    for (host, location) in
        [("a.test:8080", "https://a.test:8443/x?y=z"), ("N.w.test", "https://n.w.test/x?y=z")]
    {
        let mut visitor = bench.visitor();
        visitor.write_all(format!("POST /x?y=z HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
        let response = until(&mut visitor, "\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.1 308"), "{response}");
        assert!(response.contains(&format!("location: {location}\r\n")), "{response}");
    }
}

#[tokio::test]
async fn a_name_of_a_tls_endpoint_is_misdirected_where_tls_was_terminated() {
    let bench = Bench::bare();
    bench.publish("t.test", Protocol::Tls, "tls://t.test", ModuleChain::default());
    let mut visitor = bench.secure_visitor();
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: t.test\r\n\r\n").await.unwrap();
    assert!(until(&mut visitor, "\r\n\r\n").await.starts_with("HTTP/1.1 421"));
    let response = bench.refusal("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 404"), "{response}");
}

#[tokio::test]
async fn a_refused_tunnel_gives_502_with_the_code_of_its_cause() {
    let mut bench = Bench::new();
    bench.dialled.close();
    let response = bench.refusal("GET / HTTP/1.1\r\nHost: a.test\r\nAccept: text/html\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 502") && response.contains("ERR_HITHE_8012"), "{response}");
    assert!(response.contains("content-type: text/html"), "{response}");
}

#[tokio::test]
async fn head_gets_the_headers_of_a_refusal_only() {
    let bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(b"HEAD / HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut response = String::new();
    visitor.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 404") && response.ends_with("\r\n\r\n"), "{response}");
}

#[tokio::test]
async fn basic_auth_lets_in_who_knows_a_pair_and_tells_the_upstream() {
    let mut bench = Bench::bare();
    let credentials =
        vec![Credential { user: "ada".to_owned(), password: Secret::new("correct-horse".to_owned()) }];
    let modules =
        Plan::of(&[ModuleConfig::BasicAuth(BasicAuth { credentials })], &Arc::default()).unwrap().chain;
    bench.publish("a.test", Protocol::Http, "http://a.test", modules);

    let response = bench
        .refusal("PUT / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        .await;
    assert!(response.starts_with("HTTP/1.1 401"), "a 401 goes out without 100: {response}");
    assert!(response.contains(r#"www-authenticate: Basic realm="hithe", charset="UTF-8""#), "{response}");
    assert!(response.contains("hithe-error-code: ERR_HITHE_3250"), "{response}");
    assert!(!bench.was_dialled_again());

    let mut visitor = bench.visitor();
    let authorization = "Authorization: Basic YWRhOmNvcnJlY3QtaG9yc2U=";
    visitor
        .write_all(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{authorization}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let head = answer(&mut bench.upstream().await, OK).await;
    assert!(head.contains("authorization: Basic YWRhOmNvcnJlY3QtaG9yc2U=\r\n"), "{head}");
    until(&mut visitor, "fine").await;
}
