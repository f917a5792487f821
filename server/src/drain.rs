//! An orderly end: tasks are asked to finish, then cut when the grace is over.
//!
//! Every task of the server is spawned through a [`DrainWatch`], so that none is without an owner.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
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
        let watch =
            DrainWatch { draining: Arc::default(), killed: Arc::default(), tasks: TaskTracker::new() };
        (Self(watch.clone()), watch)
    }

    /// Asks all tasks to finish and waits for them, at most for `grace` or until `hurry` resolves; then cuts.
    pub async fn drain(self, grace: Duration, hurry: impl Future<Output = ()>) -> Outcome {
        let watch = self.0;
        watch.draining.give();
        watch.tasks.close();
        let finished = tokio::select! {
            finished = timeout(grace, watch.tasks.wait()) => finished.is_ok(),
            () = hurry => false,
        };
        if finished {
            return Outcome::Drained;
        }
        let cut = watch.tasks.len();
        watch.killed.give();
        watch.tasks.wait().await;
        Outcome::Cut(cut)
    }
}

/// Something that is said once: cheap to look at, and to be waited for.
#[derive(Debug, Default)]
struct Sign {
    given: AtomicBool,
    token: CancellationToken,
}

impl Sign {
    fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.token.cancel();
    }

    fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }
}

/// Tells a task that the end has begun, and owns the tasks spawned through it.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    draining: Arc<Sign>,
    killed: Arc<Sign>,
    tasks: TaskTracker,
}

impl DrainWatch {
    /// Resolves when the drain begins.
    pub async fn draining(&self) {
        self.draining.token.cancelled().await;
    }

    /// Resolves so long after the drain has begun, or after now if it has.
    pub async fn draining_for(&self, time: Duration) {
        self.draining().await;
        sleep(time).await;
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.is_given()
    }

    /// As [`Self::spawn`], on another runtime.
    pub fn spawn_on(&self, task: impl Future<Output = ()> + Send + 'static, runtime: &Handle) {
        self.tasks.spawn_on(self.killable(task), runtime);
    }

    /// Runs `task` until it ends by itself or the grace of the drain is over.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.killable(task));
    }

    fn killable<F>(&self, task: F) -> Killable<F> {
        let given = self.killed.token.clone().cancelled_owned();
        Killable { task, killed: Arc::clone(&self.killed), given, waits: false }
    }
}

pin_project! {
    /// A task that ends when the grace is over. Not an async block, which would hold the task several times: tasks are
    /// what an idle connection costs.
    struct Killable<F> {
        #[pin]
        task: F,
        killed: Arc<Sign>,
        #[pin]
        given: WaitForCancellationFutureOwned,
        // Whether this task is woken by the sign.
        waits: bool,
    }
}

impl<F: Future<Output = ()>> Future for Killable<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.killed.is_given() {
            return Poll::Ready(());
        }
        // Once: the waker of a task of its own never changes, and asking takes a lock that all tasks share.
        if !std::mem::replace(this.waits, true) && this.given.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        this.task.poll(cx)
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
