//! HTTP/1.1 connections to the upstream, kept alive between requests and shared by all visitors of a tunnel.
//!
//! A connection is parked when a response was read to its end, and taken again only if hyper says that it is
//! ready. One task drives each connection; one more exists only while something is parked.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hithe_cli_parser::HttpVersion;
use http::{HeaderMap, HeaderName, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout};

use super::approach::{Agreed, Speaks};
use super::multiplex::{Stream, to_http1, to_http2, was_cut, was_refused};
use super::{DialError, Tunnel, TunnelStream};
use crate::body::Body;
use crate::visit::{CutOff, Visitor};

/// How long a publisher may take to open a stream: OpenSSH answers once it has connected to its target, which may be
/// a slow host.
pub(crate) const DIAL_DEADLINE: Duration = Duration::from_secs(15);

/// Node closes an idle connection after 5 s; a request on its way to a closed connection is lost.
const IDLE_LIMIT: Duration = Duration::from_secs(4);

/// What an upstream that announces a longer `Keep-Alive: timeout` is taken at its word for.
const LONGEST_IDLE: Duration = Duration::from_secs(60);

/// More idle connections than this serve nobody: a burst that large opens new ones.
const MAX_IDLE: usize = 64;

/// Response heads of the upstream, as those of visitors, are at most 1 MiB.
const MAX_HEAD: usize = 1 << 20;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

impl Tunnel {
    /// A connection that is idle or has room for another request, or else a new one.
    pub(crate) async fn upstream(self: &Arc<Self>, visitor: Visitor) -> Result<Upstream, DialError> {
        if self.approach.is_personal() {
            return self.connect(visitor).await;
        }
        if self.approach.protocol == HttpVersion::Http1 {
            return match self.pool.take() {
                Some(upstream) => Ok(upstream),
                None => self.connect(visitor).await,
            };
        }
        if let Some(upstream) = self.shared() {
            return Ok(upstream);
        }
        let _turn = self.lines.turn().await?;
        match self.shared() {
            Some(upstream) => Ok(upstream),
            None => self.connect(visitor).await,
        }
    }

    /// Another connection in the place of one that failed a request, which nobody gets any more.
    pub(crate) async fn replace(&self, failed: &Upstream, visitor: Visitor) -> Result<Upstream, DialError> {
        let Sender::Http2(stream) = &failed.sender else { return self.connect(visitor).await };
        self.lines.leave(stream);
        if self.approach.is_personal() {
            return self.connect(visitor).await;
        }
        // All the requests of a line fail together.
        let _turn = self.lines.turn().await?;
        match self.lines.take() {
            Some(stream) => Ok(Upstream::on(stream)),
            None => self.connect(visitor).await,
        }
    }

    fn shared(&self) -> Option<Upstream> {
        self.lines.take().map(Upstream::on).or_else(|| self.pool.take())
    }

    /// A new connection to the upstream.
    pub(crate) async fn connect(&self, visitor: Visitor) -> Result<Upstream, DialError> {
        match self.begin(visitor, Speaks::Http).await? {
            (stream, Agreed::Http1) => self.http1(stream).await,
            (stream, Agreed::Http2) => Ok(Upstream::on(self.multiplex(stream).await?)),
        }
    }

    /// A new HTTP/1.1 connection, whatever the upstream speaks otherwise: for requests that change the protocol.
    pub(crate) async fn connect_http1(&self, visitor: Visitor) -> Result<Upstream, DialError> {
        let (stream, _) = self.begin(visitor, Speaks::Http1).await?;
        self.http1(stream).await
    }

    async fn http1(&self, stream: TunnelStream) -> Result<Upstream, DialError> {
        let heard = Arc::new(Heard::default());
        let stream = Listening { stream, heard: Arc::clone(&heard) };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_header_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| DialError::Gone)?;
        let driving = async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        };
        // With the session and not with the visitor, who may be served elsewhere and leaves first.
        self.tasks.spawn_on(driving, self.worker.runtime());
        let sender = Sender::Http1(sender);
        Ok(Upstream { sender, heard, heard_before: 0, idle_limit: IDLE_LIMIT, reused: false })
    }

    /// A raw stream to the upstream.
    pub(crate) async fn open(&self, visitor: Visitor) -> Result<TunnelStream, DialError> {
        Ok(self.begin(visitor, Speaks::Raw).await?.0)
    }

    async fn begin(&self, visitor: Visitor, speaks: Speaks) -> Result<(TunnelStream, Agreed), DialError> {
        let dialled = timeout(DIAL_DEADLINE, self.dial.dial(visitor)).await;
        let stream = dialled.unwrap_or(Err(DialError::Timeout))?;
        if self.approach.is_plain() && self.approach.protocol == HttpVersion::Http1 {
            return Ok((stream, Agreed::Http1));
        }
        // On the heap: it holds a TLS handshake, and most endpoints have none.
        Box::pin(self.approach.begin(stream, visitor, speaks)).await
    }

    /// Keeps a connection whose response was read to its end.
    pub(crate) fn park(self: &Arc<Self>, upstream: Upstream) {
        if upstream.is_shared()
            || upstream.sender.is_closed()
            || upstream.idle_limit.is_zero()
            || self.tasks.is_draining()
        {
            return;
        }
        if self.pool.put(upstream) {
            let tunnel = Arc::downgrade(self);
            let tasks = self.tasks.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = reap(&tunnel) => {}
                    () = tasks.draining() => if let Some(tunnel) = tunnel.upgrade() { tunnel.pool.clear() },
                }
            });
        }
    }
}

/// Closes connections that were idle for too long, until none is left.
async fn reap(tunnel: &Weak<Tunnel>) {
    loop {
        let Some(next) = tunnel.upgrade().and_then(|tunnel| tunnel.pool.reap(Instant::now())) else { return };
        sleep_until(next).await;
    }
}

/// The idle connections of one tunnel.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Idle>);

#[derive(Debug, Default)]
struct Idle {
    parked: Vec<Parked>,
    reaping: bool,
}

#[derive(Debug)]
struct Parked {
    upstream: Upstream,
    until: Instant,
}

impl Pool {
    /// The connection that was parked last: the others may end.
    fn take(&self) -> Option<Upstream> {
        let now = Instant::now();
        let mut idle = self.lock();
        idle.parked.retain(|parked| parked.until > now && !parked.upstream.sender.is_closed());
        // One whose request body is still being sent is not ready: it stays.
        let ready = idle.parked.iter().rposition(|parked| parked.upstream.sender.is_ready())?;
        let mut upstream = idle.parked.remove(ready).upstream;
        drop(idle);
        upstream.resume();
        Some(upstream)
    }

    /// Whether a reaper has to be started.
    fn put(&self, upstream: Upstream) -> bool {
        let until = Instant::now() + upstream.idle_limit;
        let mut idle = self.lock();
        if idle.parked.len() >= MAX_IDLE {
            idle.parked.remove(0);
        }
        idle.parked.push(Parked { upstream, until });
        !std::mem::replace(&mut idle.reaping, true)
    }

    /// When to look again, or `None` if nothing is left.
    fn reap(&self, now: Instant) -> Option<Instant> {
        let mut idle = self.lock();
        idle.parked.retain(|parked| parked.until > now && !parked.upstream.sender.is_closed());
        let next = idle.parked.iter().map(|parked| parked.until).min();
        idle.reaping = next.is_some();
        next
    }

    fn clear(&self) {
        let mut idle = self.lock();
        idle.parked.clear();
        idle.reaping = false;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One HTTP/1.1 connection to the upstream, or a place on one of HTTP/2. Dropping it closes the connection when its
/// last request is done.
pub(crate) struct Upstream {
    sender: Sender,
    /// The other end is with the task that drives the connection.
    heard: Arc<Heard>,
    heard_before: u64,
    idle_limit: Duration,
    reused: bool,
}

enum Sender {
    Http1(SendRequest<Body>),
    Http2(Stream),
}

impl Sender {
    fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(stream) => stream.sender.is_ready(),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(stream) => stream.sender.is_closed(),
        }
    }
}

/// Why no response came.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Nothing was sent: the request is as it was.
    Unsent(Box<Request<Body>>),
    /// The upstream said that it has not looked at the request.
    Refused,
    /// The connection ended before the first byte of a response.
    Silent,
    /// The upstream began to answer, but that was not HTTP, or it broke off.
    Broken(hyper::Error),
    /// The body of the request broke off, or was none.
    BadBody(hyper::Error),
}

impl Upstream {
    fn on(stream: Stream) -> Self {
        let reused = stream.reused;
        let sender = Sender::Http2(stream);
        Self { sender, heard: Arc::default(), heard_before: 0, idle_limit: IDLE_LIMIT, reused }
    }

    /// Whether another request went over this connection, so that it may be that one's fault, or its age, that this one
    /// failed.
    pub(crate) fn has_company(&self) -> bool {
        match &self.sender {
            Sender::Http1(_) => self.reused,
            Sender::Http2(stream) => stream.has_company(),
        }
    }

    /// Whether other requests go over the same connection at the same time.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// `secure` says whether the upstream speaks TLS.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<Body>,
        secure: bool,
    ) -> Result<Response<Incoming>, SendError> {
        let sent = match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(stream) => {
                to_http2(&mut request, secure);
                return match stream.sender.try_send_request(request).await {
                    Ok(response) => Ok(response),
                    Err(mut error) => Err(match error.take_message() {
                        Some(mut request) => {
                            to_http1(&mut request);
                            SendError::Unsent(Box::new(request))
                        }
                        None if error.error().is_user() => SendError::BadBody(error.into_error()),
                        None if was_refused(error.error()) => SendError::Refused,
                        None if was_cut(error.error()) => SendError::Silent,
                        None => SendError::Broken(error.into_error()),
                    }),
                };
            }
        };
        match sent {
            Ok(response) => {
                self.idle_limit = idle_limit(response.headers());
                Ok(response)
            }
            Err(mut error) => Err(match error.take_message() {
                Some(request) => SendError::Unsent(Box::new(request)),
                None if error.error().is_user() => SendError::BadBody(error.into_error()),
                None if self.is_silent() => {
                    tracing::debug!(error = %error.into_error(), "the upstream closed before it answered");
                    SendError::Silent
                }
                None => SendError::Broken(error.into_error()),
            }),
        }
    }

    /// Whether an earlier request went over this connection.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Notes that another request begins.
    pub(crate) fn resume(&mut self) {
        self.reused = true;
        self.heard_before = self.heard.bytes.load(Ordering::Acquire);
    }

    /// Why the server itself ended this connection, if it did. hyper tells only those of it whom it finds reading.
    pub(crate) fn cut_off(&self) -> Option<CutOff> {
        self.heard.cut_off.get().copied()
    }

    /// Ready when the server itself has ended this connection.
    pub(crate) fn poll_cut_off(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.heard.response.register(cx.waker());
        if self.cut_off().is_some() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn is_silent(&self) -> bool {
        self.heard.bytes.load(Ordering::Acquire) == self.heard_before
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("reused", &self.reused).finish_non_exhaustive()
    }
}

/// The upstream's `Keep-Alive: timeout=SECONDS` less a second for the way there, or 4 s if it does not say.
fn idle_limit(headers: &HeaderMap) -> Duration {
    let announced = headers.get(KEEP_ALIVE).and_then(|value| {
        let (_, seconds) = value
            .to_str()
            .ok()?
            .split(',')
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))?;
        seconds.trim().parse().ok()
    });
    match announced {
        Some(seconds) => LONGEST_IDLE.min(Duration::from_secs(u64::saturating_sub(seconds, 1))),
        None => IDLE_LIMIT,
    }
}

/// What became known of a connection.
#[derive(Debug, Default)]
struct Heard {
    /// Read from the upstream: tells one that said nothing from one that broke off.
    bytes: AtomicU64,
    cut_off: OnceLock<CutOff>,
    /// Waits for its visitor and not for more of itself.
    response: AtomicWaker,
}

/// Notes what is heard of a stream.
struct Listening<S> {
    stream: S,
    heard: Arc<Heard>,
}

impl<S> Listening<S> {
    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled
            && let Some(why) = CutOff::of(error)
        {
            self.heard.cut_off.get_or_init(|| why);
            self.heard.response.wake();
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        if count > 0 {
            self.heard.bytes.fetch_add(count as u64, Ordering::AcqRel);
        }
        self.note(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    struct CutOffWhenFlushed;

    impl AsyncWrite for CutOffWhenFlushed {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::other(CutOff::Visit)))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn the_reason_of_a_cut_is_known_whatever_becomes_of_the_error() {
        let heard = Arc::<Heard>::default();
        let mut stream = Listening { stream: CutOffWhenFlushed, heard: Arc::clone(&heard) };
        assert!(stream.flush().await.is_err());
        assert_eq!(heard.cut_off.get(), Some(&CutOff::Visit));
    }

    #[test]
    fn the_idle_limit_is_a_second_under_what_the_upstream_announces() {
        for (value, seconds) in
            [("timeout=5", 4), ("timeout=1", 0), ("timeout=0", 0), ("max=3, Timeout = 72", 60), ("x", 4)]
        {
            let headers = HeaderMap::from_iter([(KEEP_ALIVE, value.parse().unwrap())]);
            assert_eq!(idle_limit(&headers), Duration::from_secs(seconds), "{value}");
        }
        assert_eq!(idle_limit(&HeaderMap::new()), IDLE_LIMIT);
    }
}
