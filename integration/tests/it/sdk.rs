//! The library `hithe` in programs of others.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::routing::get;
use axum::serve::IncomingStream;
use hithe::{HostKeyPolicy, Phase, Session};
use hithe_integration::{Origin, TestServer, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

fn session(server: &TestServer) -> Session {
    let builder = Session::builder().server(server.ssh_address().to_string()).identity(server.user_key());
    let builder = builder.host_keys(HostKeyPolicy::AcceptNew).known_hosts(server.folder().join("known"));
    builder.options(|options| options.ssh_config = hithe::SshConfigFile::None).build().unwrap()
}

#[derive(Clone, Copy, Debug)]
struct Visitor(SocketAddr);

impl Connected<IncomingStream<'_, hithe::Listener>> for Visitor {
    fn connect_info(stream: IncomingStream<'_, hithe::Listener>) -> Self {
        Self(*stream.remote_addr())
    }
}

#[tokio::test]
async fn an_axum_app_serves_visitors_and_knows_where_they_come_from() {
    let server = TestServer::start().await;
    let listener = session(&server).http().domain("app").listen().await.unwrap();
    assert!(listener.url().starts_with("https://app.localhost"));
    let greet = |ConnectInfo(Visitor(address)): ConnectInfo<Visitor>| async move { address.ip().to_string() };
    let app = Router::new().route("/", get(greet)).into_make_service_with_connect_info::<Visitor>();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await });
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "127.0.0.1");
}

#[tokio::test]
async fn a_program_accepts_raw_connections_and_closes_in_order() {
    let server = TestServer::start().await;
    let mut listener = session(&server).tcp().listen().await.unwrap();
    let port = listener.url().rsplit(':').next().unwrap().parse().unwrap();
    let visit = async {
        let mut stream = server.visitor().tcp(port).await;
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let serve = async {
        let mut connection = listener.accept().await.unwrap();
        assert!(connection.visitor().ip().is_loopback());
        let mut text = String::new();
        connection.read_to_string(&mut text).await.unwrap();
        connection.write_all(text.to_uppercase().as_bytes()).await.unwrap();
        connection.shutdown().await.unwrap();
    };
    let (answer, ()) = within("the visit", async { tokio::join!(visit, serve) }).await;
    assert_eq!(answer, "HELLO");
    within("the close", listener.close()).await;
    server.logged("publisher left").await;
    assert!(server.visitor().try_dial(SocketAddr::from(([127, 0, 0, 1], port))).await.is_err());
}

#[tokio::test]
async fn a_program_forwards_and_hears_of_losses_and_returns() {
    let mut server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let endpoint =
        session(&server).http().domain("app").forward(&origin.address().to_string()).await.unwrap();
    assert_eq!(server.visitor().get(&format!("{}/", endpoint.url())).await.text(), "hello");
    let mut events = endpoint.events();
    server.restart().await;
    let (mut lost, mut back) = (false, false);
    within("loss and return", async {
        while !(lost && back) {
            let status = events.next().await.unwrap();
            lost |= matches!(status.phase, Phase::Waiting { .. });
            back |= lost && matches!(status.phase, Phase::Online { .. });
        }
    })
    .await;
    assert_eq!(server.visitor().get_when_public("https://app.localhost/").await.text(), "hello");
    endpoint.close().await;
    let code = server.visitor().get_until_offline("https://app.localhost/").await;
    assert_eq!(code.as_deref(), Some("ERR_HITHE_3200"));
}

#[tokio::test]
async fn what_is_wrong_comes_as_an_error_with_its_kind() {
    let server = TestServer::start().await;
    let session = session(&server);
    let wrong = session.http().option("basic-auth", "ada:short").listen().await.unwrap_err();
    assert!(matches!(wrong, hithe::Error::Endpoint(_)), "{wrong}");
    let other = server.another_key("other", "ed25519");
    let builder = Session::builder().server(server.ssh_address().to_string()).identity(other);
    let stranger = builder.host_keys(HostKeyPolicy::AcceptNew).known_hosts(server.folder().join("known"));
    let stranger =
        stranger.options(|options| options.ssh_config = hithe::SshConfigFile::None).build().unwrap();
    let refused = within("a refusal", stranger.http().listen()).await.unwrap_err();
    let hithe::Error::Publish(failure) = refused else { panic!("{refused}") };
    assert_eq!(failure.exit_status(), hithe::exit::LOGIN);
    let nobody = Session::builder().server("127.0.0.1:1").build().unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), nobody.http().listen()).await.is_err());
}

#[tokio::test]
async fn a_close_lets_running_visits_finish_and_dropping_it_cuts_them() {
    let server = TestServer::start().await;
    for in_order in [true, false] {
        let (origin, feed) = Origin::fed().await;
        let endpoint =
            session(&server).http().domain("app").forward(&origin.address().to_string()).await.unwrap();
        assert!(feed.send("first ").await);
        let mut stream = server.visitor().open("https://app.localhost/").await;
        assert_eq!(stream.next_text().await, "first ");
        let mut closing = Box::pin(endpoint.close());
        let withdrawn = async { server.visitor().get_until_offline("https://app.localhost/").await };
        let code = tokio::select! {
            () = &mut closing => panic!("closed with a visit that runs"),
            code = withdrawn => code,
        };
        assert_eq!(code.as_deref(), Some("ERR_HITHE_3200"));
        if in_order {
            assert!(feed.send("second").await);
            drop(feed);
            assert_eq!(stream.rest().await.unwrap().text(), "second");
            within("the close", closing).await;
        } else {
            drop(closing);
            assert!(stream.next().await.is_none_or(|end| end.is_err()), "the answer looks complete");
            drop(feed);
        }
    }
}
