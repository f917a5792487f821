//! Bytes without end through eight visitors. They are counted where they arrive, in a window that begins when
//! they flow, so that what a server takes and keeps counts for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::super::figures::Figure;
use super::super::peers::Peer;
use super::super::stage::{BULK, CHUNK, ENDLESS, Stage};
use super::{Values, probe};

const VISITORS: usize = 8;
/// Until windows have grown and the bytes flow evenly.
const WARM_UP: Duration = Duration::from_millis(500);

pub(super) async fn download(peer: &Peer, seconds: u64) -> anyhow::Result<Values> {
    let received = Arc::<AtomicU64>::default();
    let mut visitors = JoinSet::new();
    for _ in 0..VISITORS {
        visitors.spawn(take(peer.bulk, Arc::clone(&received)));
    }
    let (rate, cpu) = window(peer, seconds, || received.load(Ordering::Relaxed)).await?;
    Ok(vec![(Figure::DownloadRate, rate), (Figure::DownloadCpu, cpu)])
}

pub(super) async fn upload(peer: &Peer, stage: &Stage, seconds: u64) -> anyhow::Result<Values> {
    let mut visitors = JoinSet::new();
    for _ in 0..VISITORS {
        visitors.spawn(give(peer.bulk));
    }
    let (rate, cpu) = window(peer, seconds, || stage.received()).await?;
    Ok(vec![(Figure::UploadRate, rate), (Figure::UploadCpu, cpu)])
}

/// MB/s, and the server's CPU seconds for each GiB.
async fn window(peer: &Peer, seconds: u64, arrived: impl Fn() -> u64) -> anyhow::Result<(f64, f64)> {
    sleep(WARM_UP).await;
    let (bytes, cpu, start) = (arrived(), peer.cpu(), Instant::now());
    sleep(Duration::from_secs(seconds)).await;
    let (bytes, cpu) = (arrived() - bytes, peer.cpu().saturating_sub(cpu));
    let took = start.elapsed();
    ensure!(bytes > 0, "no byte arrived");
    let bytes = bytes as f64;
    Ok((bytes / 1e6 / took.as_secs_f64(), cpu.as_secs_f64() / (bytes / f64::from(1 << 30))))
}

async fn take(port: u16, received: Arc<AtomicU64>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(probe::request("GET", BULK).as_bytes()).await?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => received.fetch_add(count as u64, Ordering::Relaxed),
        };
    }
}

async fn give(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let head = format!("PUT / HTTP/1.1\r\nhost: {BULK}\r\ncontent-length: {ENDLESS}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let buffer = vec![0; CHUNK];
    loop {
        stream.write_all(&buffer).await?;
    }
}
