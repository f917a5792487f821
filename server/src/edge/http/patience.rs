//! How long a visitor may take over the head of a request.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::proxy::activity::Activity;
use crate::wrapped::write_through;

/// To the first byte of a connection, and from the first to the last byte of the head of a request.
const HEAD: Duration = Duration::from_secs(30);

/// Fails reading with [`io::ErrorKind::TimedOut`] when the head of a request takes too long.
///
/// The clock runs from the first byte that is read while no request is under way, or from the begin of the
/// connection, until one is; between requests it stands still. A head that comes in one piece never starts it.
pub(super) struct Patience<S> {
    stream: S,
    activity: Arc<Activity>,
    /// Whether a part of a head may have come.
    begun: bool,
    /// Requests whose heads were whole.
    heads: u64,
    clock: Option<Pin<Box<Sleep>>>,
}

impl<S> Patience<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, begun: true, heads: 0, clock: None }
    }

    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let heads = self.activity.begun();
        if self.heads != heads {
            self.heads = heads;
            self.begun = false;
            self.clock = None;
        }
        if !self.begun {
            return Poll::Pending;
        }
        let clock = self.clock.get_or_insert_with(|| Box::pin(sleep(HEAD)));
        clock
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "a request took too long")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(read) => {
                self.begun |= self.activity.is_idle();
                Poll::Ready(read)
            }
            Poll::Pending => self.poll_clock(cx),
        }
    }
}

write_through!(Patience<S>);
