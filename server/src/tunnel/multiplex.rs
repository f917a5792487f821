//! HTTP/2 connections to the upstream, each shared by the requests of all visitors (RFC 9113 §9.1).
//!
//! A line is taken as long as it has few streams, and another is opened when all are busy. One is opened at a time,
//! so that the first burst of requests, or all those of a line that broke, do not open one for each. It is used when the
//! upstream has said how many streams it takes: until then nobody knows whether it speaks HTTP/2 at all.

use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri, Version};
use http_body::Body as _;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::timeout;

use super::approach::HANDSHAKE;
use super::pool::DIAL_DEADLINE;
use super::{DialError, Tunnel, TunnelStream};
use crate::body::Body;
use crate::drain::DrainWatch;
use crate::workers::Worker;
use crate::wrapped::write_through;

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
    known: Arc<Known>,
}

/// What is known of a line.
#[derive(Debug, Default)]
struct Known {
    /// Places that were given so far.
    streams: AtomicUsize,
    /// Streams that the upstream takes at a time, or 0 while that is not known.
    limit: AtomicUsize,
    /// Waits for what the upstream says first.
    heard: AtomicWaker,
}

impl Line {
    fn stream(&self, reused: bool) -> Stream {
        self.known.streams.fetch_add(1, Ordering::Relaxed);
        Stream {
            sender: self.sender.clone(),
            reused,
            counted: Arc::clone(&self.streams),
            known: Arc::clone(&self.known),
        }
    }

    fn is_full(&self) -> bool {
        self.busy() >= self.known.limit.load(Ordering::Relaxed).clamp(1, STREAMS)
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
    counted: Arc<()>,
    known: Arc<Known>,
}

impl Stream {
    /// Whether another request had a place on the line, before this one or since.
    pub(super) fn has_company(&self) -> bool {
        self.known.streams.load(Ordering::Relaxed) > 1
    }
}

impl Lines {
    /// A place on the least busy line, unless another line should be opened.
    pub(super) fn take(&self) -> Option<Stream> {
        let mut open = self.lock();
        open.retain(|line| !line.sender.is_closed());
        let line = open.iter().min_by_key(|line| line.busy())?;
        let another = line.is_full() && open.len() < LINES;
        (!another).then(|| line.stream(true))
    }

    /// Waits until nobody else opens a line.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, DialError> {
        let turn = timeout(DIAL_DEADLINE, self.opening.acquire()).await;
        turn.map_err(|_| DialError::Timeout)?.map_err(|_| DialError::Gone)
    }

    /// Gives no other request the line of one that it failed.
    pub(super) fn leave(&self, stream: &Stream) {
        self.lock().retain(|line| !Arc::ptr_eq(&line.streams, &stream.counted));
    }

    fn put(&self, line: Line) {
        self.lock().push(line);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Line>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tunnel {
    /// Begins HTTP/2 on a stream. A personal one stays with the visitor that it was opened for.
    pub(super) async fn multiplex(&self, stream: TunnelStream) -> Result<Stream, DialError> {
        let spawner = Spawner { tasks: self.tasks.clone(), worker: self.worker.clone() };
        let known = Arc::<Known>::default();
        let stream = Listening { stream, known: Arc::clone(&known) };
        let (sender, mut connection) = http2::Builder::new(spawner)
            .timer(TokioTimer::new())
            // Nothing is sent before the upstream has said how much it takes.
            .initial_max_send_streams(0)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .keep_alive_interval(Some(PING_INTERVAL))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| DialError::NotHttp2)?;
        let (ready, settled) = oneshot::channel();
        let (line, tasks) = (Arc::clone(&known), self.tasks.clone());
        let driving = async move {
            let mut ready = Some(ready);
            let connection = poll_fn(|cx| {
                if ready.is_some() {
                    line.heard.register(cx.waker());
                }
                let ended = Pin::new(&mut connection).poll(cx);
                let limit = connection.current_max_send_streams();
                line.limit.store(limit, Ordering::Relaxed);
                if limit > 0
                    && let Some(ready) = ready.take()
                {
                    let _ = ready.send(());
                }
                ended
            });
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "an upstream connection ended");
                },
                // Visitors have left before that.
                () = tasks.draining() => {}
            }
        };
        self.tasks.spawn_on(driving, self.worker.runtime());
        let settled = timeout(HANDSHAKE, settled).await;
        settled.map_err(|_| DialError::Timeout)?.map_err(|_| DialError::NotHttp2)?;
        let line = Line { sender, streams: Arc::default(), known };
        let stream = line.stream(false);
        if !self.approach.is_personal() {
            self.lines.put(line);
        }
        Ok(stream)
    }
}

/// Tells who drives a line when the upstream says something, which hyper does not.
struct Listening {
    stream: TunnelStream,
    known: Arc<Known>,
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            // It runs after the task that reads, on the same thread, and so sees what came of it.
            self.known.heard.wake();
        }
        read
    }
}

write_through!(Listening);

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
    if !request.body().is_end_stream() && !request.headers().contains_key(CONTENT_LENGTH) {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

fn path(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"))
}

/// Whether the upstream has surely not looked at a request that failed: it refused the stream, or went away and named
/// an earlier one as its last (RFC 9113 §8.7).
pub(super) fn was_refused(error: &hyper::Error) -> bool {
    error.source().and_then(|source| source.downcast_ref::<h2::Error>()).is_some_and(|error| {
        let reason = error.reason();
        error.is_remote()
            && (error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM)
                || error.is_go_away() && reason == Some(h2::Reason::NO_ERROR))
    })
}

/// Whether the line ended, and not the stream alone. The upstream may have looked at the request, or not.
pub(super) fn was_cut(error: &hyper::Error) -> bool {
    let Some(source) = error.source() else { return error.is_closed() || error.is_canceled() };
    // hyper unwraps what h2 says of the stream below.
    source.is::<io::Error>() || source.downcast_ref::<h2::Error>().is_some_and(|error| !error.is_reset())
}
