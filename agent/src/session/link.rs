//! The stream under an SSH connection: reads ahead, and can be ended at once from elsewhere, also while a write waits.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};

use crate::Stream;

pub(super) struct Link {
    stream: BufReader<Box<dyn Stream>>,
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
        (Self { stream: BufReader::with_capacity(READ_AHEAD, stream), fate: Arc::clone(&fate) }, Killer(fate))
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
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.fate.judge(&self.fate.reader, cx, read)
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.fate.judge(&self.fate.writer, cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.fate.judge(&self.fate.writer, cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.fate.judge(&self.fate.writer, cx, shut)
    }
}

/// russh reads four bytes of a packet and then the rest.
const READ_AHEAD: usize = 64 * 1024;
