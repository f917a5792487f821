//! Request headers: added and removed just before a request goes to the upstream (behaviour.md 3.8).

use hithe_cli_parser::RequestHeaders;
use http::header::HOST;
use http::{Request, Response};

use super::header_values::{Asked, Facts, Rules};
use super::host_rewrite::{self, Rewritten};
use super::{BuildError, Flow, Module, Passage, Plan, Visit};
use crate::body::Body;

pub(super) fn build(config: &RequestHeaders, plan: &mut Plan) -> Result<(), BuildError> {
    plan.chain.push(Headers(Rules::new(&config.add, &config.remove)?));
    Ok(())
}

struct Headers(Rules);

impl Module for Headers {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        let Self(rules) = self;
        let asked = rules.shows_request().then(|| Asked::of(request));
        let facts = Facts { visit: &*visit, asked: asked.as_ref(), response: None };
        let mut filled = rules.fill(&facts);
        if rules.adds(&HOST) {
            // One that came out as no host would make the request mean something else.
            filled.retain(|(name, value)| name != HOST || host_rewrite::is_host(value));
            if let Some((_, host)) = filled.iter().rfind(|(name, _)| name == HOST) {
                Rewritten::note(visit, request.headers(), host.clone());
            }
        }
        rules.apply(request.headers_mut(), filled);
        Passage::Now(Flow::Continue)
    }

    fn response(&self, response: &mut Response<Body>, visit: &mut Visit) {
        if self.0.adds(&HOST) {
            host_rewrite::restore(response, visit);
        }
    }
}
