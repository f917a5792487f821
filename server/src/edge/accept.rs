//! The only accept loop of the program, for visitors and publishers alike.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::drain::DrainWatch;
use crate::listen;

/// A peer that vanished is noticed after 60 s + 4 x 15 s.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;

/// How long to wait when the system has no more sockets: doubled until others have ended.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What becomes of connections that the system has accepted and we have not, when a listener closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queued {
    /// They are ours too. The system would reset them, although a request may have come already.
    Served,
    /// They are reset, or wait for whoever holds the socket too.
    Left,
}

/// For visitors: those who came before the drain are served to the last.
pub(crate) async fn until_drained(visits: &DrainWatch) -> Queued {
    visits.draining().await;
    Queued::Served
}

/// Accepts until `stop` resolves. The permit that comes with a connection is held as long as it lasts; without a
/// free one, connections wait in the backlog of the system.
pub(crate) async fn accept(
    listener: &TcpListener,
    permits: Arc<Semaphore>,
    stop: impl Future<Output = Queued>,
    mut on: impl FnMut(TcpStream, SocketAddr, OwnedSemaphorePermit),
) {
    let mut stop = pin!(stop);
    let mut pause = None;
    let mut full = false;
    loop {
        let was_full = std::mem::replace(&mut full, permits.available_permits() == 0);
        if full && !was_full {
            tracing::warn!("the limit of connections is reached: new ones wait");
        }
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
            Some((listener.accept().await, permit))
        };
        let accepted = tokio::select! {
            queued = &mut stop => {
                if queued == Queued::Served {
                    empty(listener, &permits, &mut on);
                }
                return;
            }
            accepted = next => accepted,
        };
        match accepted {
            Some((Ok((stream, peer)), permit)) => {
                pause = None;
                if let Err(error) = prepare(&stream) {
                    tracing::debug!(%peer, %error, "a connection was gone before it began");
                    continue;
                }
                on(stream, peer, permit);
            }
            Some((Err(error), _)) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection was gone before it began");
            }
            Some((Err(error), _)) => {
                let length = next_pause(&mut pause, &error);
                tokio::select! {
                    _ = &mut stop => return,
                    () = sleep(length) => {}
                }
            }
            // Somebody closed the semaphore: there is nothing more to accept.
            None => return,
        }
    }
}

/// Takes what waits, and no more than can have waited. The system is asked itself: the runtime may not have heard yet of
/// who came a moment ago.
fn empty(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    on: &mut impl FnMut(TcpStream, SocketAddr, OwnedSemaphorePermit),
) {
    let Ok(listener) = SockRef::from(listener).try_clone() else { return };
    let listener: std::net::TcpListener = listener.into();
    for _ in 0..listen::BACKLOG {
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else { return };
        let accepted = listener.accept().and_then(|(stream, peer)| {
            stream.set_nonblocking(true)?;
            Ok((TcpStream::from_std(stream)?, peer))
        });
        match accepted {
            Ok((stream, peer)) if prepare(&stream).is_ok() => on(stream, peer, permit),
            Ok(_) => {}
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => return,
        }
    }
}

/// The system is out of sockets or memory. Said once for each burst.
fn next_pause(pause: &mut Option<Duration>, error: &io::Error) -> Duration {
    if pause.is_none() {
        tracing::warn!(%error, "connections cannot be accepted now: raise the limit of open files");
    }
    let length = pause.map_or(FIRST_PAUSE, |last| LONGEST_PAUSE.min(last * 2));
    *pause = Some(length);
    length
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    async fn stopped_by(stopped: oneshot::Receiver<()>, queued: Queued) -> Queued {
        drop(stopped.await);
        queued
    }

    #[tokio::test]
    async fn who_is_connected_when_the_listener_closes_is_served_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _waiting =
            [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let (stop, stopped) = oneshot::channel::<()>();
        drop(stop);
        let mut served = Vec::new();
        let permits = Arc::new(Semaphore::new(10));
        accept(&listener, permits, stopped_by(stopped, Queued::Served), |stream, _, permit| {
            served.push((stream, permit));
        })
        .await;
        assert_eq!(served.len(), 2);
    }

    #[tokio::test]
    async fn a_connection_over_the_limit_waits_for_one_to_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, mut arrivals) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let permits = Arc::new(Semaphore::new(1));
        let loop_ = async move {
            let stop = stopped_by(stopped, Queued::Left);
            accept(&listener, permits, stop, |stream, _, permit| tell.send((stream, permit)).unwrap()).await;
        };
        let visitors = async {
            let _first = TcpStream::connect(address).await.unwrap();
            let _second = TcpStream::connect(address).await.unwrap();
            let first = arrivals.recv().await.unwrap();
            assert!(arrivals.try_recv().is_err());
            drop(first);
            drop(arrivals.recv().await.unwrap());
            drop(stop);
        };
        tokio::join!(loop_, visitors);
        assert!(TcpStream::connect(address).await.is_err(), "the listener closes with the loop");
    }
}
