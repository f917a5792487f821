//! HTTP/2 connections to the upstream, each shared by the requests of all visitors (RFC 9113 §9.1).
//!
//! A line is taken as long as it has few streams, and another is opened when all are busy. One is opened at a time,
//! so that the first burst of requests does not open one for each.

use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri, Version};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::pool::DIAL_DEADLINE;
use super::{DialError, Tunnel, TunnelStream};
use crate::body::Body;
use crate::drain::DrainWatch;
use crate::workers::Worker;

/// The HTTP/2 connections of one tunnel.
#[derive(Debug)]
pub(crate) struct Lines {
    open: Mutex<Vec<Line>>,
    opening: Semaphore,
}

impl Default for Lines {
    fn default() -> Self {
        Self { open: Mutex::default(), opening: Semaphore::new(1) }
    }
}

#[derive(Debug)]
struct Line {
    sender: SendRequest<Body>,
    /// Each stream holds another.
    streams: Arc<()>,
}

impl Line {
    fn stream(&self, reused: bool) -> Stream {
        Stream { sender: self.sender.clone(), reused, _counted: Arc::clone(&self.streams) }
    }

    fn busy(&self) -> usize {
        Arc::strong_count(&self.streams) - 1
    }
}

/// One request's place on a line.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) sender: SendRequest<Body>,
    pub(super) reused: bool,
    _counted: Arc<()>,
}

impl Lines {
    /// A place on the least busy line, unless another line should be opened.
    pub(super) fn take(&self) -> Option<Stream> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|line| !line.sender.is_closed());
        let line = open.iter().min_by_key(|line| line.busy())?;
        let full = line.busy() >= STREAMS && open.len() < LINES;
        (!full).then(|| line.stream(true))
    }

    /// Waits until nobody else opens a line.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, DialError> {
        let turn = timeout(DIAL_DEADLINE, self.opening.acquire()).await;
        turn.map_err(|_| DialError::Timeout)?.map_err(|_| DialError::Gone)
    }

    fn put(&self, line: Line) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl Tunnel {
    /// Begins HTTP/2 on a stream. A personal one stays with the visitor that it was opened for.
    pub(super) async fn multiplex(&self, stream: TunnelStream) -> Result<Stream, DialError> {
        let spawner = Spawner { tasks: self.tasks.clone(), worker: self.worker.clone() };
        let (sender, connection) = http2::Builder::new(spawner)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .keep_alive_interval(Some(PING_INTERVAL))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| DialError::Gone)?;
        let tasks = self.tasks.clone();
        let driving = async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "an upstream connection ended");
                },
                // Visitors have left before that.
                () = tasks.draining() => {}
            }
        };
        self.tasks.spawn_on(driving, self.worker.runtime());
        let line = Line { sender, streams: Arc::new(()) };
        let stream = line.stream(false);
        if !self.approach.is_personal() {
            self.lines.put(line);
        }
        Ok(stream)
    }
}

/// Where hyper's own tasks of a connection run.
#[derive(Clone)]
struct Spawner {
    tasks: DrainWatch,
    worker: Worker,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, task: F) {
        let task = async move {
            task.await;
        };
        self.tasks.spawn_on(task, self.worker.runtime());
    }
}

/// Requests at a time on one line, before another is opened: most servers take 100 or more.
const STREAMS: usize = 100;
/// Beyond that the lines are shared by more.
const LINES: usize = 8;

/// What an upstream may have on its way to one visitor, and to as many as a line has: one that does not read must not
/// hold up the others.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
const MAX_HEAD: u32 = 1 << 20;
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Gives a request the form of HTTP/2: the whole URL, and nothing that belongs to an HTTP/1.1 connection.
pub(super) fn to_http2(request: &mut Request<Body>, secure: bool) {
    let host = request.headers_mut().remove(HOST);
    let authority = host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = Parts::default();
    parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority.unwrap_or(Authority::from_static("localhost")));
    parts.path_and_query = Some(path(request.uri()));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request.headers_mut().remove(CONNECTION);
    request.headers_mut().remove(TRANSFER_ENCODING);
    *request.version_mut() = Version::HTTP_2;
}

/// Takes [`to_http2`] back.
pub(super) fn to_http1(request: &mut Request<Body>) {
    let host = request.uri().authority().and_then(|it| HeaderValue::try_from(it.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    *request.uri_mut() = Uri::from(path(request.uri()));
    *request.version_mut() = Version::HTTP_11;
}

fn path(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"))
}

/// Whether the upstream has not looked at a request that failed: its line ended, or it refused the stream
/// (RFC 9113 §8.7).
pub(super) fn was_not_processed(error: &hyper::Error) -> bool {
    match error.source().and_then(|source| source.downcast_ref::<h2::Error>()) {
        Some(error) if error.is_reset() => error.reason() == Some(h2::Reason::REFUSED_STREAM),
        Some(_) => true,
        None => error.is_closed() || error.is_canceled(),
    }
}
