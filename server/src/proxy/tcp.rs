//! Raw streams: tcp endpoints, tls endpoints that pass through, and upgraded HTTP connections.
//!
//! Both directions of a visit run in one task. An end of stream closes one direction, a reset both. A stream that
//! waits holds no buffer.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hithe_cli_parser::Code;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Site;
use super::reach;
use super::respond::ProxyError;
use super::socks::SocksWatch;
use crate::endpoint::{Endpoint, Turn};
use crate::modules::{Flow, Visit};
use crate::stall::StallGuard;
use crate::tunnel::DialError;
use crate::visit::{CutOff, STALLED, VisitRecord, Visitor, log_stalled};

/// One data packet of SSH carries at most 32 KiB.
const CHUNK: usize = 32 * 1024;

const SOCKS_ADVICE: &str = "the endpoint was withdrawn: the forward answered as a SOCKS server, which would let \
     visitors into your network; give -R a target, as in -R 0:localhost:22";

/// Both ways of one visit.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {
    /// Makes the end that follows a reset and not an orderly one.
    fn reset_on_close(&self);

    /// What the visitor is told when there is no upstream: nothing, unless its protocol has a word for that.
    fn refusal(&self) -> &'static [u8] {
        &[]
    }
}

impl Wire for tokio::net::TcpStream {
    fn reset_on_close(&self) {
        // Worth trying only: the end is seen either way.
        let _ = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl<S: Wire> Wire for StallGuard<S> {
    fn reset_on_close(&self) {
        self.get_ref().reset_on_close();
    }

    fn refusal(&self) -> &'static [u8] {
        self.get_ref().refusal()
    }
}

/// Carries one connection of a visitor to a tcp or tls endpoint.
pub(crate) async fn carry(
    site: &Site,
    endpoint: &Arc<Endpoint>,
    mut visitor_side: impl Wire,
    visitor: Visitor,
) {
    let started = Instant::now();
    if let Flow::Refuse(refusal) = endpoint.modules.connect(&mut Visit::new(visitor, None, &endpoint.url)) {
        site.metrics.refused(refusal.code);
        tracing::debug!(code = %refusal.code, visitor = %visitor.ip(), "a connection was refused by a module");
        return;
    }
    let mut turn = match reach::turn(endpoint).await {
        Ok(turn) => turn,
        Err(error) => {
            refuse(&mut visitor_side, error).await;
            return;
        }
    };
    let _place = match turn.begin_visit() {
        Ok(place) => place,
        Err(overdrawn) => {
            site.metrics.refused(overdrawn.code());
            tracing::debug!(code = %overdrawn.code(), visitor = %visitor.ip(), "a connection was refused: {overdrawn}");
            return say_no(&mut visitor_side).await;
        }
    };
    let mut tally = Tally::default();
    let fault = match reach::stream(endpoint, &mut turn, visitor).await {
        Ok(mut upstream) => {
            let socks = SocksWatch::default();
            let outcome = join(&mut visitor_side, &mut upstream, &mut tally, socks).await;
            match outcome {
                Err(Fault::Stalled) => {
                    site.metrics.refused(Code::SLOW_READER);
                    log_stalled(visitor, &endpoint.url);
                }
                Err(Fault::Spool(_)) => site.metrics.refused(Code::SPOOL_FULL),
                _ => {}
            }
            outcome.err().map(|fault| cut(endpoint, &turn, &visitor_side, fault))
        }
        Err(error) => {
            site.metrics.refused(ProxyError::from(error).code());
            Some(refuse(&mut visitor_side, error).await)
        }
    };
    if let Some(log) = &turn.log {
        log.record(VisitRecord::Connection {
            visitor,
            duration: started.elapsed(),
            received: tally.received,
            sent: tally.sent,
            fault,
        });
    }
}

/// Ends the visitor's side the hard way, so that it does not take a broken stream for a finished one. Of the tunnel's side a
/// client of ours learns when the stream is dropped; OpenSSH knows no word for it.
fn cut(endpoint: &Endpoint, turn: &Turn, visitor_side: &impl Wire, fault: Fault) -> &'static str {
    visitor_side.reset_on_close();
    if matches!(fault, Fault::Socks) {
        endpoint.withdrawn.cancel();
        if let Some(log) = &turn.log {
            log.advise(SOCKS_ADVICE);
        }
    }
    fault.text()
}

async fn say_no(visitor_side: &mut impl Wire) {
    use tokio::io::AsyncWriteExt;

    let refusal = visitor_side.refusal();
    if visitor_side.write_all(refusal).await.is_ok() {
        let _ = visitor_side.shutdown().await;
    }
}

async fn refuse(visitor_side: &mut impl Wire, error: DialError) -> &'static str {
    say_no(visitor_side).await;
    match error {
        DialError::Refused => "nothing is listening at the target",
        DialError::Prohibited => "the ssh client refused the connection",
        DialError::Gone => "the publisher is gone",
        DialError::Timeout => "the connection was not opened in time",
        DialError::Busy => "too many connections are being opened",
        DialError::NoTls => "the target does not speak TLS",
        DialError::Certificate => "the target's certificate is not trusted, or is for another name",
        DialError::NotHttp2 => "the target does not speak HTTP/2",
        DialError::Closed => "the target closed the connection at once",
    }
}

/// What went over a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Bytes from the visitor.
    pub(crate) received: u64,
    /// Bytes to the visitor.
    pub(crate) sent: u64,
}

/// Why a stream was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The visitor reset the connection, or is not to be reached.
    Visitor,
    /// The visitor took nothing while bytes waited for it.
    Stalled,
    /// The upstream reset the connection, or its tunnel ended.
    Upstream,
    /// What waited for the visitor had no place any more.
    Spool(CutOff),
    /// The forward is a SOCKS server: the publisher gave `-R` no target.
    Socks,
}

impl Fault {
    /// What is told of it if it is the server's own doing.
    pub(super) fn cut_off(self) -> Option<&'static str> {
        matches!(self, Self::Stalled | Self::Spool(_)).then(|| self.text())
    }

    fn text(self) -> &'static str {
        match self {
            Self::Visitor => "the visitor reset the connection",
            Self::Stalled => STALLED,
            Self::Spool(why) => why.text(),
            Self::Upstream => "the upstream closed the connection",
            Self::Socks => "the forward answered as a SOCKS server",
        }
    }

    fn of_upstream(error: &io::Error) -> Self {
        CutOff::of(error).map_or(Self::Upstream, Self::Spool)
    }

    fn of_visitor(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut { Self::Stalled } else { Self::Visitor }
    }
}

/// Copies both ways until both are at their end, or one is cut. `visitor` is expected to bound its own stalls.
pub(crate) async fn join(
    visitor: &mut (impl AsyncRead + AsyncWrite + Unpin),
    upstream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    tally: &mut Tally,
    mut watch: SocksWatch,
) -> Result<(), Fault> {
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let mut half_closed = HalfClosed::default();
    let mut lost = false;
    let ended = poll_fn(|cx| {
        // The way down goes first: what it hears may set free what the way up holds.
        let downs = down.poll(cx, &mut *upstream, &mut *visitor, |bytes| watch.upstream_said(bytes));
        match &downs {
            Poll::Ready(Err(End::Source(error))) => return Poll::Ready(Err(Fault::of_upstream(error))),
            Poll::Ready(Err(End::Sink(error))) => return Poll::Ready(Err(Fault::of_visitor(error))),
            Poll::Ready(Err(End::Socks)) => return Poll::Ready(Err(Fault::Socks)),
            _ => {}
        }
        if let Some(fault) = down.broken_off(cx, &mut *upstream) {
            return Poll::Ready(Err(fault));
        }
        if lost {
            return downs.map(|_| Err(Fault::Upstream));
        }
        if watch.is_settled() {
            up.held_at = None;
        }
        match up.poll(cx, &mut *visitor, &mut *upstream, |bytes| Heard::Pass(watch.visitor_said(bytes))) {
            Poll::Ready(Err(End::Source(error))) => Poll::Ready(Err(Fault::of_visitor(&error))),
            // Whatever the upstream said before it closed still goes to the visitor.
            Poll::Ready(Err(_)) => {
                lost = true;
                downs.map(|_| Err(Fault::Upstream))
            }
            Poll::Ready(Ok(())) => downs.map(|_| Ok(())),
            Poll::Pending if downs.is_ready() => half_closed.poll(cx, &mut *upstream).map(Ok),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    tally.received += up.moved;
    tally.sent += down.moved;
    ended
}

/// One way of a stream.
#[derive(Default)]
struct Direction {
    /// Allocated while bytes are on their way, at most [`CHUNK`].
    buffer: Vec<u8>,
    written: usize,
    /// Bytes of the buffer that may be written before the other side has answered.
    held_at: Option<usize>,
    moved: u64,
    unflushed: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Default)]
enum Phase {
    #[default]
    Copying,
    Closing,
    Closed,
}

/// Why a direction ended before its end of stream.
enum End {
    Source(io::Error),
    Sink(io::Error),
    Socks,
}

/// What the watch says of bytes that were just read.
pub(super) enum Heard {
    /// They may go, or only so many of them until the other side has answered.
    Pass(Option<usize>),
    Socks,
}

impl Direction {
    /// More than this in one go would keep the other direction, and other tasks, waiting.
    const ROUNDS: usize = 16;

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
        mut heard: impl FnMut(&[u8]) -> Heard,
    ) -> Poll<Result<(), End>> {
        for _ in 0..Self::ROUNDS {
            match self.phase {
                Phase::Copying => {
                    ready!(self.poll_write(cx, sink)).map_err(End::Sink)?;
                    ready!(self.poll_read(cx, source, sink))?;
                    match heard(&self.buffer) {
                        Heard::Pass(held_at) => self.held_at = held_at,
                        Heard::Socks => return Poll::Ready(Err(End::Socks)),
                    }
                }
                Phase::Closing => {
                    ready!(Pin::new(&mut *sink).poll_shutdown(cx)).map_err(End::Sink)?;
                    self.phase = Phase::Closed;
                }
                Phase::Closed => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready when the buffer is empty.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            let end = self.held_at.unwrap_or(self.buffer.len());
            let waiting = self.buffer.get(self.written..end).unwrap_or_default();
            if waiting.is_empty() {
                break;
            }
            let count = ready!(Pin::new(&mut *sink).poll_write(cx, waiting))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.moved += count as u64;
            self.unflushed = true;
        }
        if self.written < self.buffer.len() {
            ready!(self.poll_flush(cx, sink))?;
            return Poll::Pending;
        }
        self.buffer.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Fills the buffer, or gives it back while nothing comes.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), End>> {
        self.buffer.reserve_exact(CHUNK);
        match pin!(source.read_buf(&mut self.buffer)).poll(cx) {
            Poll::Ready(Ok(0)) => self.phase = Phase::Closing,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(End::Source(error))),
            Poll::Pending => {
                self.buffer = Vec::new();
                ready!(self.poll_flush(cx, sink)).map_err(End::Sink)?;
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the server ended a visit whose upstream is not read, because its visitor is busy with what came before.
    /// A tunnel's stream says so when it is flushed.
    fn broken_off(&self, cx: &mut Context<'_>, upstream: &mut (impl AsyncWrite + Unpin)) -> Option<Fault> {
        if self.buffer.is_empty() {
            return None;
        }
        match Pin::new(upstream).poll_flush(cx) {
            // A client that closed the channel takes no more; what it said before still goes to the visitor.
            Poll::Ready(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                Some(Fault::of_upstream(&error))
            }
            _ => None,
        }
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(sink).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// An upstream that ended its own direction and may yet close for good, so that an upload has nowhere to go.
#[derive(Default)]
struct HalfClosed {
    settled: bool,
}

impl HalfClosed {
    /// A tunnel's stream that is read past its end fails once the channel is closed.
    fn poll(&mut self, cx: &mut Context<'_>, upstream: &mut (impl AsyncRead + Unpin)) -> Poll<()> {
        if self.settled {
            return Poll::Pending;
        }
        let mut byte = [0];
        match ready!(Pin::new(upstream).poll_read(cx, &mut ReadBuf::new(&mut byte))) {
            Err(_) => Poll::Ready(()),
            // Other streams just repeat their end, and say nothing more.
            Ok(()) => {
                self.settled = true;
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    type Joined = tokio::task::JoinHandle<(Result<(), Fault>, Tally)>;

    /// A visitor and an upstream with a join between them.
    fn joined(watch: SocksWatch) -> (DuplexStream, DuplexStream, Joined) {
        let (visitor, mut visitor_side) = duplex(1024);
        let (upstream, mut upstream_side) = duplex(1024);
        #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
        let task = tokio::spawn(async move {
            let mut tally = Tally::default();
            let ended = join(&mut visitor_side, &mut upstream_side, &mut tally, watch).await;
            (ended, tally)
        });
        (visitor, upstream, task)
    }

    #[tokio::test]
    async fn a_half_closed_visitor_still_gets_its_answer() {
        let (mut visitor, mut upstream, task) = joined(SocksWatch::default());
        visitor.write_all(b"question").await.unwrap();
        visitor.shutdown().await.unwrap();
        let mut heard = Vec::new();
        upstream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"question");
        upstream.write_all(b"the answer").await.unwrap();
        drop(upstream);
        let mut answer = Vec::new();
        visitor.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"the answer");
        assert_eq!(task.await.unwrap(), (Ok(()), Tally { received: 8, sent: 10 }));
    }

    #[tokio::test]
    async fn much_more_than_a_buffer_passes_both_ways_at_once() {
        let (visitor, upstream, task) = joined(SocksWatch::default());
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8 | 0x80).collect();
        let exchange = async |stream: DuplexStream| {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let mut read = Vec::new();
            let write = async {
                writer.write_all(&bytes).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let (_, count) = tokio::join!(write, reader.read_to_end(&mut read));
            count.unwrap();
            read == bytes
        };
        assert_eq!(tokio::join!(exchange(visitor), exchange(upstream)), (true, true));
        assert_eq!(task.await.unwrap().1, Tally { received: 1_000_000, sent: 1_000_000 });
    }

    #[tokio::test]
    async fn a_forward_that_answers_as_a_socks_server_is_cut() {
        let (mut visitor, mut upstream, task) = joined(SocksWatch::default());
        visitor.write_all(&[5, 1, 0, 5, 1, 0, 1, 10, 0, 0, 1, 0, 80]).await.unwrap();
        let mut greeting = [0; 3];
        upstream.read_exact(&mut greeting).await.unwrap();
        upstream.write_all(&[5, 0]).await.unwrap();
        let (ended, tally) = task.await.unwrap();
        assert_eq!(ended, Err(Fault::Socks));
        // The request behind the greeting never left.
        assert_eq!(tally, Tally { received: 3, sent: 0 });
    }

    #[tokio::test]
    async fn a_protocol_that_only_looks_like_socks_goes_on() {
        let (mut visitor, mut upstream, _task) = joined(SocksWatch::default());
        visitor.write_all(&[5, 1, 0, 7, 7]).await.unwrap();
        upstream.write_all(b"hello").await.unwrap();
        let mut all = [0; 5];
        upstream.read_exact(&mut all).await.unwrap();
        assert_eq!(all, [5, 1, 0, 7, 7]);
    }

    /// A stream whose reads fail after their end, as those of a tunnel do when the channel is closed.
    struct Closing {
        stream: DuplexStream,
        ended: bool,
    }

    impl AsyncRead for Closing {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.ended {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            self.ended = buf.filled().len() == before;
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Closing {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn a_closed_channel_ends_the_upload_too() {
        let (_visitor, mut visitor_side) = duplex(1024);
        let (mut upstream, stream) = duplex(1024);
        upstream.shutdown().await.unwrap();
        let mut upstream_side = Closing { stream, ended: false };
        let mut tally = Tally::default();
        let ended = join(&mut visitor_side, &mut upstream_side, &mut tally, SocksWatch::default()).await;
        assert_eq!(ended, Ok(()));
    }

    /// An upstream that never stops, of a visit that is cut off.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let count = buf.remaining();
            buf.initialize_unfilled();
            buf.advance(count);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Endless {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::other(CutOff::Full)))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_visit_that_is_cut_off_ends_although_its_visitor_takes_nothing() {
        let (_visitor, mut visitor_side) = duplex(1024);
        let (mut upstream, mut tally) = (Endless, Tally::default());
        let joined = join(&mut visitor_side, &mut upstream, &mut tally, SocksWatch::default());
        let ended = tokio::time::timeout(Duration::from_secs(20), joined).await;
        assert_eq!(ended, Ok(Err(Fault::Spool(CutOff::Full))));
    }
}
