//! WebSockets of visitors as byte streams (RFC 6455): binary messages in, binary messages out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Sink, SinkExt, Stream};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::socks::SocksWatch;
use super::tcp::{Tally, join};
use super::upgrade::Carried;
use crate::tunnel::TunnelStream;

/// A WebSocket that was promised to a visitor, and where its bytes go.
pub(super) struct Conversion {
    visitor_side: OnUpgrade,
    upstream: TunnelStream,
}

impl Conversion {
    pub(super) fn new(visitor_side: OnUpgrade, upstream: TunnelStream) -> Self {
        Self { visitor_side, upstream }
    }

    /// Carries bytes until both sides have ended it.
    pub(super) async fn carry(mut self, visit: impl Carried) {
        let (mut tally, mut cut_off) = (Tally::default(), None);
        match self.visitor_side.await {
            Ok(visitor) => {
                let mut messages = Messages::new(visitor).await;
                let left = messages.left.clone();
                let joined = join(&mut messages, &mut self.upstream, &mut tally, SocksWatch::default());
                let ended = tokio::select! {
                    ended = joined => ended,
                    // A close frame ends both directions, also where the upstream goes on after the end of its one.
                    () = after(&left) => Ok(()),
                };
                if let Err(fault) = ended {
                    cut_off = fault.cut_off();
                    tracing::debug!(?fault, "a converted websocket was cut");
                    messages.break_off().await;
                }
            }
            Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
        }
        visit.ended(tally.sent, cut_off);
    }
}

async fn after(left: &CancellationToken) {
    left.cancelled().await;
    sleep(FAREWELL).await;
}

/// Bytes of one message of a visitor, which is held here as a whole.
const MAX_MESSAGE: usize = 1 << 20;
/// Of one message to a visitor.
const CHUNK: usize = 32 << 10;
/// How long a visitor may take to hear why a WebSocket ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// A WebSocket as a byte stream. Its end is a close frame.
struct Messages {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    unread: Bytes,
    closed: bool,
    /// Cancelled when the visitor has closed it.
    left: CancellationToken,
}

impl Messages {
    async fn new(visitor: Upgraded) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE))
            .read_buffer_size(CHUNK)
            .write_buffer_size(0)
            .max_write_buffer_size(4 * CHUNK);
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(visitor), Role::Server, Some(config)).await;
        Self { socket, unread: Bytes::new(), closed: false, left: CancellationToken::new() }
    }

    /// Says that it did not end in order.
    async fn break_off(&mut self) {
        if !self.closed {
            let _ = timeout(FAREWELL, self.socket.send(close(CloseCode::Error))).await;
        }
    }

    /// Makes `unread` hold something; it stays empty at the end.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(data))) => self.unread = data,
                Some(Ok(Message::Text(_))) => {
                    self.refuse_text(cx);
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => {
                    self.closed = true;
                    self.left.cancel();
                    // The answer to a close frame goes with the next read, which will not be.
                    let _ = Pin::new(&mut self.socket).poll_flush(cx);
                    break;
                }
                Some(Err(error)) => {
                    self.closed = true;
                    match error {
                        Error::ConnectionClosed | Error::AlreadyClosed => break,
                        error => return Poll::Ready(Err(of_socket(error))),
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Tried once: whoever sends text may not read either.
    fn refuse_text(&mut self, cx: &mut Context<'_>) {
        self.closed = true;
        let mut socket = Pin::new(&mut self.socket);
        if socket.as_mut().start_send(close(CloseCode::Unsupported)).is_ok() {
            let _ = socket.poll_flush(cx);
        }
    }
}

fn close(code: CloseCode) -> Message {
    Message::Close(Some(CloseFrame { code, reason: "".into() }))
}

fn of_socket(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

impl AsyncRead for Messages {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_message(cx))?;
        let taken = self.unread.len().min(buf.remaining());
        buf.put_slice(self.unread.get(..taken).unwrap_or_default());
        self.unread.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Messages {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(of_socket)?;
        let taken = buf.len().min(CHUNK);
        let message = Message::Binary(Bytes::copy_from_slice(buf.get(..taken).unwrap_or_default()));
        Pin::new(&mut self.socket).start_send(message).map_err(of_socket)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(of_socket)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(of_socket)?;
            Pin::new(&mut self.socket).start_send(close(CloseCode::Normal)).map_err(of_socket)?;
            self.closed = true;
        }
        match ready!(Pin::new(&mut self.socket).poll_flush(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(of_socket(error))),
        }
    }
}
