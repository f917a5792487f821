//! SSH and HTTPS on one port, for networks that let nothing else out: the first byte decides.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Admittance;
use crate::config::ListenerKind;
use crate::drain::DrainWatch;
use crate::edge::accept::until_drained;
use crate::edge::arrival::introduce;
use crate::edge::{self, EdgeContext};

/// How long a client is waited for. One that says nothing waits for our version line, as SSH allows (RFC 4253 §4.2).
const PEEK: Duration = Duration::from_secs(1);

/// How every version line of SSH begins, and no handshake of TLS.
const SSH: u8 = b'S';

/// Serves both until visitors drain.
pub(super) fn serve(
    sockets: Vec<std::net::TcpListener>,
    edge: &Arc<EdgeContext>,
    admittance: &Admittance,
    visitors: &DrainWatch,
) {
    for listener in sockets.into_iter().filter_map(|socket| TcpListener::from_std(socket).ok()) {
        let (edge, admittance) = (Arc::clone(edge), admittance.clone());
        let (stop, tasks) = (visitors.clone(), visitors.clone());
        visitors.spawn(async move {
            let stop = until_drained(&stop);
            edge::accept::accept(&listener, edge.permits(), stop, |mut stream, peer, permit| {
                let (edge, admittance, drain) = (Arc::clone(&edge), admittance.clone(), tasks.clone());
                tasks.spawn(async move {
                    let trust = &admittance.context.trust;
                    let kind = match trust.expects_header(ListenerKind::Ssh, peer.ip()) {
                        true => ListenerKind::Ssh,
                        false => ListenerKind::Https,
                    };
                    let Some(from) = introduce(&mut stream, peer, kind, trust).await else { return };
                    let is_publisher = tokio::select! {
                        is_publisher = is_ssh(&stream) => is_publisher,
                        // Nothing was asked yet that would have to be finished.
                        () = drain.draining() => None,
                    };
                    match is_publisher {
                        Some(true) => {
                            drop(permit);
                            admittance.admit(stream, from.socket_addr());
                        }
                        Some(false) => edge::https::arrived(edge, stream, from, permit).await,
                        None => {}
                    }
                });
            })
            .await;
        });
    }
}

/// `None` if the client has left.
async fn is_ssh(stream: &TcpStream) -> Option<bool> {
    let mut first = [0];
    match timeout(PEEK, stream.peek(&mut first)).await {
        Ok(Ok(count)) => (count > 0).then_some(first == [SSH]),
        Ok(Err(_)) => None,
        Err(_) => Some(true),
    }
}
