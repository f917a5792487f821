//! The wish to end: the first asks for an orderly end, the second for an end at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Who may ask the server to end.
#[derive(Debug)]
pub struct Shutdown {
    asked: CancellationToken,
    signals: Option<[tokio::sync::Mutex<Signal>; 2]>,
}

impl Shutdown {
    /// SIGTERM and SIGINT.
    ///
    /// # Errors
    /// The operating system refuses the handler.
    pub fn on_signals() -> io::Result<Self> {
        let listen = |kind| signal(kind).map(tokio::sync::Mutex::new);
        let signals = [listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?];
        Ok(Self { asked: CancellationToken::new(), signals: Some(signals) })
    }

    /// When `token` is cancelled; signals are somebody else's.
    pub fn when(token: CancellationToken) -> Self {
        Self { asked: token, signals: None }
    }

    /// Resolves at the first wish.
    pub(super) async fn begun(&self) {
        self.next().await;
        self.asked.cancel();
    }

    /// Resolves at the second wish.
    pub(super) async fn hurried(&self) {
        match self.signals {
            Some(_) => self.signal().await,
            None => std::future::pending().await,
        }
    }

    async fn next(&self) {
        tokio::select! {
            () = self.asked.cancelled() => {}
            () = self.signal() => {}
        }
    }

    async fn signal(&self) {
        let Some([terminate, interrupt]) = &self.signals else { return std::future::pending().await };
        let (mut terminate, mut interrupt) = (terminate.lock().await, interrupt.lock().await);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
