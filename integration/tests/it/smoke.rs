//! The server starts, says no without keys, and the main job works with stock ssh.

use hithe_integration::{Origin, TestServer};

#[tokio::test]
async fn the_server_starts_and_ends_when_asked() {
    let mut server = TestServer::start().await;
    assert!(server.ssh_address().port() > 0);
    server.sigterm();
    assert!(server.wait().await.success(), "{}", server.log());
}

#[tokio::test]
async fn a_server_on_which_nobody_can_publish_says_how_that_changes() {
    let server = TestServer::with(|options| options.without_keys()).await;
    let said = server.logged("nobody can publish yet").await;
    for way in ["--authorized-keys", "hithed admin accounts add", "--open"] {
        assert!(said.contains(way), "{said}");
    }
}

#[tokio::test]
async fn stock_ssh_publishes_over_https() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut ssh = server.ssh().forward_to("443", &origin).command("http").publish().await;

    let url = ssh.url().await;
    let reply = server.visitor().get(&url).await;

    assert!(url.starts_with("https://"), "{url}");
    assert_eq!((reply.status(), reply.text()), (200, "hello"));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn stock_ssh_publishes_over_plain_http() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut ssh = server.ssh().forward_to("80", &origin).command("http").publish().await;

    let url = ssh.url().await;
    let reply = server.visitor().get(&url).await;

    assert!(url.starts_with("http://"), "{url}");
    assert_eq!((reply.status(), reply.text()), (200, "hello"));
}
