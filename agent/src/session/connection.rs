//! One visit: a connection from a visitor, as it comes out of the tunnel.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use russh::ChannelWriteHalf;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::client::Shared;
use super::inbox::{Inbox, Taken};

/// A visitor's connection. Reading ends where the visitor has sent all; writing after a `shutdown` is an error.
/// Dropping it closes it.
pub struct Connection {
    visitor: SocketAddr,
    inbox: Arc<Inbox>,
    control: Arc<ChannelWriteHalf<Msg>>,
    shared: Arc<Shared>,
    /// What was taken and not yet read.
    rest: Bytes,
    sending: Option<BoxFuture<'static, Result<(), russh::Error>>>,
    shut: bool,
    gone: bool,
}

impl Connection {
    pub(super) fn new(
        inbox: Arc<Inbox>,
        control: Arc<ChannelWriteHalf<Msg>>,
        shared: Arc<Shared>,
        visitor: SocketAddr,
    ) -> Self {
        Self { visitor, inbox, control, shared, rest: Bytes::new(), sending: None, shut: false, gone: false }
    }

    /// Where the visitor comes from. Unspecified if the server did not say.
    pub fn visitor(&self) -> SocketAddr {
        self.visitor
    }

    pub(super) fn parts(&self) -> (Arc<Inbox>, Arc<ChannelWriteHalf<Msg>>, Arc<Shared>) {
        (Arc::clone(&self.inbox), Arc::clone(&self.control), Arc::clone(&self.shared))
    }

    /// The server never knew it.
    pub(super) fn forget(mut self) {
        self.gone = true;
        self.shared.leave(self.control.id(), false);
    }

    /// Whoever relays it says EOF itself.
    pub(super) fn was_shut(&mut self) {
        self.shut = true;
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let sent = match sending.poll_unpin(cx) {
            Poll::Ready(sent) => sent.map_err(|_| io::ErrorKind::BrokenPipe.into()),
            // A writer of a channel that the server has closed would wait for ever.
            Poll::Pending => {
                ready!(self.inbox.poll_closed(cx));
                Err(io::ErrorKind::ConnectionReset.into())
            }
        };
        self.sending = None;
        Poll::Ready(sent)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("visitor", &self.visitor).finish_non_exhaustive()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            match ready!(this.inbox.poll_take(cx)) {
                Taken::Data(data) => this.rest = data,
                Taken::Finished => return Poll::Ready(Ok(())),
                Taken::Closed => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
        let taken = this.rest.len().min(buf.remaining());
        buf.put_slice(this.rest.get(..taken).unwrap_or_default());
        this.rest.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_sent(cx))?;
        if this.shut || ready!(this.inbox.poll_wanted(cx)) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let data = Bytes::copy_from_slice(buf.get(..buf.len().min(PACKET)).unwrap_or_default());
        let length = data.len();
        if length > 0 {
            this.shared.moved(length);
            let control = Arc::clone(&this.control);
            this.sending = Some(Box::pin(async move { control.data_bytes(data).await }));
            // What does not go at once goes when it is flushed, or before the next write.
            if let Poll::Ready(Err(error)) = this.poll_sent(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_sent(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_sent(cx))?;
        if !std::mem::replace(&mut this.shut, true) {
            let control = Arc::clone(&this.control);
            this.sending = Some(Box::pin(async move { control.eof().await }));
        }
        this.poll_sent(cx)
    }
}

impl Drop for Connection {
    /// As OpenSSH does: EOF, and CLOSE once there is nothing more to say. Whether visitors got all, the server tells
    /// from an EOF before it.
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        let (inbox, control, shared) = self.parts();
        let sending = self.sending.take();
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            if let Some(sending) = sending {
                let closed = poll_fn(|cx| inbox.poll_closed(cx));
                let _ = timeout(LINGER, futures_util::future::select(sending, closed)).await;
            }
            let by_us = !inbox.is_closed();
            if by_us {
                let _ = timeout(LINGER, control.close()).await;
            }
            inbox.end();
            shared.leave(control.id(), by_us);
        });
    }
}

/// What OpenSSH puts into one message.
pub(super) const PACKET: usize = 32 * 1024;
/// For the last bytes of a connection that was dropped with some under way.
const LINGER: Duration = Duration::from_secs(10);
