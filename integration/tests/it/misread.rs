//! Requests that cannot be read: their visitors are told why in our own words, and cost little.

use futures_util::future::join_all;
use hithe_integration::{Child, Origin, TestServer, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn stage() -> (TestServer, Origin, Child) {
    let server = TestServer::start().await;
    let origin = Origin::replying("fine").await;
    let ssh = server.ssh().forward_to("app:443", &origin).command("http --schemes http,https");
    let ssh = ssh.publish().await;
    (server, origin, ssh)
}

/// A request, and the status of its answer.
fn misread() -> Vec<(String, u16)> {
    let host = "Host: app.localhost\r\n";
    let many: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    vec![
        ("complete nonsense\r\n\r\n".to_owned(), 400),
        ("\0\u{1}\u{2}\u{3}".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\n{host}no colon\r\n\r\n"), 400),
        (format!("GET / HTTP/3.0\r\n{host}\r\n"), 400),
        (format!("G@T / HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\n{host}{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\n{host}x: {}\r\n\r\n", "x".repeat(1 << 20)), 431),
        (format!("GET / HTTP/1.1\r\n{host}x: {}", "x".repeat(20 << 20)), 431),
        (format!("GET /{} HTTP/1.1\r\n{host}\r\n", "x".repeat(70_000)), 414),
        ("G".repeat(5 << 20), 431),
    ]
}

fn assert_told(answer: &[u8], status: u16, request: &str) {
    let answer = String::from_utf8_lossy(answer);
    let request: String = request.chars().take(60).collect();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?} got {answer:?}");
    for line in ["hithe-error-code: ERR_HITHE_1400", "connection: close", "content-type: text/plain"] {
        assert!(head.contains(line), "{request:?} got {answer:?}");
    }
    assert!(head.contains(&format!("content-length: {}", body.len())), "{request:?} got {answer:?}");
    assert!(body.ends_with("ERR_HITHE_1400\n"), "{request:?} got {answer:?}");
}

#[tokio::test]
async fn whoever_sends_what_cannot_be_read_is_told_so_with_a_code() {
    let (server, origin, _ssh) = stage().await;
    for (request, status) in misread() {
        assert_told(&server.visitor().raw(&request).await, status, &request);
        assert_told(&server.visitor().raw_tls("app.localhost", &request).await, status, &request);
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn answers_before_the_one_that_cannot_be_read_arrive_whole() {
    let (server, origin, _ssh) = stage().await;
    let get = "GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n";
    let answers = server.visitor().raw(format!("{get}{get}nonsense\r\n\r\n")).await;
    let text = String::from_utf8_lossy(&answers).into_owned();
    assert_eq!((text.matches("HTTP/1.1 200").count(), text.matches("fine").count()), (2, 2), "{text}");
    let last = text.find("HTTP/1.1 400").expect("an answer to the nonsense");
    assert_told(text.get(last..).unwrap_or_default().as_bytes(), 400, "nonsense");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn an_upstreams_own_bare_400_stays_its_own() {
    let server = TestServer::start().await;
    let origin = Origin::scripted("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let _ssh = server.ssh().forward_to("app:80", &origin).command("http").publish().await;
    let get = |more: &str| format!("GET / HTTP/1.1\r\nHost: app.localhost\r\n{more}\r\n");
    let kept = format!("{}{}", get(""), get("Connection: close\r\n"));
    let text = String::from_utf8_lossy(&server.visitor().raw(kept).await).into_owned();
    assert_eq!(text.matches("HTTP/1.1 400 Bad Request").count(), 2, "{text}");
    assert!(!text.contains("hithe-error-code"), "{text}");
    // Alone on a connection that stays open, it comes at once.
    let mut stream = server.visitor().dial(server.http_address()).await;
    stream.write_all(get("").as_bytes()).await.unwrap();
    let mut head = [0; 24];
    within("an answer on a kept connection", stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 400 Bad Request");
}

#[tokio::test]
async fn heads_without_an_end_take_bounded_memory() {
    let (server, _origin, _ssh) = stage().await;
    let before = server.rss_kib();
    let endless = format!("GET / HTTP/1.1\r\nHost: app.localhost\r\nx: {}", "x".repeat(16 << 20));
    let visitor = server.visitor();
    for answer in join_all((0..16).map(|_| visitor.raw(&endless))).await {
        assert_told(&answer, 431, "an endless head");
    }
    let grown = server.peak_rss_kib() - before;
    assert!(grown < 16 * 4 * 1024, "{grown} KiB for 16 heads of 1 MiB");
}
