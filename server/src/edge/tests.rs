//! Visitors and upstreams at the two ends of in-memory pipes, with the edge, the modules and the proxy between.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::http::{http1, http2};
use super::*;
use crate::config::VisitorLimits;
use crate::drain::Drain;
use crate::endpoint::{Endpoint, Member, Protocol};
use crate::limits::Visitors;
use crate::metrics::Metrics;
use crate::modules::ModuleChain;
use crate::proxy::Site;
use crate::proxy::activity::Activity;
use crate::proxy::http::Secured;
use crate::registry::{Registry, Slot};
use crate::trust::Trust;
use crate::tunnel::approach::Approach;
use crate::tunnel::{Dial, DialError, Tunnel, TunnelStream};
use crate::visit::{VisitLog, VisitRecord, Visitor};

mod framing;
mod keeping;
mod routing;
mod sockets;
mod splitting;

/// A server with endpoints that all lead to the same upstream, which the test plays.
struct Bench {
    edge: Arc<EdgeContext>,
    dialled: mpsc::UnboundedReceiver<DuplexStream>,
    log: Arc<Log>,
    tunnel: Arc<Tunnel>,
    registry: Registry,
    _drain: Drain,
}

struct Pipes(mpsc::UnboundedSender<DuplexStream>);

impl Dial for Pipes {
    fn dial(&self, _: Visitor) -> BoxFuture<'_, Result<TunnelStream, DialError>> {
        let (near, far) = duplex(64 * 1024);
        let sent = self.0.send(far).map_err(|_| DialError::Refused);
        Box::pin(async move { sent.map(|()| Box::new(tokio::io::BufReader::new(near)) as TunnelStream) })
    }
}

#[derive(Default)]
struct Log {
    records: Mutex<Vec<VisitRecord>>,
    advice: Mutex<Vec<&'static str>>,
}

impl VisitLog for Log {
    fn record(&self, record: VisitRecord) {
        self.records.lock().unwrap().push(record);
    }

    fn advise(&self, advice: &'static str) {
        self.advice.lock().unwrap().push(advice);
    }
}

impl Bench {
    /// With an http endpoint for `a.test`.
    fn new() -> Self {
        let bench = Self::bare();
        bench.publish("a.test", Protocol::Http, "http://a.test", ModuleChain::default());
        bench
    }

    fn bare() -> Self {
        let (drain, watch) = Drain::new();
        let (dial, dialled) = mpsc::unbounded_channel();
        let registry = Registry::for_test();
        let domain = HostName::from_authority("tunnel.test").unwrap();
        let metrics = Arc::<Metrics>::default();
        let visitors = Visitors::new(VisitorLimits::default(), Arc::clone(&metrics));
        let trust = Trust::default();
        let site =
            Site { registry: registry.clone(), domain, trust, visits: watch.clone(), metrics, visitors };
        let edge = EdgeContext::with_tls(site, sockets::server_config(), Workers::here());
        let tunnel = Arc::new(Tunnel::new(Arc::new(Pipes(dial)), watch, Approach::default()));
        Self { edge, dialled, log: Arc::default(), tunnel, registry, _drain: drain }
    }

    fn publish(&self, name: &str, protocol: Protocol, url: &str, modules: ModuleChain) {
        let slot = if protocol == Protocol::Http { Slot::Plain } else { Slot::Secure };
        let endpoint = self.endpoint(protocol, url, modules);
        self.registry.publish_for_test(name, slot, endpoint);
    }

    fn endpoint(&self, protocol: Protocol, url: &str, modules: ModuleChain) -> Arc<Endpoint> {
        let member = Member::new(Arc::clone(&self.tunnel), Some(Arc::clone(&self.log) as Arc<dyn VisitLog>));
        Endpoint::for_test(protocol, url, modules, member)
    }

    /// A visitor on HTTP/1.
    fn connect(&self, secure: bool) -> DuplexStream {
        let visitor = Visitor::new("[::ffff:192.0.2.7]:4000".parse().unwrap(), None);
        self.connect_as(visitor, secure)
    }

    fn connect_as(&self, visitor: Visitor, secure: bool) -> DuplexStream {
        let (near, far) = duplex(64 * 1024);
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let edge = Arc::clone(&self.edge);
        let held = edge.site.visitors.admit(visitor.ip()).unwrap();
        self.edge.visits.spawn(async move {
            http1(&edge, far, visitor, secure.then(Secured::default), Activity::new(permit, held)).await
        });
        near
    }

    /// A visitor on plain HTTP.
    fn visitor(&self) -> DuplexStream {
        self.connect(false)
    }

    /// A visitor behind TLS.
    fn secure_visitor(&self) -> DuplexStream {
        self.connect(true)
    }

    /// The next connection that is opened to the upstream.
    async fn upstream(&mut self) -> DuplexStream {
        timeout(Duration::from_secs(5), self.dialled.recv()).await.expect("nothing was dialled").unwrap()
    }

    fn was_dialled_again(&mut self) -> bool {
        self.dialled.try_recv().is_ok()
    }

    /// What a visitor gets for one request on a connection of its own, without any upstream.
    async fn refusal(&self, request: &str) -> String {
        let mut visitor = self.visitor();
        visitor.write_all(request.as_bytes()).await.unwrap();
        until(&mut visitor, "ERR_HITHE_").await
    }
}

/// Reads until `end` was read.
async fn until(stream: &mut DuplexStream, end: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !read.windows(end.len()).any(|window| window == end.as_bytes()) {
            let mut chunk = [0; 4096];
            let count = stream.read(&mut chunk).await.unwrap();
            if count == 0 {
                break;
            }
            read.extend_from_slice(&chunk[..count]);
        }
    };
    let ended = timeout(Duration::from_secs(5), reading).await;
    let read = String::from_utf8(read).unwrap();
    assert!(ended.is_ok() && read.contains(end), "no {end:?} in {read:?}");
    read
}

/// Plays one exchange as the upstream: gives the head of the request.
async fn answer(upstream: &mut DuplexStream, response: &str) -> String {
    let head = until(upstream, "\r\n\r\n").await;
    upstream.write_all(response.as_bytes()).await.unwrap();
    head
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
