//! What one source of visitors may have, and how long a visitor may take.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hithe_integration::{Child, Origin, TestServer, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::{refusals, server_of_ada};

/// What nobody comes from, so that this machine is not exempt.
const NOBODY: &str = "192.0.2.0/24";
const ANOTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const URL: &str = "http://app.localhost/";

async fn publish(words: &[&str], origin: &Origin) -> (TestServer, Child) {
    let server = server_of_ada(&[words, &["--visitor-exempt", NOBODY]].concat()).await;
    let tunnel = server.ssh().forward_to("app:80", origin).command("http").publish().await;
    (server, tunnel)
}

async fn counted(server: &TestServer, code: &str) {
    within("the count", async { while refusals(server, code).await == 0 {} }).await;
}

/// Sends this on a connection of its own and reads to the end.
async fn say(server: &TestServer, words: &str) -> (TcpStream, String) {
    let mut visitor = server.visitor().dial(server.http_address()).await;
    visitor.write_all(words.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    // A reset is an end as well.
    let _ = within("the end of the connection", visitor.read_to_end(&mut heard)).await;
    (visitor, String::from_utf8(heard).unwrap())
}

#[tokio::test]
async fn one_source_has_so_many_connections() {
    let origin = Origin::replying("hello").await;
    let (server, _tunnel) = publish(&["--max-visitor-connections", "2"], &origin).await;
    let visitor = server.visitor();
    let mut held = [visitor.connection(URL).await, visitor.connection(URL).await];
    for connection in &mut held {
        assert_eq!(connection.get(URL).await.text(), "hello");
    }
    let (_, heard) = say(&server, "").await;
    assert!(heard.is_empty() || heard.contains("ERR_HITHE_715"), "{heard}");
    assert_eq!(server.visitor().from(ANOTHER).get(URL).await.text(), "hello");
    assert_eq!(refusals(&server, "ERR_HITHE_715").await, 1);
    assert_eq!(held[0].get(URL).await.text(), "hello", "who is there stays");
    drop(held);
    counted(&server, "ERR_HITHE_715").await;
    assert_eq!(visitor.get_when_public(URL).await.text(), "hello");
}

#[tokio::test]
async fn one_source_has_so_many_requests_a_second() {
    let origin = Origin::replying("hello").await;
    let (server, _tunnel) = publish(&["--max-visitor-requests", "3"], &origin).await;
    let visitor = server.visitor();
    let refused = within("a refusal", async {
        loop {
            let reply = visitor.get(URL).await;
            if reply.status() != 200 {
                return reply;
            }
        }
    })
    .await;
    assert_eq!((refused.status(), refused.code()), (429, Some("ERR_HITHE_703")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(server.visitor().from(ANOTHER).get(URL).await.text(), "hello");
    within("the next second", async { while visitor.get(URL).await.status() != 200 {} }).await;
}

#[tokio::test]
async fn a_body_that_trickles_in_is_given_up_and_one_that_pauses_is_not() {
    let origin = Origin::digesting().await;
    let (server, _tunnel) = publish(&["--body-timeout", "2s"], &origin).await;
    let head = "POST / HTTP/1.1\r\nHost: app.localhost\r\n";
    let mut slow = server.visitor().dial(server.http_address()).await;
    slow.write_all(format!("{head}Content-Length: 100000\r\n\r\n").as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let drip = async {
        let mut visitor = TcpStream::connect(server.http_address()).await.unwrap();
        let chunked = format!("{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n");
        visitor.write_all(chunked.as_bytes()).await.unwrap();
        let paused = Instant::now();
        within("the slow one is cut", slow.read_to_end(&mut heard)).await.unwrap();
        assert!(paused.elapsed() > Duration::from_millis(1900), "{:?}", paused.elapsed());
        visitor.write_all(b"0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        within("an answer", visitor.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    let answer = drip.await;
    let heard = String::from_utf8(heard).unwrap();
    assert!(heard.starts_with("HTTP/1.1 408") && heard.contains("ERR_HITHE_1408"), "{heard}");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut steady = server.visitor().connection(URL).await;
    assert_eq!(steady.post_streamed(URL, 5_000_000).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_head_that_does_not_end_is_given_up() {
    let origin = Origin::replying("hello").await;
    let (server, _tunnel) = publish(&["--head-timeout", "1s"], &origin).await;
    let (_, heard) = say(&server, "GET / HTTP/1.1\r\nHost: app.localhost\r\nX-").await;
    assert!(!heard.contains("200 OK"), "{heard}");
    counted(&server, "ERR_HITHE_1407").await;
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_given_up() {
    let server = server_of_ada(&["--handshake-timeout", "1s", "--hello-timeout", "1s"]).await;
    for begin in [&b""[..], &[0x16, 3, 1, 2, 0, 1]] {
        let mut visitor = TcpStream::connect(server.https_address()).await.unwrap();
        visitor.write_all(begin).await.unwrap();
        let _ = within("the end of the handshake", visitor.read_to_end(&mut Vec::new())).await;
    }
    within("the count", async { while refusals(&server, "ERR_HITHE_3006").await != 2 {} }).await;
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test]
async fn a_visitor_that_opens_and_resets_streams_without_end_is_cut_off() {
    let origin = Origin::replying("hello").await;
    let server = server_of_ada(&[]).await;
    let _tunnel = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let tls = server.visitor().tls("app.localhost", &["h2"]).await;
    let (mut from, mut to) = tokio::io::split(tls);
    // GET, https, / and the authority, from HPACK's static table (RFC 7541, appendix A).
    let request = [&[0x82, 0x87, 0x84, 0x41, 13][..], b"app.localhost"].concat();
    let flood = async {
        let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        opening.extend(frame(4, 0, 0, &[]));
        to.write_all(&opening).await?;
        for stream in (1..).step_by(2) {
            let both = [frame(1, 5, stream, &request), frame(3, 0, stream, &8_u32.to_be_bytes())].concat();
            to.write_all(&both).await?;
        }
        std::io::Result::Ok(())
    };
    let mut heard = Vec::new();
    let ended = async { tokio::join!(flood, from.read_to_end(&mut heard)) };
    let (flooded, _) = within("the end of the connection", ended).await;
    assert!(flooded.is_err());
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "hello");
}

#[tokio::test]
async fn a_visitor_that_sends_settings_without_end_is_cut_off() {
    let origin = Origin::replying("hello").await;
    let server = server_of_ada(&[]).await;
    let _tunnel = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let mut tls = server.visitor().tls("app.localhost", &["h2"]).await;
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let (mut from, mut to) = tokio::io::split(tls);
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 255, 255]).repeat(100);
    let flood = async { while to.write_all(&settings).await.is_ok() {} };
    let mut heard = Vec::new();
    within("the end of the connection", async { tokio::join!(flood, from.read_to_end(&mut heard)) })
        .await
        .1
        .ok();
    counted(&server, "ERR_HITHE_1410").await;
}

#[tokio::test]
async fn a_connection_that_idles_is_closed() {
    let origin = Origin::replying("hello").await;
    let (server, _tunnel) = publish(&["--idle-timeout", "1s"], &origin).await;
    let (_, heard) = say(&server, "GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    assert!(heard.ends_with("hello"), "{heard}");
}

#[tokio::test]
async fn who_takes_nothing_is_cut_off() {
    let origin = Origin::sized(30_000_000).await;
    let (server, _tunnel) = publish(&["--stall-timeout", "1s"], &origin).await;
    let mut visitor = server.visitor().dial(server.http_address()).await;
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await.unwrap();
    counted(&server, "ERR_HITHE_1409").await;
    drop(visitor);
}

#[tokio::test]
async fn a_download_at_a_slow_pace_is_left_alone() {
    let origin = Origin::sized(3_000_000).await;
    let (server, _tunnel) = publish(&["--stall-timeout", "2s"], &origin).await;
    let mut visitor = server.visitor().dial(server.http_address()).await;
    let request = b"GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n";
    visitor.write_all(request).await.unwrap();
    let (mut taken, mut buffer) = (0, vec![0; 300_000]);
    loop {
        let count = within("more of it", visitor.read(&mut buffer)).await.unwrap();
        if count == 0 {
            break;
        }
        taken += count;
        // It is the pace that is tested.
        sleep(Duration::from_millis(20)).await;
    }
    assert!(taken > 3_000_000);
}
