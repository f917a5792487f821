//! What the modules of an endpoint do, in the order of their stages.
//!
//! The table of modules is the one of `hithe_cli_parser`: this crate adds only a file of the same name for each.

mod header_values;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use hithe_cli_parser::{Code, ModuleConfig, Objection};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};

use crate::body::Body;
use crate::certs::Demands;
use crate::tunnel::approach::Approach;
use crate::visit::{Reached, TlsFacts, Visitor};

macro_rules! act {
    ($($name:ident: $Type:ident = $heading:literal),* $(,)?) => {
        $(mod $name;)*

        fn build(config: &ModuleConfig, plan: &mut Plan) -> Result<(), BuildError> {
            match config {
                $(ModuleConfig::$Type(config) => $name::build(config, plan)),*
            }
        }
    };
}
hithe_cli_parser::for_each_module!(act);

pub(crate) use mutual_tls::check_directory as check_client_cas;

/// Why a module could not be made from what the publisher said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("the server's machine gives no random numbers; tell its operator")]
    NoRandom,
    /// What only the server can find wrong.
    #[error(transparent)]
    Objection(#[from] Objection),
}

impl BuildError {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::NoRandom => Code::BAD_FLAG,
            Self::Objection(objection) => objection.code,
        }
    }
}

/// What the modules of all endpoints share.
#[derive(Default)]
pub(crate) struct Commons {
    client_cas: mutual_tls::Known,
    webhooks: webhook::Shared,
    hashing: basic_auth::Hashing,
}

impl Commons {
    /// `client_cas` is the directory of the authorities that publishers may name.
    pub(crate) fn new(client_cas: Option<PathBuf>) -> Self {
        Self { client_cas: mutual_tls::Known::new(client_cas), ..Self::default() }
    }
}

/// What the modules of an endpoint come to.
pub(crate) struct Plan {
    pub(crate) chain: ModuleChain,
    /// How streams to its upstream begin.
    pub(crate) approach: Approach,
    /// What its visitors' TLS has to be like.
    pub(crate) tls: Demands,
    /// Whether TLS of a tls endpoint ends here.
    pub(crate) ends_tls: bool,
    commons: Arc<Commons>,
}

impl Plan {
    /// `configs` are already in the order of their stages.
    pub(crate) fn of(configs: &[ModuleConfig], commons: &Arc<Commons>) -> Result<Self, BuildError> {
        let mut plan = Self {
            chain: ModuleChain::default(),
            approach: Approach::default(),
            tls: Demands::default(),
            ends_tls: false,
            commons: Arc::clone(commons),
        };
        for config in configs {
            build(config, &mut plan)?;
        }
        Ok(plan)
    }
}

/// What is known of one visitor's connection or request as it passes the modules.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) visitor: Visitor,
    /// The URL of the endpoint.
    pub(crate) url: Arc<str>,
    /// What the visitor's TLS is like, where it ended here.
    pub(crate) tls: Option<Arc<TlsFacts>>,
    /// The protocol that the visitor asks to change to. Its headers are not among those of the request.
    pub(crate) upgrade: Option<HeaderValue>,
    /// The headers of the answer to a WebSocket whose messages are to be converted to a stream.
    pub(crate) convert: Option<Box<HeaderMap>>,
    /// Of compression, for the response.
    wanted_coding: compression::Wanted,
    /// So is this: whether it will have no body.
    asks_head: bool,
    /// Of the circuit breaker, until the outcome is known.
    breaker: Option<circuit_breaker::Passed>,
    /// Of host rewriting, for the response.
    rewritten: Option<Box<host_rewrite::Rewritten>>,
    /// The request, where the headers of its response show something of it.
    asked: Option<Box<header_values::Asked>>,
    /// Drawn when it is first shown.
    request_id: OnceLock<Option<u128>>,
    /// Known when the upstream has answered.
    pub(crate) reached: Option<Reached>,
    passed: Passed,
}

/// What let a visit pass, for those who show it.
#[derive(Debug, Default)]
struct Passed {
    ip_restriction: bool,
    basic_auth: bool,
    webhook: bool,
    breaker: Option<&'static str>,
    /// The coding of the response.
    compression: Option<&'static str>,
}

impl Visit {
    pub(crate) fn new(visitor: Visitor, tls: Option<&Arc<TlsFacts>>, url: &Arc<str>) -> Self {
        Self {
            visitor,
            url: Arc::clone(url),
            tls: tls.cloned(),
            upgrade: None,
            convert: None,
            wanted_coding: compression::Wanted::default(),
            asks_head: false,
            breaker: None,
            rewritten: None,
            asked: None,
            request_id: OnceLock::new(),
            reached: None,
            passed: Passed::default(),
        }
    }

    /// Whether the visitor came over TLS that ended here.
    fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    fn scheme(&self) -> &'static str {
        if self.is_secure() { "https" } else { "http" }
    }
}

/// One behaviour of an endpoint. Every method has a default that lets the visit pass.
pub(crate) trait Module: Send + Sync {
    /// Admits or refuses a visitor by what is known before any byte is read. On http endpoints it comes before each
    /// request, since only a request says which endpoint it is for.
    fn connect(&self, _visit: &mut Visit) -> Flow {
        Flow::Continue
    }

    /// Admits, changes or refuses a request. Hop-by-hop headers are gone, `X-Forwarded-*` are set.
    fn request<'a>(&'a self, _request: &'a mut Request<Body>, _visit: &'a mut Visit) -> Passage<'a> {
        Passage::Now(Flow::Continue)
    }

    /// Hears how a request went that all modules let pass: the status that the upstream answered with, or that of
    /// our own answer in its place. A visitor that leaves before that, or whose request is malformed, is not told of.
    fn outcome(&self, _status: StatusCode, _visit: &mut Visit) {}

    /// Changes the response to a request that passed. Responses pass in reverse order.
    fn response(&self, _response: &mut Response<Body>, _visit: &mut Visit) {}
}

/// A decision that is there, or that has to be waited for.
pub(crate) enum Passage<'a> {
    Now(Flow),
    Later(BoxFuture<'a, Flow>),
}

/// What a module decides about a visit.
#[derive(Debug)]
pub(crate) enum Flow {
    Continue,
    Refuse(Box<Refusal>),
    /// Answers in place of the upstream, for its good.
    Answer(Box<Response<Body>>),
}

impl From<Refusal> for Flow {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(Box::new(refusal))
    }
}

/// An answer that a module gives in place of the upstream. On TCP and TLS the connection just closes.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: Code,
    /// What happened, in one sentence for the visitor.
    pub(crate) text: &'static str,
    /// What the visitor can do.
    pub(crate) hint: &'static str,
    /// Such as `WWW-Authenticate` or `Retry-After`.
    pub(crate) header: Option<(HeaderName, HeaderValue)>,
}

/// The modules of one endpoint in the order in which they run. An empty chain costs nothing.
#[derive(Default)]
pub(crate) struct ModuleChain(Vec<Box<dyn Module>>);

impl ModuleChain {
    fn push(&mut self, module: impl Module + 'static) {
        self.0.push(Box::new(module));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn connect(&self, visit: &mut Visit) -> Flow {
        for module in &self.0 {
            match module.connect(visit) {
                Flow::Continue => {}
                decided => return decided,
            }
        }
        Flow::Continue
    }

    pub(crate) async fn request(&self, request: &mut Request<Body>, visit: &mut Visit) -> Flow {
        for module in &self.0 {
            let flow = match module.request(request, visit) {
                Passage::Now(flow) => flow,
                Passage::Later(flow) => flow.await,
            };
            match flow {
                Flow::Continue => {}
                decided => return decided,
            }
        }
        Flow::Continue
    }

    pub(crate) fn outcome(&self, status: StatusCode, visit: &mut Visit) {
        for module in &self.0 {
            module.outcome(status, visit);
        }
    }

    pub(crate) fn response(&self, response: &mut Response<Body>, visit: &mut Visit) {
        for module in self.0.iter().rev() {
            module.response(response, visit);
        }
    }
}

impl fmt::Debug for ModuleChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ModuleChain").field(&self.0.len()).finish()
    }
}
