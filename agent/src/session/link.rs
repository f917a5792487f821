//! The stream under an SSH connection: reads ahead, also while a write waits, and can be ended at once from elsewhere.
//!
//! russh reads nothing while it writes. Where the other side does the same, and much is under way in both directions, each
//! would wait for ever until the other reads.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::Stream;

pub(super) struct Link {
    stream: Box<dyn Stream>,
    /// What russh has not asked for yet.
    ahead: BytesMut,
    /// It takes more than one that is read only when asked for.
    has_grown: bool,
    /// How reading ended behind that.
    end: Option<io::Result<()>>,
    fate: Arc<Fate>,
}

/// Ends a [`Link`].
#[derive(Debug)]
pub(super) struct Killer(Arc<Fate>);

#[derive(Debug, Default)]
struct Fate {
    sealed: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Link {
    pub(super) fn new(stream: Box<dyn Stream>) -> (Self, Killer) {
        let fate = Arc::<Fate>::default();
        (
            Self { stream, ahead: BytesMut::new(), has_grown: false, end: None, fate: Arc::clone(&fate) },
            Killer(fate),
        )
    }

    /// Ready when there is something, or the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.ahead.reserve(READ_AHEAD);
        match ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.ahead)) {
            Ok(0) => self.end = Some(Ok(())),
            Ok(_) => {}
            Err(error) => self.end = Some(Err(error)),
        }
        Poll::Ready(())
    }

    /// A write waits: takes what comes meanwhile, so that the other side's write does not wait too.
    fn read_on(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none() && self.ahead.len() < MOST_AHEAD {
            if self.poll_fill(cx).is_pending() {
                break;
            }
        }
        self.has_grown |= self.ahead.len() > READ_AHEAD;
    }

    fn take(&mut self, buf: &mut ReadBuf<'_>) {
        let taken = self.ahead.len().min(buf.remaining());
        buf.put_slice(self.ahead.get(..taken).unwrap_or_default());
        self.ahead.advance(taken);
        if self.ahead.is_empty() && std::mem::take(&mut self.has_grown) {
            self.ahead = BytesMut::new();
        }
    }
}

impl Killer {
    pub(super) fn kill(&self) {
        self.0.sealed.store(true, Ordering::Release);
        self.0.reader.wake();
        self.0.writer.wake();
    }
}

impl Fate {
    /// Fails what waits once the link is killed.
    fn judge<T>(
        &self,
        waker: &AtomicWaker,
        cx: &Context<'_>,
        done: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if done.is_pending() {
            waker.register(cx.waker());
            if self.sealed.load(Ordering::Acquire) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
        done
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.fate.sealed.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if this.ahead.is_empty() && this.end.is_none() {
            let filled = this.poll_fill(cx).map(Ok);
            ready!(this.fate.judge(&this.fate.reader, cx, filled))?;
        }
        if this.ahead.is_empty() {
            // An error is told once, and is the end from then on.
            return Poll::Ready(this.end.replace(Ok(())).unwrap_or(Ok(())));
        }
        this.take(buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_pending() {
            self.read_on(cx);
        }
        self.fate.judge(&self.fate.writer, cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_pending() {
            self.read_on(cx);
        }
        self.fate.judge(&self.fate.writer, cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.fate.judge(&self.fate.writer, cx, shut)
    }
}

/// russh reads four bytes of a packet and then the rest.
const READ_AHEAD: usize = 64 * 1024;
/// Nothing more is read then: as much as the windows of 32 uploads together. Should both sides wait for each other all the
/// same, the heartbeat ends it.
const MOST_AHEAD: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const MUCH: usize = 1 << 20;

    #[tokio::test]
    async fn a_write_that_waits_for_who_writes_too_comes_to_its_end() {
        let (near, mut far) = duplex(1024);
        let (mut link, _killer) = Link::new(Box::new(near));
        let other = async {
            far.write_all(&[1; MUCH]).await.unwrap();
            let mut all = vec![0; MUCH];
            far.read_exact(&mut all).await.unwrap();
            drop(far);
        };
        let ours = async {
            link.write_all(&[2; MUCH]).await.unwrap();
            let mut all = Vec::new();
            link.read_to_end(&mut all).await.unwrap();
            assert!(all == [1; MUCH]);
        };
        let both = async { tokio::join!(other, ours) };
        tokio::time::timeout(std::time::Duration::from_secs(20), both).await.expect("neither waits for ever");
    }

    #[tokio::test]
    async fn what_came_before_the_end_is_read_before_it() {
        let (near, mut far) = duplex(1024);
        let (mut link, _killer) = Link::new(Box::new(near));
        let leaving = async {
            far.write_all(b"last words").await.unwrap();
            tokio::task::yield_now().await;
            drop(far);
        };
        let (written, ()) = tokio::join!(link.write_all(&[0; MUCH]), leaving);
        assert!(written.is_err());
        let mut said = String::new();
        link.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "last words");
    }
}
