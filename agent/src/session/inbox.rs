//! What has arrived for one visit and was not yet taken, and whether more is wanted on either side.
//!
//! russh opens a channel's window again when data arrives, whether anybody took it or not, and waits for room in the
//! channel's queue within the loop that serves all channels. So its callbacks empty that queue into an inbox, and an
//! inbox that fills asks the server to pause: the channel request `signal` (RFC 4254 §6.9) with a name of our own.
//! In the other direction the server says `xon-xoff` (§6.8).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::task::unconstrained;

use super::client::Tasks;

/// The receiving side of one channel.
#[derive(Debug)]
pub(crate) struct Inbox {
    source: Mutex<ChannelReadHalf>,
    control: Arc<ChannelWriteHalf<Msg>>,
    state: Mutex<State>,
    tasks: Tasks,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    finished: bool,
    /// The server said that what has come is not all, whatever comes next.
    aborted: bool,
    /// By the server.
    closed: bool,
    /// By us.
    over: bool,
    /// Nobody takes what still comes.
    unwanted: bool,
    /// What was sent to the visitor is not all.
    broken: bool,
    /// What the server was last asked for, and whether a task tells it.
    wants_pause: bool,
    told_pause: bool,
    telling: bool,
    /// The server asked us to pause.
    held: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Of the task that sends what a writer left under way.
    sender: Option<Waker>,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken<T> {
    Data(T),
    /// The visitor has sent all.
    Finished,
    /// The visit is over, and in the middle if nothing was finished before.
    Closed,
}

impl Inbox {
    pub(crate) fn new(
        source: ChannelReadHalf,
        control: Arc<ChannelWriteHalf<Msg>>,
        tasks: Tasks,
    ) -> Arc<Self> {
        Arc::new(Self { source: Mutex::new(source), control, state: Mutex::default(), tasks })
    }

    /// Takes what russh has just queued. To be called from its callbacks.
    pub(crate) fn pump(self: &Arc<Self>) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        // The callback's task must not be told to wait because it has done much already: the message is there.
        while let Some(message) = unconstrained(source.wait()).now_or_never() {
            match message {
                Some(ChannelMsg::Data { data })
                    if !data.is_empty() && !state.is_over() && !state.unwanted =>
                {
                    state.bytes += data.len();
                    state.waiting.push_back(data);
                }
                // Of what was not taken to its end there is none.
                Some(ChannelMsg::Eof) if state.aborted => state.end(),
                Some(ChannelMsg::Eof) => state.finished |= !state.over,
                Some(ChannelMsg::ExitSignal { .. }) => state.aborted = true,
                Some(ChannelMsg::Close) | None => {
                    state.close();
                    break;
                }
                Some(_) => {}
            }
        }
        if state.bytes > MOST && !state.over {
            // The server goes on in spite of the request to pause.
            state.end();
            self.hang_up();
        }
        // It is taken back where there is little left.
        state.wants_pause |= state.bytes > HIGH;
        self.tell(&mut state);
        state.wake_reader();
    }

    /// The next message.
    pub(crate) fn poll_take(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Taken<Bytes>> {
        self.poll_taking(cx, |state| {
            let data = state.waiting.pop_front()?;
            state.bytes -= data.len();
            Some(data)
        })
    }

    /// Everything that is there, into an empty queue.
    pub(crate) fn poll_take_all(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        all: &mut VecDeque<Bytes>,
    ) -> Poll<Taken<()>> {
        self.poll_taking(cx, |state| {
            state.bytes = 0;
            std::mem::swap(&mut state.waiting, all);
            (!all.is_empty()).then_some(())
        })
    }

    fn poll_taking<T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut State) -> Option<T>,
    ) -> Poll<Taken<T>> {
        let mut state = self.lock();
        if let Some(data) = take(&mut state) {
            if state.bytes < LOW {
                state.wants_pause = false;
            }
            self.tell(&mut state);
            return Poll::Ready(Taken::Data(data));
        }
        if state.finished {
            return Poll::Ready(Taken::Finished);
        }
        if state.is_over() {
            return Poll::Ready(Taken::Closed);
        }
        keep(&mut state.reader, cx);
        Poll::Pending
    }

    /// The server says whether it wants more (RFC 4254 §6.8).
    pub(crate) fn hold(&self, hold: bool) {
        let mut state = self.lock();
        state.held = hold;
        if !hold && let Some(waker) = state.writer.take() {
            waker.wake();
        }
    }

    /// Ready when the server wants more; true when it has closed the channel and wants no more.
    pub(crate) fn poll_wanted(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.lock();
        if state.is_over() {
            return Poll::Ready(true);
        }
        if !state.held {
            return Poll::Ready(false);
        }
        keep(&mut state.writer, cx);
        Poll::Pending
    }

    /// Ready when the channel is over.
    pub(crate) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.is_over() {
            return Poll::Ready(());
        }
        keep(&mut state.writer, cx);
        Poll::Pending
    }

    /// Ready when the channel is over: whether the visitor had sent all before.
    pub(crate) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.lock();
        if state.is_over() {
            return Poll::Ready(state.finished);
        }
        keep(&mut state.writer, cx);
        Poll::Pending
    }

    /// As [`Self::poll_closed`], for the task that sends what a writer left under way.
    pub(super) fn poll_closed_for_sender(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.is_over() {
            return Poll::Ready(());
        }
        keep(&mut state.sender, cx);
        Poll::Pending
    }

    /// What was sent to the visitor is not all, and must not look so.
    pub(crate) fn break_off(&self) {
        self.lock().broken = true;
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.lock().broken
    }

    /// Whether the server has closed the channel.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Ends both directions from here.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.end();
        state.wake_reader();
    }

    /// Nobody wants what still comes, but the server may not know that.
    pub(crate) fn discard(self: &Arc<Self>) {
        let mut state = self.lock();
        state.unwanted = true;
        state.waiting = VecDeque::new();
        state.bytes = 0;
        state.wants_pause = false;
        self.tell(&mut state);
    }

    fn hang_up(&self) {
        let control = Arc::clone(&self.control);
        self.tasks.spawn(async move {
            let _ = control.close().await;
        });
    }

    /// Lets the server know when what we want of it has changed. One task at a time, so that the last word is the last.
    fn tell(self: &Arc<Self>, state: &mut State) {
        if state.telling || state.wants_pause == state.told_pause || state.is_over() {
            return;
        }
        state.telling = true;
        let inbox = Arc::clone(self);
        self.tasks.spawn(async move {
            while let Some(pause) = inbox.next_word() {
                let name = if pause { PAUSE } else { GO_ON };
                if inbox.control.signal(Sig::Custom(name.to_owned())).await.is_err() {
                    return;
                }
            }
        });
    }

    fn next_word(&self) -> Option<bool> {
        let mut state = self.lock();
        if state.wants_pause == state.told_pause || state.is_over() {
            state.telling = false;
            return None;
        }
        state.told_pause = state.wants_pause;
        Some(state.told_pause)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.closed || self.over
    }

    fn close(&mut self) {
        self.closed = true;
        self.end();
    }

    fn end(&mut self) {
        self.over = true;
        if let Some(waker) = self.sender.take() {
            waker.wake();
        }
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }
}

/// Who polls is nearly always who did before.
fn keep(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}

/// Names of signals that only our server understands (RFC 4254 §6.9: `sig-name@xyz`).
const PAUSE: &str = "XOFF@hithe";
const GO_ON: &str = "XON@hithe";
/// Bytes that wait for an upstream before the server is asked to pause, and when it may go on.
const HIGH: usize = 512 * 1024;
const LOW: usize = 128 * 1024;
/// More than can be on its way when a server heeds that.
const MOST: usize = 32 << 20;
