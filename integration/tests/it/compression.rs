//! Responses that are compressed on their way.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hithe_integration::origin::text;
use hithe_integration::{Origin, TestServer, within};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

const URL: &str = "https://app.localhost/";
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

async fn published(origin: &Origin) -> (TestServer, hithe_integration::Child) {
    let server = TestServer::start().await;
    let ssh = server.ssh().forward_to("app:443", origin).command("http --compression").publish().await;
    (server, ssh)
}

/// Answers with much text, or what the path asks for.
async fn library() -> (Origin, String) {
    let book = "It was the best of times, it was the worst of times.\n".repeat(40_000);
    let told = book.clone();
    let origin = Origin::answering(move |question| {
        let told = told.clone();
        async move {
            let mut answer = text(if question.uri().path() == "/short" { "short" } else { &told });
            let headers = answer.headers_mut();
            headers.insert("content-type", "text/plain; charset=utf-8".parse().unwrap());
            headers.insert("etag", "\"v1\"".parse().unwrap());
            headers.insert("accept-ranges", "bytes".parse().unwrap());
            for digest in DIGESTS {
                headers.insert(
                    digest,
                    "sha-256=:d435Qo+nKZ+gLcUHn7GQtQ72hiBVAgqoLsZnZPiTGPk=:".parse().unwrap(),
                );
            }
            if question.headers().get("if-none-match").is_some_and(|tag| tag == "W/\"v1\"") {
                *answer.status_mut() = http::StatusCode::NOT_MODIFIED;
            }
            answer
        }
    })
    .await;
    (origin, book)
}

#[tokio::test]
async fn curl_decodes_what_it_asks_for() {
    let (origin, book) = library().await;
    let (server, _ssh) = published(&origin).await;
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let reply = server.visitor().header("accept-encoding", coding).get(URL).await;
        assert_eq!(reply.header("content-encoding"), Some(coding));
        assert_eq!(reply.header("vary"), Some("accept-encoding"));
        assert_eq!((reply.header("etag"), reply.header("accept-ranges")), (Some("W/\"v1\""), None));
        assert_eq!(DIGESTS.map(|name| reply.header(name)), [None; 4], "they were of other bytes");
        assert!(reply.body().len() * 20 < book.len(), "{} of {}", reply.body().len(), book.len());
    }
    // Debian's curl knows these; it may know zstd.
    for coding in ["gzip", "deflate", "br"] {
        let accept = format!("Accept-Encoding: {coding}");
        for version in ["--http1.1", "--http2"] {
            let curl = server.visitor().curl(["--compressed", "-H", &accept, version, URL]).await;
            assert!(curl.code == Some(0) && curl.stdout == book, "{coding} {version}: {}", curl.stderr);
        }
    }
}

#[tokio::test]
async fn a_visitor_that_does_not_ask_gets_what_the_upstream_sent() {
    let (origin, book) = library().await;
    let (server, _ssh) = published(&origin).await;
    let reply = server.visitor().get(URL).await;
    assert_eq!((reply.header("content-encoding"), reply.header("etag")), (None, Some("\"v1\"")));
    assert_eq!(
        reply.header("vary"),
        Some("accept-encoding"),
        "a cache must know that another would get another"
    );
    assert!(reply.text() == book);
    let short = server.visitor().header("accept-encoding", "gzip").get("https://app.localhost/short").await;
    assert_eq!((short.header("content-encoding"), short.text()), (None, "short"));
}

#[tokio::test]
async fn a_visitor_that_likes_it_best_as_it_is_gets_it_so() {
    let (origin, book) = library().await;
    let (server, _ssh) = published(&origin).await;
    let reply = server.visitor().header("accept-encoding", "identity, gzip;q=0.5").get(URL).await;
    assert_eq!((reply.header("content-encoding"), reply.header("etag")), (None, Some("\"v1\"")));
    assert!(reply.text() == book && DIGESTS.iter().all(|name| reply.header(name).is_some()), "{reply:?}");
}

#[tokio::test]
async fn a_head_has_the_headers_of_the_document_and_unchanged_ones_have_no_coding() {
    let (origin, _) = library().await;
    let (server, _ssh) = published(&origin).await;
    for version in ["--http1.1", "--http2"] {
        let head = server.visitor();
        let curl = |asked| head.curl(["--head", version, "-H", asked, URL]);
        let coded = curl("accept-encoding: gzip").await.stdout;
        assert!(coded.contains("content-encoding: gzip") && coded.contains("W/\"v1\""), "{version}: {coded}");
        assert!(!coded.contains("content-length"), "only the encoder could tell it: {version}: {coded}");
        let plain = curl("accept-encoding: identity").await.stdout;
        assert!(plain.contains("content-length: 2120000") && !plain.contains("gzip"), "{version}: {plain}");
    }
    let visitor = server.visitor().header("accept-encoding", "gzip");
    let unchanged = visitor.header("if-none-match", "W/\"v1\"").get(URL).await;
    assert_eq!((unchanged.status(), unchanged.header("content-encoding")), (304, None));
}

#[tokio::test]
async fn sixteen_mebibytes_come_whole() {
    let lines = (0..400_000_u32)
        .map(|number| format!("{number} of them, and then {:x}\n", number.wrapping_mul(2_654_435_761)));
    let text: String = lines.collect();
    let text = text.get(..16 << 20).unwrap_or(&text).to_owned();
    let origin = {
        let text = text.clone();
        Origin::answering(move |_| std::future::ready(hithe_integration::origin::text(&text))).await
    };
    let (server, _ssh) = published(&origin).await;
    for coding in ["zstd", "gzip"] {
        let reply = server.visitor().header("accept-encoding", coding).get(URL).await;
        assert_eq!(reply.header("content-encoding"), Some(coding));
        let plain = by_program(coding, reply.body()).await;
        assert!(plain == text.as_bytes(), "{coding}: {} of {}", plain.len(), text.len());
    }
}

/// What a program of its own makes of compressed bytes.
async fn by_program(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut command = tokio::process::Command::new(program);
    command.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let write = async move { input.write_all(bytes).await };
    let (written, output) = within(program, async { tokio::join!(write, child.wait_with_output()) }).await;
    written.unwrap();
    let output = output.unwrap();
    assert!(output.status.success(), "{program}: {}", output.status);
    output.stdout
}

#[tokio::test]
async fn trailers_follow_a_compressed_body() {
    let origin = Origin::answering(|_| async {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("checksum", "abc".parse().unwrap());
        trailers.insert("repr-digest", "sha-256=:AA==:".parse().unwrap());
        let frames = [Ok(Frame::data(Bytes::from("x".repeat(9000)))), Ok(Frame::trailers(trailers))];
        let mut answer =
            http::Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))));
        answer.headers_mut().insert("content-type", "text/plain".parse().unwrap());
        answer.headers_mut().insert("trailer", "checksum, repr-digest".parse().unwrap());
        answer
    })
    .await;
    let (server, _ssh) = published(&origin).await;
    for visitor in [server.visitor(), server.visitor().http2()] {
        let reply = visitor.header("te", "trailers").header("accept-encoding", "gzip").get(URL).await;
        assert_eq!(reply.header("content-encoding"), Some("gzip"));
        assert_eq!(by_program("gzip", reply.body()).await, "x".repeat(9000).as_bytes());
        assert_eq!(reply.trailers().get("checksum").map(http::HeaderValue::as_bytes), Some(&b"abc"[..]));
        assert!(!reply.trailers().contains_key("repr-digest"), "it was of other bytes");
    }
}

#[tokio::test]
async fn a_websocket_is_none_of_its_business() {
    let origin = Origin::websocket_echo().await;
    let (server, _ssh) = published(&origin).await;
    let mut socket =
        server.visitor().header("accept-encoding", "gzip").websocket("wss://app.localhost/").await;
    let sent = Message::text("all the same ".repeat(1000));
    socket.send(sent.clone()).await.unwrap();
    assert!(within("the echo", socket.next()).await.unwrap().unwrap() == sent);
}

#[tokio::test]
async fn an_answer_without_a_body_gets_no_coding_in_any_protocol() {
    let empty = |_| async { text("") };
    for (origin, command) in [
        (Origin::answering(empty).await, "http --compression"),
        (Origin::http().http2().answering(empty).await, "http --compression --upstream-protocol http2"),
    ] {
        let server = TestServer::start().await;
        let _ssh = server.ssh().forward_to("app:443", &origin).command(command).publish().await;
        let reply = server.visitor().header("accept-encoding", "gzip").get(URL).await;
        assert_eq!((reply.header("content-encoding"), reply.text()), (None, ""), "{command}");
    }
}

#[tokio::test]
async fn events_stay_live() {
    let origin = Origin::events(Duration::from_millis(50)).await;
    let (server, _ssh) = published(&origin).await;
    for (asked, coding) in
        [("br, zstd, gzip", Some("gzip")), ("deflate", Some("deflate")), ("br, zstd", None)]
    {
        let mut stream = server.visitor().header("accept-encoding", asked).open(URL).await;
        assert_eq!(
            stream.header("content-encoding"),
            coding,
            "only these need little memory while it is open"
        );
        let mut decoder: Box<dyn Decoder> = match coding {
            Some("gzip") => Box::new(flate2::write::GzDecoder::new(Vec::new())),
            Some(_) => Box::new(flate2::write::ZlibDecoder::new(Vec::new())),
            None => Box::new(Vec::new()),
        };
        for number in 0..4 {
            // The upstream never ends: what comes was not held back.
            while !decoder.plain().ends_with(format!("data: {number}\n\n").as_bytes()) {
                decoder.write_all(&stream.next().await.unwrap().unwrap()).unwrap();
                decoder.flush().unwrap();
            }
        }
    }
}

trait Decoder: Write {
    fn plain(&self) -> &[u8];
}

impl Decoder for flate2::write::GzDecoder<Vec<u8>> {
    fn plain(&self) -> &[u8] {
        self.get_ref()
    }
}

impl Decoder for flate2::write::ZlibDecoder<Vec<u8>> {
    fn plain(&self) -> &[u8] {
        self.get_ref()
    }
}

impl Decoder for Vec<u8> {
    fn plain(&self) -> &[u8] {
        self
    }
}

#[tokio::test]
async fn an_upstream_that_breaks_off_leaves_no_whole_document() {
    let half = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5000\r\n\r\nhalf of it";
    let origin = Origin::scripted(half).await;
    let (server, _ssh) = published(&origin).await;
    let curl = server.visitor().curl(["--compressed", "--http1.1", URL]).await;
    assert_ne!(curl.code, Some(0), "{}", curl.stdout);
    let curl = server.visitor().curl(["--compressed", "--http2", URL]).await;
    assert_ne!(curl.code, Some(0), "{}", curl.stdout);
    for (version, visitor) in [(1, server.visitor()), (2, server.visitor().http2())] {
        let mut stream = visitor.header("accept-encoding", "gzip").open(URL).await;
        let mut all = Vec::new();
        let cut = loop {
            match stream.next().await {
                Some(Ok(piece)) => all.extend_from_slice(&piece),
                end => break end.is_some(),
            }
        };
        let mut plain = Vec::new();
        let decoded = flate2::read::GzDecoder::new(&*all).read_to_end(&mut plain);
        assert!(cut && decoded.is_err(), "HTTP/{version}: {decoded:?}");
    }
}
