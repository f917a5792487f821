//! Where visits go: to the upstream, whose bytes are passed on as they are, or to a program of ours.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use russh::client::{ChannelOpenHandle, Msg};
use russh::{ChannelOpenFailure, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::client::Shared;
use super::connection::{Connection, PACKET};
use super::inbox::{Inbox, Taken};
use crate::inspect::{Recording, Tap};
use crate::status::Reach;
use crate::upstream::Dialer;

/// Where the visits of a session go.
#[derive(Clone)]
pub(crate) enum Target {
    Upstream(Arc<Upstream>),
    /// To who accepts them.
    Program(mpsc::Sender<Connection>),
}

/// An upstream and what stands before it.
pub(crate) struct Upstream {
    pub(crate) dialer: Dialer,
    /// TLS of visitors ends here.
    pub(crate) tls: Option<TlsAcceptor>,
    /// Where the visits are recorded, or only counted.
    pub(crate) tap: Tap,
    /// Where it is told whether it can be reached.
    pub(crate) reach: Reach,
}

impl Target {
    /// Takes one visit to its end.
    pub(super) async fn take(self, connection: Connection, reply: ChannelOpenHandle) {
        match self {
            Self::Program(program) => match program.try_reserve() {
                Ok(place) => {
                    reply.accept().await;
                    place.send(connection);
                }
                // It does not keep up.
                Err(_) => refuse(connection, reply, ChannelOpenFailure::ResourceShortage).await,
            },
            Self::Upstream(upstream) => match upstream.dialer.connect().await {
                Ok(stream) => {
                    upstream.reach.succeeded();
                    reply.accept().await;
                    let recording = upstream.tap.open(connection.visitor());
                    match &upstream.tls {
                        Some(tls) => relay_decrypted(tls, connection, stream, &recording).await,
                        None => relay(connection, stream, &recording).await,
                    }
                }
                Err(error) => {
                    upstream.reach.failed(error.to_string());
                    refuse(connection, reply, ChannelOpenFailure::ConnectFailed).await;
                }
            },
        }
    }
}

async fn refuse(connection: Connection, reply: ChannelOpenHandle, why: ChannelOpenFailure) {
    reply.reject(why).await;
    connection.forget();
}

/// Passes bytes on in both directions until both have ended, or one is broken.
async fn relay(mut connection: Connection, stream: Box<dyn crate::Stream>, recording: &Recording) {
    let (inbox, control, shared) = connection.parts();
    let (read, write) = tokio::io::split(stream);
    let up = until_broken_off(&inbox, to_upstream(&inbox, write, recording));
    let down = async {
        let whole = to_visitor(&inbox, (&control, &shared), read, recording).await;
        if whole.is_err() {
            inbox.break_off();
            inbox.end();
        }
        whole
    };
    if both(up, down).await.is_ok() {
        connection.was_shut();
    }
}

/// Ends the visitor's TLS, and passes on what is in it.
async fn relay_decrypted(
    tls: &TlsAcceptor,
    connection: Connection,
    stream: Box<dyn crate::Stream>,
    recording: &Recording,
) {
    let visitor = connection.visitor();
    let (inbox, ..) = connection.parts();
    match timeout(HANDSHAKE, tls.accept(connection)).await {
        Ok(Ok(visit)) => {
            let ((from_visitor, to_visitor), (from_upstream, to_upstream)) =
                (tokio::io::split(visit), tokio::io::split(stream));
            let up = pass(from_visitor, to_upstream, |data| recording.request(data));
            let down = pass(from_upstream, to_visitor, |data| recording.response(data));
            if both(until_broken_off(&inbox, up), unless_closed(&inbox, down)).await.is_err() {
                inbox.break_off();
            }
        }
        Ok(Err(error)) => tracing::info!(%visitor, "TLS handshake: {error}"),
        Err(_) => tracing::info!(%visitor, "no TLS handshake within {} s", HANDSHAKE.as_secs()),
    }
}

/// An upload, to its end or to where the visitor breaks it off. One that the upstream does not want is read on and
/// forgotten: its answer may still come.
async fn until_broken_off(inbox: &Arc<Inbox>, upload: impl Future<Output = io::Result<()>>) {
    let gone = async {
        if poll_fn(|cx| inbox.poll_over(cx)).await {
            // All was sent, and the upstream may not take it.
            sleep(LAST_BYTES).await;
        }
    };
    let whole = tokio::select! {
        biased;
        whole = upload => whole.is_ok(),
        () = gone => false,
    };
    if !whole {
        inbox.discard();
    }
}

/// Both directions to their ends; says whether that to the visitor came to it. If it broke, an upload that is there
/// as a whole still has some time.
async fn both(up: impl Future<Output = ()>, down: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let mut up = pin!(up);
    let mut down = pin!(down);
    tokio::select! {
        biased;
        () = &mut up => down.await,
        whole = &mut down => {
            match whole {
                Ok(()) => up.await,
                Err(_) => drop(timeout(LAST_BYTES, up).await),
            }
            whole
        }
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    note: impl Fn(&Bytes),
) -> io::Result<()> {
    while let Some(data) = poll_fn(|cx| poll_read(Pin::new(&mut from), cx)).await? {
        note(&data);
        to.write_all(&data).await?;
        to.flush().await?;
    }
    to.shutdown().await
}

async fn to_upstream(
    inbox: &Arc<Inbox>,
    mut upstream: impl AsyncWrite + Unpin,
    recording: &Recording,
) -> io::Result<()> {
    let mut pieces = Pieces::default();
    loop {
        match poll_fn(|cx| inbox.poll_take_all(cx, &mut pieces.0)).await {
            Taken::Data(()) => {
                pieces.0.iter().for_each(|piece| recording.request(piece));
                match pieces.only() {
                    Some(one) => upstream.write_all(&one).await?,
                    None => upstream.write_all_buf(&mut pieces).await?,
                }
                // TLS may have kept something.
                upstream.flush().await?;
            }
            Taken::Finished => {
                recording.request_end();
                return upstream.shutdown().await;
            }
            // Dropped without an end, so that the upstream does not take a part for the whole.
            Taken::Closed => return Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

async fn to_visitor(
    inbox: &Inbox,
    (control, shared): (&ChannelWriteHalf<Msg>, &Shared),
    mut upstream: impl AsyncRead + Unpin,
    recording: &Recording,
) -> io::Result<()> {
    let broken = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    loop {
        let closed = poll_fn(|cx| inbox.poll_wanted(cx)).await;
        if closed {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let Some(data) = unless_closed(inbox, poll_fn(|cx| poll_read(Pin::new(&mut upstream), cx))).await?
        else {
            recording.response_end();
            return unless_closed(inbox, async { control.eof().await.map_err(broken) }).await;
        };
        shared.moved(data.len());
        recording.response(&data);
        unless_closed(inbox, async { control.data_bytes(data).await.map_err(broken) }).await?;
    }
}

/// Several messages that are written as one.
#[derive(Default)]
struct Pieces(VecDeque<Bytes>);

impl Pieces {
    /// Takes the one that is there. A plain write is cheaper than one of a list.
    fn only(&mut self) -> Option<Bytes> {
        if self.0.len() == 1 { self.0.pop_front() } else { None }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn has_remaining(&self) -> bool {
        !self.0.is_empty()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pairs = slices.iter_mut().zip(&self.0);
        pairs.map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.0.front_mut() {
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.0.pop_front();
        }
    }
}

/// Fails when the server closes the channel meanwhile: nothing else would end a wait for its window.
async fn unless_closed<T>(inbox: &Inbox, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        () = poll_fn(|cx| inbox.poll_closed(cx)) => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

/// Reads what is there. The buffer stands on the stack, so that a connection that waits has none.
fn poll_read(stream: Pin<&mut impl AsyncRead>, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
    let mut room = [const { MaybeUninit::uninit() }; PACKET];
    let mut buffer = ReadBuf::uninit(&mut room);
    let read = stream.poll_read(cx, &mut buffer);
    let filled = buffer.filled();
    read.map_ok(|()| (!filled.is_empty()).then(|| Bytes::copy_from_slice(filled)))
}

/// For a visitor to finish TLS with us.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For the end of an upload whose visitor has gone.
const LAST_BYTES: Duration = Duration::from_secs(60);
