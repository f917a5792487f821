//! The ports of tcp endpoints: each has a listener of its own while its endpoint is live.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::EdgeContext;
use super::accept::accept;
use crate::endpoint::Endpoint;
use crate::proxy::tcp::carry;
use crate::registry::OpenedPort;
use crate::stall::StallGuard;
use crate::visit::Visitor;

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
            () = withdrawn.cancelled() => {}
            () = edge.visits.draining() => {}
        }
    };
    accept(listener, permits, stop, |stream, peer, permit| {
        let (endpoint, site) = (Arc::clone(&endpoint), Arc::clone(&edge.site));
        let Some(held) = edge.admit(&stream, peer, &[]).filter(|held| edge.counts(held)) else { return };
        edge.visits.spawn(async move {
            let local = stream.local_addr().ok();
            let stream = StallGuard::new(stream, site.visitors.limits.stall);
            carry(&site, &endpoint, stream, Visitor::new(peer, local)).await;
            drop((permit, held));
        });
    })
    .await;
}
