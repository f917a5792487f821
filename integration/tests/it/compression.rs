//! Responses that are compressed on their way.

use std::io::Write;
use std::time::Duration;

use hithe_integration::origin::text;
use hithe_integration::{Origin, TestServer};

const URL: &str = "https://app.localhost/";

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
        assert!(reply.body().len() * 20 < book.len(), "{} of {}", reply.body().len(), book.len());
    }
    // Debian's curl knows these.
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
async fn heads_and_unchanged_documents_have_no_coding() {
    let (origin, _) = library().await;
    let (server, _ssh) = published(&origin).await;
    let visitor = || server.visitor().header("accept-encoding", "gzip");
    let head = visitor().send(http::Method::HEAD, URL, "").await;
    assert_eq!((head.status(), head.header("content-encoding")), (200, None));
    let unchanged = visitor().header("if-none-match", "W/\"v1\"").get(URL).await;
    assert_eq!((unchanged.status(), unchanged.header("content-encoding")), (304, None));
}

#[tokio::test]
async fn events_stay_live() {
    let origin = Origin::events(Duration::from_millis(50)).await;
    let (server, _ssh) = published(&origin).await;
    let mut stream = server.visitor().header("accept-encoding", "br, gzip").open(URL).await;
    assert_eq!(stream.header("content-encoding"), Some("gzip"), "which needs less memory while it is open");
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    for number in 0..4 {
        // The upstream never ends: what comes was not held back.
        while !decoder.get_ref().ends_with(format!("data: {number}\n\n").as_bytes()) {
            decoder.write_all(&stream.next().await.unwrap().unwrap()).unwrap();
            decoder.flush().unwrap();
        }
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
}
