//! Where visits go: to the upstream, whose bytes are passed on as they are, or to a program of ours.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use russh::client::{ChannelOpenHandle, Msg};
use russh::{ChannelOpenFailure, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::client::Shared;
use super::connection::{Connection, PACKET};
use super::inbox::{Inbox, Taken};
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
                    reply.accept().await;
                    match &upstream.tls {
                        Some(tls) => relay_decrypted(tls, connection, stream).await,
                        None => relay(connection, stream).await,
                    }
                }
                Err(error) => {
                    tracing::warn!("cannot reach the upstream: {error}");
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
async fn relay(mut connection: Connection, stream: Box<dyn crate::Stream>) {
    let (inbox, control, shared) = connection.parts();
    let (read, write) = tokio::io::split(stream);
    let up = async {
        if to_upstream(&inbox, write).await.is_err() {
            inbox.discard();
        }
    };
    let down = to_visitor(&inbox, &control, &shared, read);
    // An upload that the upstream does not want to its end does not end the answer; a broken answer ends both.
    let down = async {
        let whole = down.await;
        if whole.is_err() {
            inbox.end();
        }
        whole
    };
    let ((), whole) = tokio::join!(up, down);
    if whole.is_ok() {
        connection.was_shut();
    }
}

/// Ends the visitor's TLS, and passes on what is in it.
async fn relay_decrypted(tls: &TlsAcceptor, connection: Connection, mut stream: Box<dyn crate::Stream>) {
    let visitor = connection.visitor();
    match timeout(HANDSHAKE, tls.accept(connection)).await {
        Ok(Ok(mut visit)) => {
            let _ = tokio::io::copy_bidirectional(&mut visit, &mut stream).await;
        }
        Ok(Err(error)) => tracing::info!(%visitor, "TLS handshake: {error}"),
        Err(_) => tracing::info!(%visitor, "no TLS handshake within {} s", HANDSHAKE.as_secs()),
    }
}

async fn to_upstream(inbox: &Arc<Inbox>, mut upstream: impl AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        match poll_fn(|cx| inbox.poll_take(cx)).await {
            Taken::Data(data) => upstream.write_all(&data).await?,
            Taken::Finished => return upstream.shutdown().await,
            // Dropped without an end, so that the upstream does not take a part for the whole.
            Taken::Closed => return Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

async fn to_visitor(
    inbox: &Inbox,
    control: &ChannelWriteHalf<Msg>,
    shared: &Shared,
    mut upstream: impl AsyncRead + Unpin,
) -> io::Result<()> {
    let broken = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    loop {
        let closed = poll_fn(|cx| inbox.poll_wanted(cx)).await;
        if closed {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let Some(data) = unless_closed(inbox, poll_fn(|cx| poll_read(Pin::new(&mut upstream), cx))).await?
        else {
            return unless_closed(inbox, async { control.eof().await.map_err(broken) }).await;
        };
        shared.moved(data.len());
        unless_closed(inbox, async { control.data_bytes(data).await.map_err(broken) }).await?;
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
