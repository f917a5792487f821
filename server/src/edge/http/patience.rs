//! How long a visitor may take over the head of a request.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::proxy::activity::Activity;

/// Fails reading with [`io::ErrorKind::TimedOut`] when the head of a request takes too long.
///
/// The clock runs from the first byte that is read while no request is under way, or from the begin of the
/// connection, until one is; between requests it stands still. A head that comes in one piece never starts it.
pub(super) struct Patience<S> {
    stream: S,
    activity: Arc<Activity>,
    /// To the first byte of a connection, and from the first to the last byte of the head of a request.
    limit: Duration,
    /// Whether a part of a head may have come.
    begun: bool,
    /// Requests whose heads were whole.
    heads: u64,
    clock: Option<Pin<Box<Sleep>>>,
    /// Read already, but not by whoever reads requests.
    ahead: Vec<u8>,
}

impl<S> Patience<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        activity.bound_unsent();
        let limit = activity.place.limits().head;
        Self { stream, activity, limit, begun: true, heads: 0, clock: None, ahead: Vec::new() }
    }

    /// What is below.
    pub(super) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Lets `bytes` be read again, before anything else.
    pub(super) fn give_back(&mut self, bytes: &[u8]) {
        self.ahead.splice(..0, bytes.iter().copied());
    }

    /// What was read before the last request began was its head, and is no part of the next one.
    fn note_heads(&mut self) {
        let heads = self.activity.begun();
        if self.heads != heads {
            self.heads = heads;
            self.begun = false;
            self.clock = None;
        }
    }

    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.begun {
            return Poll::Pending;
        }
        let limit = self.limit;
        let clock = self.clock.get_or_insert_with(|| Box::pin(sleep(limit)));
        clock
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "a request took too long")))
    }
}

impl<S: AsyncRead + Unpin> Patience<S> {
    /// Waits without a buffer for the first bytes of a request. `false` if the visitor has left.
    pub(super) async fn wait_for_request(&mut self) -> bool {
        if !self.ahead.is_empty() {
            return true;
        }
        let mut first = [0; 16];
        match self.stream.read(&mut first).await {
            Ok(count) => {
                self.ahead = first.get(..count).unwrap_or_default().to_vec();
                count > 0
            }
            Err(_) => false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.note_heads();
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(buf.remaining());
            buf.put_slice(self.ahead.get(..count).unwrap_or_default());
            self.ahead.drain(..count);
            self.begun |= self.activity.is_idle();
            self.activity.note_read();
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(read) => {
                self.begun |= self.activity.is_idle();
                self.activity.note_read();
                Poll::Ready(read)
            }
            Poll::Pending => self.poll_clock(cx),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.activity.note_written(false);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.activity.note_written(false);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.activity.note_written(true);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
