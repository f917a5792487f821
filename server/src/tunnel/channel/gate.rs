//! Where a client of ours holds up what goes to it on one channel: its upstream does not take it.
//!
//! The window of SSH (RFC 4254 §5.2) would say the same, but belongs to the client's library, which opens it as soon as
//! bytes arrive.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use russh::Sig;

/// Open until the client says otherwise.
#[derive(Debug, Default)]
pub(super) struct Gate {
    shut: AtomicBool,
    /// Who waits for it to open.
    writer: AtomicWaker,
}

impl Gate {
    /// Takes a signal that came on the channel (RFC 4254 §6.9). Most have nothing to do with this.
    pub(super) fn hear(&self, signal: &Sig) {
        match signal {
            Sig::Custom(name) if name == PAUSE => self.shut.store(true, Ordering::Release),
            Sig::Custom(name) if name == GO_ON => {
                self.shut.store(false, Ordering::Release);
                self.writer.wake();
            }
            _ => {}
        }
    }

    /// Ready while it is open.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.shut.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.writer.register(cx.waker());
        // It may have opened just before that.
        if self.shut.load(Ordering::Acquire) { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// Names of our own have the form `name@domain`.
const PAUSE: &str = "XOFF@hithe";
const GO_ON: &str = "XON@hithe";
