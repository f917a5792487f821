//! Modules that keep visitors away: by address, by rate, and while the upstream fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hithe_integration::{Origin, TestServer, within};
use http::StatusCode;
use tokio::io::AsyncReadExt;

const URL: &str = "http://app.localhost/";

#[tokio::test]
async fn visitors_of_an_http_endpoint_are_admitted_by_their_address() {
    let (server, origin) = (TestServer::start().await, Origin::replying("hello").await);
    let command = "http --cidr-allow 127.0.0.0/8 --cidr-deny 127.0.0.7";
    let _ssh = server.ssh().forward_to("app:80", &origin).command(command).publish().await;
    assert_eq!(server.visitor().get(URL).await.text(), "hello");
    let refused = server.visitor().from([127, 0, 0, 7].into()).get(URL).await;
    assert_eq!((refused.status(), refused.code()), (403, Some("ERR_HITHE_3205")));
    // What a visitor says of itself is not believed.
    let pretending = server.visitor().from([127, 0, 0, 7].into()).header("x-forwarded-for", "127.0.0.1");
    assert_eq!(pretending.get(URL).await.status(), 403);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn an_ipv4_visitor_of_a_dual_stack_listener_is_matched_as_ipv4() {
    let server = TestServer::with(|options| options.dual_stack()).await;
    let origin = Origin::replying("hello").await;
    let _ssh =
        server.ssh().forward_to("app:80", &origin).command("http --cidr-allow 127.0.0.1").publish().await;
    assert_eq!(server.visitor().get(URL).await.status(), 200);
}

#[tokio::test]
async fn connections_to_tcp_and_tls_endpoints_are_closed_without_a_byte() {
    let (server, origin) = (TestServer::start().await, Origin::greeting("hello").await);
    let mut ssh = server.ssh().forward_to("0", &origin).command("tcp --cidr-allow 127.0.0.1").publish().await;
    let port = ssh.forwarding().await.remove(0).port().unwrap();
    let heard = async |visitor: hithe_integration::Visitor| {
        let (mut stream, mut heard) = (visitor.tcp(port).await, [0; 5]);
        stream.read_exact(&mut heard).await.map(|_| heard).map_err(|error| error.kind())
    };
    assert_eq!(heard(server.visitor()).await, Ok(*b"hello"));
    let refused = heard(server.visitor().from([127, 0, 0, 7].into())).await;
    assert_eq!(refused, Err(std::io::ErrorKind::UnexpectedEof));
    let origin = Origin::tls_echo("safe.localhost").await;
    let _ssh =
        server.ssh().forward_to("safe:443", &origin).command("tls --cidr-allow 10.0.0.0/8").publish().await;
    assert!(server.visitor().insecure().try_tls("safe.localhost", &[]).await.is_err());
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn denying_without_allowing_is_refused_with_what_to_write() {
    let (server, origin) = (TestServer::start().await, Origin::absent().await);
    let ssh = server.ssh().forward_to("app:80", &origin).command("http --cidr-deny 10.0.0.0/8").run().await;
    assert_eq!(ssh.code, Some(2));
    assert!(ssh.output().contains("ERR_HITHE_393") && ssh.output().contains("--cidr-allow 0.0.0.0/0,::/0"));
}

#[tokio::test]
async fn requests_beyond_the_rate_get_429_and_when_to_come_again() {
    let (server, origin) = (TestServer::start().await, Origin::replying("hello").await);
    let command = ["http", "--rate-limit", "3/1h", "--rate-limit", "5/1h;key=header:x-key"];
    let _ssh = server.ssh().forward_to("app:80", &origin).command_words(command).publish().await;
    for _ in 0..3 {
        assert_eq!(server.visitor().get(URL).await.status(), 200);
    }
    let refused = server.visitor().get(URL).await;
    assert_eq!((refused.status(), refused.code()), (429, Some("ERR_HITHE_702")));
    let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=7200).contains(&wait), "{wait}");
    // Another visitor has a count of its own, but without the header both share one.
    let other = || server.visitor().from([127, 0, 0, 7].into());
    assert_eq!([other().get(URL).await.status(), other().get(URL).await.status()], [200, 200]);
    assert_eq!(other().get(URL).await.status(), 429);
    assert_eq!(other().header("x-key", "1").get(URL).await.status(), 200);
    assert_eq!(origin.requests(), 6);
}

#[tokio::test]
async fn a_breaker_opens_on_failures_and_a_good_probe_closes_it() {
    let broken = Arc::new(AtomicBool::new(true));
    let origin = {
        let broken = Arc::clone(&broken);
        Origin::answering(move |_| {
            let status = if broken.load(Ordering::SeqCst) { 500 } else { 200 };
            async move {
                let mut answer = hithe_integration::origin::text("said");
                *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                answer
            }
        })
        .await
    };
    let server = TestServer::start().await;
    let command = "http --circuit-breaker 0.5 --circuit-breaker-volume 4 --circuit-breaker-probe 1s";
    let _ssh = server.ssh().forward_to("app:80", &origin).command(command).publish().await;
    for _ in 0..4 {
        assert_eq!(server.visitor().get(URL).await.status(), 500);
    }
    let refused = server.visitor().get(URL).await;
    assert_eq!((refused.status(), refused.code()), (503, Some("ERR_HITHE_3202")));
    assert_eq!((refused.header("retry-after"), origin.requests()), (Some("1"), 4));
    broken.store(false, Ordering::SeqCst);
    while server.visitor().get(URL).await.status() != 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.visitor().get(URL).await.status(), 200);
    assert_eq!(origin.requests(), 6);
}

#[tokio::test]
async fn a_visitor_whose_request_is_malformed_does_not_close_the_breaker() {
    let origin = Origin::answering(|question| async {
        let _ = http_body_util::BodyExt::collect(question.into_body()).await;
        let mut answer = hithe_integration::origin::text("said");
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
    .await;
    let server = TestServer::start().await;
    let command = "http --circuit-breaker 0.5 --circuit-breaker-volume 2 --circuit-breaker-probe 1s";
    let _ssh = server.ssh().forward_to("app:80", &origin).command(command).publish().await;
    for _ in 0..2 {
        assert_eq!(server.visitor().get(URL).await.status(), 500);
    }
    let malformed = "POST / HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let probe = async { while !server.visitor().raw(malformed).await.starts_with(b"HTTP/1.1 400") {} };
    within("a malformed probe", probe).await;
    assert_eq!(server.visitor().get(URL).await.status(), 500, "the next is a probe");
    assert_eq!(server.visitor().get(URL).await.code(), Some("ERR_HITHE_3202"));
}

#[tokio::test]
async fn an_upstream_that_is_not_there_opens_the_breaker_too() {
    let (server, origin) = (TestServer::start().await, Origin::absent().await);
    let command = "http --circuit-breaker 1 --circuit-breaker-volume 2";
    let _ssh = server.ssh().forward_to("app:80", &origin).command(command).publish().await;
    for code in ["ERR_HITHE_8012", "ERR_HITHE_8012", "ERR_HITHE_3202"] {
        assert_eq!(server.visitor().get(URL).await.code(), Some(code));
    }
}

#[tokio::test]
async fn a_hash_from_htpasswd_stands_for_its_password() {
    let (server, origin) = (TestServer::start().await, Origin::replying("hello").await);
    let pair = "ada:$2y$05$3o1BVdet4iS1BMP1oN/pTeKc7JgVccgFI0Ia4wwYJcrOa0UKnARcO";
    let words = ["http", "--basic-auth", pair];
    let mut ssh = server.ssh().forward_to("app:80", &origin).command_words(words).publish().await;
    for _ in 0..2 {
        assert_eq!(server.visitor().basic("ada", "correct-horse").get(URL).await.text(), "hello");
    }
    for (user, password) in [("ada", "battery-staple"), ("eve", "correct-horse"), ("ada", &pair[4..])] {
        assert_eq!(server.visitor().basic(user, password).get(URL).await.status(), 401);
    }
    assert_eq!(origin.requests(), 2);
    ssh.kill().await;
    let dear = pair.replace("$05$", "$14$");
    let words = ["http", "--basic-auth", &dear];
    let refused = server.ssh().forward_to("app:80", &origin).command_words(words).run().await;
    assert!(refused.stdout.contains("a cost of 4 to 12"), "{}", refused.output());
    assert!(!refused.stdout.contains("3o1BVdet4iS1BMP1oN"), "{}", refused.output());
}
