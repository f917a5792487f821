//! Upstreams that speak HTTP/1.1: `Origin::http().answering(…)` and the ready-made ones.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::mpsc;

use super::tls::self_signed;
use super::{Counters, Origin};

/// What an upstream is asked.
pub type Question = Request<Incoming>;
/// What it answers.
pub type Answer = Response<BoxBody<Bytes, Infallible>>;

/// How an HTTP upstream treats its connections; by default it keeps them alive.
#[derive(Clone)]
pub struct HttpOrigin {
    connections: http1::Builder,
    tls: Option<String>,
    http2: bool,
}

impl std::fmt::Debug for HttpOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpOrigin").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Origin {
    /// An HTTP upstream in the making.
    pub fn http() -> HttpOrigin {
        let mut connections = http1::Builder::new();
        connections.timer(TokioTimer::new()).half_close(true);
        HttpOrigin { connections, tls: None, http2: false }
    }

    /// Answers every request with this text.
    pub async fn replying(body: &str) -> Self {
        Self::http().replying(body).await
    }

    /// Answers with what `answer` makes of the request.
    pub async fn answering<F>(answer: impl Fn(Question) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self::http().answering(answer).await
    }

    /// Answers with the request as JSON: `method`, `uri`, `version`, `headers` (a list of name and value
    /// for each line, in order), `body`, `trailers`.
    pub async fn echoing_requests() -> Self {
        Self::answering(echo_request).await
    }

    /// Answers with this many bytes, whose length is announced.
    pub async fn sized(length: usize) -> Self {
        Self::answering(move |_| async move {
            let block = Bytes::from(vec![b'x'; 64 * 1024]);
            let blocks = stream::unfold(length, move |left| {
                let part = block.slice(..left.min(block.len()));
                async move { (left > 0).then(|| (part.clone(), left - part.len())) }
            });
            let mut answer = streamed(blocks);
            answer.headers_mut().insert("content-length", length.into());
            answer
        })
        .await
    }

    /// Answers with these chunks, waiting `pause` before each but the first.
    pub async fn chunks(chunks: &[&str], pause: Duration) -> Self {
        let chunks: Vec<Bytes> =
            chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk.as_bytes())).collect();
        Self::answering(move |_| {
            let chunks =
                stream::iter(chunks.clone().into_iter().enumerate()).then(move |(index, chunk)| async move {
                    if index > 0 {
                        tokio::time::sleep(pause).await;
                    }
                    chunk
                });
            async move { streamed(chunks) }
        })
        .await
    }

    /// Server-sent events without an end: `data: 0`, `data: 1`, …, one each `pause`, the first at once.
    pub async fn events(pause: Duration) -> Self {
        Self::answering(move |_| async move {
            let events = stream::unfold(0_u64, move |count| async move {
                if count > 0 {
                    tokio::time::sleep(pause).await;
                }
                Some((Bytes::from(format!("data: {count}\n\n")), count + 1))
            });
            let mut answer = streamed(events);
            answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/event-stream"));
            answer
        })
        .await
    }

    /// Answers with a chunk whenever the test sends one to the returned feed, which serves one request.
    pub async fn fed() -> (Self, Feed) {
        let (feed, chunks) = mpsc::channel::<Bytes>(16);
        let chunks = Arc::new(tokio::sync::Mutex::new(Some(chunks)));
        let origin = Self::answering(move |_| {
            let chunks = Arc::clone(&chunks);
            async move {
                let taken = chunks.lock().await.take().expect("a fed upstream serves one request");
                streamed(stream::unfold(taken, |mut taken| async { Some((taken.recv().await?, taken)) }))
            }
        })
        .await;
        (origin, Feed(feed))
    }

    /// Answers `body`, followed by the trailer `checksum: abc` if the request says `TE: trailers`.
    pub async fn with_trailers(body: &str) -> Self {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Self::answering(move |_| {
            let mut trailers = HeaderMap::new();
            trailers.insert("checksum", http::HeaderValue::from_static("abc"));
            let frames = [Ok(Frame::data(body.clone())), Ok(Frame::trailers(trailers))];
            let mut answer = Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames))));
            answer.headers_mut().insert("trailer", http::HeaderValue::from_static("checksum"));
            async { answer }
        })
        .await
    }

    /// Reads the whole request and answers `LENGTH SHA256-IN-HEX`.
    pub async fn digesting() -> Self {
        Self::answering(|mut question| async move {
            let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
            let mut length = 0;
            while let Some(Ok(frame)) = question.frame().await {
                if let Some(data) = frame.data_ref() {
                    length += data.len();
                    digest.update(data);
                }
            }
            text(&format!("{length} {}", hex(digest.finish().as_ref())))
        })
        .await
    }
}

impl HttpOrigin {
    /// Closes each connection after one answer, and says so.
    pub fn closing_after_each(mut self) -> Self {
        self.connections.keep_alive(false);
        self
    }

    /// Closes a connection without a word when no request came for this long, as Node does.
    pub fn closing_when_idle(mut self, limit: Duration) -> Self {
        self.connections.header_read_timeout(limit);
        self
    }

    /// Speaks TLS with a certificate of its own for `name`.
    pub fn tls(mut self, name: &str) -> Self {
        self.tls = Some(name.to_owned());
        self
    }

    /// Speaks HTTP/2 only, by ALPN where it speaks TLS.
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Starts it: every answer is this text.
    pub async fn replying(self, body: &str) -> Origin {
        let body = body.to_owned();
        self.answering(move |_| {
            let answer = text(&body);
            async { answer }
        })
        .await
    }

    /// Starts it: `answer` makes the answers.
    pub async fn answering<F>(self, answer: impl Fn(Question) -> F + Clone + Send + Sync + 'static) -> Origin
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let Self { connections, tls, http2 } = self;
        let protocols: &[&[u8]] = if http2 { &[b"h2"] } else { &[b"http/1.1"] };
        let (acceptor, certificate) = tls.map(|name| self_signed(&name, protocols)).unzip();
        let connections = if http2 { None } else { Some(connections) };
        let mut origin = Origin::serving(move |stream, counters| {
            let (connections, acceptor, answer) = (connections.clone(), acceptor.clone(), answer.clone());
            async move {
                match acceptor {
                    None => serve(connections.as_ref(), stream, counters, answer).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve(connections.as_ref(), stream, counters, answer).await;
                        }
                    }
                }
            }
        })
        .await;
        origin.certificate = certificate;
        origin
    }
}

/// Without HTTP/1 connections it is HTTP/2.
async fn serve<F>(
    connections: Option<&http1::Builder>,
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    counters: Arc<Counters>,
    answer: impl Fn(Question) -> F,
) where
    F: Future<Output = Answer> + Send + 'static,
{
    let service = service_fn(|question| {
        counters.request();
        let answer = answer(question);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let stream = TokioIo::new(stream);
    let _ = match connections {
        Some(connections) => connections.serve_connection(stream, service).with_upgrades().await,
        None => http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await,
    };
}

/// The other end of [`Origin::fed`]; the answer's body ends when it is dropped.
#[derive(Debug)]
pub struct Feed(mpsc::Sender<Bytes>);

impl Feed {
    /// Sends a chunk of the body; false if the upstream's connection is gone.
    pub async fn send(&self, chunk: &str) -> bool {
        self.0.send(Bytes::copy_from_slice(chunk.as_bytes())).await.is_ok()
    }

    /// Waits until the upstream's connection is gone.
    pub async fn cut(&self) {
        crate::within("the upstream's connection is cut", self.0.closed()).await;
    }
}

/// A plain text answer, 200.
pub fn text(body: &str) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    let mut answer = Response::new(body.boxed());
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    answer
}

/// An answer, 200, whose body is what comes from this stream.
pub fn streamed(chunks: impl Stream<Item = Bytes> + Send + Sync + 'static) -> Answer {
    Response::new(BodyExt::boxed(StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk))))))
}

async fn echo_request(question: Question) -> Answer {
    let (head, body) = question.into_parts();
    let headers = lines(&head.headers);
    let body = body.collect().await;
    let trailers = body.as_ref().ok().and_then(|body| body.trailers()).map(lines);
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let seen = serde_json::json!({
        "method": head.method.as_str(),
        "uri": head.uri.to_string(),
        "version": format!("{:?}", head.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
        "trailers": trailers,
    });
    let mut answer = text(&seen.to_string());
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}

fn lines(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Bytes as lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
