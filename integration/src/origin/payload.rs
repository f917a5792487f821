//! Upstreams that give and take as much as they are asked to, over HTTP and over bare TCP.

use std::sync::Arc;

use http::Method;
use http_body_util::BodyExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::http::{streamed, text};
use super::{Answer, Origin, Question};
use crate::payload::{self, Checker};
use crate::within;

/// What went through such an upstream so far.
#[derive(Clone, Debug)]
pub struct Traffic(Arc<watch::Sender<Passed>>);

#[derive(Clone, Copy, Debug, Default)]
struct Passed {
    /// Bytes of payload that were given.
    given: u64,
    /// Uploads that are not read.
    stuck: usize,
}

impl Traffic {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Passed::default())))
    }

    /// Waits until so many bytes of payload were given.
    pub async fn given(&self, bytes: u64) {
        self.reaches(&format!("{bytes} bytes leave the upstream"), |passed| passed.given >= bytes).await;
    }

    /// Waits until so many uploads came that are not read.
    pub async fn stuck(&self, uploads: usize) {
        self.reaches(&format!("{uploads} uploads that are not read"), |passed| passed.stuck >= uploads).await;
    }

    async fn reaches(&self, what: &str, so: impl Fn(&Passed) -> bool) {
        let mut passed = self.0.subscribe();
        // As long as something moves, nobody loses patience.
        while !so(&passed.borrow_and_update()) {
            within(what, passed.changed()).await.expect("the upstream lives");
        }
    }

    fn give(&self, bytes: u64) {
        self.0.send_modify(|passed| passed.given += bytes);
    }

    fn stick(&self) {
        self.0.send_modify(|passed| passed.stuck += 1);
    }
}

impl Origin {
    /// Answers `GET /N` with N bytes of payload, `GET /N?chunked` without saying how many, and `POST` with how many
    /// came; `POST /stuck` is not read.
    pub async fn payload() -> (Self, Traffic) {
        let traffic = Traffic::new();
        let told = traffic.clone();
        (Self::answering(move |question| answer(question, told.clone())).await, traffic)
    }

    /// The same in lines over TCP: `GET N` is answered with N bytes, `POST N` and N bytes with the line `N`; what
    /// follows `STUCK` is not read.
    pub async fn tcp_payload() -> (Self, Traffic) {
        let traffic = Traffic::new();
        let told = traffic.clone();
        (Self::serving(move |stream, _| converse(stream, told.clone())).await, traffic)
    }

    /// Reads a little of each connection and resets it.
    pub async fn resetting() -> Self {
        Self::serving(|mut stream, _| async move {
            let _ = stream.read_exact(&mut [0; 1000]).await;
            stream.set_zero_linger().expect("a socket can be told how to end");
        })
        .await
    }
}

async fn answer(mut question: Question, traffic: Traffic) -> Answer {
    if question.method() == Method::POST {
        if question.uri().path() == "/stuck" {
            traffic.stick();
            std::future::pending::<()>().await;
        }
        let mut checker = Checker::default();
        while let Some(Ok(frame)) = question.frame().await {
            checker.take(frame.data_ref().map_or(&[], |data| data));
        }
        return text(&checker.seen().to_string());
    }
    let length = question.uri().path().trim_start_matches('/').parse().unwrap_or_default();
    let mut answer = streamed(payload::streamed(length, move |bytes| traffic.give(bytes)));
    if question.uri().query() != Some("chunked") {
        answer.headers_mut().insert("content-length", length.into());
    }
    answer
}

async fn converse(stream: TcpStream, traffic: Traffic) {
    let mut stream = BufStream::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|count| count > 0) {
        let length = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
        let done = match line.split_whitespace().next() {
            Some("GET") => give(&mut stream, length, &traffic).await,
            Some("POST") => take(&mut stream, length).await,
            _ => {
                traffic.stick();
                std::future::pending().await
            }
        };
        if done.is_err() {
            return;
        }
        line.clear();
    }
}

async fn give(stream: &mut BufStream<TcpStream>, length: u64, traffic: &Traffic) -> std::io::Result<()> {
    for piece in payload::payload(0, length) {
        stream.write_all(&piece).await?;
        traffic.give(piece.len() as u64);
    }
    stream.flush().await
}

async fn take(stream: &mut BufStream<TcpStream>, length: u64) -> std::io::Result<()> {
    let mut checker = Checker::default();
    while checker.seen() < length {
        let bytes = stream.fill_buf().await?;
        let count = bytes.len().min(usize::try_from(length - checker.seen()).unwrap_or(usize::MAX));
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        checker.take(bytes.get(..count).unwrap_or_default());
        stream.consume(count);
    }
    stream.write_all(format!("{length}\n").as_bytes()).await?;
    stream.flush().await
}
