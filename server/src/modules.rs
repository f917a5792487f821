//! What the modules of an endpoint do, in the order of their stages.
//!
//! The table of modules is the one of `hithe_cli_parser`: this crate adds only a file of the same name for each.

use std::fmt;

use futures_util::future::BoxFuture;
use hithe_cli_parser::{Code, ModuleConfig};
use http::{HeaderValue, Request, Response, StatusCode};

use crate::body::Body;
use crate::visit::Visitor;

macro_rules! act {
    ($($name:ident: $Type:ident = $heading:literal),* $(,)?) => {
        $(mod $name;)*

        fn build(config: ModuleConfig) -> Result<Box<dyn Module>, BuildError> {
            Ok(match config {
                $(ModuleConfig::$Type(config) => Box::new($name::build(&config)?)),*
            })
        }
    };
}
hithe_cli_parser::for_each_module!(act);

/// Why a module could not be made from what the publisher said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("the server's machine gives no random numbers; tell its operator")]
    NoRandom,
}

/// What is known of one visitor's connection or request as it passes the modules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub(crate) visitor: Visitor,
}

/// One behaviour of an endpoint. Every method has a default that lets the visit pass.
pub(crate) trait Module: Send + Sync {
    /// Admits or refuses a visitor by what is known before any byte is read.
    fn connect(&self, _visit: &Visit) -> Flow {
        Flow::Continue
    }

    /// Admits, changes or refuses a request. Hop-by-hop headers are gone, `X-Forwarded-*` are set.
    fn request<'a>(&'a self, _request: &'a mut Request<Body>, _visit: &'a mut Visit) -> BoxFuture<'a, Flow> {
        Box::pin(std::future::ready(Flow::Continue))
    }

    /// Changes the response to a request that passed. Responses pass in reverse order.
    fn response(&self, _response: &mut Response<Body>, _visit: &Visit) {}
}

/// What a module decides about a visit.
#[derive(Debug)]
pub(crate) enum Flow {
    Continue,
    Refuse(Refusal),
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
    /// A `WWW-Authenticate` value.
    pub(crate) challenge: Option<HeaderValue>,
}

/// The modules of one endpoint in the order in which they run. An empty chain costs nothing.
#[derive(Default)]
pub(crate) struct ModuleChain(Vec<Box<dyn Module>>);

impl ModuleChain {
    /// Builds the chain from configurations that are already in the order of their stages.
    pub(crate) fn build(configs: Vec<ModuleConfig>) -> Result<Self, BuildError> {
        configs.into_iter().map(build).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn connect(&self, visit: &Visit) -> Flow {
        for module in &self.0 {
            if let Flow::Refuse(refusal) = module.connect(visit) {
                return Flow::Refuse(refusal);
            }
        }
        Flow::Continue
    }

    pub(crate) async fn request(&self, request: &mut Request<Body>, visit: &mut Visit) -> Flow {
        for module in &self.0 {
            if let Flow::Refuse(refusal) = module.request(request, visit).await {
                return Flow::Refuse(refusal);
            }
        }
        Flow::Continue
    }

    pub(crate) fn response(&self, response: &mut Response<Body>, visit: &Visit) {
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
