//! A real browser: event streams, fetched streams and websockets stay live on the whole way to a page.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use hithe_integration::origin::{Answer, Question, text};
use hithe_integration::{Origin, TestServer};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

/// Messages of each source.
const ROUNDS: u32 = 5;

/// The upstream of the page: none of its sources sends a message before the page has acknowledged the one before.
#[derive(Debug)]
struct Live {
    /// The last message of each source that the page has acknowledged, by a request of its own.
    acknowledged: BTreeMap<&'static str, watch::Sender<u32>>,
    reports: mpsc::Sender<serde_json::Value>,
    resumed: watch::Sender<Option<String>>,
}

const SOURCES: [&str; 3] = ["events", "stream", "socket"];

impl Live {
    async fn answer(self: Arc<Self>, question: Question) -> Answer {
        let path = question.uri().path().to_owned();
        match path.as_str() {
            "/" => typed(text(include_str!("browser/page.html")), "text/html; charset=utf-8"),
            "/events" => self.events(&question),
            "/stream" => {
                typed(self.messages("stream", 1..=ROUNDS, |number| format!("{number}\n")), "application/json")
            }
            "/socket" => self.socket(question),
            "/report" => {
                let report = question.into_body().collect().await.unwrap().to_bytes();
                self.reports.send(serde_json::from_slice(&report).unwrap()).await.unwrap();
                text("")
            }
            path => {
                let mut parts = path.trim_start_matches("/ack/").split('/');
                let source = parts.next().and_then(|source| self.acknowledged.get(source));
                let Some((source, number)) = source.zip(parts.next()) else { return missing() };
                source.send_replace(number.parse().unwrap());
                text("")
            }
        }
    }

    /// The first connection ends after two events; who comes back says which it saw last.
    fn events(self: Arc<Self>, question: &Question) -> Answer {
        let last = question.headers().get("last-event-id").map(|id| id.to_str().unwrap().to_owned());
        let seen: u32 = last.as_deref().map_or(0, |id| id.parse().unwrap());
        let until = if seen == 0 { 2 } else { ROUNDS };
        if last.is_some() {
            self.resumed.send_replace(last);
        }
        let event = |number| format!("retry: 10\nid: {number}\ndata: event {number}\n\n");
        typed(self.messages("events", seen + 1..=until, event), "text/event-stream")
    }

    fn messages(
        self: Arc<Self>,
        source: &str,
        numbers: std::ops::RangeInclusive<u32>,
        message: impl Fn(u32) -> String + Send + Sync + 'static,
    ) -> Answer {
        let acknowledged = self.acknowledged_of(source);
        let chunks =
            stream::unfold((numbers, acknowledged, message), |(mut numbers, mut last, message)| async {
                let number = numbers.next()?;
                last.wait_for(|last| *last >= number - 1).await.ok()?;
                let chunk = Frame::data(Bytes::from(message(number)));
                Some((Ok(chunk), (numbers, last, message)))
            });
        Response::new(BodyExt::boxed(StreamBody::new(chunks)))
    }

    fn acknowledged_of(&self, source: &str) -> watch::Receiver<u32> {
        self.acknowledged.get(source).expect("one of the sources").subscribe()
    }

    fn socket(self: Arc<Self>, question: Question) -> Answer {
        let key = question.headers().get("sec-websocket-key").unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let mut acknowledged = self.acknowledged_of("socket");
        let talk = async move {
            let stream = TokioIo::new(hyper::upgrade::on(question).await.unwrap());
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            for number in 1..=ROUNDS {
                acknowledged.wait_for(|last| *last >= number - 1).await.unwrap();
                socket.send(Message::text(number.to_string())).await.unwrap();
            }
            acknowledged.wait_for(|last| *last == ROUNDS).await.unwrap();
            let close = CloseFrame { code: 4000.into(), reason: "that was all".into() };
            socket.close(Some(close)).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
        };
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(talk);
        let mut answer = text("");
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket")] {
            answer.headers_mut().insert(name, value.parse().unwrap());
        }
        answer.headers_mut().insert("sec-websocket-accept", accept.parse().unwrap());
        answer
    }
}

fn typed(mut answer: Answer, kind: &str) -> Answer {
    answer.headers_mut().insert("content-type", kind.parse().unwrap());
    answer
}

fn missing() -> Answer {
    let mut answer = text("");
    *answer.status_mut() = StatusCode::NOT_FOUND;
    answer
}

/// Opens the page with a browser, and returns what the page says it saw.
async fn browse(url: &str, command: &str) -> serde_json::Value {
    let (reports, mut reported) = mpsc::channel(1);
    let live = Arc::new(Live {
        acknowledged: SOURCES.map(|source| (source, watch::Sender::new(0))).into(),
        reports,
        resumed: watch::Sender::new(None),
    });
    let answering = Arc::clone(&live);
    let origin = Origin::answering(move |question| Arc::clone(&answering).answer(question)).await;
    let server = TestServer::start().await;
    let bind = if url.starts_with("https:") { "app:443" } else { "app:80" };
    let _ssh = server.ssh().forward_to(bind, &origin).command(command).publish().await;
    let _chromium = server.visitor().browse(url).await;
    // A browser takes long to start on a busy machine.
    let report = tokio::time::timeout(Duration::from_secs(60), reported.recv()).await;
    let report = report.expect("the page saw all of its messages").unwrap();
    assert_eq!(live.resumed.borrow().as_deref(), Some("2"), "the browser came back for the other events");
    let log: Vec<(String, u32, u64)> = serde_json::from_value(part(&report, "log")).unwrap();
    let from = |source: &str| -> Vec<u32> {
        log.iter().filter(|(from, ..)| from == source).map(|(_, number, _)| *number).collect()
    };
    let all: Vec<u32> = (1..=ROUNDS).collect();
    assert_eq!(SOURCES.map(from), [all.clone(), all.clone(), all]);
    assert_eq!(part(&report, "shown").as_str().unwrap().lines().count(), log.len());
    assert_eq!(part(&report, "closed"), serde_json::json!([4000, "that was all", true]));
    report
}

fn part(report: &serde_json::Value, name: &str) -> serde_json::Value {
    report.get(name).expect("a part of the report").clone()
}

#[tokio::test]
async fn a_page_in_a_browser_gets_each_message_before_the_next_is_sent() {
    for (url, protocol) in [("https://app.localhost/", "h2"), ("http://app.localhost/", "http/1.1")] {
        let report = browse(url, "http").await;
        assert_eq!((part(&report, "protocol"), part(&report, "encoding")), (protocol.into(), ().into()));
    }
}

#[tokio::test]
async fn a_page_in_a_browser_gets_each_message_before_the_next_is_sent_when_they_are_compressed() {
    for (url, protocol) in [("https://app.localhost/", "h2"), ("http://app.localhost/", "http/1.1")] {
        let report = browse(url, "http --compression").await;
        assert_eq!(part(&report, "protocol"), protocol);
        assert!(part(&report, "encoding").is_string(), "{report}");
    }
}
