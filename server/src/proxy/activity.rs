//! Whether anything is under way on one visitor's connection. It ends an idle one, and gives its permit back when
//! the connection and everything that came of it are over.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until};

use crate::limits::VisitorPlace;

#[derive(Debug)]
pub(crate) struct Activity {
    under_way: AtomicUsize,
    begun: AtomicU64,
    opened: Instant,
    /// Milliseconds from `opened` to when nothing was under way any more.
    idle_since: AtomicU64,
    /// The visitor took nothing for too long.
    stalled: AtomicBool,
    /// A part of a request has come that is not under way yet.
    awaits_head: AtomicBool,
    /// Something was written that may not have left yet.
    unflushed: AtomicBool,
    /// The last request had a body, whose rest may come after its answer.
    uploads: AtomicBool,
    /// A response was not finished.
    broken: AtomicBool,
    unsent: Unsent,
    /// Woken when a request begins or is over.
    changed: AtomicWaker,
    /// The endpoint that the connection was made for is gone.
    outdated: Notify,
    /// Counts against the limit of visitors' connections.
    _permit: OwnedSemaphorePermit,
    /// Counts for its source.
    pub(crate) place: VisitorPlace,
}

impl Activity {
    pub(crate) fn new(permit: OwnedSemaphorePermit, place: VisitorPlace) -> Arc<Self> {
        Arc::new(Self {
            under_way: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            opened: Instant::now(),
            idle_since: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            awaits_head: AtomicBool::new(false),
            unflushed: AtomicBool::new(false),
            uploads: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            unsent: Unsent::default(),
            changed: AtomicWaker::new(),
            outdated: Notify::new(),
            _permit: permit,
            place,
        })
    }

    /// A request is under way until what this gives is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.awaits_head.store(false, Ordering::Release);
        self.uploads.store(false, Ordering::Release);
        self.changed.wake();
        UnderWay(Arc::clone(self))
    }

    /// Notes that the visitor took nothing for too long.
    pub(crate) fn stall(&self) {
        self.stalled.store(true, Ordering::Release);
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// Notes that a response will not be finished.
    pub(crate) fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Notes that the connection is of no more use to its visitor.
    pub(crate) fn outdate(&self) {
        self.outdated.notify_one();
    }

    /// Resolves once when the connection is of no more use. For one waiter.
    pub(crate) async fn outdated(&self) {
        self.outdated.notified().await;
    }

    /// A request whose response may be over first still comes in until what this gives is dropped.
    pub(crate) fn receive(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.uploads.store(true, Ordering::Release);
        UnderWay(Arc::clone(self))
    }

    /// Whether the visitor may still be sending what nobody reads any more.
    pub(crate) fn may_send_on(&self) -> bool {
        self.uploads.load(Ordering::Acquire)
    }

    /// Requests so far.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }

    /// Notes that bytes were read; between requests they begin the next one.
    pub(crate) fn note_read(&self) {
        if self.is_idle() {
            self.awaits_head.store(true, Ordering::Release);
        }
    }

    /// Notes that something was written, or that all of it has left.
    pub(crate) fn note_written(&self, flushed: bool) {
        self.unflushed.store(!flushed, Ordering::Release);
        if flushed {
            self.unsent.clear();
        }
    }

    /// Bounds what responses hand out before it has left. For connections whose writes are noted: others would wait for
    /// ever.
    pub(crate) fn bound_unsent(&self) {
        self.unsent.bounded.store(true, Ordering::Release);
    }

    /// Notes bytes that a response handed out.
    pub(crate) fn note_handed_out(&self, bytes: usize) {
        self.unsent.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Ready when a response may hand out more.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.unsent.poll_room(cx)
    }

    /// Resolves when the connection has nothing to keep for the next request: there was one, its answer has left, and
    /// for `limit` nothing came.
    pub(crate) async fn rests_for(&self, limit: Duration) {
        sleep(limit).await;
        loop {
            self.idle_for(limit).await;
            let resting = self.begun() > 0
                && self.is_idle()
                && !self.awaits_head.load(Ordering::Acquire)
                && !self.unflushed.load(Ordering::Acquire);
            if resting {
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Resolves with `true` when another request begins than those so far, with `false` when none does for `limit` although
    /// none is under way. For one waiter.
    ///
    /// A visitor may have sent its next request when the connection is to end; with the answer to that it learns of the
    /// end.
    pub(crate) async fn next_begins_within(&self, limit: Duration) -> bool {
        let (seen, now) = (self.begun(), Instant::now());
        let is = |so: &dyn Fn() -> bool, cx: &Context<'_>| {
            self.changed.register(cx.waker());
            if so() { Poll::Ready(()) } else { Poll::Pending }
        };
        let silence = async {
            loop {
                poll_fn(|cx| is(&|| self.is_idle(), cx)).await;
                let since = self.opened + Duration::from_millis(self.idle_since.load(Ordering::Acquire));
                let end = since.max(now) + limit;
                if end <= Instant::now() {
                    return;
                }
                sleep_until(end).await;
            }
        };
        tokio::select! {
            () = poll_fn(|cx| is(&|| self.begun() > seen, cx)) => true,
            () = silence => false,
        }
    }

    /// Resolves when nothing was under way for `limit`.
    pub(crate) async fn idle_for(&self, limit: Duration) {
        loop {
            if !self.is_idle() {
                // What ends meanwhile is idle for less than `limit` then. A short limit is not worth many looks.
                sleep(limit.max(LOOK_AGAIN)).await;
                continue;
            }
            let since = self.opened + Duration::from_millis(self.idle_since.load(Ordering::Acquire));
            if since + limit <= Instant::now() {
                return;
            }
            sleep_until(since + limit).await;
        }
    }
}

/// What responses handed out since all of it had left. HTTP/1 would take 1 MiB of each, as large as a head may be, whose
/// visitor takes nothing; what waits belongs into the spool, where it is counted.
#[derive(Debug, Default)]
struct Unsent {
    bounded: AtomicBool,
    bytes: AtomicUsize,
    response: AtomicWaker,
}

impl Unsent {
    fn clear(&self) {
        if self.bytes.swap(0, Ordering::AcqRel) >= MAX_UNSENT {
            self.response.wake();
        }
    }

    fn is_full(&self) -> bool {
        self.bounded.load(Ordering::Acquire) && self.bytes.load(Ordering::Acquire) >= MAX_UNSENT
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_full() {
            return Poll::Ready(());
        }
        self.response.register(cx.waker());
        if self.is_full() { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// As for a stream of HTTP/2. One message more may come.
const MAX_UNSENT: usize = 128 * 1024;

/// While a request is under way.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// One request, until the last byte of its response.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let since = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.idle_since.store(since, Ordering::Release);
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.wake();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::config::VisitorLimits;
    use crate::limits::Visitors;

    async fn activity() -> Arc<Activity> {
        let visitors = Visitors::new(VisitorLimits::default(), Arc::default());
        let place = visitors.admit("192.0.2.1".parse().unwrap()).unwrap();
        Activity::new(Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap(), place)
    }

    #[tokio::test(start_paused = true)]
    async fn idle_begins_when_the_last_request_is_over() {
        let activity = activity().await;
        let started = Instant::now();
        let limit = Duration::from_secs(300);
        let request = activity.begin();
        let busy = async {
            sleep(Duration::from_secs(1000)).await;
            drop(request);
        };
        tokio::join!(busy, activity.idle_for(limit));
        assert_eq!(started.elapsed().as_secs(), 1300);
    }

    #[tokio::test(start_paused = true)]
    async fn a_visitor_has_a_moment_for_one_more_request() {
        let activity = activity().await;
        let limit = Duration::from_secs(1);
        assert!(!activity.next_begins_within(limit).await);
        let started = Instant::now();
        let request = activity.begin();
        let busy = async {
            sleep(Duration::from_secs(100)).await;
            drop(request);
        };
        let ((), begun) = tokio::join!(busy, activity.next_begins_within(limit));
        assert_eq!((begun, started.elapsed().as_secs()), (false, 101));
        let more = async {
            sleep(Duration::from_millis(900)).await;
            activity.begin()
        };
        let (_request, begun) = tokio::join!(more, activity.next_begins_within(limit));
        assert!(begun);
    }

    #[tokio::test]
    async fn a_response_waits_for_room_until_what_it_handed_out_has_left() {
        let activity = activity().await;
        let mut context = Context::from_waker(std::task::Waker::noop());
        activity.note_handed_out(MAX_UNSENT);
        assert!(activity.poll_room(&mut context).is_ready(), "nobody notes writes");
        activity.bound_unsent();
        assert!(activity.poll_room(&mut context).is_pending());
        activity.note_written(false);
        assert!(activity.poll_room(&mut context).is_pending());
        activity.note_written(true);
        assert!(activity.poll_room(&mut context).is_ready());
    }
}
