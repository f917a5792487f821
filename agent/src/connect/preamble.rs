//! What a server says before its version line (RFC 4253 §4.2): servers that turn somebody away say why there, in plain
//! text, and russh passes over it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hithe_cli_parser::printable;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Stream;

/// Bytes that are kept.
const MOST: usize = 1024;

/// The first bytes of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Preamble(Arc<Mutex<Vec<u8>>>);

impl Preamble {
    /// Notes what comes first, and changes nothing.
    pub(super) fn listen(&self, stream: Box<dyn Stream>) -> impl Stream + use<> {
        Listening { stream, preamble: self.clone(), over: false }
    }

    /// The lines before the version, or all if there is none.
    pub(super) fn said(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("SSH-"));
        lines.filter(|line| !line.is_empty()).map(|line| printable(line).into_owned()).collect()
    }

    /// Whether more is of interest.
    fn note(&self, bytes: &[u8]) -> bool {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST - noted.len().min(MOST);
        noted.extend(bytes.iter().take(room));
        noted.len() < MOST && !noted.starts_with(b"SSH-") && !noted.windows(5).any(|line| line == b"\nSSH-")
    }
}

struct Listening {
    stream: Box<dyn Stream>,
    preamble: Preamble,
    over: bool,
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if !self.over {
            self.over = !self.preamble.note(buffer.filled().get(before..).unwrap_or_default());
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
