//! An orderly end: tasks are asked to finish, then cut when the grace is over.
//!
//! Every task of the server is spawned through a [`DrainWatch`], so that none is without an owner.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Ends the tasks that were spawned through its watches. Not `Clone`: there is one who ends things.
#[derive(Debug)]
pub struct Drain(DrainWatch);

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every task finished by itself.
    Drained,
    /// The grace was over and this many tasks were cut.
    Cut(usize),
}

impl Drain {
    pub fn new() -> (Self, DrainWatch) {
        let watch = DrainWatch {
            draining: CancellationToken::new(),
            killed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        (Self(watch.clone()), watch)
    }

    /// Asks all tasks to finish and waits for them, at most for `grace` or until `hurry` resolves; then cuts.
    pub async fn drain(self, grace: Duration, hurry: impl Future<Output = ()>) -> Outcome {
        let watch = self.0;
        watch.draining.cancel();
        watch.tasks.close();
        let finished = tokio::select! {
            finished = timeout(grace, watch.tasks.wait()) => finished.is_ok(),
            () = hurry => false,
        };
        if finished {
            return Outcome::Drained;
        }
        let cut = watch.tasks.len();
        watch.killed.cancel();
        watch.tasks.wait().await;
        Outcome::Cut(cut)
    }
}

/// Tells a task that the end has begun, and owns the tasks spawned through it.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    draining: CancellationToken,
    killed: CancellationToken,
    tasks: TaskTracker,
}

impl DrainWatch {
    /// Resolves when the drain begins.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// As [`Self::spawn`], on another runtime.
    pub fn spawn_on(&self, task: impl Future<Output = ()> + Send + 'static, runtime: &Handle) {
        let killed = self.killed.clone();
        let task = async move {
            killed.run_until_cancelled(task).await;
        };
        self.tasks.spawn_on(task, runtime);
    }

    /// Runs `task` until it ends by itself or the grace of the drain is over.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let killed = self.killed.clone();
        self.tasks.spawn(async move {
            killed.run_until_cancelled(task).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_finishes_in_time_is_not_cut() {
        let (drain, watch) = Drain::new();
        let seen = watch.clone();
        watch.spawn(async move { seen.draining().await });
        let outcome = drain.drain(Duration::from_secs(5), std::future::pending()).await;
        assert_eq!(outcome, Outcome::Drained);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_outlives_the_grace_is_cut_and_counted() {
        let (drain, watch) = Drain::new();
        watch.spawn(std::future::pending());
        assert_eq!(drain.drain(Duration::from_secs(5), std::future::pending()).await, Outcome::Cut(1));
    }

    #[tokio::test]
    async fn a_second_signal_cuts_at_once() {
        let (drain, watch) = Drain::new();
        watch.spawn(std::future::pending());
        assert_eq!(drain.drain(Duration::from_secs(3600), std::future::ready(())).await, Outcome::Cut(1));
    }
}
