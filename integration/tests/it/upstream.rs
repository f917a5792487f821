//! What is spoken through the tunnel: TLS, HTTP/2, gRPC, and who the visitor is.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hithe_integration::origin::text;
use hithe_integration::{Origin, TestServer, eventually};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Notify;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const URL: &str = "https://app.localhost/";

async fn published(origin: &Origin, command: &str) -> (TestServer, hithe_integration::Child) {
    let server = TestServer::start().await;
    let ssh = server.ssh().forward_to("app:443", origin).command(command).publish().await;
    (server, ssh)
}

#[tokio::test]
async fn an_https_upstream_is_reached_whoever_signed_its_certificate() {
    let origin = Origin::http().tls("app.internal").replying("hello").await;
    let (server, _ssh) = published(&origin, "http --upstream-tls").await;
    for _ in 0..3 {
        assert_eq!(server.visitor().get(URL).await.text(), "hello");
    }
    assert_eq!(origin.connections(), 1, "a handshake for each request would be a waste");
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_refused_where_that_is_asked_for() {
    let origin = Origin::http().tls("app.internal").replying("hello").await;
    let command = "http --upstream-tls --verify-upstream-tls --upstream-server-name app.internal";
    let (server, _ssh) = published(&origin, command).await;
    let refused = server.visitor().get(URL).await;
    assert_eq!((refused.status(), refused.code()), (502, Some("ERR_HITHE_3007")));
    assert!(refused.text().contains("--upstream-server-name"), "{}", refused.text());
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_says_what_to_leave_out() {
    let origin = Origin::replying("hello").await;
    let (server, _ssh) = published(&origin, "http --upstream-tls").await;
    let refused = server.visitor().get(URL).await;
    assert_eq!((refused.status(), refused.code()), (502, Some("ERR_HITHE_3007")));
    assert!(refused.text().contains("leave --upstream-tls out"), "{}", refused.text());
}

#[tokio::test]
async fn one_http2_connection_carries_the_requests_of_all_visitors() {
    let origin = Origin::http().http2().answering(async |question| {
        let (parts, body) = question.into_parts();
        let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        let authority = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
        text(&format!("{:?} {} {authority} {}", parts.version, parts.uri.path(), body.len()))
    });
    let origin = origin.await;
    let (server, _ssh) = published(&origin, "http --upstream-protocol http2").await;
    let visits = (0..20).map(|number| {
        let server = &server;
        async move {
            let visitor = if number % 2 == 0 { server.visitor() } else { server.visitor().http2() };
            visitor.post(&format!("{URL}{number}"), vec![7; 100_000 * number]).await.text().to_owned()
        }
    });
    for (number, said) in join_all(visits).await.into_iter().enumerate() {
        assert!(said.starts_with(&format!("HTTP/2.0 /{number} app.localhost")), "{said}");
        assert!(said.ends_with(&format!(" {}", 100_000 * number)), "{said}");
    }
    assert_eq!((origin.requests(), origin.connections()), (20, 1));
}

#[tokio::test]
async fn auto_speaks_what_the_upstream_chooses_in_its_handshake() {
    let plain =
        Origin::http().tls("a").answering(async |question| text(&format!("{:?}", question.version()))).await;
    let multiplexed = Origin::http()
        .http2()
        .tls("a")
        .answering(async |question| text(&format!("{:?}", question.version())))
        .await;
    for (origin, version) in [(plain, "HTTP/1.1"), (multiplexed, "HTTP/2.0")] {
        let (server, _ssh) = published(&origin, "http --upstream-tls --upstream-protocol auto").await;
        for _ in 0..2 {
            assert_eq!(server.visitor().get(URL).await.text(), version);
        }
        assert_eq!(origin.connections(), 1);
    }
}

#[tokio::test]
async fn an_http2_connection_that_ends_is_replaced() {
    let end = Arc::new(Notify::new());
    let origin = {
        let end = Arc::clone(&end);
        Origin::serving(move |stream, counters| {
            let end = Arc::clone(&end);
            async move {
                let service = hyper::service::service_fn(move |_| {
                    counters.request();
                    async { Ok::<_, std::convert::Infallible>(text("hello")) }
                });
                let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    _ = served => {}
                    () = end.notified() => {}
                }
            }
        })
        .await
    };
    let (server, _ssh) = published(&origin, "http --upstream-protocol http2").await;
    assert_eq!(server.visitor().get(URL).await.text(), "hello");
    end.notify_waiters();
    for _ in 0..5 {
        assert_eq!(server.visitor().get(URL).await.text(), "hello");
    }
    assert_eq!((origin.requests(), origin.connections()), (6, 2));
}

#[tokio::test]
async fn websockets_go_over_http_1_whatever_else_the_upstream_speaks() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;

    let origin = Origin::websocket_echo().await;
    let (server, _ssh) = published(&origin, "http --upstream-protocol http2").await;
    let mut socket = server.visitor().websocket("wss://app.localhost/").await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
}

#[tokio::test]
async fn grpc_calls_pass_with_their_streams_and_trailers() {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop", ServingStatus::Serving).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let upstream = tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming);
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(upstream);

    let server = TestServer::start().await;
    let bind = format!("app:443:127.0.0.1:{port}");
    let _ssh = server.ssh().forward(bind).command("http --upstream-protocol http2").publish().await;
    let authority = Certificate::from_pem(std::fs::read(server.ca()).unwrap());
    let tls = ClientTlsConfig::new().ca_certificate(authority).domain_name("app.localhost");
    let channel = Endpoint::from_shared(format!("https://{}", server.https_address())).unwrap();
    let channel = channel.origin("https://app.localhost".parse().unwrap()).tls_config(tls).unwrap();
    let mut client = HealthClient::new(channel.connect().await.unwrap());
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };

    let answer = client.check(ask("shop")).await.unwrap().into_inner();
    assert_eq!(answer.status, ServingStatus::Serving as i32);
    let missing = client.check(ask("nothing")).await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound, "the status stands in the trailers");
    let mut watched = client.watch(ask("shop")).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, ServingStatus::Serving as i32);
    reporter.set_service_status("shop", ServingStatus::NotServing).await;
    assert_eq!(watched.message().await.unwrap().unwrap().status, ServingStatus::NotServing as i32);
    let mut hurried = tonic::Request::new(ask("shop"));
    hurried.set_timeout(Duration::from_secs(30));
    assert!(client.check(hurried).await.is_ok());
}

/// Answers each connection with the line of the PROXY header that it began with, and then echoes.
async fn telling_its_visitor() -> Origin {
    Origin::serving(|stream, _| async move {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        let _ = stream.read_line(&mut line).await;
        let _ = stream.write_all(line.as_bytes()).await;
        let mut rest = [0; 4];
        let _ = stream.read_exact(&mut rest).await;
        let _ = stream.write_all(&rest).await;
    })
    .await
}

#[tokio::test]
async fn a_tcp_upstream_learns_who_the_visitor_is_before_the_first_byte() {
    let (server, origin) = (TestServer::start().await, telling_its_visitor().await);
    let mut ssh = server.ssh().forward_to("0", &origin).command("tcp --proxy-proto 1").publish().await;
    let port = ssh.forwarding().await.remove(0).port().unwrap();
    let mut stream = server.visitor().from([127, 0, 0, 9].into()).tcp(port).await;
    let from = stream.local_addr().unwrap().port();
    // The upstream may be the first to speak: the header does not wait for the visitor.
    let mut line = String::new();
    BufReader::new(&mut stream).read_line(&mut line).await.unwrap();
    assert_eq!(line, format!("PROXY TCP4 127.0.0.9 127.0.0.1 {from} {port}\r\n"));
}

#[tokio::test]
async fn version_2_is_binary_and_precedes_what_the_visitor_sends() {
    let server = TestServer::start().await;
    let origin = Origin::serving(|mut stream, _| async move {
        let mut bytes = [0; 28 + 5];
        let _ = stream.read_exact(&mut bytes).await;
        let _ = stream.write_all(&bytes).await;
    })
    .await;
    let mut ssh = server.ssh().forward_to("0", &origin).command("tcp --proxy-proto 2").publish().await;
    let port = ssh.forwarding().await.remove(0).port().unwrap();
    let mut stream = server.visitor().tcp(port).await;
    let from = stream.local_addr().unwrap().port();
    stream.write_all(b"hello").await.unwrap();
    let mut bytes = [0; 28 + 5];
    stream.read_exact(&mut bytes).await.unwrap();
    let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
    expected.extend_from_slice(&from.to_be_bytes());
    expected.extend_from_slice(&port.to_be_bytes());
    expected.extend_from_slice(b"hello");
    assert_eq!(bytes.as_slice(), expected);
}

#[tokio::test]
async fn with_a_proxy_header_visitors_share_no_upstream_connection() {
    let (server, origin) = (TestServer::start().await, proxied_http().await);
    let _ssh = server.ssh().forward_to("app:443", &origin).command("http --proxy-proto 1").publish().await;
    for last in [7, 8] {
        let visitor = server.visitor().from([127, 0, 0, last].into());
        let mut connection = visitor.connection(URL).await;
        for _ in 0..3 {
            assert!(connection.get(URL).await.text().contains(&format!("PROXY TCP4 127.0.0.{last} ")));
        }
    }
    assert_eq!(origin.connections(), 2, "one for each visitor's connection, and not for each request");
}

/// Answers each request with the PROXY header of its connection.
async fn proxied_http() -> Origin {
    Origin::serving(|stream, _| async move {
        let mut stream = BufReader::new(stream);
        let mut header = String::new();
        let _ = stream.read_line(&mut header).await;
        let mut line = String::new();
        while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
            if line == "\r\n" {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{header}", header.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            line.clear();
        }
    })
    .await
}

/// nginx at a socket of its own.
async fn nginx(folder: &std::path::Path, listen: &str, rules: &str) -> (tokio::process::Child, String) {
    let folder = folder.join("nginx");
    std::fs::create_dir(&folder).unwrap();
    let socket = folder.join("socket");
    let configuration = format!(
        "daemon off; master_process off; pid {folder}/pid; events {{}}
         http {{
             access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
             fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
             server {{
                 listen unix:{socket} {listen};
                 {rules}
             }}
         }}",
        folder = folder.display(),
        socket = socket.display(),
    );
    std::fs::write(folder.join("conf"), configuration).unwrap();
    let mut command = tokio::process::Command::new("/usr/sbin/nginx");
    command.arg("-p").arg(&folder).args(["-e", "stderr", "-c", "conf"]).kill_on_drop(true);
    let child = command.spawn().unwrap();
    eventually("nginx listens", || std::os::unix::net::UnixStream::connect(&socket).ok()).await;
    (child, socket.display().to_string())
}

const WHO: &str = "set_real_ip_from unix:; real_ip_header proxy_protocol;
    return 200 '$remote_addr $proxy_protocol_addr:$proxy_protocol_port to $proxy_protocol_server_addr';";

#[tokio::test]
async fn nginx_knows_visitors_by_either_version_of_the_header() {
    for version in [1, 2] {
        let server = TestServer::start().await;
        let (_nginx, socket) = nginx(server.folder(), "proxy_protocol", WHO).await;
        let command = format!("http --proxy-proto {version}");
        let _ssh = server.ssh().forward(format!("app:443:{socket}")).command(&command).publish().await;
        for last in [7, 8] {
            let visitor = server.visitor().from([127, 0, 0, last].into());
            let said = visitor.get(URL).await.text().to_owned();
            let address = format!("127.0.0.{last}");
            assert!(said.starts_with(&format!("{address} {address}:")), "{version}: {said}");
            assert!(said.ends_with(" to 127.0.0.1") && !said.contains(":0 "), "{version}: {said}");
        }
    }
}

#[tokio::test]
async fn no_request_is_lost_when_nginx_ends_its_connections_in_order() {
    let server = TestServer::start().await;
    // It says GOAWAY at every fiftieth request, while others are on their way.
    let rules =
        "keepalive_requests 50; client_max_body_size 1m; return 200 '$server_protocol $content_length';";
    let (_nginx, socket) = nginx(server.folder(), "http2", rules).await;
    let command = "http --upstream-protocol http2";
    let _ssh = server.ssh().forward(format!("app:443:{socket}")).command(command).publish().await;
    for _ in 0..6 {
        let visits = (0..40).map(|number| {
            let server = &server;
            async move { server.visitor().post(URL, vec![7; 100 * number + 1]).await.text().to_owned() }
        });
        for (number, said) in join_all(visits).await.into_iter().enumerate() {
            assert_eq!(said, format!("HTTP/2.0 {}", 100 * number + 1));
        }
    }
}

#[tokio::test]
async fn flags_that_do_not_go_together_are_refused() {
    let (server, origin) = (TestServer::start().await, Origin::absent().await);
    for (command, said) in [
        ("http --proxy-proto 3", "ERR_HITHE_1123"),
        ("http --verify-upstream-tls", "needs --upstream-tls"),
        ("http --upstream-tls --verify-upstream-tls", "needs --upstream-server-name"),
        ("http --upstream-tls --upstream-server-name a/b", "takes a host name"),
        ("http --upstream-protocol spdy", "ERR_HITHE_1110"),
    ] {
        let refused = server.ssh().forward_to("443", &origin).command(command).run().await;
        assert!(refused.stdout.contains(said), "{command}: {}", refused.output());
    }
}
