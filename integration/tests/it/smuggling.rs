//! Requests that two readers might understand in two ways: refused, or passed on in one way only.

use std::sync::{Arc, Mutex};

use hithe_integration::{Child, Origin, TestServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An upstream that notes each byte it gets, and answers whatever looks like the end of a head.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<u8>>>);

impl Recorder {
    pub(crate) async fn origin(&self) -> Origin {
        let recorder = self.clone();
        Origin::serving(move |mut stream, _| {
            let recorder = recorder.clone();
            async move {
                let mut buffer = vec![0; 65536];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    recorder.0.lock().unwrap().extend(buffer.iter().take(count));
                    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// What came, in lower case; the next case begins anew.
    pub(crate) fn take(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut *self.0.lock().unwrap())).to_lowercase()
    }
}

async fn stage() -> (TestServer, Recorder, Origin, Child) {
    let (server, recorder) = (TestServer::start().await, Recorder::default());
    let origin = recorder.origin().await;
    let ssh = server.ssh().forward_to("app:80", &origin).command("http").publish().await;
    (server, recorder, origin, ssh)
}

/// Each can be read in two ways, or in none.
fn ambiguous() -> Vec<String> {
    let host = "Host: app.localhost\r\nConnection: close\r\n";
    let post = |headers: &str, body: &str| format!("POST / HTTP/1.1\r\n{host}{headers}\r\n\r\n{body}");
    let chunked = |body: &str| post("Transfer-Encoding: chunked", body);
    vec![
        post("Content-Length: 3\r\nContent-Length: 4", "abcd"),
        post("Content-Length: 3, 4", "abcd"),
        post("Content-Length: +3", "abc"),
        post("Content-Length: 0x3", "abc"),
        post("Content-Length: -1", "abc"),
        post("Content-Length: 99999999999999999999", "abc"),
        post("Content-Length:", "abc"),
        post("Transfer-Encoding: identity", "abc"),
        post("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
        post("Transfer-Encoding: xchunked", "0\r\n\r\n"),
        post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"),
        post("Transfer-Encoding : chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: \u{b}chunked", "0\r\n\r\n"),
        post(" X: folded", ""),
        post("X: a\r\n folded", ""),
        post("no colon", ""),
        post(": no name", ""),
        post("X(: y", ""),
        post("X\0: y", ""),
        post("X: a\0b", ""),
        post("X: a\rb", ""),
        chunked("0x3\r\nabc\r\n0\r\n\r\n"),
        chunked("+3\r\nabc\r\n0\r\n\r\n"),
        chunked("-1\r\nabc\r\n0\r\n\r\n"),
        chunked("fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        chunked("\r\nabc\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}Host: app.localhost\r\n\r\n"),
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: app.localhost, b\r\nConnection: close\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x@app.localhost\r\nConnection: close\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: app.localhost:8o\r\nConnection: close\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: app.localhost/x\r\nConnection: close\r\n\r\n".to_owned(),
        format!("GET http://other.localhost/ HTTP/1.1\r\n{host}\r\n"),
        format!("GET ftp://app.localhost/ HTTP/1.1\r\n{host}\r\n"),
        format!("GET http://x@app.localhost/ HTTP/1.1\r\n{host}\r\n"),
        format!("GET app.localhost HTTP/1.1\r\n{host}\r\n"),
        format!("GET /a b HTTP/1.1\r\n{host}\r\n"),
        format!("GET /\0 HTTP/1.1\r\n{host}\r\n"),
        format!("GET * HTTP/1.1\r\n{host}\r\n"),
        format!("CONNECT app.localhost:80 HTTP/1.1\r\n{host}\r\n"),
        format!("GET / HTTP/1.2\r\n{host}\r\n"),
        format!("GET / HTTP/2.0\r\n{host}\r\n"),
        format!("GET /\r\n{host}\r\n"),
        format!("G@T / HTTP/1.1\r\n{host}\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ]
}

#[tokio::test]
async fn ambiguous_requests_reach_no_upstream() {
    let (server, recorder, _origin, _ssh) = stage().await;
    for request in ambiguous() {
        let answer = String::from_utf8_lossy(&server.visitor().raw_half_closed(&request).await).into_owned();
        let refused =
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4");
        assert!(refused, "{request:?} got {answer:?}");
        let seen = recorder.take();
        let begun_only = seen.starts_with("post / http/1.1") && !seen.contains("abc");
        assert!(seen.is_empty() || begun_only, "{request:?} reached the upstream as {seen:?}");
    }
}

/// A request, what the upstream must read and what it must not.
fn passed_on() -> Vec<(String, &'static str, &'static str)> {
    let host = "Host: app.localhost\r\nConnection: close\r\n";
    vec![
        // The length that a chunked body claims besides goes (RFC 9112 §6.3).
        (
            format!(
                "POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
            ),
            "transfer-encoding: chunked",
            "content-length",
        ),
        (
            format!("POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
            "content-length: 3\r\n",
            "3, 3",
        ),
        // Line feeds alone are written as they ought to be.
        (
            "GET /lf HTTP/1.1\nHost: app.localhost\nConnection: close\n\n".to_owned(),
            "get /lf http/1.1\r\nhost: app.localhost\r\n",
            "\n\n",
        ),
        // What belongs to the visitor's connection stays there, and nobody removes what frames a message.
        (
            "POST / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close, content-length, host, x-hop\r\nX-Hop: 1\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
            "content-length: 3",
            "x-hop",
        ),
        (
            format!("GET http://app.localhost/absolute HTTP/1.1\r\n{host}\r\n"),
            "get /absolute http/1.1\r\n",
            "http://app",
        ),
        (format!("GET //evil.test/ HTTP/1.1\r\n{host}\r\n"), "get //evil.test/ http/1.1\r\n", "host: evil"),
        (
            format!(
                "GET / HTTP/1.1\r\n{host}Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            ),
            "get / http/1.1",
            "h2c",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\n{host}Forwarded: for=1\r\nX-Forwarded-For: 1\r\nX-Forwarded-Proto: https\r\n\r\n"
            ),
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: https",
        ),
        // A request hidden in the body of another stays a body.
        (
            format!(
                "POST / HTTP/1.1\r\n{host}Content-Length: 41\r\n\r\nGET /hidden HTTP/1.1\r\nHost: app.localhost\r\n"
            ),
            "content-length: 41",
            "content-length: 0",
        ),
    ]
}

#[tokio::test]
async fn what_is_passed_on_says_one_thing_only() {
    let (server, recorder, _origin, _ssh) = stage().await;
    for (request, says, says_not) in passed_on() {
        let answer = String::from_utf8_lossy(&server.visitor().raw(&request).await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "{request:?} got {answer:?}");
        let seen = recorder.take();
        assert!(seen.contains(says) && !seen.contains(says_not), "{request:?} was passed on as {seen:?}");
        assert_eq!(
            seen.matches("\nhost: app.localhost").count(),
            1 + seen.matches("/hidden").count(),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn what_an_upstream_sends_too_much_is_no_answer_for_the_next_visitor() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison",
    ] {
        let origin = Origin::scripted(answer).await;
        let server = TestServer::start().await;
        let _ssh = server.ssh().forward_to("app:80", &origin).command("http").publish().await;
        for _ in 0..3 {
            let reply = server.visitor().get("http://app.localhost/").await;
            assert!(!reply.text().contains("poison"), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn answers_that_say_two_things_are_refused() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\0: a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/3.0 200 OK\r\n\r\n",
    ] {
        let origin = Origin::scripted(answer).await;
        let server = TestServer::start().await;
        let _ssh = server.ssh().forward_to("app:80", &origin).command("http").publish().await;
        let reply = server.visitor().get("http://app.localhost/").await;
        assert_eq!((reply.status(), reply.code()), (502, Some("ERR_HITHE_3004")), "{answer:?}");
    }
}
