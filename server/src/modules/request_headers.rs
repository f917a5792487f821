//! Request headers: added and removed just before a request goes to the upstream (behaviour.md 3.8).

use hithe_cli_parser::RequestHeaders;
use http::header::HOST;
use http::{HeaderValue, Request, Response};

use super::header_values::{Asked, Facts, Rules, Value};
use super::{BuildError, Flow, Module, Passage, Plan, Visit, host_rewrite};
use crate::body::Body;

pub(super) fn build(config: &RequestHeaders, plan: &mut Plan) -> Result<(), BuildError> {
    let mut rules = Rules::new(&config.add, &config.remove)?;
    let host = rules.take(&HOST);
    let shows_request = rules.shows_request() || host.as_ref().is_some_and(Value::shows_request);
    plan.chain.push(Headers { rules, host, shows_request });
    Ok(())
}

struct Headers {
    /// Those of all headers but `Host`, which a request has once.
    rules: Rules,
    host: Option<Value>,
    shows_request: bool,
}

impl Module for Headers {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        let asked = self.shows_request.then(|| Asked::of(request, visit));
        let facts = Facts { visit: &*visit, asked: asked.as_ref(), response: None };
        let filled = self.rules.fill(&facts);
        let host: Option<HeaderValue> = self.host.as_ref().map(|host| host.fill(&facts));
        self.rules.apply(request.headers_mut(), filled);
        // One that came out as no host would make the request mean something else.
        if let Some(host) = host.filter(host_rewrite::is_host) {
            host_rewrite::rewrite(request, visit, host);
        }
        Passage::Now(Flow::Continue)
    }

    fn response(&self, response: &mut Response<Body>, visit: &mut Visit) {
        if self.host.is_some() {
            host_rewrite::restore(response, visit);
        }
    }
}
