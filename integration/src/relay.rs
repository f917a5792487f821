//! A network between a client and the server that can be cut without either side being told, as when a laptop
//! leaves its Wi-Fi: the sockets stay open, nothing passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Passes TCP connections on to one address.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    up: watch::Sender<bool>,
    passed: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

impl Relay {
    /// A relay on a free port of the loopback to `target`.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let (up, gate) = watch::channel(true);
        let passed = Arc::new(AtomicU64::new(0));
        let serving = tokio::spawn(serve(listener, target, gate, Arc::clone(&passed)));
        Self { address, up, passed, serving }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nothing passes any more, in either direction; no socket is closed.
    pub fn cut(&self) {
        self.up.send_replace(false);
    }

    /// What waited passes, and all that follows.
    pub fn mend(&self) {
        self.up.send_replace(true);
    }

    /// Bytes passed so far, both directions.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, up: watch::Receiver<bool>, passed: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let Ok(far) = TcpStream::connect(target).await else { continue };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        connections.spawn(pass(near_in, far_out, up.clone(), Arc::clone(&passed)));
        connections.spawn(pass(far_in, near_out, up.clone(), Arc::clone(&passed)));
    }
}

/// One direction. It reads only while the network is up, so that a cut fills the sender's socket in the end.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut up: watch::Receiver<bool>,
    passed: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count) = from.read(&mut buffer).await else { return };
        if up.wait_for(|up| *up).await.is_err() {
            return;
        }
        let Some(bytes @ [_, ..]) = buffer.get(..count) else { break };
        if to.write_all(bytes).await.is_err() {
            return;
        }
        passed.fetch_add(count as u64, Ordering::Relaxed);
    }
    let _ = to.shutdown().await;
}
