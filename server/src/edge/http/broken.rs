//! The end of a connection whose response was broken off.
//!
//! A response of HTTP/1.0 may have no other end than that of its connection; an orderly end would make a broken one
//! look complete. Inside TLS the missing `close_notify` says the same.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use crate::proxy::activity::Activity;
use crate::proxy::tcp::Wire;
use crate::stall::StallGuard;
use crate::wrapped::write_through;

/// Is closed with a reset if a response was broken off.
pub(super) struct ResetIfBroken {
    stream: StallGuard<TcpStream>,
    activity: Arc<Activity>,
}

impl ResetIfBroken {
    pub(super) fn new(stream: StallGuard<TcpStream>, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl Drop for ResetIfBroken {
    fn drop(&mut self) {
        if self.activity.is_broken() {
            self.stream.reset_on_close();
        }
    }
}

impl AsyncRead for ResetIfBroken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

write_through!(ResetIfBroken);
