//! SIGTERM under load: whoever came before it is served to the end, whoever comes after is refused in order.

use std::cell::Cell;
use std::net::SocketAddr;

use futures_util::future::{BoxFuture, FutureExt as _, LocalBoxFuture, join_all};
use hithe_integration::visitor::{Connection, Streaming};
use hithe_integration::{Child, Origin, TestServer, Visitor, within};
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PLAIN: &str = "http://app.localhost/";
const SECURE: &str = "https://app.localhost/";
/// More than fits into one buffer on the way.
const SMALL: usize = 100_000;
/// More than fits into all of them together.
const LARGE: usize = 24 << 20;

/// What becomes of visits, by when they began: before the signal, or not surely before it.
#[derive(Default)]
struct Tally {
    asked_to_end: Cell<bool>,
    before: Cell<usize>,
    after: Cell<usize>,
    refused: Cell<usize>,
}

impl Tally {
    /// A visit begins.
    fn begins(&self) -> bool {
        self.asked_to_end.get()
    }

    /// It was answered whole, or says what became of it; `late` ones may fail.
    fn ended(&self, late: bool, whole: Result<(), String>) -> bool {
        match whole {
            Ok(()) if late => self.after.set(self.after.get() + 1),
            Ok(()) => self.before.set(self.before.get() + 1),
            Err(why) => {
                assert!(late, "a visit that began before the signal was lost: {why}");
                self.refused.set(self.refused.get() + 1);
                return false;
            }
        }
        true
    }
}

/// A connection for each visit.
async fn come_anew(server: SocketAddr, tally: &Tally) {
    loop {
        let Ok(mut stream) = TcpStream::connect(server).await else {
            assert!(tally.begins(), "a visitor was refused before the signal");
            return;
        };
        let late = tally.begins();
        let ask = async {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n").await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.map(|_| answer)
        };
        let whole = match within("an answer", ask).await {
            Ok(answer) if answer.is_empty() => Err("no answer".to_owned()),
            Ok(answer) => {
                assert!(
                    answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(&[b'x'; SMALL]),
                    "half an answer"
                );
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        };
        if !tally.ended(late, whole) {
            return;
        }
    }
}

/// Visit after visit over one connection, to its end.
async fn stay(mut connection: Connection, url: &'static str, tally: &Tally) -> Option<String> {
    loop {
        let late = tally.begins();
        let reply = connection.try_send(Method::GET, url, "").await;
        // It had not left yet when the end of the connection came: its client sends it over another one.
        let late = late || reply.as_ref().is_err_and(hyper::Error::is_canceled);
        let last = reply.as_ref().ok().and_then(|it| it.header("connection").map(str::to_owned));
        let whole = match reply {
            Ok(reply) => {
                assert_eq!((reply.status(), reply.body().len()), (200, SMALL));
                Ok(())
            }
            Err(error) => Err(format!("{error:?}")),
        };
        if !tally.ended(late, whole) || last.is_some() {
            return last;
        }
    }
}

/// Over a connection to a tcp endpoint each.
async fn come_by_tcp(server: SocketAddr, tally: &Tally) {
    loop {
        let Ok(mut stream) = TcpStream::connect(server).await else { return };
        let late = tally.begins();
        let echo = async {
            stream.write_all(b"hello").await?;
            stream.shutdown().await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map(|_| answer)
        };
        let whole = match within("an echo", echo).await {
            Ok(answer) if answer == "hello" => Ok(()),
            other => Err(format!("{other:?}")),
        };
        if !tally.ended(late, whole) {
            return;
        }
    }
}

/// A server, what it serves, and the clients that publish it.
struct Published {
    server: TestServer,
    clients: Vec<Child>,
    _origins: Vec<Origin>,
    echo: SocketAddr,
    raw: SocketAddr,
}

async fn publish() -> Published {
    let server = TestServer::start().await;
    let (small, large) = (Origin::sized(SMALL).await, Origin::sized(LARGE).await);
    let (echo, raw) = (Origin::tcp_echo().await, Origin::scripted(vec![b'x'; LARGE]).await);
    let port = |number| server.tcp_ports().nth(number).unwrap();
    let mut clients = Vec::new();
    for (name, origin) in [("app", &small), ("large", &large)] {
        let ssh = server.ssh().forward_to(&format!("{name}:80"), origin);
        let ssh = ssh.forward_to(&format!("{name}:443"), origin).command("http");
        clients.push(ssh.publish().await);
    }
    for (number, origin) in [(0, &echo), (1, &raw)] {
        let ssh = server.ssh().forward_to(&port(number).to_string(), origin).command("tcp");
        clients.push(ssh.publish().await);
    }
    let at = |number| (server.http_address().ip(), port(number)).into();
    let (echo_at, raw_at) = (at(0), at(1));
    Published { server, clients, _origins: vec![small, large, echo, raw], echo: echo_at, raw: raw_at }
}

/// Downloads of which the visitors have taken a first part.
async fn downloads(visitor: &Visitor, raw: SocketAddr) -> Vec<BoxFuture<'static, usize>> {
    async fn rest(mut stream: Streaming) -> usize {
        let mut taken = 0;
        while let Some(piece) = stream.next().await {
            taken += piece.expect("a download that is not cut").len();
        }
        taken
    }
    let mut all = Vec::new();
    for (visitor, url) in [
        (visitor.clone(), "http://large.localhost/"),
        (visitor.clone(), "https://large.localhost/"),
        (visitor.clone().http2(), "https://large.localhost/"),
    ] {
        let stream = visitor.open(url).await;
        assert_eq!(stream.status(), 200);
        all.push(rest(stream).boxed());
    }
    let mut stream = visitor.dial(raw).await;
    stream.write_all(b"any\r\n\r\n").await.unwrap();
    stream.read_exact(&mut [0; 100]).await.unwrap();
    let read = async move {
        let mut taken = Vec::new();
        stream.read_to_end(&mut taken).await.expect("a stream that is not cut");
        taken.len() + 100
    };
    all.push(read.boxed());
    all
}

#[tokio::test]
async fn sigterm_under_load_loses_no_visit() {
    let Published { mut server, mut clients, _origins, echo, raw } = publish().await;
    let (visitor, tally) = (server.visitor(), Tally::default());
    let downloads = downloads(&visitor, raw).await;
    let mut visits: Vec<LocalBoxFuture<'_, Option<String>>> = Vec::new();
    for _ in 0..12 {
        visits.push(come_anew(server.http_address(), &tally).map(|()| None).boxed_local());
    }
    for _ in 0..4 {
        visits.push(come_by_tcp(echo, &tally).map(|()| None).boxed_local());
    }
    for _ in 0..4 {
        visits.push(stay(visitor.connection(PLAIN).await, PLAIN, &tally).boxed_local());
        visits.push(stay(visitor.connection(SECURE).await, SECURE, &tally).boxed_local());
    }
    for _ in 0..2 {
        let connection = visitor.clone().http2().connection(SECURE).await;
        for _ in 0..4 {
            visits.push(stay(connection.another_stream().unwrap(), SECURE, &tally).boxed_local());
        }
    }
    let stop = async {
        hithe_integration::eventually("there is load", || (tally.before.get() > 300).then_some(())).await;
        tally.asked_to_end.set(true);
        server.sigterm();
        for client in &mut clients {
            client.wait_for_text("shutting down").await;
        }
        join_all(downloads).await
    };
    let (ends, taken) = tokio::join!(join_all(visits), stop);
    assert_eq!(taken, [LARGE; 4]);
    // Who stays on HTTP/1.1 is told by the last answer, and loses no request.
    let told = ends.iter().filter(|end| end.as_deref() == Some("close")).count();
    assert_eq!(told, 8, "{} answered after the signal, {} refused", tally.after.get(), tally.refused.get());
    assert!(server.wait().await.success());
    assert!(server.log().contains("every visit was finished"), "{}", server.log());
    for client in &mut clients {
        client.wait().await;
        assert!(client.output().contains("The server has shut down"), "{}", client.output());
    }
}

#[tokio::test]
async fn a_visitor_that_has_only_connected_does_not_hold_up_the_end() {
    let mut server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let _ssh = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let _silent = server.visitor().dial(server.http_address()).await;
    let _half = {
        let mut stream = server.visitor().dial(server.https_address()).await;
        stream.write_all(b"\x16\x03\x01").await.unwrap();
        stream
    };
    let _shaken = server.visitor().tls("app.localhost", &["http/1.1"]).await;
    let mut kept = server.visitor().connection(SECURE).await;
    assert_eq!(kept.get(SECURE).await.status(), 200);
    let begun = tokio::time::Instant::now();
    server.sigterm();
    assert!(server.wait().await.success());
    assert!(server.log().contains("every visit was finished"), "{}", server.log());
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_second_signal_waits_for_nobody() {
    let (origin, feed) = Origin::fed().await;
    let mut server = TestServer::with(|options| options.arg("--grace").arg("1h")).await;
    let mut ssh = server.ssh().forward_to("app:80", &origin).command("http").publish().await;
    assert!(feed.send("first").await);
    let mut stream = server.visitor().open(PLAIN).await;
    stream.next_text().await;
    server.sigterm();
    ssh.wait_for_text("shutting down").await;
    // A publisher that reads nothing any more is not waited for either.
    ssh.stop();
    server.sigterm();
    let begun = tokio::time::Instant::now();
    assert!(server.wait().await.success());
    assert!(begun.elapsed().as_millis() < 1500, "{:?}", begun.elapsed());
    assert!(stream.next().await.is_none_or(|end| end.is_err()), "the download looks complete");
    ssh.cont();
}
