//! Upstreams on a free port of the loopback, good ones and bad ones. Each counts what reaches it, and ends
//! when dropped.

mod http;
mod payload;
mod raw;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

pub use self::http::{Answer, Feed, HttpOrigin, Question, streamed, text};
pub use self::payload::Traffic;

/// A running upstream.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    counters: Arc<Counters>,
    certificate: Option<String>,
    serving: JoinHandle<()>,
}

/// What reached an upstream so far.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicUsize,
    connections: AtomicUsize,
    open: AtomicUsize,
}

impl Origin {
    /// An upstream that gives each connection to `serve`.
    pub async fn serving<F>(serve: impl Fn(TcpStream, Arc<Counters>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let counters = Arc::new(Counters::default());
        let accepting = accept(listener, Arc::clone(&counters), serve);
        Self { address, counters, certificate: None, serving: tokio::spawn(accepting) }
    }

    /// A port of the loopback at which nothing listens; nobody else gets it while this value lives.
    pub async fn absent() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = socket.local_addr().expect("a bound address");
        let held = async move {
            std::future::pending::<()>().await;
            drop(socket);
        };
        Self { address, counters: Arc::default(), certificate: None, serving: tokio::spawn(held) }
    }

    /// The same until the word is given: from then on each connection gets these bytes for its request.
    pub async fn absent_until(start: oneshot::Receiver<()>, answer: &'static str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = socket.local_addr().expect("a bound address");
        let counters = Arc::new(Counters::default());
        let counted = Arc::clone(&counters);
        let serving = tokio::spawn(async move {
            start.await.expect("the word");
            let listener = socket.listen(16).expect("a listener");
            accept(listener, counted, move |stream, counters| {
                raw::script(stream, counters, answer.as_bytes().into())
            })
            .await;
        });
        Self { address, counters, certificate: None, serving }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port at which it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// HTTP requests (and websocket handshakes) that arrived.
    pub fn requests(&self) -> usize {
        self.counters.requests.load(Ordering::SeqCst)
    }

    /// Connections that were accepted.
    pub fn connections(&self) -> usize {
        self.counters.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub fn open_connections(&self) -> usize {
        self.counters.open.load(Ordering::SeqCst)
    }

    /// The PEM certificate of an upstream with TLS.
    pub fn certificate(&self) -> &str {
        self.certificate.as_deref().expect("an upstream with TLS")
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Counters {
    /// Counts a request.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
    }
}

/// Connections die with this future.
async fn accept<F>(
    listener: TcpListener,
    counters: Arc<Counters>,
    serve: impl Fn(TcpStream, Arc<Counters>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        counters.connections.fetch_add(1, Ordering::SeqCst);
        let open = OpenGuard::new(Arc::clone(&counters));
        let served = serve(stream, Arc::clone(&counters));
        connections.spawn(async move {
            served.await;
            drop(open);
        });
        while connections.try_join_next().is_some() {}
    }
}

struct OpenGuard(Arc<Counters>);

impl OpenGuard {
    fn new(counters: Arc<Counters>) -> Self {
        counters.open.fetch_add(1, Ordering::SeqCst);
        Self(counters)
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}
