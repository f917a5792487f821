//! Answers that are given before a request has come whole: they reach the visitor, whatever it still sends.

use hithe_integration::{Child, Origin, TestServer, within};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// More than all buffers between a visitor and the edge.
const UPLOAD: usize = 20_000_000;

/// Endpoints that admit nobody without the password.
async fn stage() -> (TestServer, Origin, Child) {
    let server = TestServer::start().await;
    let origin = Origin::replying("in").await;
    let ssh = server.ssh().forward_to("app:443", &origin);
    let ssh = ssh.command("http --schemes http,https --basic-auth ada:correct-horse").publish().await;
    (server, origin, ssh)
}

/// Sends all of it before it reads anything. Gives the answer once the server has closed.
async fn upload_blindly(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> String {
    let mut answer = Vec::new();
    within("an upload that nobody wants", async {
        stream.write_all(request).await.expect("all of it is taken");
        stream.read_to_end(&mut answer).await.expect("the answer ends orderly");
    })
    .await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_visitor_that_reads_only_after_its_upload_learns_why_it_was_refused() {
    let (server, origin, _ssh) = stage().await;
    let head = "POST / HTTP/1.1\r\nHost: app.localhost\r\nAuthorization: Basic eDp5\r\n";
    let sized = format!("{head}Content-Length: {UPLOAD}\r\n\r\n{}", "x".repeat(UPLOAD));
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        UPLOAD,
        "x".repeat(UPLOAD)
    );
    for request in [sized, chunked] {
        let plain = server.visitor().dial(server.http_address()).await;
        let secure = server.visitor().tls("app.localhost", &[]).await;
        let answers = [
            upload_blindly(plain, request.as_bytes()).await,
            upload_blindly(secure, request.as_bytes()).await,
        ];
        for answer in answers {
            assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
            assert!(answer.contains("hithe-error-code: ERR_HITHE_3250\r\n"), "{answer}");
        }
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn curl_learns_why_its_upload_was_refused() {
    let (server, origin, _ssh) = stage().await;
    let file = server.folder().join("upload");
    std::fs::write(&file, vec![b'x'; UPLOAD]).unwrap();
    let file = format!("@{}", file.display());
    for (version, url) in [
        ("--http1.1", "http://app.localhost/"),
        ("--http1.1", "https://app.localhost/"),
        ("--http2", "https://app.localhost/"),
    ] {
        let arguments = ["-i", version, "-H", "Expect:", "-u", "ada:wrong", "--data-binary", &file, url];
        let curl = server.visitor().curl(arguments).await;
        assert_eq!(curl.code, Some(0), "{version} {url}: {}", curl.stderr);
        assert!(curl.stdout.contains(" 401"), "{version} {url}: {}", curl.stdout);
        assert!(curl.stdout.contains("hithe-error-code: ERR_HITHE_3250"), "{version} {url}: {}", curl.stdout);
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_upload_to_a_name_that_nobody_publishes_is_told_so() {
    let (server, _origin, _ssh) = stage().await;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: nobody.localhost\r\nContent-Length: {UPLOAD}\r\n\r\n{}",
        "x".repeat(UPLOAD)
    );
    let plain = server.visitor().dial(server.http_address()).await;
    let answer = upload_blindly(plain, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("ERR_HITHE_3200"), "{answer}");
}

#[tokio::test]
async fn requests_after_the_one_that_ends_the_connection_take_no_answer_away() {
    let (server, _origin, _ssh) = stage().await;
    let last = "GET / HTTP/1.1\r\nHost: nobody.localhost\r\nConnection: close\r\n\r\n";
    let plain = server.visitor().dial(server.http_address()).await;
    let answer = upload_blindly(plain, last.repeat(UPLOAD / last.len()).as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 404 ").count(), 1, "{answer}");
}
