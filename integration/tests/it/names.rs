//! To whom names and ports belong.

use hithe_integration::{Origin, TestServer, eventually};
use tokio::io::AsyncReadExt;

#[tokio::test]
async fn a_key_gets_the_same_random_name_again_and_another_key_another() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let publish = || server.ssh().forward_to("443", &origin).command("http").publish();
    let mut first = publish().await;
    let name = first.url().await;
    let mut second = publish().await;
    assert_ne!(second.url().await, name, "two tunnels of one key at once get two names");
    first.kill().await;
    let mut again = publish().await;
    assert_eq!(again.url().await, name);

    let other = server.another_key("other", "ed25519");
    server.authorize(&other);
    server.logged("authorized keys read again").await;
    let mut other = server.ssh().key(other).forward_to("443", &origin).command("http").publish().await;
    assert_ne!(other.url().await, name);
}

#[tokio::test]
async fn a_taken_name_is_refused_at_the_forward_and_said_in_the_session() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let other = server.another_key("other", "ed25519");
    server.authorize(&other);
    server.logged("authorized keys read again").await;
    let _ada = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let bob = || server.ssh().key(&other).forward_to("app:443", &origin).command("http");
    let said = bob().run().await;
    assert_eq!(said.code, Some(1), "{}", said.output());
    assert!(said.stdout.contains("ERR_HITHE_334"), "{}", said.output());
    let failed = bob().exit_on_forward_failure().run().await;
    assert_eq!(failed.code, Some(255));
    let below =
        server.ssh().key(&other).forward_to("x.app.localhost:443", &origin).command("http").run().await;
    assert!(below.stdout.contains("ERR_HITHE_334"), "{}", below.output());
}

#[tokio::test]
async fn a_stopped_client_is_replaced_by_its_own_key() {
    let server = TestServer::start().await;
    let (old, new) = (Origin::replying("old").await, Origin::replying("new").await);
    let mut first = server.ssh().forward_to("app:443", &old).command("http").publish().await;
    first.stop();
    let _second = server.ssh().forward_to("app:443", &new).command("http").publish().await;
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "new");
    first.cont();
    first.wait().await;
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "new");
}

#[tokio::test]
async fn a_killed_client_gets_its_name_and_port_back_at_once() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let publish = || server.ssh().forward_to("app:443", &origin).command("http").publish();
    let publish_tcp = || server.ssh().forward_to("0", &origin).command("tcp").publish();
    let port = publish_tcp().await.url().await;
    for _ in 0..10 {
        let mut web = publish().await;
        let mut tcp = publish_tcp().await;
        assert_eq!(tcp.url().await, port);
        web.kill().await;
        tcp.kill().await;
    }
}

#[tokio::test]
async fn names_of_the_operator_cannot_be_had() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    for (bind, code) in [
        ("www:443", "ERR_HITHE_320"),
        ("*.localhost:443", "ERR_HITHE_318"),
        ("a_b:443", "ERR_HITHE_355"),
        ("a..b:443", "ERR_HITHE_327"),
        ("shop.example.net:443", "ERR_HITHE_319"),
    ] {
        let ssh = server.ssh().forward_to(bind, &origin).command("http").run().await;
        assert!(ssh.stdout.contains(code), "{bind}: {}", ssh.output());
    }
}

#[tokio::test]
async fn an_international_name_is_published_as_punycode() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut ssh = server.ssh().forward_to("b\u{fc}cher:443", &origin).command("http").publish().await;
    assert!(ssh.url().await.starts_with("https://xn--bcher-kva.localhost"));
    assert_eq!(server.visitor().get("https://xn--bcher-kva.localhost/").await.text(), "hello");
}

#[tokio::test]
async fn a_tcp_port_can_be_chosen_within_the_range() {
    let server = TestServer::start().await;
    let origin = Origin::greeting("hello over tcp\n").await;
    let port = *server.tcp_ports().end();
    let mut ssh = server.ssh().forward_to(&port.to_string(), &origin).command("tcp").publish().await;
    assert_eq!(ssh.url().await, format!("tcp://localhost:{port}"));
    let mut greeting = [0; 15];
    server.visitor().tcp(port).await.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hello over tcp\n");
    let outside = server.ssh().forward_to("25", &origin).command("tcp").run().await;
    let range = format!("{}-{}", server.tcp_ports().start(), server.tcp_ports().end());
    assert!(
        outside.stdout.contains("ERR_HITHE_1113") && outside.stdout.contains(&range),
        "{}",
        outside.output()
    );
}

#[tokio::test]
async fn names_outlive_a_restart_of_the_server() {
    let mut server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut ssh = server.ssh().forward_to("443", &origin).command("http").publish().await;
    let name = ssh.forwarding().await.remove(0).host();
    let other = server.another_key("other", "ed25519");
    server.authorize(&other);
    server.restart().await;
    let mut again = server.ssh().forward_to("443", &origin).command("http").publish().await;
    assert_eq!(again.forwarding().await.remove(0).host(), name);
    again.kill().await;
    let bind = format!("{name}:443");
    let thief = server.ssh().key(&other).forward_to(&bind, &origin).command("http").run().await;
    assert!(thief.stdout.contains("ERR_HITHE_334"), "{}", thief.output());
}

#[tokio::test]
async fn a_random_tcp_port_outlives_a_restart_though_a_better_one_has_become_free() {
    let mut server = TestServer::start().await;
    let origin = Origin::greeting("hello\n").await;
    let published = async |server: &TestServer| {
        let mut ssh = server.ssh().forward_to("0", &origin).command("tcp").publish().await;
        let port = ssh.forwarding().await.remove(0).port().unwrap();
        ssh.interrupt().await;
        ssh.wait().await;
        port
    };
    let first = published(&server).await;
    eventually("the port is remembered", || {
        let names = server.admin("names list --json");
        names.contains(&format!("\"port {first}\"")).then_some(())
    })
    .await;
    server.admin(&format!("names release {first}"));
    let blocked =
        eventually("the port is closed", || std::net::TcpListener::bind(("127.0.0.1", first)).ok()).await;
    server.restart_in_order().await;
    let second = published(&server).await;
    assert_ne!(second, first);
    drop(blocked);
    server.restart_in_order().await;
    assert_eq!(published(&server).await, second);
}
