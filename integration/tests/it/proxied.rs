//! Proxies in front of the server: haproxy and nginx say who a visitor or publisher is, and nobody else can.

use std::net::IpAddr;

use futures_util::future::join_all;
use hithe_integration::front::Front;
use hithe_integration::server::Options;
use hithe_integration::{OpenSsh, Origin, TestServer, Visitor, eventually, within};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

const FAR: [u8; 4] = [127, 0, 0, 9];
const URL: &str = "https://app.localhost/";

/// Believes what comes from 127.0.0.1 and begins with a header.
fn announced(options: Options) -> Options {
    options.arg("--trusted-proxies").arg("127.0.0.1").arg("--proxy-protocol").arg("ssh,http,https,tcp")
}

/// Believes the headers of requests from 127.0.0.1.
fn trusting(options: Options) -> Options {
    options.arg("--trusted-proxies").arg("127.0.0.1/32,10.0.0.0/8")
}

fn far() -> IpAddr {
    FAR.into()
}

/// A haproxy that passes on connections to ssh, http, https and a tcp port, with this option of `server`.
async fn haproxy(server: &TestServer, option: &str, tcp: u16) -> Front {
    let tcp = ([127, 0, 0, 1], tcp).into();
    let sections = [server.ssh_address(), server.http_address(), server.https_address(), tcp]
        .into_iter()
        .enumerate()
        .map(|(number, to)| {
            format!("listen l{number}\n mode tcp\n bind PORT{number}\n server s {to} {option}\n")
        });
    Front::haproxy(server.folder(), &sections.collect::<String>()).await
}

/// Publishers over haproxy's first port, visitors over the others: all from 127.0.0.9.
async fn everybody_is_known_by_their_own_address(option: &str) {
    let server = TestServer::with(announced).await;
    let (origin, echo) = (Origin::echoing_requests().await, Origin::tcp_echo().await);
    let tcp = *server.tcp_ports().start();
    let front = haproxy(&server, option, tcp).await;
    let ssh = || OpenSsh::to(front.address(0), server.user_key()).option("BindAddress=127.0.0.9");
    let command = "http --cidr-allow 127.0.0.9/32 --request-header-add 'x-to: ${conn.server_port}'";
    let mut web = ssh().forward_to("app:443", &origin).forward_to("app:80", &origin);
    web = web.command(command);
    let mut web = web.publish().await;
    let mut raw = ssh().forward_to(&tcp.to_string(), &echo).command("tcp").publish().await;
    let logins = eventually("the audit log has both logins", || {
        let audit: serde_json::Value = serde_json::from_str(&server.admin("audit --json")).unwrap();
        let all = audit.as_array().unwrap().iter();
        let logins = all.filter(|it| it["action"] == "login" && it["result"] == "ok");
        let from: Vec<_> = logins.map(|it| it["source"].as_str().unwrap().to_owned()).collect();
        (from.len() == 2).then_some(from)
    })
    .await;
    assert_eq!(logins, ["127.0.0.9", "127.0.0.9"]);

    let visitor = Visitor::of(front.address(1), front.address(2)).trusting(&server.ca());
    for (url, port) in [(URL, front.address(2).port()), ("http://app.localhost/", front.address(1).port())] {
        let reply = visitor.clone().from(far()).get(url).await;
        assert_eq!(reply.status(), 200, "{option}");
        assert_eq!(reply.seen_header("x-forwarded-for").as_deref(), Some("127.0.0.9"));
        // The proxy's own, to which the visitor connected.
        assert_eq!(reply.seen_header("x-to"), Some(port.to_string()));
        let reply = visitor.clone().from([127, 0, 0, 8].into()).get(url).await;
        assert_eq!(reply.status(), 403, "{option}");
    }
    web.wait_for_text("  127.0.0.9").await;

    let mut stream = visitor.clone().from(far()).dial(front.address(3)).await;
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    within("the echo", stream.read_exact(&mut heard)).await.unwrap();
    drop(stream);
    raw.wait_for_text("  127.0.0.9:").await;
}

#[tokio::test]
async fn haproxy_announces_visitors_and_publishers_by_version_1() {
    everybody_is_known_by_their_own_address("send-proxy").await;
}

#[tokio::test]
async fn haproxy_announces_visitors_and_publishers_by_version_2() {
    everybody_is_known_by_their_own_address("send-proxy-v2").await;
    everybody_is_known_by_their_own_address("send-proxy-v2 proxy-v2-options crc32c,unique-id").await;
}

#[tokio::test]
async fn haproxys_health_checks_are_taken_as_they_are() {
    let server = TestServer::with(|options| announced(options).arg("--log-level").arg("debug")).await;
    let option = "send-proxy-v2 check check-send-proxy inter 50ms rise 1 fall 1";
    let _front = haproxy(&server, option, *server.tcp_ports().start()).await;
    server.logged("came for itself proxy=127.0.0.1 listener=Https").await;
    assert!(!server.log().contains("a trusted proxy was closed"), "{}", server.log());
}

#[tokio::test]
async fn nginx_announces_visitors() {
    let server = TestServer::with(announced).await;
    let origin = Origin::echoing_requests().await;
    let rules =
        format!("server {{ listen PORT0; proxy_pass {}; proxy_protocol on; }}", server.https_address());
    let front = Front::nginx_stream(server.folder(), &rules).await;
    // Nobody stands before the publisher, who comes from elsewhere.
    let ssh = server.ssh().option("BindAddress=127.0.0.9").forward_to("app:443", &origin).command("http");
    let _ssh = ssh.publish().await;
    let visitor = Visitor::of(server.http_address(), front.address(0)).trusting(&server.ca()).from(far());
    for visitor in [visitor.clone(), visitor.http2()] {
        let reply = visitor.get(URL).await;
        assert_eq!(reply.seen_header("x-forwarded-for").as_deref(), Some("127.0.0.9"));
    }
}

#[tokio::test]
async fn the_upstream_hears_of_the_visitor_behind_the_proxy() {
    let server = TestServer::with(announced).await;
    let header = Origin::serving(|stream, _| async move {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        let _ = stream.read_line(&mut line).await;
        let _ = stream.write_all(line.as_bytes()).await;
    })
    .await;
    let tcp = *server.tcp_ports().start();
    let front = haproxy(&server, "send-proxy-v2", tcp).await;
    let ssh = server.ssh().option("BindAddress=127.0.0.9").forward_to(&tcp.to_string(), &header);
    let _ssh = ssh.command("tcp --proxy-proto 1").publish().await;
    let mut stream = server.visitor().from(far()).dial(front.address(3)).await;
    let from = stream.local_addr().unwrap().port();
    let mut said = String::new();
    within("the header", stream.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, format!("PROXY TCP4 127.0.0.9 127.0.0.1 {from} {}\r\n", front.address(3).port()));
}

#[tokio::test]
async fn nobody_but_a_trusted_proxy_can_announce_a_visitor() {
    let server = TestServer::with(announced).await;
    let origin = Origin::echoing_requests().await;
    let ssh = server.ssh().option("BindAddress=127.0.0.9").forward_to("app:80", &origin).command("http");
    let _ssh = ssh.publish().await;
    let request = "GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n";
    let visitor = server.visitor().from(far());
    let spoofed = visitor.raw(format!("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n{request}")).await;
    assert!(spoofed.is_empty() || spoofed.starts_with(b"HTTP/1.1 400"), "it was taken for a header");
    let plain = visitor.header("x-forwarded-for", "192.0.2.1").get("http://app.localhost/").await;
    assert_eq!(plain.seen_header("x-forwarded-for").as_deref(), Some("127.0.0.9"));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_connection_from_a_trusted_proxy_without_its_header_is_closed() {
    let server = TestServer::with(announced).await;
    let begins = [
        "GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
        "PROXY TCP4 127.0.0.9 127.0.0.1 1\r\nGET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
        // Half a header, and then nothing for as long as the server waits.
        "PROXY TCP4 127.0.0.9",
    ];
    let addresses = [server.http_address(), server.https_address(), server.ssh_address()];
    let all = begins.iter().flat_map(|begin| addresses.map(|address| (begin, address)));
    join_all(all.map(|(begin, address)| {
        let visitor = server.visitor();
        async move {
            let mut stream = visitor.dial(address).await;
            stream.write_all(begin.as_bytes()).await.unwrap();
            let mut said = Vec::new();
            let _ = within("it is closed", stream.read_to_end(&mut said)).await;
            assert_eq!(said, b"", "{begin:?}");
        }
    }))
    .await;
    server.logged("does not begin with a PROXY header").await;
}

/// A haproxy that reads requests, and takes what others say of themselves for what it is.
async fn http_proxy(server: &TestServer, rules: &str) -> Front {
    let to = server.http_address();
    let configuration =
        format!("listen web\n mode http\n bind PORT0\n option forwardfor\n {rules}\n server s {to}\n");
    Front::haproxy(server.folder(), &configuration).await
}

#[tokio::test]
async fn a_proxy_that_reads_requests_names_the_visitor_of_each() {
    let server = TestServer::with(trusting).await;
    let origin = Origin::echoing_requests().await;
    // Requests of all visitors share connections to the server.
    let front =
        http_proxy(&server, "http-reuse always\n http-request set-header X-Forwarded-Proto https").await;
    let command = "http --cidr-allow 127.0.0.9/32,127.0.0.10/32";
    let mut ssh = server.ssh().forward_to("app:80", &origin).command(command).publish().await;
    let visitor = Visitor::of(front.address(0), server.https_address())
        .header("x-forwarded-for", "10.1.1.1, 127.0.0.10");
    for last in [9, 8, 10, 9] {
        let reply = visitor.clone().from([127, 0, 0, last].into()).get("http://app.localhost/").await;
        assert_eq!(reply.status(), if last == 8 { 403 } else { 200 }, "127.0.0.{last}");
        if last != 8 {
            let way = format!("10.1.1.1, 127.0.0.10, 127.0.0.{last}, 127.0.0.1");
            assert_eq!(reply.seen_header("x-forwarded-for"), Some(way));
            assert_eq!(reply.seen_header("x-forwarded-proto").as_deref(), Some("https"));
        }
    }
    ssh.wait_for_text("  127.0.0.10").await;
    ssh.wait_for_text("  127.0.0.8").await;
}

#[tokio::test]
async fn an_https_endpoint_is_served_behind_a_proxy_that_ends_tls() {
    let server = TestServer::with(trusting).await;
    let origin = Origin::replying("hello").await;
    let front = http_proxy(&server, "http-request set-header X-Forwarded-Proto https if { path /tls }").await;
    let _ssh = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let visitor = Visitor::of(front.address(0), server.https_address());
    assert_eq!(visitor.get("http://app.localhost/tls").await.text(), "hello");
    // Where the proxy says nothing of TLS, and where a visitor says so itself, there was none.
    assert!(visitor.get("http://app.localhost/").await.header("location").is_some());
    let liar = server.visitor().from(far()).header("x-forwarded-proto", "https");
    assert!(liar.get("http://app.localhost/").await.header("location").is_some());
}

#[tokio::test]
async fn a_rate_limit_counts_the_visitors_behind_a_proxy_one_by_one() {
    let server = TestServer::with(trusting).await;
    let origin = Origin::replying("hello").await;
    let front = http_proxy(&server, "http-reuse always").await;
    let command = "http --rate-limit 2/1h";
    let _ssh = server.ssh().forward_to("app:80", &origin).command(command).publish().await;
    let visitor = Visitor::of(front.address(0), server.https_address());
    for last in [8, 9] {
        let visitor = visitor.clone().from([127, 0, 0, last].into());
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.push(visitor.get("http://app.localhost/").await.status());
        }
        assert_eq!(statuses, [200, 200, 429], "127.0.0.{last}");
    }
}
