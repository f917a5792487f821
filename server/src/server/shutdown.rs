//! What is asked of a running server from outside: to read its files again, to end in order, to end at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Who may ask the server to end.
#[derive(Debug)]
pub struct Shutdown {
    asked: CancellationToken,
    hurry: CancellationToken,
    signals: Option<Signals>,
}

#[derive(Debug)]
struct Signals {
    terminate: Mutex<Signal>,
    interrupt: Mutex<Signal>,
    hangup: Mutex<Signal>,
}

impl Shutdown {
    /// SIGTERM and SIGINT; and SIGHUP, which asks for something else.
    ///
    /// # Errors
    /// The operating system refuses the handler.
    pub fn on_signals() -> io::Result<Self> {
        let listen = |kind| signal(kind).map(Mutex::new);
        let signals = Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        };
        Ok(Self { signals: Some(signals), ..Self::when(CancellationToken::new()) })
    }

    /// When `token` is cancelled; signals are somebody else's.
    pub fn when(token: CancellationToken) -> Self {
        Self { asked: token, hurry: CancellationToken::new(), signals: None }
    }

    /// Resolves at the first wish to end.
    pub(super) async fn begun(&self) {
        tokio::select! {
            () = self.asked.cancelled() => {}
            () = self.signal() => self.asked.cancel(),
        }
    }

    /// Resolves at the second wish, and from then on at once: nothing is waited for any more.
    pub(super) async fn hurried(&self) {
        tokio::select! {
            () = self.hurry.cancelled() => {}
            () = self.signal() => self.hurry.cancel(),
        }
    }

    /// Resolves when the files are to be read again.
    pub(super) async fn reload(&self) {
        let Some(signals) = &self.signals else { return std::future::pending().await };
        signals.hangup.lock().await.recv().await;
    }

    async fn signal(&self) {
        let Some(signals) = &self.signals else { return std::future::pending().await };
        let (mut terminate, mut interrupt) = (signals.terminate.lock().await, signals.interrupt.lock().await);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
