//! One visit: a connection from a visitor, as it comes out of the tunnel.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, select};
use russh::ChannelWriteHalf;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::client::Shared;
use super::inbox::{Inbox, Taken};

/// A visitor's connection. Reading ends where the visitor has sent all; writing after a `shutdown` is an error.
/// Dropping it closes it, as a socket: what was written still arrives.
pub struct Connection {
    visitor: SocketAddr,
    inbox: Arc<Inbox>,
    control: Arc<ChannelWriteHalf<Msg>>,
    shared: Arc<Shared>,
    /// What was taken and not yet read.
    rest: Bytes,
    /// What russh had no room for at once: a task sends it, whether we are asked again or not, for whoever waits for a
    /// place in russh's queue may be given one.
    sending: Option<oneshot::Receiver<Result<(), russh::Error>>>,
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

    /// Begins to send something.
    fn send(
        &mut self,
        mut message: BoxFuture<'static, Result<(), russh::Error>>,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        match message.poll_unpin(cx) {
            Poll::Ready(sent) => return sent.map_err(|_| io::ErrorKind::BrokenPipe.into()),
            Poll::Pending => {}
        }
        let (tell, told) = oneshot::channel();
        let inbox = Arc::clone(&self.inbox);
        self.shared.tasks.spawn(async move {
            // On a channel that the server has closed it would wait for ever.
            let closed = poll_fn(|cx| inbox.poll_closed_for_sender(cx));
            if let Either::Left((sent, _)) = select(message, pin!(closed)).await {
                let _ = tell.send(sent);
            }
        });
        self.sending = Some(told);
        Ok(())
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let sent = ready!(sending.poll_unpin(cx));
        self.sending = None;
        Poll::Ready(match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
        })
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
            this.send(Box::pin(async move { control.data_bytes(data).await }), cx)?;
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
            this.send(Box::pin(async move { control.eof().await }), cx)?;
        }
        this.poll_sent(cx)
    }
}

impl Drop for Connection {
    /// As with a socket, what was written arrives, and then comes the end: EOF and CLOSE. Where it broke off, CLOSE alone.
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        let (inbox, control, shared) = self.parts();
        let (sending, shut) = (self.sending.take(), self.shut);
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            if let Some(sending) = sending {
                let _ = timeout(LINGER, sending).await;
            }
            let by_us = !inbox.is_closed();
            if by_us && !shut && !inbox.is_broken() {
                let _ = timeout(LINGER, control.eof()).await;
            }
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
