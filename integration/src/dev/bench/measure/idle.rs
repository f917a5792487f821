//! What those cost who are there and do nothing: memory that a fresh server writes to for them.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::super::figures::Figure;
use super::super::peers::Peer;
use super::super::stage::WEB;
use super::{Values, probe};
use crate::Visitor;
use crate::visitor::Tls;

const TUNNELS: usize = 50;
/// Tunnels that are set up at the same time.
const AT_ONCE: usize = 10;
const VISITORS: usize = 200;
/// What a server does once, and what it gives back soon, is over by then.
const SETTLE: Duration = Duration::from_secs(1);

/// Each tunnel is an ssh with one forward.
pub(super) async fn tunnels(peer: &Peer, upstream: u16) -> anyhow::Result<Values> {
    let publisher = peer.publisher.as_ref().context("this peer has no tunnels")?;
    sleep(SETTLE).await;
    let before = peer.memory()?;
    let mut tunnels = Vec::new();
    for number in 0..TUNNELS {
        tunnels.push(publisher.publish_idle(number, upstream));
        if tunnels.len() % AT_ONCE == 0 {
            for tunnel in tunnels.iter_mut().skip(number + 1 - AT_ONCE) {
                tunnel.wait_for_text("remote forward success").await;
            }
        }
    }
    sleep(SETTLE).await;
    let after = peer.memory()?;
    let alive = tunnels.iter_mut().filter_map(|tunnel| tunnel.is_running().then_some(())).count();
    ensure!(alive == TUNNELS, "only {alive} of {TUNNELS} tunnels stayed");
    Ok(vec![(Figure::TunnelMemory, (after.private - before.private) / TUNNELS as f64)])
}

/// Each visitor makes one request and stays on its connection.
pub(super) async fn visitors(peer: &Peer) -> anyhow::Result<Values> {
    drop(visit(peer).await?); // what the first one costs, it costs once
    sleep(SETTLE).await;
    let before = peer.memory()?;
    let mut visitors = Vec::new();
    for _ in 0..VISITORS {
        visitors.push(visit(peer).await?);
    }
    sleep(SETTLE).await;
    let after = peer.memory()?;
    Ok(vec![(Figure::VisitorMemory, (after.private - before.private) / VISITORS as f64)])
}

async fn visit(peer: &Peer) -> anyhow::Result<Tls> {
    let address = |port: u16| ([127, 0, 0, 1], port).into();
    let https = address(peer.https.context("this peer has no TLS")?);
    let visitor = Visitor::of(address(peer.http), https).insecure();
    let mut stream = visitor.try_tls(WEB, &["http/1.1"]).await.context("no TLS handshake")?;
    stream.write_all(probe::request("GET", WEB).as_bytes()).await.context("no request")?;
    let mut answer = vec![0; 4096];
    let mut count = 0;
    while !answer.get(..count).is_some_and(|answer| answer.ends_with(b"xxxx")) {
        let space = answer.get_mut(count..).context("a longer answer than 1 KiB")?;
        let read = stream.read(space).await.context("no answer")?;
        ensure!(read > 0, "no whole answer");
        count += read;
    }
    ensure!(count > 1024 && answer.starts_with(b"HTTP/1.1 200"), "no good answer");
    Ok(stream)
}
