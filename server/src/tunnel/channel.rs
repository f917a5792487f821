//! Streams to the upstream over SSH: one `forwarded-tcpip` channel each (RFC 4254 §7.2).

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hithe_cli_parser::Bind;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{Dial, DialError, TunnelStream};
use crate::drain::DrainWatch;
use crate::visit::Visitor;

/// Opens channels for one forward of one session.
pub(crate) struct ChannelDialer {
    pub(crate) handle: Handle,
    /// Exactly what the client asked for: it compares address and number byte for byte.
    pub(crate) asked: Bind,
    /// Bounds the opens in flight of the whole session.
    pub(crate) opens: Arc<Semaphore>,
    /// Owns the tasks that wait for the client's answer.
    pub(crate) tasks: DrainWatch,
    /// Cancelled when the publisher ends the forward and its visits with it.
    pub(crate) cut: CancellationToken,
}

impl Dial for ChannelDialer {
    fn dial(&self, visitor: Visitor) -> BoxFuture<'_, Result<TunnelStream, DialError>> {
        Box::pin(async move {
            if self.cut.is_cancelled() {
                return Err(DialError::Gone);
            }
            let permit = self.permit().await?;
            let opened = self.open(visitor, permit).await.map_err(|_| DialError::Gone)?;
            let channel = opened.map_err(|error| reason(&error))?;
            Ok(Box::new(ChannelStream::new(channel, self)) as TunnelStream)
        })
    }
}

impl ChannelDialer {
    async fn permit(&self) -> Result<OwnedSemaphorePermit, DialError> {
        let permit = timeout(OPEN_QUEUE_TIMEOUT, Arc::clone(&self.opens).acquire_owned()).await;
        permit.map_err(|_| DialError::Busy)?.map_err(|_| DialError::Gone)
    }

    /// A channel open is never cancelled: russh ends the whole session when a client refuses an open that nobody
    /// waits for, and leaks one that it accepts. So the open runs in a task of its own, which closes a late channel.
    fn open(
        &self,
        visitor: Visitor,
        permit: OwnedSemaphorePermit,
    ) -> oneshot::Receiver<Result<Channel<Msg>, russh::Error>> {
        let (answer, opened) = oneshot::channel();
        let (handle, asked) = (self.handle.clone(), self.asked.clone());
        self.tasks.spawn(async move {
            let from = visitor.socket_addr();
            let (address, port) = (from.ip().to_string(), u32::from(from.port()));
            let result = handle.channel_open_forwarded_tcpip(asked.address, asked.port, address, port).await;
            drop(permit);
            if let Err(Ok(late)) = answer.send(result) {
                let _ = late.close().await;
            }
        });
        opened
    }
}

fn reason(error: &russh::Error) -> DialError {
    match error {
        russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited) => {
            DialError::Prohibited
        }
        russh::Error::ChannelOpenFailure(_) => DialError::Refused,
        _ => DialError::Gone,
    }
}

/// A channel as a byte stream.
///
/// Unlike russh's own, it tells a half-close (EOF) from a reset (CLOSE alone), and fails writers of a channel that
/// the client has closed, which would otherwise wait for a window that never comes.
struct ChannelStream {
    reader: ChannelReadHalf,
    writer: Pin<Box<dyn AsyncWrite + Send>>,
    control: Option<ChannelWriteHalf<Msg>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    tasks: DrainWatch,
    /// What was received and not yet read.
    rest: Bytes,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The client sent EOF; it still takes data.
    HalfClosed,
    /// The reader has been told. What it waits for now is the CLOSE, which ends its writer.
    HalfClosedTold,
    Closed,
}

impl ChannelStream {
    fn new(channel: Channel<Msg>, dialer: &ChannelDialer) -> Self {
        let (reader, control) = channel.split();
        Self {
            reader,
            writer: Box::pin(control.make_writer()),
            control: Some(control),
            cut: Box::pin(dialer.cut.clone().cancelled_owned()),
            tasks: dialer.tasks.clone(),
            rest: Bytes::new(),
            state: State::Open,
        }
    }

    /// Waits for the next piece of data, or for the end of one or both directions.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.cut.poll_unpin(cx).is_ready() {
                self.state = State::Closed;
                return Poll::Ready(());
            }
            match ready!(pin!(self.reader.wait()).poll(cx)) {
                Some(ChannelMsg::Data { data }) if !data.is_empty() => self.rest = data,
                Some(ChannelMsg::Eof) => self.state = State::HalfClosed,
                Some(ChannelMsg::Close) | None => self.state = State::Closed,
                Some(_) => continue,
            }
            return Poll::Ready(());
        }
    }

    /// Notices a CLOSE while a write waits. Data is never taken here: it belongs to the reader.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> bool {
        if matches!(self.state, State::HalfClosed | State::HalfClosedTold) {
            let _ = self.poll_message(cx);
        }
        self.state == State::Closed
    }

    fn write_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut (dyn AsyncWrite + Send)>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.state == State::Closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = write(self.writer.as_mut(), cx);
        if written.is_pending() && self.poll_closed(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        written
    }
}

impl AsyncRead for ChannelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match self.state {
                State::Open | State::HalfClosedTold => {}
                State::HalfClosed => {
                    self.state = State::HalfClosedTold;
                    return Poll::Ready(Ok(()));
                }
                State::Closed => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
            ready!(self.poll_message(cx));
            if self.rest.is_empty() {
                return self.poll_read(cx, buf);
            }
        }
        let taken = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(taken));
        if !self.rest.has_remaining() {
            self.rest = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ChannelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.write_with(cx, |writer, cx| writer.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write_with(cx, |writer, cx| writer.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write_with(cx, |writer, cx| writer.poll_shutdown(cx))
    }
}

impl Drop for ChannelStream {
    fn drop(&mut self) {
        let Some(control) = self.control.take() else { return };
        // Usually the session's queue has room and no task is needed.
        if control.close().now_or_never().is_none() {
            self.tasks.spawn(async move {
                let _ = control.close().await;
            });
        }
    }
}

/// How long a visit waits for its turn when a session has too many opens in flight.
const OPEN_QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// Opens in flight of one session.
pub(crate) const MAX_OPENS: usize = 128;
