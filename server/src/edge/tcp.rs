//! The ports of tcp endpoints: each has a listener of its own, as long as somebody answers there or is waited for.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::EdgeContext;
use super::accept::{Queued, accept, until_drained};
use super::arrival::introduce;
use crate::config::ListenerKind;
use crate::endpoint::Endpoint;
use crate::proxy::tcp::carry;
use crate::registry::{OpenedPort, Place};
use crate::stall::StallGuard;
use crate::workers::Worker;

/// Serves every port that is opened, until the drain begins.
pub(crate) async fn serve(mut opened: mpsc::Receiver<OpenedPort>, edge: Arc<EdgeContext>) {
    loop {
        let port = tokio::select! {
            port = opened.recv() => port,
            () = edge.visits.draining() => return,
        };
        let Some(OpenedPort { listener, port }) = port else { return };
        edge.visits.spawn(keep(listener, port, Arc::clone(&edge)));
    }
}

/// Hands the listener from one endpoint of the port to the next. In between, connections wait in the system's queue.
async fn keep(mut listener: std::net::TcpListener, port: u16, edge: Arc<EdgeContext>) {
    loop {
        match edge.site.registry.at_port(port) {
            Some(Place::Live(endpoint)) if !endpoint.withdrawn.is_cancelled() => {
                let worker = endpoint.worker().unwrap_or_else(|| edge.workers.any());
                match lend(listener, endpoint, &edge, &worker).await {
                    Some(given_back) => listener = given_back,
                    None if edge.visits.is_draining() => return,
                    None => return edge.site.registry.abandon_port(port),
                }
            }
            // Withdrawn for its publisher's sake: the port is closed until it is published anew. Or it has just been
            // replaced.
            Some(Place::Live(endpoint)) if edge.site.registry.close_port_of(port, &endpoint) => return,
            Some(Place::Live(_)) => {}
            Some(Place::Held(_, held)) => tokio::select! {
                () = held.settled_or_over() => {}
                () = edge.visits.draining() => return,
            },
            None if edge.site.registry.close_port(port) => return,
            None => {}
        }
    }
}

/// Lets the thread of an endpoint's publisher accept until the endpoint is withdrawn. `None` when the drain begins.
async fn lend(
    listener: std::net::TcpListener,
    endpoint: Arc<Endpoint>,
    edge: &Arc<EdgeContext>,
    worker: &Worker,
) -> Option<std::net::TcpListener> {
    let (give_back, given_back) = oneshot::channel();
    let lent = Arc::clone(edge);
    let served = async move {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(url = %endpoint.url, %error, "a port cannot be served");
                return endpoint.withdrawn.cancel();
            }
        };
        attend(&listener, &endpoint, &lent).await;
        if !lent.visits.is_draining()
            && let Ok(listener) = listener.into_std()
        {
            let _ = give_back.send(listener);
        }
    };
    edge.visits.spawn_on(served, worker.runtime());
    given_back.await.ok()
}

/// Accepts for one endpoint until it is withdrawn.
async fn attend(listener: &TcpListener, endpoint: &Arc<Endpoint>, edge: &Arc<EdgeContext>) {
    let permits = Arc::clone(&edge.visitors);
    let stop = async {
        tokio::select! {
            () = endpoint.withdrawn.cancelled() => Queued::Left,
            queued = until_drained(&edge.visits) => queued,
        }
    };
    accept(listener, permits, stop, |mut stream, peer, permit| {
        let (endpoint, edge) = (Arc::clone(endpoint), Arc::clone(edge));
        edge.visits.clone().spawn(async move {
            let introduced = introduce(&mut stream, peer, ListenerKind::Tcp, &edge.site.trust).await;
            let Some(visitor) = introduced else { return };
            let held = edge.admit(&stream, visitor.ip(), &[]).filter(|held| edge.counts(held));
            let Some(held) = held else { return };
            let stream = StallGuard::new(stream, edge.site.visitors.limits.stall);
            carry(&edge.site, &endpoint, stream, visitor).await;
            drop((permit, held));
        });
    })
    .await;
}
