//! Webhook verification in front of an upstream, with stock ssh.

use std::time::{SystemTime, UNIX_EPOCH};

use hithe_integration::{Child, Origin, TestServer, Visitor};
use http::Method;
use ring::{digest, hmac};

const SECRET: &str = "its own secret";
const URL: &str = "https://app.localhost/hooks?x=1";

async fn published(origin: &Origin, provider: &str) -> (TestServer, Child) {
    let server = TestServer::start().await;
    let command = format!("http --verify-webhook {provider} --verify-webhook-secret {SECRET}");
    let ssh = server.ssh().forward_to("app:443", origin).command(&command).publish().await;
    (server, ssh)
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn signed(text: &[u8]) -> String {
    hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), text))
}

fn github(server: &TestServer, signature: &str) -> Visitor {
    server.visitor().header("x-hub-signature-256", &format!("sha256={signature}"))
}

/// What [`Origin::digesting`] answers when it got exactly this.
fn digested(body: &[u8]) -> String {
    format!("{} {}", body.len(), hex(digest::digest(&digest::SHA256, body)))
}

#[tokio::test]
async fn what_github_signed_reaches_the_upstream_byte_for_byte_and_nothing_else_does() {
    let origin = Origin::digesting().await;
    let (server, _ssh) = published(&origin, "github").await;
    let mut body = b"{\"zen\": \"\xe2\x80\xa6\"}\r\n ".to_vec();
    body.resize(300_000, b'x');
    let signature = signed(&body);

    let reply = github(&server, &signature).post(URL, body.clone()).await;
    assert_eq!((reply.status(), reply.text()), (200, digested(&body).as_str()));
    let reply = github(&server, &signature).http2().post(URL, body.clone()).await;
    assert_eq!((reply.status(), reply.text()), (200, digested(&body).as_str()));

    let seen = origin.requests();
    let refused = (403, Some("ERR_HITHE_3204"));
    for visitor in [github(&server, &signed(b"another body")), github(&server, "00")] {
        let reply = visitor.post(URL, body.clone()).await;
        assert_eq!((reply.status(), reply.code()), refused);
    }
    for method in [Method::GET, Method::POST, Method::OPTIONS, Method::DELETE] {
        let reply = server.visitor().send(method, URL, "{}").await;
        assert_eq!((reply.status(), reply.code()), refused);
    }
    let upgrade = server.visitor().header("upgrade", "websocket").header("connection", "upgrade");
    assert_eq!(upgrade.get(URL).await.status(), 403);
    assert_eq!(origin.requests(), seen);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_verified_too() {
    let origin = Origin::digesting().await;
    let (server, _ssh) = published(&origin, "github").await;
    let header = format!("X-Hub-Signature-256: sha256={}", signed(b"hello"));
    let arguments = ["-sk", "-H", &header, "-H", "Transfer-Encoding: chunked", "-d", "hello", URL];
    let curl = server.visitor().curl(arguments).await;
    assert_eq!(curl.stdout, digested(b"hello"), "{}", curl.stderr);
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused_unread() {
    let origin = Origin::digesting().await;
    let (server, _ssh) = published(&origin, "github").await;
    let most = vec![7; 8 << 20];
    let reply = github(&server, &signed(&most)).post(URL, most.clone()).await;
    assert_eq!((reply.status(), reply.text()), (200, digested(&most).as_str()));
    let (more, seen) = ([most, vec![7]].concat(), origin.requests());
    let visitor = github(&server, &signed(&more));
    let file = server.folder().join("more");
    std::fs::write(&file, &more).expect("a file");
    // curl asks before it sends as much as that.
    let data = format!("@{}", file.display());
    let curl = visitor.curl(["-D", "-", "--http1.1", "--data-binary", &data, URL]).await;
    assert!(curl.stdout.contains(" 413 ") && curl.stdout.contains("ERR_HITHE_3204"), "{curl:?}");
    let reply = visitor.http2().post(URL, more).await;
    assert_eq!((reply.status(), reply.code()), (413, Some("ERR_HITHE_3204")));
    assert_eq!(origin.requests(), seen);
}

#[tokio::test]
async fn a_question_of_zoom_is_answered_without_the_upstream() {
    let origin = Origin::replying("hello").await;
    let (server, _ssh) = published(&origin, "zoom").await;
    let body = r#"{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event":"endpoint.url_validation"}"#;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let signature = format!("v0={}", signed(format!("v0:{now}:{body}").as_bytes()));
    let zoom = || server.visitor().header("x-zm-request-timestamp", &now.to_string());

    let reply = zoom().header("x-zm-signature", &signature).post(URL, body).await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.json()["encryptedToken"], signed(b"qgg8vlvZRS6UYooatFL8Aw"));
    // Unsigned, it would sign whatever anybody asks for.
    assert_eq!(zoom().post(URL, body).await.status(), 403);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_wrong_flag_is_refused_with_its_code_and_the_secret_is_nowhere() {
    let server = TestServer::with(|options| options.arg("--log-level").arg("debug")).await;
    let origin = Origin::replying("hello").await;
    for (flags, code) in [
        ("--verify-webhook githbu --verify-webhook-secret hushhush", "ERR_HITHE_364"),
        ("--verify-webhook github", "ERR_HITHE_2032"),
        ("--verify-webhook sns --verify-webhook-secret hushhush", "ERR_HITHE_7026"),
        ("--verify-webhook sendgrid --verify-webhook-secret hushhush", "ERR_HITHE_379"),
    ] {
        let finished =
            server.ssh().forward_to("app:443", &origin).command(&format!("http {flags}")).run().await;
        let output = finished.output();
        assert!(output.contains(code) && !output.contains("hushhush"), "{output}");
    }
    let command = "http --verify-webhook github --verify-webhook-secret hushhush";
    let _ssh = server.ssh().forward_to("app:443", &origin).command(command).publish().await;
    assert_eq!(server.visitor().post(URL, "x").await.status(), 403);
    assert!(!server.logged("webhook refused").await.contains("hushhush"));
    assert!(!server.log().contains("hushhush"));
}
