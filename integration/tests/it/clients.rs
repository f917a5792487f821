//! The client matrix: what publishes besides OpenSSH, each started the way its users start it.

use hithe_integration::{Origin, Program, TestServer};

/// Publishes with this client and visits what it says is public.
async fn publishes_over_https(program: Program) {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut client = server.client(program).forward_to("443", &origin).command("http").publish().await;

    let url = client.url().await;
    let reply = server.visitor().get(&url).await;

    assert!(url.starts_with("https://"), "{url}");
    assert_eq!((reply.status(), reply.text()), (200, "hello"));
}

/// Publishes without a session, by user name, a name it chose; so nothing is printed that says when.
async fn publishes_by_user_name(program: Program) {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let _client = server.client(program).user("http").forward_to("app.localhost:80", &origin).spawn().await;

    let reply = server.visitor().get_when_public("http://app.localhost/").await;

    assert_eq!((reply.status(), reply.text()), (200, "hello"));
}

#[tokio::test]
async fn dropbears_dbclient_publishes() {
    publishes_over_https(Program::Dbclient).await;
}

#[tokio::test]
async fn puttys_plink_publishes() {
    publishes_over_https(Program::Plink).await;
}

#[tokio::test]
async fn paramiko_publishes() {
    publishes_over_https(Program::Paramiko).await;
}

#[tokio::test]
async fn asyncssh_publishes() {
    publishes_over_https(Program::Asyncssh).await;
}

#[tokio::test]
async fn plink_without_a_session_publishes_by_user_name() {
    publishes_by_user_name(Program::Plink).await;
}

#[tokio::test]
async fn dbclient_without_a_session_publishes_by_user_name() {
    publishes_by_user_name(Program::Dbclient).await;
}
