//! What stands behind the publishers. Each upstream says its number with every answer and names the visit that it
//! answers; what it sends and takes is a stretch of the payload that the visit chose, so that a byte that is lost, or
//! that belongs to another, shows.

use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::place::{Place, Speech};
use crate::Origin;
use crate::origin::{Answer, Question, streamed, text};
use crate::payload::{Checker, payload, stretch};

/// The number of the upstream.
pub(super) const PLACE: &str = "soak-place";
/// The visit that is answered.
pub(super) const VISIT: &str = "soak-visit";
/// Longest line of the line protocol.
const LINE: usize = 200;

/// The upstream of this place.
pub(super) async fn of(place: &Place) -> Origin {
    let number = place.number;
    match place.speech {
        Speech::Web => Origin::answering(move |question| answer(number, question)).await,
        Speech::Tcp => Origin::serving(move |stream, _| converse(number, stream)).await,
        Speech::Tls => Origin::serving_tls(place.name, move |stream| converse(number, stream)).await,
    }
}

/// `/bytes/VISIT/FROM/LENGTH[?chunked]`, `/take/VISIT/FROM/LENGTH`, `/events/VISIT/COUNT/PAUSE`, `/talk/VISIT`.
async fn answer(number: usize, mut question: Question) -> Answer {
    let path = question.uri().path().to_owned();
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let visit = words.get(1).copied().unwrap_or_default();
    let one = words.get(2).and_then(|word| word.parse().ok()).unwrap_or_default();
    let other: u64 = words.get(3).and_then(|word| word.parse().ok()).unwrap_or_default();
    let mut answer = match words.first().copied() {
        Some("bytes") => {
            let mut answer = streamed(stretch(one, one + other));
            if question.uri().query() != Some("chunked") {
                answer.headers_mut().insert("content-length", other.into());
            }
            answer
        }
        Some("take") => text(&taken(&mut question, one, other).await),
        Some("events") => events(visit.to_owned(), one, Duration::from_millis(other)),
        Some("talk") => talk(&mut question, visit.to_owned()),
        _ => text("what?"),
    };
    let headers = answer.headers_mut();
    headers.insert(PLACE, number.into());
    headers.insert(VISIT, HeaderValue::from_str(visit).unwrap_or(HeaderValue::from_static("?")));
    answer
}

/// Reads an upload and says how much of it came as it should.
async fn taken(question: &mut Question, from: u64, length: u64) -> String {
    let mut checker = Checker::starting_at(from);
    while let Some(frame) = question.frame().await {
        let Ok(frame) = frame else { return "cut".to_owned() };
        let data = frame.data_ref().map_or(&[][..], |data| data);
        if let Err(wrong) = checker.check(data) {
            return wrong;
        }
    }
    let came = checker.seen() - from;
    if came == length { format!("{came} whole") } else { format!("{came} instead of {length}") }
}

fn events(visit: String, count: u64, pause: Duration) -> Answer {
    let events = futures_util::stream::unfold(0, move |number| {
        let event = format!("data: {visit} {number}\n\n");
        async move {
            if number > 0 {
                tokio::time::sleep(pause).await;
            }
            (number < count).then(|| (event.into(), number + 1))
        }
    });
    let mut answer = streamed(events);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer
}

/// Takes the WebSocket handshake (RFC 6455 section 4.2.2) and answers each message.
fn talk(question: &mut Question, visit: String) -> Answer {
    let mut answer = text("");
    let key = question.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let Some(Ok(accept)) = key.map(|key| HeaderValue::from_str(&key)) else { return answer };
    let upgrade = hyper::upgrade::on(question);
    tokio::spawn(async move {
        let Ok(stream) = upgrade.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await;
        let _ = acknowledge(socket, &visit).await; // a visitor may leave at any time
    });
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.remove(CONTENT_TYPE);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer
}

/// Each message is the next stretch of the payload; its acknowledgement says which one it was and where it ended.
async fn acknowledge<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
    visit: &str,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let mut checker = Checker::default();
    let mut number = 0;
    while let Some(message) = socket.next().await {
        let Message::Binary(bytes) = message? else { continue };
        let said = match checker.check(&bytes) {
            Ok(()) => format!("{visit} {number} {}", checker.seen()),
            Err(wrong) => wrong,
        };
        number += 1;
        socket.send(Message::text(said)).await?;
    }
    Ok(())
}

/// `GET VISIT FROM LENGTH` is answered with the line `PLACE VISIT` and so many bytes; `PUT VISIT FROM LENGTH` and so
/// many bytes with the line `PLACE VISIT LENGTH`.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(number: usize, stream: S) {
    let _ = try_to_converse(number, stream).await; // a visitor may leave at any time
}

async fn try_to_converse<S: AsyncRead + AsyncWrite + Unpin>(number: usize, stream: S) -> std::io::Result<()> {
    let mut stream = BufStream::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [verb, visit, from, length] = words.as_slice() else { break };
        let (Ok(from), Ok(length)) = (from.parse::<u64>(), length.parse::<u64>()) else { break };
        if line.len() > LINE {
            break;
        }
        let said = match *verb {
            "GET" => format!("{number} {visit}\n"),
            _ => match take(&mut stream, from, length).await? {
                Ok(()) => format!("{number} {visit} {length}\n"),
                Err(wrong) => format!("{number} {visit} {wrong}\n"),
            },
        };
        stream.write_all(said.as_bytes()).await?;
        if *verb == "GET" {
            for piece in payload(from, from + length) {
                stream.write_all(&piece).await?;
            }
        }
        stream.flush().await?;
        line.clear();
    }
    stream.shutdown().await
}

async fn take(
    stream: &mut (impl AsyncBufReadExt + Unpin),
    from: u64,
    length: u64,
) -> std::io::Result<Result<(), String>> {
    let mut checker = Checker::starting_at(from);
    while checker.seen() < from + length {
        let bytes = stream.fill_buf().await?;
        let left = usize::try_from(from + length - checker.seen()).unwrap_or(usize::MAX);
        let count = bytes.len().min(left);
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Err(wrong) = checker.check(bytes.get(..count).unwrap_or_default()) {
            return Ok(Err(wrong));
        }
        stream.consume(count);
    }
    Ok(Ok(()))
}
