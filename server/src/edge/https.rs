//! The https port: HTTP/2 or HTTP/1.1 by ALPN where TLS ends here, raw streams where it does not.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use super::accept::{accept, until_drained};
use super::arrival::introduce;
use super::facts::facts;
use super::http::{http1, http2};
use super::place::{by_sni, place};
use super::tls::{ALERT, Shaken, farewell, shake};
use super::{EdgeContext, LAST_WORD};
use crate::config::ListenerKind;
use crate::limits::VisitorPlace;
use crate::proxy::activity::Activity;
use crate::proxy::http::Secured;
use crate::proxy::tcp::carry;
use crate::stall::StallGuard;
use crate::visit::Visitor;

/// Serves HTTPS and TLS until the drain begins.
pub(crate) async fn serve(listener: TcpListener, edge: Arc<EdgeContext>) {
    let permits = Arc::clone(&edge.visitors);
    accept(&listener, permits, until_drained(&edge.visits), |stream, peer, permit| {
        take(&edge, stream, peer, permit);
    })
    .await;
}

/// Serves a connection in a task of its own.
fn take(edge: &Arc<EdgeContext>, mut stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
    let (edge, drain) = (Arc::clone(edge), edge.visits.clone());
    drain.spawn(async move {
        let introduced = introduce(&mut stream, peer, ListenerKind::Https, &edge.site.trust).await;
        if let Some(visitor) = introduced {
            arrived(edge, stream, visitor, permit).await;
        }
    });
}

/// Takes a connection of which is known who comes to the thread that serves it.
pub(crate) async fn arrived(
    edge: Arc<EdgeContext>,
    stream: TcpStream,
    visitor: Visitor,
    permit: OwnedSemaphorePermit,
) {
    let Some(held) = edge.admit(&stream, visitor.ip(), &ALERT) else { return };
    let Some((parcel, worker)) = place(&edge, stream, by_sni).await else { return };
    let drain = edge.visits.clone();
    let served = async move {
        let Ok(stream) = parcel.unpack() else { return };
        attend(&edge, stream, visitor, (permit, held)).await;
    };
    drain.spawn_on(served, worker.runtime());
}

async fn attend(
    edge: &EdgeContext,
    stream: TcpStream,
    visitor: Visitor,
    (permit, held): (OwnedSemaphorePermit, VisitorPlace),
) {
    let stream = StallGuard::new(stream, edge.site.visitors.limits.stall);
    let shaken = tokio::select! {
        shaken = shake(stream, &edge.site, &edge.tls) => shaken,
        () = edge.visits.draining_for(LAST_WORD) => return,
    };
    match shaken {
        Some(Shaken::Terminated(stream, made_for)) => {
            let activity = Activity::new(permit, held);
            let tls = Secured { facts: Arc::new(facts(stream.get_ref().1)), made_for };
            if tls.facts.alpn == Some("h2") {
                http2(edge, stream, visitor, tls, activity).await;
            } else {
                http1(edge, stream, visitor, Some(tls), activity).await;
            }
        }
        Some(Shaken::Raw(endpoint, stream)) if edge.counts(&held) => {
            carry(&edge.site, &endpoint, *stream, visitor).await;
        }
        Some(Shaken::Through(endpoint, mut stream)) => {
            if edge.counts(&held) {
                carry(&edge.site, &endpoint, stream, visitor).await;
            } else {
                farewell(&mut stream, &ALERT).await;
            }
        }
        Some(Shaken::Raw(..)) => {}
        None => {}
    }
}
