//! The TCP connection of a publisher as russh gets it: read in large pieces, and never stuck.
//!
//! russh awaits writes outside of its own select, where neither keepalive nor disconnect can reach them; so the
//! stream itself fails a write without progress, and ends at once when it is killed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::stall::StallGuard;

/// Signs of life of a client: any byte that arrives is one.
#[derive(Debug)]
pub(super) struct Pulse {
    asked: AtomicBool,
    heard: Notify,
    began: Instant,
    /// From the beginning to the last sign, in milliseconds.
    last: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            asked: AtomicBool::default(),
            heard: Notify::default(),
            began: Instant::now(),
            last: AtomicU64::default(),
        }
    }
}

impl Pulse {
    fn beat(&self) {
        let last = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(last, Ordering::Relaxed);
        if self.asked.swap(false, Ordering::Relaxed) {
            self.heard.notify_waiters();
        }
    }

    /// When the last byte arrived.
    pub(super) fn last_beat(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Whether a byte arrives within `limit` from now.
    pub(super) async fn beats_within(&self, limit: Duration) -> bool {
        let heard = self.heard.notified();
        self.asked.store(true, Ordering::Relaxed);
        timeout(limit, heard).await.is_ok()
    }
}

pub(super) struct Link {
    socket: StallGuard<TcpStream>,
    pulse: Arc<Pulse>,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Bytes of the version line that russh has yet to say, and that were said.
    said: usize,
    /// Reads after which the client's data is acknowledged at once.
    eager: u8,
    /// Read ahead of russh, which asks for four bytes and then for the rest of a packet. Freed when empty, so that
    /// an idle tunnel holds none.
    ahead: Vec<u8>,
    taken: usize,
    /// Whether the last read filled it.
    was_full: bool,
    /// Whether the last write had to wait.
    was_blocked: bool,
}

impl Link {
    pub(super) fn new(socket: TcpStream, pulse: Arc<Pulse>, kill: &CancellationToken) -> Self {
        Self {
            socket: StallGuard::new(socket, WRITE_STALL),
            pulse,
            killed: Box::pin(kill.clone().cancelled_owned()),
            said: 0,
            eager: EAGER_READS,
            ahead: Vec::new(),
            taken: 0,
            was_full: false,
            was_blocked: false,
        }
    }

    /// The client's Nagle algorithm holds the second half of its key exchange back until the first is acknowledged,
    /// which the system does 40 ms later. It leaves this mode by itself, so it is asked again after each read.
    fn acknowledge(&mut self) {
        if self.eager > 0 {
            self.eager -= 1;
            #[cfg(target_os = "linux")]
            let _ = socket2::SockRef::from(self.socket.get_ref()).set_tcp_quickack(true);
        }
    }

    /// Says the version line (RFC 4253 §4.2) in russh's place, whose own is then kept back: many clients send nothing
    /// but theirs until they have read it.
    pub(super) async fn greet(&mut self, version: &str) -> io::Result<()> {
        let line = format!("{version}\r\n");
        self.socket.write_all(line.as_bytes()).await?;
        self.said = line.len();
        Ok(())
    }

    /// Reads until `find` finds something in what the client has sent since its begin, without taking it from russh.
    /// `None` if it does not come in time, or not within `bound` bytes.
    pub(super) async fn peek<T>(
        &mut self,
        bound: usize,
        find: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let mut seen = Vec::new();
        let reading = async {
            loop {
                if let Some(found) = find(&seen) {
                    return Ok(Some(found));
                }
                if seen.len() >= bound {
                    return Ok(None);
                }
                if self.read_buf(&mut seen).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
            }
        };
        let found = timeout(PEEK_WAIT, reading).await.unwrap_or(Ok(None))?;
        let unread = self.ahead.split_off(self.taken);
        seen.extend(unread);
        (self.ahead, self.taken) = (seen, 0);
        Ok(found)
    }

    fn poll_killed(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.killed.poll_unpin(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }

    fn take_ahead(&mut self, buf: &mut ReadBuf<'_>) {
        let waiting = self.ahead.get(self.taken..).unwrap_or_default();
        let taken = waiting.len().min(buf.remaining());
        buf.put_slice(waiting.get(..taken).unwrap_or_default());
        self.taken += taken;
    }

    /// Fills the read-ahead with what the socket has; an empty result is the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.taken = 0;
        self.ahead.clear();
        loop {
            if self.socket.get_ref().poll_read_ready(cx)?.is_pending() {
                self.ahead = Vec::new();
                self.was_full = false;
                return Poll::Pending;
            }
            // What filled the buffer is followed by more.
            self.ahead.reserve_exact(if self.was_full { READ_AHEAD } else { FIRST_READ });
            match self.socket.get_ref().try_read_buf(&mut self.ahead) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    self.was_full = self.ahead.len() == self.ahead.capacity();
                    return Poll::Ready(read.map(|_| ()));
                }
            }
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_killed(cx)?;
        if self.taken >= self.ahead.len() {
            ready!(self.poll_fill(cx))?;
            self.acknowledge();
            self.pulse.beat();
        }
        self.take_ahead(buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_killed(cx)?;
        if self.said > 0 {
            let kept_back = self.said.min(buf.len());
            self.said -= kept_back;
            return Poll::Ready(Ok(kept_back));
        }
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        // russh reads nothing while it waits here. A client that makes room is there, too.
        if std::mem::replace(&mut self.was_blocked, written.is_pending())
            && matches!(written, Poll::Ready(Ok(_)))
        {
            self.pulse.beat();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_killed(cx)?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A client whose network takes nothing for this long is dead.
pub(super) const WRITE_STALL: Duration = Duration::from_secs(15);
/// russh reads each packet in two steps; 64 KiB at a time saves a quarter of the CPU of bulk transfers.
const READ_AHEAD: usize = 64 * 1024;
/// The first read after a wait: enough for a key exchange, or for some small answers.
const FIRST_READ: usize = 8 * 1024;
/// Key exchange, login, forwards and the first channel take about a dozen.
const EAGER_READS: u8 = 24;
/// For a client that waits for more than our version line.
const PEEK_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_is_peeked_is_still_there_for_russh() {
        let (mut client, server) = pair().await;
        client.write_all(b"SSH-2.0-dropbear_2022.83\r\nKEXINIT").await.unwrap();
        let mut link = Link::new(server, Arc::default(), &CancellationToken::new());
        assert_eq!(link.peek(255, |seen| seen.iter().position(|b| *b == b'\n')).await.unwrap(), Some(25));
        assert_eq!(link.peek(255, |seen| seen.ends_with(b"INIT").then_some(())).await.unwrap(), Some(()));
        let mut all = [0; 33];
        link.read_exact(&mut all).await.unwrap();
        assert_eq!(&all, b"SSH-2.0-dropbear_2022.83\r\nKEXINIT");
    }

    #[tokio::test]
    async fn the_version_line_is_said_once() {
        let (mut client, server) = pair().await;
        let mut link = Link::new(server, Arc::default(), &CancellationToken::new());
        link.greet("SSH-2.0-ours").await.unwrap();
        link.write_all(b"SSH-2.0-ours\r\nKEXINIT").await.unwrap();
        drop(link);
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "SSH-2.0-ours\r\nKEXINIT");
    }

    #[tokio::test]
    async fn a_killed_link_fails_a_read_that_waits() {
        let (_client, server) = pair().await;
        let kill = CancellationToken::new();
        let mut link = Link::new(server, Arc::default(), &kill);
        let mut byte = [0];
        let (read, ()) = tokio::join!(link.read(&mut byte), async { kill.cancel() });
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn any_byte_answers_the_question_whether_the_client_lives() {
        let (mut client, server) = pair().await;
        let pulse = Arc::new(Pulse::default());
        let mut link = Link::new(server, Arc::clone(&pulse), &CancellationToken::new());
        let mut byte = [0];
        let (alive, _, _) = tokio::join!(
            pulse.beats_within(Duration::from_secs(10)),
            client.write_all(b"x"),
            link.read(&mut byte)
        );
        assert!(alive);
    }
}
