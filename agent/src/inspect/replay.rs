//! A recorded request is sent to the upstream once more, as it was or changed. It does not pass the server, so
//! nothing that the server does to requests is done to it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::Recording;
use super::api::ApiError;
use super::entry::{Entry, Http};
use super::head::Header;
use super::web::App;
use crate::Stream;

/// Longest time for a replay; what comes later is cut off.
const DEADLINE: Duration = Duration::from_secs(60);

/// Largest body that can be put in place of the recorded one, in bytes.
const BODY: usize = 4 << 20;

/// What a person changed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edited {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    /// None for the recorded one.
    body: Option<String>,
}

/// Why this cannot be sent again.
pub(super) fn objection(entry: &Entry) -> Option<&'static str> {
    let Some(http) = entry.http() else { return Some("a connection that is no HTTP cannot be replayed") };
    if http.upgrade.is_some() {
        return Some("a connection that was upgraded cannot be replayed");
    }
    if http.request.is_truncated() {
        return Some("the body is too long to have been kept as a whole");
    }
    http.sent.is_none().then_some("the request did not pass as a whole")
}

struct Request {
    method: String,
    target: String,
    headers: Vec<Header>,
    body: Vec<u8>,
}

/// Sends it. What comes back is recorded like any response; this does not wait for it.
pub(super) async fn send(
    app: &App,
    entry: &Entry,
    edited: Option<Edited>,
    endpoint: Option<&str>,
) -> Result<(), ApiError> {
    let Some(http) = entry.http() else { return Err(ApiError::bad("only HTTP requests can be replayed")) };
    let replaces_body = edited.as_ref().is_some_and(|edited| edited.body.is_some());
    if let Some(objection) = objection(entry)
        && (!replaces_body || http.upgrade.is_some())
    {
        return Err(ApiError::bad(objection));
    }
    let request = request(http, edited)?;
    let endpoint = endpoint.unwrap_or(&entry.endpoint);
    let Some(dialer) = app.local.dialer(endpoint) else {
        return Err(ApiError::new(404, 100, format!("there is no endpoint {endpoint} any more")));
    };
    let Ok(permit) = Arc::clone(&app.replays).try_acquire_owned() else {
        return Err(ApiError::new(503, 104, "too many replays at a time"));
    };
    let stream = dialer.connect().await;
    let stream = stream.map_err(|error| ApiError::new(502, 103, format!("upstream: {error}")))?;
    let tap = app.inspector.tap(endpoint);
    if http.version == "HTTP/2" {
        second(app, stream, tap.replay(entry.id), request, permit).await
    } else {
        first(app, stream, tap.replay(entry.id), Bytes::from(request.wire()), permit).await
    }
}

fn request(http: &Http, edited: Option<Edited>) -> Result<Request, ApiError> {
    let recorded = || http.request.body().0;
    let Some(edited) = edited else {
        let (method, target) = (http.method.to_string(), http.target.to_string());
        return Ok(Request { method, target, headers: http.request.headers(), body: recorded() });
    };
    let headers = edited.headers.into_iter().map(|(name, value)| Header { name, value }).collect();
    let body = edited.body.map_or_else(recorded, String::into_bytes);
    let request = Request { method: edited.method, target: edited.target, headers, body };
    check(&request)?;
    Ok(request)
}

/// Nothing may end a line where it should not.
fn check(request: &Request) -> Result<(), ApiError> {
    if http::Method::from_bytes(request.method.as_bytes()).is_err() {
        return Err(ApiError::bad("this is no method"));
    }
    if request.target.is_empty() || !request.target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ApiError::bad("a path has no blanks, and only ASCII"));
    }
    for Header { name, value } in &request.headers {
        let is_value = http::HeaderValue::from_bytes(value.as_bytes()).is_ok();
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() || !is_value {
            return Err(ApiError::bad(format!("“{}” is no header", hithe_cli_parser::printable(name))));
        }
    }
    if request.body.len() > BODY {
        return Err(ApiError::bad("the body is larger than 4 MiB"));
    }
    Ok(())
}

/// What belongs to the connection and not to the request, or is set anew.
const OF_THE_CONNECTION: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "expect",
    "te",
    "transfer-encoding",
    "content-length",
];

impl Request {
    fn headers(&self) -> impl Iterator<Item = &Header> {
        self.headers.iter().filter(|header| !OF_THE_CONNECTION.iter().any(|name| header.is(name)))
    }

    fn has_body(&self) -> bool {
        let is_framed = |it: &Header| it.is("content-length") || it.is("transfer-encoding");
        !self.body.is_empty() || self.headers.iter().any(is_framed)
    }

    /// As HTTP/1.1 on a connection of its own.
    fn wire(&self) -> Vec<u8> {
        let mut wire = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for header in self.headers() {
            wire.push_str(&format!("{}: {}\r\n", header.name, header.value));
        }
        if self.has_body() {
            wire.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        wire.push_str("Connection: close\r\n\r\n");
        let mut wire = wire.into_bytes();
        wire.extend_from_slice(&self.body);
        wire
    }
}

/// Over HTTP/1.1.
async fn first(
    app: &App,
    stream: Box<dyn Stream>,
    recording: Recording,
    wire: Bytes,
    permit: OwnedSemaphorePermit,
) -> Result<(), ApiError> {
    let mut stream = Tapped { stream, recording };
    let connection = stream.recording.about.connection;
    let mut changed = app.inspector.store().watch();
    let inspector = app.inspector.clone();
    let is_over = move || {
        let changes = inspector.store().since(0).entries;
        changes.iter().any(|entry| entry.connection == connection && entry.duration.is_some())
    };
    let exchange = async move {
        let _permit = permit;
        let mut buffer = vec![0; 64 * 1024];
        if stream.write_all(&wire).await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => break stream.recording.response_end(),
                    Ok(_) => {}
                },
                // Some upstreams keep a connection that they were asked to close.
                Ok(()) = changed.changed() => if is_over() { break },
            }
        }
    };
    app.tasks.spawn(async move { drop(timeout(DEADLINE, exchange).await) });
    Ok(())
}

/// Over HTTP/2 with prior knowledge, as it was recorded.
async fn second(
    app: &App,
    stream: Box<dyn Stream>,
    recording: Recording,
    request: Request,
    permit: OwnedSemaphorePermit,
) -> Result<(), ApiError> {
    let host = request.headers().find(|header| header.is("host")).map_or("localhost", |header| &header.value);
    let mut builder = http::Request::builder()
        .method(request.method.as_str())
        .uri(format!("http://{host}{}", request.target));
    for header in request.headers().filter(|header| !header.is("host")) {
        builder = builder.header(&header.name, &header.value);
    }
    if request.headers.iter().any(|header| header.is("te") && header.value == "trailers") {
        builder = builder.header("te", "trailers");
    }
    let built = builder.body(Full::new(Bytes::from(request.body.clone())));
    let built = built.map_err(|error| ApiError::bad(error.to_string()))?;
    let io = TokioIo::new(Tapped { stream, recording });
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let failed = |error: hyper::Error| ApiError::new(502, 103, format!("upstream: {error}"));
    let (mut sender, connection) = handshake.await.map_err(failed)?;
    let exchange = async move {
        let _permit = permit;
        if let Ok(response) = sender.send_request(built).await {
            let mut body = response.into_body();
            while let Some(Ok(_)) = body.frame().await {}
        }
    };
    app.tasks.spawn(async move {
        let both = async {
            tokio::select! {
                () = exchange => {}
                _ = connection => {}
            }
        };
        drop(timeout(DEADLINE, both).await);
    });
    Ok(())
}

/// A connection to an upstream whose bytes are recorded.
struct Tapped {
    stream: Box<dyn Stream>,
    recording: Recording,
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let read = buffer.filled().get(before..).unwrap_or_default();
        self.recording.response(&Bytes::copy_from_slice(read));
        outcome
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = outcome {
            // Nobody reads the response before this returns.
            self.recording.request(&Bytes::copy_from_slice(bytes.get(..written).unwrap_or_default()));
        }
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
