//! How an endpoint is asked to end: in order, and then at once.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Two steps of one end. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    asked: CancellationToken,
    cut: CancellationToken,
}

impl Stop {
    /// One that ends with this one, and may end before it.
    pub(crate) fn child(&self) -> Self {
        Self { asked: self.asked.child_token(), cut: self.cut.child_token() }
    }

    /// No new visits; running ones have time.
    pub(crate) fn ask(&self) {
        self.asked.cancel();
    }

    /// Running visits are cut.
    pub(crate) fn cut(&self) {
        self.asked.cancel();
        self.cut.cancel();
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    /// Waits until no new visits are wanted.
    pub(super) async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Waits until running visits have had their time.
    pub(super) async fn time_is_over(&self) {
        self.asked.cancelled().await;
        tokio::select! {
            () = sleep(FINISH) => {}
            () = self.cut.cancelled() => {}
        }
    }

    /// Cuts when it is dropped.
    pub(crate) fn cut_on_drop(&self) -> impl Drop + use<> {
        self.cut.clone().drop_guard()
    }
}

/// Asks when it is dropped.
#[derive(Debug)]
pub(crate) struct AskOnDrop(pub(crate) Stop);

impl Drop for AskOnDrop {
    fn drop(&mut self) {
        self.0.ask();
    }
}

/// For visits that run when the endpoint is to end.
pub(crate) const FINISH: Duration = Duration::from_secs(10);
