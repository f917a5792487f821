//! The ports of tcp endpoints: each has a listener of its own while its endpoint is live.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::EdgeContext;
use super::accept::{Queued, accept, until_drained};
use super::arrival::introduce;
use crate::config::ListenerKind;
use crate::endpoint::Endpoint;
use crate::proxy::tcp::{STALL_LIMIT, carry};
use crate::registry::OpenedPort;
use crate::stall::StallGuard;

/// Serves every port that is opened, until the drain begins.
pub(crate) async fn serve(mut opened: mpsc::Receiver<OpenedPort>, edge: Arc<EdgeContext>) {
    loop {
        let port = tokio::select! {
            port = opened.recv() => port,
            () = edge.visits.draining() => return,
        };
        let Some(OpenedPort { listener, endpoint }) = port else { return };
        let edge = Arc::clone(&edge);
        let (drain, worker) = (edge.visits.clone(), endpoint.tunnel.worker.clone());
        let served = async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => attend(listener, endpoint, &edge).await,
                Err(error) => {
                    tracing::warn!(url = %endpoint.url, %error, "a port cannot be served");
                    endpoint.withdrawn.cancel();
                }
            }
        };
        drain.spawn_on(served, worker.runtime());
    }
}

/// Accepts for one endpoint until it is withdrawn: the port is free for another at once.
async fn attend(listener: TcpListener, endpoint: Arc<Endpoint>, edge: &EdgeContext) {
    let permits = Arc::clone(&edge.visitors);
    let withdrawn = endpoint.withdrawn.clone();
    let stop = async {
        tokio::select! {
            () = withdrawn.cancelled() => Queued::Left,
            queued = until_drained(&edge.visits) => queued,
        }
    };
    accept(listener, permits, stop, |mut stream, peer, permit| {
        let (endpoint, trust) = (Arc::clone(&endpoint), edge.site.trust.clone());
        edge.visits.spawn(async move {
            let introduced = introduce(&mut stream, peer, ListenerKind::Tcp, &trust).await;
            if let Some(visitor) = introduced {
                carry(&endpoint, StallGuard::new(stream, STALL_LIMIT), visitor).await;
            }
            drop(permit);
        });
    })
    .await;
}
