//! What goes to the client on one channel.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use russh::ChannelWriteHalf;
use russh::server::Msg;

/// The sending side of a channel: one packet under way, the window of the client observed by russh.
pub(super) struct Writer {
    control: Arc<ChannelWriteHalf<Msg>>,
    sending: Option<BoxFuture<'static, Result<(), russh::Error>>>,
    shut: bool,
}

impl Writer {
    pub(super) fn new(control: Arc<ChannelWriteHalf<Msg>>) -> Self {
        Self { control, sending: None, shut: false }
    }

    pub(super) fn is_shut(&self) -> bool {
        self.shut
    }

    /// Ready when nothing is under way.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let sent = ready!(sending.poll_unpin(cx));
        self.sending = None;
        Poll::Ready(sent.map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }

    /// Takes one packet, and sends it as soon as the client's window and the session's queue have room.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_ready(cx))?;
        let data = gather(bufs);
        let length = data.len();
        if length > 0 {
            let control = Arc::clone(&self.control);
            self.sending = Some(Box::pin(async move { control.data_bytes(data).await }));
            // What does not go at once goes when the stream is flushed, or before the next write.
            if let Poll::Ready(Err(error)) = self.poll_ready(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(length))
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(cx))?;
        if !std::mem::replace(&mut self.shut, true) {
            let control = Arc::clone(&self.control);
            self.sending = Some(Box::pin(async move { control.eof().await }));
        }
        self.poll_ready(cx)
    }
}

/// One packet out of several pieces: the only copy on the way up.
fn gather(bufs: &[IoSlice<'_>]) -> Bytes {
    let length = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(PACKET);
    let mut data = Vec::with_capacity(length);
    for buf in bufs {
        let room = length - data.len();
        data.extend_from_slice(buf.get(..room.min(buf.len())).unwrap_or_default());
    }
    data.into()
}

/// What OpenSSH accepts in one data message.
pub(super) const PACKET: usize = 32 * 1024;
