//! Streams to the upstream over SSH: one `forwarded-tcpip` channel each (RFC 4254 §7.2).

mod gate;
mod round_trip;
mod tap;
mod writer;

use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hithe_cli_parser::Bind;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::gate::Gate;
pub(crate) use self::round_trip::MIN_WINDOW;
use self::round_trip::RoundTrip;
use self::tap::Tap;
use self::writer::{PACKET, Writer};
use super::elastic::{Elastic, Pushed, Taken, Valve};
use super::spool::{Backlog, ChargedTo, Spool};
use super::{Dial, DialError, TunnelStream};
use crate::account::Account;
use crate::drain::DrainWatch;
use crate::limits::Usage;
use crate::visit::Visitor;

#[cfg(test)]
mod tests;

/// Opens channels for one forward of one session.
#[derive(Clone)]
pub(crate) struct ChannelDialer {
    pub(crate) handle: Handle,
    /// Exactly what the client asked for: it compares address and number byte for byte.
    pub(crate) asked: Bind,
    /// Bounds the opens in flight of the whole session.
    pub(crate) opens: Arc<Semaphore>,
    /// Owns the tasks that wait for the client's answer.
    pub(crate) tasks: DrainWatch,
    /// Cancelled when the publisher ends the forward and its visits with it.
    pub(crate) cut: CancellationToken,
    /// Where the session puts what arrives.
    pub(crate) inboxes: Arc<Inboxes>,
    /// Where it waits for visitors.
    pub(crate) spool: Arc<Spool>,
    pub(crate) publisher: Account,
    /// Counts what goes to the publisher. What comes from it, its session counts.
    pub(crate) usage: Arc<Usage>,
}

impl Dial for ChannelDialer {
    fn dial(&self, visitor: Visitor) -> BoxFuture<'_, Result<TunnelStream, DialError>> {
        Box::pin(async move {
            if self.cut.is_cancelled() {
                return Err(DialError::Gone);
            }
            let permit = self.permit().await?;
            let opened = self.open(visitor, permit).await.map_err(|_| DialError::Gone)?;
            let stream = opened.map_err(|error| reason(&error))?;
            Ok(Box::new(stream) as TunnelStream)
        })
    }

    fn is_gone(&self) -> bool {
        self.inboxes.has_ended()
    }
}

impl ChannelDialer {
    async fn permit(&self) -> Result<OwnedSemaphorePermit, DialError> {
        let permit = timeout(OPEN_QUEUE_TIMEOUT, Arc::clone(&self.opens).acquire_owned()).await;
        permit.map_err(|_| DialError::Busy)?.map_err(|_| DialError::Gone)
    }

    /// A channel open is never cancelled: russh ends the whole session when a client refuses an open that nobody
    /// waits for, and leaks one that it accepts. So the open runs in a task of its own. What it gives is a stream, which
    /// closes its channel when it is dropped, wherever it is then: also on the way to somebody who has just left.
    fn open(
        &self,
        visitor: Visitor,
        permit: OwnedSemaphorePermit,
    ) -> oneshot::Receiver<Result<ChannelStream, russh::Error>> {
        let (answer, opened) = oneshot::channel();
        let dialer = self.clone();
        self.tasks.spawn(async move {
            let began = Instant::now();
            let from = visitor.socket_addr();
            let (address, port) = (from.ip().to_string(), u32::from(from.port()));
            let Bind { address: asked, port: number } = dialer.asked.clone();
            let result = dialer.handle.channel_open_forwarded_tcpip(asked, number, address, port).await;
            drop(permit);
            if result.is_ok() {
                dialer.inboxes.note_round_trip(began.elapsed());
            }
            let stream = result.map(|channel| ChannelStream::new(channel, &dialer, visitor));
            // Nobody may wait any more.
            let _ = answer.send(stream);
        });
        opened
    }
}

fn reason(error: &russh::Error) -> DialError {
    match error {
        russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited) => {
            DialError::Prohibited
        }
        russh::Error::ChannelOpenFailure(_) => DialError::Refused,
        _ => DialError::Gone,
    }
}

/// The channels of one session that carry visits.
#[derive(Debug, Default)]
pub(crate) struct Inboxes {
    open: Mutex<Open>,
    backlog: Arc<Backlog>,
    round_trip: Arc<RoundTrip>,
    /// The client is of our own making: each side can tell the other to pause one channel, and that a visit broke off.
    regulates: bool,
}

#[derive(Debug, Default)]
struct Open {
    inboxes: HashMap<ChannelId, Arc<Inbox>>,
    /// The session is over: nothing arrives any more.
    ended: bool,
}

/// What became of bytes that the session received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The channel carries no visit.
    Unknown,
    Taken,
}

impl Inboxes {
    /// `regulates`: whether the client knows how to pause a channel and to have one paused, and what `exit-signal` says
    /// there.
    pub(crate) fn of_client(regulates: bool) -> Self {
        Self { regulates, ..Self::default() }
    }

    /// Takes what russh has just received for a channel. To be called from its callbacks: they are the pump.
    pub(crate) fn arrived(&self, channel: ChannelId) -> Arrival {
        let inbox = self.lock().inboxes.get(&channel).cloned();
        match inbox {
            Some(inbox) => {
                if inbox.pump() == Pushed::Unwanted {
                    inbox.hang_up();
                }
                Arrival::Taken
            }
            None => Arrival::Unknown,
        }
    }

    /// Bytes that a client may have in flight on one channel.
    pub(crate) fn window(&self) -> u32 {
        self.round_trip.window()
    }

    /// Notes how long the client took to open a channel: a round trip and its own connect, which mostly is next to
    /// nothing.
    fn note_round_trip(&self, took: Duration) {
        self.round_trip.note(took, Instant::now());
    }

    /// Whether more is on its way to the disk than the session may have there.
    pub(crate) fn is_full(&self) -> bool {
        self.backlog.is_full()
    }

    /// Waits for the disk.
    pub(crate) async fn has_room(&self) {
        self.backlog.has_room().await;
    }

    /// Ends at once the visits of forwards whose `cut` is cancelled. Neither number nor address of a forward would tell
    /// them apart: several may have the one, and one that was withdrawn and asked for again has both.
    pub(crate) fn sever_the_cut(&self) {
        let severed: Vec<_> = {
            let open = self.lock();
            open.inboxes.values().filter(|inbox| inbox.cut.is_cancelled()).cloned().collect()
        };
        severed.iter().for_each(|inbox| inbox.elastic.sever());
    }

    /// The connection is over; what came before is still read.
    pub(crate) fn end(&self) {
        let inboxes = {
            let mut open = self.lock();
            open.ended = true;
            std::mem::take(&mut open.inboxes)
        };
        for inbox in inboxes.values() {
            inbox.pump();
            inbox.elastic.close();
        }
    }

    fn has_ended(&self) -> bool {
        self.lock().ended
    }

    fn enter(&self, channel: ChannelId, inbox: &Arc<Inbox>) {
        let mut open = self.lock();
        if open.ended {
            inbox.elastic.close();
        } else {
            open.inboxes.insert(channel, Arc::clone(inbox));
        }
        drop(open);
        // What came before it was entered.
        inbox.pump();
    }

    fn leave(&self, channel: ChannelId) {
        let mut open = self.lock();
        open.inboxes.remove(&channel);
        if open.inboxes.is_empty() {
            open.inboxes = HashMap::new();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receiving side of one channel.
#[derive(Debug)]
struct Inbox {
    /// Of its forward.
    cut: CancellationToken,
    source: Mutex<ChannelReadHalf>,
    control: Arc<ChannelWriteHalf<Msg>>,
    elastic: Arc<Elastic>,
    /// Where the client may pause us.
    gate: Option<Arc<Gate>>,
    tasks: DrainWatch,
}

impl Inbox {
    /// Moves everything that russh has queued for this channel into the elastic buffer, so that russh never waits
    /// for room in its queue (and with it all other channels).
    fn pump(&self) -> Pushed {
        let mut pushed = Pushed::Taken;
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        // The callback's task must not be told to wait because it has done much already: the message is there.
        while let Some(message) = unconstrained(source.wait()).now_or_never() {
            match message {
                Some(ChannelMsg::Data { data }) if !data.is_empty() => pushed = self.elastic.push(data),
                Some(ChannelMsg::Eof) => self.elastic.finish(),
                Some(ChannelMsg::Close) | None => {
                    self.elastic.close();
                    break;
                }
                Some(ChannelMsg::Signal { signal }) => {
                    self.gate.iter().for_each(|gate| gate.hear(&signal));
                }
                Some(_) => {}
            }
        }
        pushed
    }

    /// Closes the channel of a visit that is over. Whoever holds the stream may be busy for long with what it took,
    /// for a visitor that takes that drop by drop.
    fn hang_up(&self) {
        if self.elastic.is_closed() {
            return;
        }
        self.elastic.close();
        let control = Arc::clone(&self.control);
        // Waits for the session's queue at most, and so no longer than the session lives.
        self.tasks.spawn(async move {
            let _ = control.close().await;
        });
    }
}

/// A channel as a byte stream.
///
/// Unlike russh's own, it never holds up the session, tells a half-close (EOF) from a reset (CLOSE alone), and fails
/// writers of a channel that the client has closed, which would otherwise wait for a window that never comes.
struct ChannelStream {
    elastic: Arc<Elastic>,
    writer: Writer,
    /// Where the client may pause us.
    gate: Option<Arc<Gate>>,
    parting: Option<Parting>,
    /// What was taken and not yet read.
    rest: Bytes,
    usage: Arc<Usage>,
    /// While the account is ahead of its rate.
    settling: Option<BoxFuture<'static, ()>>,
}

impl ChannelStream {
    fn new(channel: Channel<Msg>, dialer: &ChannelDialer, visitor: Visitor) -> Self {
        let id = channel.id();
        let (source, control) = channel.split();
        let charged = ChargedTo {
            spool: Arc::clone(&dialer.spool),
            backlog: Arc::clone(&dialer.inboxes.backlog),
            publisher: dialer.publisher.clone(),
            visitor,
        };
        let regulates = dialer.inboxes.regulates;
        let tap = || Tap::new(dialer.handle.clone(), id, Arc::clone(&dialer.inboxes.round_trip));
        let valve = regulates.then(|| Valve::new(dialer.tasks.clone(), tap()));
        let elastic = Elastic::new(charged, dialer.tasks.clone(), valve);
        let gate = regulates.then(Arc::<Gate>::default);
        let control = Arc::new(control);
        let inbox = Inbox {
            cut: dialer.cut.clone(),
            source: Mutex::new(source),
            control: Arc::clone(&control),
            elastic: Arc::clone(&elastic),
            gate: gate.clone(),
            tasks: dialer.tasks.clone(),
        };
        dialer.inboxes.enter(id, &Arc::new(inbox));
        // The endpoint may have been cut while the channel was opened.
        if dialer.cut.is_cancelled() {
            elastic.sever();
        }
        let parting = Parting {
            channel: id,
            inboxes: Arc::clone(&dialer.inboxes),
            control: Arc::clone(&control),
            elastic: Arc::clone(&elastic),
            tasks: dialer.tasks.clone(),
            tells_aborts: regulates.then(|| dialer.handle.clone()),
        };
        Self {
            elastic,
            writer: Writer::new(control),
            gate,
            parting: Some(parting),
            rest: Bytes::new(),
            usage: Arc::clone(&dialer.usage),
            settling: None,
        }
    }

    /// Makes `rest` hold something. Ready without that at an orderly end.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(match ready!(self.elastic.poll_take(cx)) {
            Taken::Data(data) => {
                self.rest = data;
                Ok(())
            }
            Taken::Finished => Ok(()),
            ended => Err(broken_off(&ended)),
        })
    }

    /// Fails what waits when the client takes no more.
    fn or_closed<T>(&self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_pending() && self.elastic.poll_closed(cx).is_ready() {
            return Poll::Ready(Err(self.refusal()));
        }
        written
    }

    /// Ready when the client has not paused us, and the publisher's account may move more.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(gate) = &self.gate {
            ready!(gate.poll(cx));
        }
        if self.settling.is_none() {
            self.settling = self.usage.settle().map(FutureExt::boxed);
        }
        if let Some(settling) = &mut self.settling {
            ready!(settling.poll_unpin(cx));
            self.settling = None;
        }
        Poll::Ready(())
    }

    /// Why nothing can be written.
    fn refusal(&self) -> io::Error {
        self.elastic.ended().map_or(io::ErrorKind::BrokenPipe.into(), |ended| broken_off(&ended))
    }
}

fn broken_off(ended: &Taken) -> io::Error {
    match ended {
        Taken::Cut(why) => io::Error::other(*why),
        _ => io::ErrorKind::ConnectionReset.into(),
    }
}

impl AsyncRead for ChannelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        // Readers enlarge their buffers by what they get: not for bytes from the disk, whose visitor is slow.
        let taken = self.rest.len().min(buf.remaining()).min(PACKET);
        buf.put_slice(self.rest.get(..taken).unwrap_or_default());
        self.as_mut().consume(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for ChannelStream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_rest(cx))?;
        Poll::Ready(Ok(&this.rest))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.rest.advance(amount);
        if self.rest.is_empty() {
            self.rest = Bytes::new();
        }
    }
}

impl AsyncWrite for ChannelStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.elastic.takes_nothing() {
            return Poll::Ready(Err(self.refusal()));
        }
        let written = match self.poll_leave(cx) {
            Poll::Ready(()) => self.writer.poll_write(cx, bufs),
            Poll::Pending => Poll::Pending,
        };
        if let Poll::Ready(Ok(count)) = written {
            self.usage.moved(count);
        }
        self.or_closed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Fails also with nothing to flush when the visit was ended from here: that is how those learn of it who do not
    /// read, because their visitor is busy with what they read before.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(ended) = self.elastic.ended() {
            return Poll::Ready(Err(broken_off(&ended)));
        }
        let flushed = self.writer.poll_ready(cx);
        self.or_closed(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = self.writer.poll_shutdown(cx);
        self.or_closed(cx, shut)
    }
}

impl Drop for ChannelStream {
    fn drop(&mut self) {
        if let Some(parting) = self.parting.take() {
            parting.begin(self.writer.is_shut());
        }
    }
}

/// How a channel ends when the visit is over.
///
/// russh 0.65 never forgets a channel that *we* close first: it keeps its queue until the session ends. So the client
/// gets the EOF and some time to close by itself, as it does once its upstream has closed too. A client of ours is told
/// before if that EOF is not the visitor's, so that its upstream does not take a part for the whole.
struct Parting {
    channel: ChannelId,
    inboxes: Arc<Inboxes>,
    control: Arc<ChannelWriteHalf<Msg>>,
    elastic: Arc<Elastic>,
    tasks: DrainWatch,
    tells_aborts: Option<Handle>,
}

impl Parting {
    fn begin(self, said_eof: bool) {
        let patient = !self.elastic.is_severed() && !self.tasks.is_draining();
        self.elastic.abandon();
        if self.elastic.is_closed() {
            self.inboxes.leave(self.channel);
            return;
        }
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            if patient {
                if !said_eof {
                    let _ = timeout(LINGER, self.end_early()).await;
                }
                let _ = timeout(LINGER, poll_fn(|cx| self.elastic.poll_parted(cx))).await;
            }
            if !self.elastic.is_closed() {
                // Whatever happens, the inbox goes: what it holds would block the session.
                let _ = timeout(LINGER, self.control.close()).await;
            }
            self.inboxes.leave(self.channel);
        });
    }

    /// As for a command that was killed: `exit-signal` (RFC 4254 §6.10).
    async fn end_early(&self) {
        if let Some(handle) = &self.tells_aborts {
            let (nothing, language) = (String::new(), String::new());
            let _ = handle.exit_signal_request(self.channel, Sig::ABRT, false, nothing, language).await;
        }
        let _ = self.control.eof().await;
    }
}

/// How long a client may take to close a channel by itself.
const LINGER: Duration = Duration::from_secs(2);

/// How long a visit waits for its turn when a session has too many opens in flight.
const OPEN_QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// Opens in flight of one session.
pub(crate) const MAX_OPENS: usize = 128;
