//! The beginning of a connection. What a server says before its version line (RFC 4253 §4.2) is kept: servers that turn
//! somebody away say why there, in plain text, and russh passes over it. Until the key exchange is done, the connection
//! can be cut.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hithe_cli_parser::printable;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use crate::Stream;

/// Bytes that are kept.
const MOST: usize = 1024;

/// The first bytes of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Preamble {
    said: Arc<Mutex<Vec<u8>>>,
    is_over: Arc<AtomicBool>,
    hung_up: CancellationToken,
}

impl Preamble {
    /// Notes what comes first, and changes nothing.
    pub(super) fn listen(&self, stream: Box<dyn Stream>) -> impl Stream + use<> {
        let hung_up = Box::pin(self.hung_up.clone().cancelled_owned());
        Listening { stream, preamble: self.clone(), noted: false, hung_up: Some(hung_up) }
    }

    /// Cuts the connection when what this gives is dropped.
    pub(super) fn hang_up_on_drop(&self) -> DropGuard {
        self.hung_up.clone().drop_guard()
    }

    /// From now on the connection is left alone.
    pub(super) fn is_over(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// The lines before the version, or all if there is none.
    pub(super) fn said(&self) -> Vec<String> {
        let bytes = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("SSH-"));
        lines.filter(|line| !line.is_empty()).map(|line| printable(line).into_owned()).collect()
    }

    /// Whether more is of interest.
    fn note(&self, bytes: &[u8]) -> bool {
        let mut noted = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST - noted.len().min(MOST);
        noted.extend(bytes.iter().take(room));
        noted.len() < MOST && !noted.starts_with(b"SSH-") && !noted.windows(5).any(|line| line == b"\nSSH-")
    }
}

struct Listening {
    stream: Box<dyn Stream>,
    preamble: Preamble,
    /// Nothing more is kept.
    noted: bool,
    hung_up: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Listening {
    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        if self.hung_up.is_some() && self.preamble.is_over.load(Ordering::Relaxed) {
            self.hung_up = None;
        }
        self.hung_up.as_mut().is_some_and(|hung_up| hung_up.as_mut().poll(cx).is_ready())
    }
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if !self.noted {
            self.noted = !self.preamble.note(buffer.filled().get(before..).unwrap_or_default());
        }
        read
    }
}

impl AsyncWrite for Listening {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
