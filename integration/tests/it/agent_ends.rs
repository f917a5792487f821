//! How the agent ends: in order, so that no visit is lost, and at once for who does not want to wait.

use std::time::Duration;

use hithe_integration::origin::Feed;
use hithe_integration::terminal::Terminal;
use hithe_integration::visitor::Streaming;
use hithe_integration::{Child, Origin, TestServer, within};
use tokio::time::Instant;

const URL: &str = "https://app.localhost/";
/// Less than a running visit would be waited for.
const SOON: Duration = Duration::from_secs(5);

/// An agent with a visit of which the visitor has the first half.
async fn half_a_visit(server: &TestServer, flags: &str) -> (Child, Origin, Feed, Streaming) {
    let (origin, feed) = Origin::fed().await;
    let agent = server.agent().command("http", &origin).words("--domain app").words(flags);
    let agent = agent.publish().await;
    assert!(feed.send("first ").await);
    let mut stream = server.visitor().open(URL).await;
    assert_eq!(stream.next_text().await, "first ");
    (agent, origin, feed, stream)
}

/// The other half arrives, and nobody else does.
async fn finishes(server: &TestServer, feed: Feed, stream: Streaming) {
    let code = server.visitor().get_until_offline(URL).await;
    assert_eq!(code.as_deref(), Some("ERR_HITHE_3200"));
    assert!(feed.send("second").await);
    drop(feed);
    assert_eq!(stream.rest().await.expect("a visit that is not cut").text(), "second");
}

#[tokio::test]
async fn a_visit_that_runs_is_finished_after_ctrl_c_and_no_other_comes() {
    let server = TestServer::start().await;
    let (mut agent, _origin, feed, stream) = half_a_visit(&server, "").await;
    agent.interrupt().await;
    agent.wait_for_text("waiting for 1 visit; press Ctrl-C again to end at once").await;
    finishes(&server, feed, stream).await;
    assert_eq!(agent.wait().await.code(), Some(0), "{}", agent.output());
}

#[tokio::test]
async fn a_second_signal_ends_the_agent_at_once() {
    let server = TestServer::start().await;
    let (mut agent, _origin, feed, mut stream) = half_a_visit(&server, "").await;
    agent.terminate();
    agent.wait_for_text("waiting for 1 visit").await;
    let begun = Instant::now();
    agent.interrupt().await;
    assert_eq!(agent.wait().await.code(), Some(0), "{}", agent.output());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(stream.next().await.is_none_or(|end| end.is_err()), "the answer looks complete");
    drop(feed);
}

#[tokio::test]
async fn an_agent_without_visits_ends_at_once_whatever_connections_are_kept() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut agent = server.agent().command("http", &origin).words("--domain app").publish().await;
    let mut kept = server.visitor().connection(URL).await;
    assert_eq!(kept.get(URL).await.status(), 200);
    let begun = Instant::now();
    agent.interrupt().await;
    assert_eq!(agent.wait().await.code(), Some(0), "{}", agent.output());
    assert!(begun.elapsed() < SOON && !agent.output().contains("waiting"), "{}", agent.output());
    assert_eq!(kept.get(URL).await.code(), Some("ERR_HITHE_3200"));
}

#[tokio::test]
async fn an_endpoint_that_the_api_withdraws_finishes_its_visits_and_gives_its_name_back_meanwhile() {
    let server = TestServer::start().await;
    let (mut agent, _origin, feed, stream) = half_a_visit(&server, "--web-addr 127.0.0.1:0").await;
    let line = agent.wait_for_text("Inspector").await;
    let tunnel = format!("{}/api/tunnels/command_line", line.split_whitespace().last().unwrap());
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["-sS", "--fail", "--noproxy", "*", "-X", "DELETE", &tunnel]);
    assert!(within("the answer", curl.status()).await.unwrap().success());
    finishes(&server, feed, stream).await;
    assert!(agent.is_running());
}

#[tokio::test]
async fn one_endpoint_that_was_refused_for_good_is_an_exit_status_even_if_others_ran() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let other = server.another_key("other", "ed25519");
    server.authorize(&other);
    server.logged("authorized keys read again").await;
    let _holder = server.ssh().forward_to("taken:443", &origin).command("http").publish().await;
    let file = server.folder().join("agent.yml");
    let port = origin.port();
    let text = format!(
        "version: 3\nendpoints:\n  - {{name: one, url: taken, upstream: {{url: {port}}}}}\n  - {{name: two, url: app, upstream: {{url: {port}}}}}\n"
    );
    std::fs::write(&file, text).unwrap();
    let agent = server.agent().key(&other).words("start --all --config").word(&file);
    let mut agent = agent.publish().await;
    agent.wait_for_text("one: ERR_HITHE_334").await;
    assert_eq!(server.visitor().get(URL).await.text(), "hello");
    agent.terminate();
    assert_eq!(agent.wait().await.code(), Some(6), "{}", agent.output());
    assert_eq!(agent.output().matches("ERR_HITHE_334").count(), 1, "{}", agent.output());
}

/// An agent on a terminal of this name.
fn on_terminal(server: &TestServer, origin: &Origin, name: &str) -> Child {
    let mut hithe = tokio::process::Command::new(hithe_integration::program::hithe());
    hithe.args(["http", &origin.address().to_string(), "--domain", "app", "--web-addr", "false"]);
    hithe.args(["--server", &server.ssh_address().to_string(), "--ssh-config", "none"]);
    hithe.arg("--accept-new-host-key").arg("--identity").arg(server.user_key());
    hithe.env("HOME", server.folder()).env("XDG_CONFIG_HOME", server.folder()).env("TERM", name);
    Child::spawn(hithe, Some(Terminal::open()))
}

#[tokio::test]
async fn a_terminal_that_cannot_draw_gets_lines() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    for name in ["dumb", ""] {
        let mut agent = on_terminal(&server, &origin, name);
        agent.wait_for_text("Forwarding  https://app.localhost").await;
        assert!(!agent.output().contains('\x1b'), "{:?}", agent.output());
        agent.terminate();
        assert_eq!(agent.wait().await.code(), Some(0), "{}", agent.output());
    }
}

#[tokio::test]
async fn who_leaves_the_full_screen_sees_what_is_waited_for() {
    let server = TestServer::start().await;
    let (origin, feed) = Origin::fed().await;
    let mut agent = on_terminal(&server, &origin, "xterm");
    assert!(feed.send("first ").await);
    server.logged("published session").await;
    let mut stream = server.visitor().open(URL).await;
    assert_eq!(stream.next_text().await, "first ");
    agent.type_in(b"q").await;
    agent.wait_for_text("waiting for 1 visit").await;
    agent.terminate();
    assert_eq!(agent.wait().await.code(), Some(0), "{}", agent.output());
}
