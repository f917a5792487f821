//! HTTPS: certificates, protocols, and which endpoint a request belongs to.

use hithe_integration::{Origin, TestServer};

#[tokio::test]
async fn curl_trusts_the_authority_and_gets_both_versions_of_http_and_tls() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let _ssh = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let ca = server.ca().display().to_string();
    let url = "https://app.localhost/";
    for (flags, version) in [
        (["--http2", "--tlsv1.3"], "2"),
        (["--http1.1", "--tlsv1.3"], "1.1"),
        (["--http2", "--tls-max=1.2"], "2"),
    ] {
        let flags = flags.map(|flag| flag.split('=').collect::<Vec<_>>()).concat();
        let rest = ["-s", "--cacert", ca.as_str(), "-w", " %{http_version}", url];
        let curl = server.visitor().curl(flags.into_iter().chain(rest)).await;
        assert_eq!(curl.stdout, format!("hello {version}"), "{}", curl.stderr);
    }
}

#[tokio::test]
async fn deep_names_verify() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let _ssh = server.ssh().forward_to("*.app.localhost:443", &origin).command("http").publish().await;
    assert_eq!(server.visitor().get("https://a.b.c.app.localhost/").await.text(), "hello");
}

#[tokio::test]
async fn http_2_visitors_are_served_in_front_of_an_http_1_upstream() {
    let server = TestServer::start().await;
    let origin = Origin::echoing_requests().await;
    let _ssh = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let reply = server.visitor().http2().get("https://app.localhost/path?q=1").await;
    assert_eq!(reply.version(), http::Version::HTTP_2);
    assert_eq!(reply.seen_header("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(reply.seen_header("host").as_deref(), Some("app.localhost"));
}

#[tokio::test]
async fn requests_belong_to_their_authority_and_not_to_the_server_name_of_the_connection() {
    let server = TestServer::start().await;
    let (one, two, raw) = (
        Origin::replying("one").await,
        Origin::replying("two").await,
        Origin::tls_echo("raw.localhost").await,
    );
    let web = server.ssh().forward_to("one:443", &one).forward_to("two:443", &two).command("http");
    let _web = web.publish().await;
    let _tls = server.ssh().forward_to("raw:443", &raw).command("tls").publish().await;
    let ask = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let other = server.visitor().raw_tls("one.localhost", ask("two.localhost")).await;
    assert!(String::from_utf8_lossy(&other).ends_with("two"));
    let misdirected = server.visitor().raw_tls("one.localhost", ask("raw.localhost")).await;
    assert!(misdirected.starts_with(b"HTTP/1.1 421"), "{}", String::from_utf8_lossy(&misdirected));
}

#[tokio::test]
async fn plain_http_to_a_name_with_only_https_is_sent_there() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut ssh = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let reply = server.visitor().get("http://app.localhost/path?q=1").await;
    assert_eq!(reply.status(), 308);
    assert_eq!(reply.header("location"), Some(format!("{}/path?q=1", ssh.url().await).as_str()));
}

#[tokio::test]
async fn websockets_pass_over_http_and_https() {
    use futures_util::{SinkExt, StreamExt};
    let server = TestServer::start().await;
    let origin = Origin::websocket_echo().await;
    let ssh = server.ssh().forward_to("app:443", &origin).command("http --schemes http,https");
    let _ssh = ssh.publish().await;
    for url in ["ws://app.localhost/", "wss://app.localhost/"] {
        let mut socket = server.visitor().websocket(url).await;
        socket.send("hello".into()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "hello");
    }
}

#[tokio::test]
async fn tls_passes_through_with_the_upstreams_own_certificate() {
    let server = TestServer::start().await;
    let origin = Origin::http().tls("raw.localhost").replying("secret").await;
    let mut ssh = server.ssh().forward_to("raw:443", &origin).command("tls").publish().await;
    assert!(ssh.url().await.starts_with("tls://raw.localhost"));
    let file = server.folder().join("upstream.pem");
    std::fs::write(&file, origin.certificate()).unwrap();
    let reply = server.visitor().trusting(&file).get("https://raw.localhost/").await;
    assert_eq!(reply.text(), "secret");
}

#[tokio::test]
async fn something_that_is_not_tls_is_told_to_use_https() {
    let server = TestServer::start().await;
    let mut stream = server.visitor().dial(server.https_address()).await;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https"), "{answer}");
}

#[tokio::test]
async fn basic_auth_lets_only_the_right_pair_through() {
    let server = TestServer::start().await;
    let origin = Origin::echoing_requests().await;
    let command = "http --basic-auth ada:correct-horse --basic-auth bob:battery-staple";
    let _ssh = server.ssh().forward_to("app:443", &origin).command(command).publish().await;
    let url = "https://app.localhost/";
    let refused = server.visitor().get(url).await;
    assert_eq!(refused.status(), 401);
    assert!(refused.header("www-authenticate").unwrap().starts_with("Basic realm=\"hithe\""));
    assert_eq!(server.visitor().basic("ada", "battery-staple").get(url).await.status(), 401);
    assert_eq!(origin.requests(), 0);
    let passed = server.visitor().basic("bob", "battery-staple").get(url).await;
    assert!(passed.seen_header("authorization").unwrap().starts_with("Basic "));
}
