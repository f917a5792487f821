//! The harness proves itself, without the server: upstreams against visitors, children, terminals.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hithe_integration::{Child, Origin, Relay, Visitor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;

fn visitor_of(origin: &Origin) -> Visitor {
    Visitor::of(origin.address(), origin.address())
}

fn shell(script: &str) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(std::process::Stdio::piped());
    Child::spawn(command, None)
}

#[tokio::test]
async fn an_origin_answers_and_counts() {
    let origin = Origin::replying("hello").await;
    let mut connection = visitor_of(&origin).connection("http://a.test/").await;

    for _ in 0..3 {
        assert_eq!(connection.get("http://a.test/").await.text(), "hello");
    }

    assert_eq!((origin.requests(), origin.connections()), (3, 1));
}

#[tokio::test]
async fn an_origin_that_closes_after_each_answer_needs_a_connection_for_each() {
    let origin = Origin::http().closing_after_each().replying("hello").await;
    for _ in 0..2 {
        assert_eq!(visitor_of(&origin).get("http://a.test/").await.header("connection"), Some("close"));
    }
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn an_origin_closes_idle_connections_without_a_word() {
    let origin = Origin::http().closing_when_idle(Duration::from_millis(50)).replying("hello").await;
    let mut stream = visitor_of(&origin).tcp(origin.port()).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("a request is taken");

    let mut all = String::new();
    stream.read_to_string(&mut all).await.expect("the connection ends");

    assert!(all.ends_with("hello"), "{all}");
}

#[tokio::test]
async fn an_echoed_request_shows_what_the_upstream_saw() {
    let origin = Origin::echoing_requests().await;
    let visitor = visitor_of(&origin).header("x-colour", "red").basic("ada", "pw");

    let reply = visitor.post("http://a.test/path?q=1", "body").await;

    assert_eq!(reply.json()["method"], "POST");
    assert_eq!(reply.json()["uri"], "/path?q=1");
    assert_eq!(reply.json()["body"], "body");
    assert_eq!(reply.seen_header("host").as_deref(), Some("a.test"));
    assert_eq!(reply.seen_header("x-colour").as_deref(), Some("red"));
    assert_eq!(reply.seen_header("authorization").as_deref(), Some("Basic YWRhOnB3"));
}

#[tokio::test]
async fn bodies_come_sized_chunked_fed_and_with_trailers() {
    let sized = Origin::sized(200_000).await;
    let reply = visitor_of(&sized).get("http://a.test/").await;
    assert_eq!((reply.header("content-length"), reply.body().len()), (Some("200000"), 200_000));

    let chunked = Origin::chunks(&["one", "two"], Duration::from_millis(10)).await;
    assert_eq!(visitor_of(&chunked).get("http://a.test/").await.text(), "onetwo");

    let trailed = Origin::with_trailers("body").await;
    assert_eq!(
        visitor_of(&trailed).header("te", "trailers").get("http://a.test/").await.trailers()["checksum"],
        "abc"
    );

    let (fed, feed) = Origin::fed().await;
    let mut streaming = visitor_of(&fed).open("http://a.test/").await;
    assert!(feed.send("first").await);
    assert_eq!(streaming.next_text().await, "first");
    drop(feed);
    assert!(streaming.next().await.is_none());
}

#[tokio::test]
async fn events_come_one_by_one() {
    let origin = Origin::events(Duration::from_millis(10)).await;
    let mut events = visitor_of(&origin).open("http://a.test/").await;
    assert_eq!(events.header("content-type"), Some("text/event-stream"));
    assert_eq!(events.next_text().await, "data: 0\n\n");
    assert_eq!(events.next_text().await, "data: 1\n\n");
}

#[tokio::test]
async fn an_upload_is_digested() {
    let origin = Origin::digesting().await;
    let reply = visitor_of(&origin).post("http://a.test/", "abc").await;
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(reply.text(), format!("3 {sha256}"));
}

#[tokio::test]
async fn raw_origins_echo_count_and_end() {
    let echo = Origin::tcp_echo().await;
    assert_eq!(visitor_of(&echo).raw_half_closed("ping").await, b"ping");

    let counting = Origin::counting_bytes().await;
    assert_eq!(visitor_of(&counting).raw_half_closed(vec![0; 5000]).await, b"5000");

    let closing = Origin::closing_at_once().await;
    assert_eq!(visitor_of(&closing).raw("").await, b"");

    let old = Origin::http_1_0("old").await;
    assert!(visitor_of(&old).raw("GET / HTTP/1.1\r\n\r\n").await.ends_with(b"\r\n\r\nold"));
    assert_eq!(old.requests(), 1);

    let absent = Origin::absent().await;
    assert!(visitor_of(&absent).try_dial(absent.address()).await.is_err());
}

#[tokio::test]
async fn an_origin_with_tls_shows_its_own_certificate() {
    let origin = Origin::http().tls("app.test").replying("sealed").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("origin.pem");
    std::fs::write(&file, origin.certificate()).expect("a file");
    let visitor = visitor_of(&origin).trusting(&file);

    assert_eq!(visitor.get("https://app.test/").await.text(), "sealed");
    assert!(visitor.try_tls("other.test", &[]).await.is_err());
    assert!(visitor.clone().insecure().try_tls("other.test", &[]).await.is_ok());

    let echo = Origin::tls_echo("app.test").await;
    assert_eq!(visitor_of(&echo).raw_tls_half_closed("app.test", "ping").await, b"ping");
}

#[tokio::test]
async fn a_websocket_is_echoed() {
    let origin = Origin::websocket_echo().await;
    let mut socket = visitor_of(&origin).websocket("ws://a.test/").await;
    socket.send(Message::text("hello")).await.expect("a message is taken");
    let echoed = socket.next().await.expect("a message").expect("no error");
    assert_eq!(echoed, Message::text("hello"));
}

#[tokio::test]
async fn curl_visits_the_same_addresses() {
    let origin = Origin::echoing_requests().await;
    let curl = visitor_of(&origin).header("x-colour", "red").curl(["http://a.test/path"]).await;
    assert_eq!(curl.code, Some(0), "{}", curl.stderr);
    assert!(curl.stdout.contains("\"/path\"") && curl.stdout.contains("\"red\""), "{}", curl.stdout);
}

#[tokio::test]
async fn a_childs_lines_are_awaited_and_its_outputs_kept_apart() {
    let mut child =
        shell("echo 'Forwarding  https://a.test:1 -> a:443'; echo warning >&2; read word; echo got $word");
    let forwarding = child.forwarding().await;
    assert_eq!((forwarding[0].url.as_str(), forwarding[0].bind.as_str()), ("https://a.test:1", "a:443"));
    assert_eq!((forwarding[0].host().as_str(), forwarding[0].port()), ("a.test", Some(1)));

    child.type_in(b"this\n").await;
    assert_eq!(child.wait_for_text("got").await, "got this");
    assert_eq!(child.wait().await.code(), Some(0));
    assert_eq!(child.stderr(), "warning\n");
}

#[tokio::test]
async fn a_child_is_stopped_continued_and_killed() {
    let mut child = shell("echo up; exec sleep 60");
    child.wait_for_text("up").await;
    child.stop();
    child.cont();
    assert!(child.is_running());
    child.kill().await;
    assert_eq!(child.wait().await.code(), None);
}

#[tokio::test]
async fn a_child_on_a_terminal_sees_one() {
    let mut command = Command::new("sh");
    command.args(["-c", "test -t 0 && test -t 1 && stty size && read line && echo read $line"]);
    let mut child = Child::spawn(command, Some(hithe_integration::terminal::Terminal::open()));
    child.wait_for_text("24 80").await;
    child.type_in(b"typed\n").await;
    child.wait_for_text("read typed").await;
    assert!(child.wait().await.success());
}

#[tokio::test]
async fn output_is_left_unread_while_reading_is_stopped() {
    let mut child = shell("read go; head -c 300000 /dev/zero; echo; echo done");
    child.stop_reading();
    child.type_in(b"\n").await;
    child.read_on();
    child.wait_for_text("done").await;
    assert!(child.wait().await.success());
}

#[tokio::test]
async fn a_relay_passes_nothing_while_it_is_cut() {
    let origin = Origin::tcp_echo().await;
    let relay = Relay::to(origin.address()).await;
    let mut stream = visitor_of(&origin).dial(relay.address()).await;
    let mut echoed = [0; 4];
    stream.write_all(b"ping").await.expect("bytes are taken");
    stream.read_exact(&mut echoed).await.expect("an echo");
    let before = relay.passed();

    relay.cut();
    stream.write_all(b"pong").await.expect("bytes are taken by the socket");
    assert_eq!(relay.passed(), before);

    relay.mend();
    stream.read_exact(&mut echoed).await.expect("an echo");
    assert_eq!(&echoed, b"pong");
}
