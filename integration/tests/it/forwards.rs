//! What can stand behind `-R`, with stock ssh.

use hithe_integration::{OpenSsh, Origin, TestServer};

async fn publishes(bind: &str, host: &str, scheme: &str) {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut ssh = server.ssh().forward_to(bind, &origin).command("http").publish().await;
    let said = ssh.forwarding().await.remove(0);
    assert!(said.url.starts_with(&format!("{scheme}://{host}")), "{said:?}");
    assert_eq!(server.visitor().get(&said.url).await.text(), "hello");
}

#[tokio::test]
async fn port_443_is_https_and_port_80_is_http() {
    publishes("443", "", "https").await;
    publishes("80", "", "http").await;
}

#[tokio::test]
async fn port_0_is_https_and_the_client_is_told_a_number() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut ssh = server.ssh().forward_to("0", &origin).command("http").publish().await;
    let said = ssh.forwarding().await.remove(0);
    assert_eq!((said.url.starts_with("https://"), said.bind.as_str()), (true, "0"));
    ssh.wait_for_text("Allocated port").await;
    assert_eq!(server.visitor().get(&said.url).await.text(), "hello");
}

#[tokio::test]
async fn a_full_name_and_a_bare_label_lie_below_the_domain() {
    publishes("app.localhost:443", "app.localhost", "https").await;
    publishes("app:443", "app.localhost", "https").await;
}

#[tokio::test]
async fn any_address_asks_for_no_name() {
    for bind in [":443", "*:443", "[::]:443", "localhost:443"] {
        publishes(bind, "", "https").await;
    }
}

#[tokio::test]
async fn the_bind_is_shown_as_it_was_typed() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let ssh = server.ssh().forward_to("App:443", &origin).forward_to("[::]:443", &origin);
    let mut ssh = ssh.command("http").publish().await;
    let binds: Vec<_> = ssh.forwarding().await.into_iter().map(|it| it.bind).collect();
    assert_eq!(binds, ["App:443", "[::]:443"]);
}

#[tokio::test]
async fn a_wildcard_matches_any_depth_and_the_most_specific_name_wins() {
    let server = TestServer::start().await;
    let (wide, narrow) = (Origin::replying("wide").await, Origin::replying("narrow").await);
    let ssh =
        server.ssh().forward_to("*.app.localhost:443", &wide).forward_to("x.app.localhost:443", &narrow);
    let _ssh = ssh.command("http").publish().await;
    let visitor = server.visitor();
    assert_eq!(visitor.get("https://a.b.app.localhost/").await.text(), "wide");
    assert_eq!(visitor.get("https://x.app.localhost/").await.text(), "narrow");
    assert_eq!(visitor.get("https://app.localhost/").await.code(), Some("ERR_HITHE_3200"));
}

#[tokio::test]
async fn several_forwards_of_one_session_are_several_endpoints() {
    let server = TestServer::start().await;
    let (one, two) = (Origin::replying("one").await, Origin::replying("two").await);
    let ssh = server.ssh().forward_to("one:443", &one).forward_to("two:80", &two);
    let _ssh = ssh.command("http").publish().await;
    assert_eq!(server.visitor().get("https://one.localhost/").await.text(), "one");
    assert_eq!(server.visitor().get("http://two.localhost/").await.text(), "two");
}

#[tokio::test]
async fn one_name_can_be_published_plain_and_over_tls_by_two_forwards() {
    let server = TestServer::start().await;
    let (plain, secure) = (Origin::replying("plain").await, Origin::replying("secure").await);
    let ssh = server.ssh().forward_to("app:80", &plain).forward_to("app:443", &secure);
    let _ssh = ssh.command("http").publish().await;
    assert_eq!(server.visitor().get("http://app.localhost/").await.text(), "plain");
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "secure");
}

#[tokio::test]
async fn schemes_publish_one_forward_both_ways() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut ssh = server.ssh().forward_to("app:443", &origin).command("http --schemes http,https").spawn();
    ssh.forwardings(2).await;
    assert_eq!(server.visitor().get("http://app.localhost/").await.text(), "hello");
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "hello");
}

#[tokio::test]
async fn a_port_that_does_not_go_with_the_command_is_refused() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let refused = |ssh: OpenSsh, command: &str| ssh.command(command).run();
    let https = refused(server.ssh().forward_to("app:80", &origin), "http --schemes https").await;
    assert!(https.stdout.contains("ERR_HITHE_1113"), "{}", https.output());
    assert_eq!(https.code, Some(1));
    let tls = refused(server.ssh().forward_to("app:80", &origin), "tls").await;
    assert!(tls.stdout.contains("ERR_HITHE_1113"), "{}", tls.output());
    let named_tcp = refused(server.ssh().forward_to("app:0", &origin), "tcp").await;
    assert!(named_tcp.stdout.contains("ERR_HITHE_1117"), "{}", named_tcp.output());
    assert_eq!(server.visitor().get("http://app.localhost/").await.status(), 404);
}

#[tokio::test]
async fn the_same_forward_twice_is_refused_once_and_works_once() {
    let server = TestServer::start().await;
    let (origin, other) = (Origin::replying("hello").await, Origin::replying("other").await);
    let ssh = server.ssh().forward_to("app:443", &origin).forward_to("app:443", &other);
    let mut ssh = ssh.command("http").spawn();
    ssh.forwardings(1).await;
    ssh.wait_for_text("already there").await;
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "hello");
}

#[tokio::test]
async fn a_custom_domain_needs_the_operator_and_for_https_a_certificate() {
    let server = TestServer::with(|options| options.arg("--allow-domain").arg("shop.example.net")).await;
    let origin = Origin::replying("hello").await;
    let foreign = server.ssh().forward_to("other.example.net:443", &origin).command("http").run().await;
    assert!(foreign.stdout.contains("ERR_HITHE_319"), "{}", foreign.output());
    let uncertified = server.ssh().forward_to("shop.example.net:443", &origin).command("http").run().await;
    assert!(uncertified.stdout.contains("no certificate"), "{}", uncertified.output());
    let _ssh = server.ssh().forward_to("shop.example.net:80", &origin).command("http").publish().await;
    assert_eq!(server.visitor().get("http://shop.example.net/").await.text(), "hello");
}

#[tokio::test]
async fn a_forward_without_a_target_gives_502_and_a_hint() {
    let server = TestServer::start().await;
    let mut ssh = server.ssh().forward("app:443").command("http").publish().await;
    let reply = server.visitor().get("https://app.localhost/").await;
    assert_eq!(reply.status(), 502);
    ssh.wait_for_text("target").await;
}

#[tokio::test]
async fn the_thirty_third_forward_is_refused() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let ssh = (0..33).fold(server.ssh(), |ssh, n| ssh.forward_to(&format!("n{n}:443"), &origin));
    let mut ssh = ssh.command("http").spawn();
    ssh.forwardings(32).await;
    ssh.wait_for_text("at most 32 forwards").await;
}
