//! One connection, several sessions: ControlMaster, `-O forward`, `-O cancel`.

use hithe_integration::protocol::read_to_end;
use hithe_integration::{Origin, ProtocolClient, TestServer};

#[tokio::test]
async fn endpoints_are_added_to_and_taken_from_a_running_connection() {
    let server = TestServer::start().await;
    let (first, late) = (Origin::replying("first").await, Origin::replying("late").await);
    let control = server.folder().join("control");
    let master = server.ssh().as_master(&control).forward_to("first:443", &first).command("http");
    let mut master = master.publish().await;

    let added = server.ssh().sharing(&control).control("forward").forward_to("late:443", &late).run().await;
    assert_eq!(added.code, Some(0), "{}", added.output());
    master.wait_for_text("https://late.localhost").await;
    assert_eq!(server.visitor().get("https://late.localhost/").await.text(), "late");

    let cancelled =
        server.ssh().sharing(&control).control("cancel").forward_to("late:443", &late).run().await;
    assert_eq!(cancelled.code, Some(0), "{}", cancelled.output());
    master.wait_for_text("Withdrawn").await;
    assert_eq!(server.visitor().get("https://late.localhost/").await.status(), 404);
    assert_eq!(server.visitor().get("https://first.localhost/").await.text(), "first");
}

#[tokio::test]
async fn a_cancelled_forward_can_be_asked_for_again() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let control = server.folder().join("control");
    let master = server.ssh().as_master(&control).forward_to("app:443", &origin).command("http");
    let mut master = master.publish().await;
    let shared = || server.ssh().sharing(&control).forward_to("app:443", &origin);
    assert_eq!(shared().control("cancel").run().await.code, Some(0));
    master.wait_for_text("Withdrawn").await;
    assert_eq!(shared().control("forward").run().await.code, Some(0));
    master.forwardings(2).await;
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "hello");
}

#[tokio::test]
async fn a_second_session_shows_the_status_and_harms_nothing() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let control = server.folder().join("control");
    let master = server.ssh().as_master(&control).forward_to("app:443", &origin).command("http");
    let mut master = master.publish().await;

    let status = server.ssh().sharing(&control).run().await;
    assert_eq!(status.code, Some(0), "{}", status.output());
    assert!(status.stdout.contains("https://app.localhost"), "{}", status.output());
    let wrong = server.ssh().sharing(&control).command("htp").run().await;
    assert_eq!(wrong.code, Some(2), "{}", wrong.output());
    let bare = server.ssh().sharing(&control).command("http").run().await;
    assert!(bare.stdout.contains("ERR_HITHE_1112"), "{}", bare.output());

    assert!(master.is_running());
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "hello");
}

#[tokio::test]
async fn a_second_session_may_publish_with_a_command_of_its_own() {
    let server = TestServer::start().await;
    let (web, raw) = (Origin::replying("web").await, Origin::greeting("hello from tcp\n").await);
    let control = server.folder().join("control");
    let master = server.ssh().as_master(&control).forward_to("app:443", &web).command("http");
    let _master = master.publish().await;
    let second = server.ssh().sharing(&control).forward_to("0", &raw).command("tcp");
    let mut second = second.publish().await;
    assert!(second.url().await.starts_with("tcp://"));
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "web");
}

#[tokio::test]
async fn without_a_session_a_refused_forward_ends_none_that_is_published() {
    let server = TestServer::start().await;
    let client = ProtocolClient::log_in(server.ssh_address(), "http", &server.user_key()).await;
    for name in ["first", "late", "later"] {
        client.forward(name, 443).await.unwrap();
        client.forward("www", 443).await.unwrap_err();
        server.logged(&format!("https://{name}.localhost")).await;
    }
}

#[tokio::test]
async fn answered_sessions_leave_their_places_to_others() {
    let server = TestServer::start().await;
    let client = ProtocolClient::log_in(server.ssh_address(), "v2", &server.user_key()).await;
    for _ in 0..30 {
        let answered = read_to_end(&mut client.exec("http --help").await).await;
        assert_eq!(answered.code, Some(0), "{}", answered.output);
    }
}
