//! The streams of an HTTP/2 connection: each has an owner, and ends when its visitor takes nothing.
//!
//! On HTTP/1 a visitor that takes nothing blocks its socket. A stream can be blocked alone, by its own window, while
//! the socket is well; its response would then wait in the tunnel for ever.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::body::Progress;
use crate::drain::DrainWatch;

/// Gives the streams of a connection to the owner of all visits.
#[derive(Clone)]
pub(super) struct Spawner {
    pub(super) tasks: DrainWatch,
    /// How long a stream may wait for its visitor.
    pub(super) stall: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, stream: F) {
        let limit = self.stall;
        self.tasks.spawn(async move {
            let progress = Arc::new(Progress::default());
            tokio::select! {
                // hyper resets a stream that is dropped.
                () = stalled(&progress, limit) => {}
                () = Progress::of_task(Arc::clone(&progress), stream) => {}
            }
        });
    }
}

/// Resolves after once to twice the limit without progress, for one timer and no work in between. Says so to the
/// response before that: `select!` drops the stream, and with it what tells of the visit, before it goes on.
async fn stalled(progress: &Progress, limit: Duration) {
    let mut seen = progress.seen();
    loop {
        sleep(limit).await;
        let now = progress.seen();
        if now == seen && progress.waits_for_visitor() {
            progress.cut();
            return;
        }
        seen = now;
    }
}
