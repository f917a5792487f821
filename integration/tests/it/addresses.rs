//! Names and ports that are said behind the command, and what is noted about an endpoint.

use hithe_integration::{Origin, TestServer};
use tokio::io::AsyncReadExt;

#[tokio::test]
async fn a_name_may_stand_behind_the_command() {
    let (server, origin) = (TestServer::start().await, Origin::replying("hello").await);
    for (bind, command, url) in [
        ("443", "http --domain app", "https://app.localhost/"),
        ("0", "http --url https://web.localhost", "https://web.localhost/"),
        ("0", "http --url http://plain", "http://plain.localhost/"),
        ("80", "http --subdomain old", "http://old.localhost/"),
        ("443", "http --hostname older.localhost", "https://older.localhost/"),
    ] {
        let mut ssh = server.ssh().forward_to(bind, &origin).command(command).publish().await;
        let shown = ssh.forwarding().await.remove(0).url;
        let host = url.split("//").nth(1).unwrap().trim_end_matches('/');
        assert!(shown.contains(host), "{shown} for {command}");
        assert_eq!(server.visitor().get(url).await.text(), "hello", "{command}");
    }
}

#[tokio::test]
async fn a_tcp_port_may_stand_behind_the_command() {
    let (server, origin) = (TestServer::start().await, Origin::greeting("hello").await);
    let port = *server.tcp_ports().end();
    for flag in [format!("--remote-addr localhost:{port}"), format!("--url tcp://localhost:{port}")] {
        let command = format!("tcp {flag}");
        let mut ssh = server.ssh().forward_to("0", &origin).command(&command).publish().await;
        assert_eq!(ssh.forwarding().await.remove(0).port(), Some(port));
        let (mut stream, mut heard) = (server.visitor().tcp(port).await, [0; 5]);
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, *b"hello");
        ssh.kill().await;
    }
    let elsewhere = format!("tcp --url tcp://example.net:{port}");
    let refused = server.ssh().forward_to("0", &origin).command(&elsewhere).run().await;
    assert!(refused.stdout.contains("ERR_HITHE_1117"), "{}", refused.output());
}

#[tokio::test]
async fn what_is_said_twice_is_refused_with_its_code() {
    let (server, origin) = (TestServer::start().await, Origin::absent().await);
    for (bind, command, code) in [
        ("app:443", "http --domain app", "ERR_HITHE_1118"),
        ("app:443", "http --subdomain app", "ERR_HITHE_1119"),
        ("443", "http --hostname a.localhost --subdomain b", "ERR_HITHE_1120"),
        ("443", "http --url http://app", "ERR_HITHE_1113"),
        ("443", "http -subdomain=app", "--domain"),
    ] {
        let refused = server.ssh().forward_to(bind, &origin).command(command).run().await;
        assert!(refused.stdout.contains(code), "{command}: {}", refused.output());
        assert!(matches!(refused.code, Some(1 | 2)), "{:?}", refused.code);
    }
}

#[tokio::test]
async fn a_name_behind_the_command_belongs_to_its_key_like_any_other() {
    let (server, origin) = (TestServer::start().await, Origin::replying("hello").await);
    let other = server.another_key("other", "ed25519");
    server.authorize(&other);
    server.logged("authorized keys read again").await;
    let _ada = server.ssh().forward_to("443", &origin).command("http --domain app").publish().await;
    let bob = server.ssh().key(&other).forward_to("443", &origin).command("http --domain app").run().await;
    assert!(bob.stdout.contains("ERR_HITHE_334"), "{}", bob.output());
}

#[tokio::test]
async fn a_dead_session_of_the_same_key_gives_up_a_name_that_stands_behind_the_command() {
    let (server, origin) = (TestServer::start().await, Origin::replying("new").await);
    let mut first = server.ssh().forward_to("443", &origin).command("http --domain app").publish().await;
    first.stop();
    let _second = server.ssh().forward_to("443", &origin).command("http --domain app").publish().await;
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "new");
    first.cont();
    first.wait().await;
}

#[tokio::test]
async fn notes_are_shown_in_the_log_and_in_the_status() {
    let (server, origin) = (TestServer::start().await, Origin::replying("hello").await);
    let control = server.folder().join("control");
    let words =
        ["http", "--name", "shop", "--description", "the shop's front", "--metadata", r#"{"team": 7}"#];
    let master = server.ssh().as_master(&control).forward_to("app:443", &origin).command_words(words);
    let _master = master.publish().await;
    assert!(server.logged("published").await.contains("the shop's front"));
    let status = server.ssh().sharing(&control).run().await.stdout;
    for noted in ["Name        shop", "About       the shop's front", r#"Metadata    {"team": 7}"#] {
        assert!(status.contains(noted), "{status}");
    }
    let long = format!("http --description {}", "x".repeat(256));
    let refused = server.ssh().forward_to("443", &origin).command(&long).run().await;
    assert!(refused.stdout.contains("ERR_HITHE_504"), "{}", refused.output());
}
