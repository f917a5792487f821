//! What `benches/hot.rs` sees of the inside. Not an interface: it is there with the feature `bench` only.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hithe_cli_parser::{Parsed, parse};
use http::{Request, Response};
use tokio::runtime::Runtime;

use crate::body::Body;
use crate::config::{Config, Options};
use crate::drain::{Drain, DrainWatch};
use crate::endpoint::{Endpoint, Member, Protocol};
use crate::limits::{Usage, VisitorPlace, Visitors};
use crate::modules::{Flow, ModuleChain, Plan, Visit};
use crate::registry::{Registry, Slot};
use crate::tunnel::elastic::{Elastic, Regulated, Taken, Valve};
use crate::tunnel::spool::{Backlog, ChargedTo, Spool};
use crate::tunnel::{Dial, DialError, Tunnel, TunnelStream};
use crate::visit::Visitor;

struct Nowhere;

impl Dial for Nowhere {
    fn dial(&self, _: Visitor) -> BoxFuture<'_, Result<TunnelStream, DialError>> {
        Box::pin(std::future::ready(Err(DialError::Refused)))
    }
}

/// A registry with many names.
#[derive(Debug)]
pub struct Routes(Registry);

impl Routes {
    /// `n0.bench.test` and so on, and everything below `wild.bench.test`.
    pub fn of(names: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let _inside = runtime.enter();
        let registry = Registry::for_test();
        let tunnel = Arc::new(Tunnel::new(Arc::new(Nowhere), Drain::new().1, Default::default()));
        let names = (0..names).map(|at| format!("n{at}.bench.test"));
        for name in names.chain(["*.wild.bench.test".to_owned()]) {
            let (url, member) = (format!("https://{name}"), Member::new(Arc::clone(&tunnel), None));
            let endpoint = Endpoint::for_test(Protocol::Https, &url, ModuleChain::default(), member);
            registry.publish_for_test(&name, Slot::Secure, endpoint);
        }
        Self(registry)
    }

    pub fn find(&self, name: &str) -> bool {
        self.0.web(name, Slot::Secure).is_some()
    }
}

/// The modules of an endpoint.
pub struct Chain {
    runtime: Runtime,
    chain: ModuleChain,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").finish_non_exhaustive()
    }
}

impl Chain {
    /// As the command says.
    pub fn of(command: &str) -> Self {
        let Ok(Parsed::Publish(command)) = parse(command) else { unreachable!("a command of the benchmark") };
        let configs = command.modules().clone().into_configs();
        let chain = Plan::of(&configs, &Arc::default()).unwrap().chain;
        Self { runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(), chain }
    }

    /// One request and its response.
    pub fn pass(&self) {
        let visitor = Visitor::new(SocketAddr::from(([192, 0, 2, 1], 4000)), None);
        let request = Request::get("/").header("host", "a.test").header("user-agent", "bench/1");
        let request = request.header("authorization", "Basic YWRhOmNvcnJlY3QtaG9yc2U=");
        let mut request = request.header("accept-encoding", "gzip").body(Body::empty()).unwrap();
        let mut response = Response::new(Body::full("x".repeat(512)));
        if self.chain.is_empty() {
            return;
        }
        self.runtime.block_on(async {
            let mut visit = Visit::new(visitor, None, &"http://a.test".into());
            let flow = self.chain.connect(&mut visit);
            assert!(matches!(flow, Flow::Continue));
            assert!(matches!(self.chain.request(&mut request, &mut visit).await, Flow::Continue));
            self.chain.outcome(http::StatusCode::OK, &mut visit);
            self.chain.response(&mut response, &mut visit);
        });
    }
}

/// What is counted of a visit.
#[derive(Debug)]
pub struct Counts {
    _runtime: Runtime,
    usage: Arc<Usage>,
    place: VisitorPlace,
}

impl Counts {
    #[expect(clippy::new_without_default, reason = "it makes a runtime")]
    pub fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let limits = Config::load(Options { open: Some(true), ..Options::default() }).unwrap().limits;
        let visitors = Visitors::new(limits.visitors, Arc::default());
        let place = visitors.admit([192, 0, 2, 1].into()).unwrap();
        Self { _runtime: runtime, usage: Usage::unlimited(), place }
    }

    /// One visit with one packet, for its account.
    pub fn visit(&self) {
        let _place = self.usage.begin_visit().unwrap();
        self.usage.moved(32 * 1024);
        assert!(self.usage.owed().is_none());
    }

    /// One request, for its source: whether it is admitted.
    pub fn request(&self) -> bool {
        self.place.request().is_ok()
    }
}

/// A client that can be told to pause, and is not.
struct Nobody;

impl Regulated for Nobody {
    fn tell(&self, _: bool) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn in_flight(&self) -> usize {
        4 << 20
    }
}

/// Elastic buffers over a temporary folder.
#[derive(Debug)]
pub struct Buffer {
    runtime: Runtime,
    charged: ChargedTo,
    tasks: DrainWatch,
    /// Whether the client can be told to pause.
    regulated: bool,
    _folder: tempfile::TempDir,
}

impl Buffer {
    /// Those of a client of ours.
    pub fn regulated() -> Self {
        Self { regulated: true, ..Self::new() }
    }

    fn visit(&self) -> Arc<Elastic> {
        let valve = || Valve::new(self.tasks.clone(), Nobody);
        Elastic::new(self.charged.clone(), self.tasks.clone(), self.regulated.then(valve))
    }

    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let charged = ChargedTo {
            spool: Spool::open(folder.path(), Some(1 << 30)).unwrap(),
            backlog: Arc::new(Backlog::default()),
            publisher: "SHA256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg".parse().unwrap(),
            visitor: Visitor::new(SocketAddr::from(([192, 0, 2, 1], 4000)), None),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, charged, tasks: Drain::new().1, regulated: false, _folder: folder }
    }

    /// Each packet is taken as soon as it has come.
    pub fn pass(&self, packets: usize, length: usize) {
        let visit = self.visit();
        self.runtime.block_on(async {
            for _ in 0..packets {
                visit.push(Bytes::from(vec![7; length]));
                let _taken = poll_fn(|cx| visit.poll_take(cx)).await;
            }
        });
    }

    /// Nothing is taken until all have come.
    pub fn spill(&self, packets: usize, length: usize) {
        let visit = self.visit();
        self.runtime.block_on(async {
            for _ in 0..packets {
                visit.push(Bytes::from(vec![7; length]));
                self.charged.backlog.has_room().await;
            }
            visit.finish();
            while let Taken::Data(_) = poll_fn(|cx| visit.poll_take(cx)).await {}
        });
    }
}
