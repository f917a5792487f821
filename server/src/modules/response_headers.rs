//! Response headers: added and removed just before a response goes to the visitor (behaviour.md 3.9).

use hithe_cli_parser::ResponseHeaders;
use http::{Request, Response};

use super::header_values::{Asked, Facts, Rules};
use super::{BuildError, Flow, Module, Passage, Plan, Visit};
use crate::body::Body;

pub(super) fn build(config: &ResponseHeaders, plan: &mut Plan) -> Result<(), BuildError> {
    plan.chain.push(Headers(Rules::new(&config.add, &config.remove)?));
    Ok(())
}

struct Headers(Rules);

impl Module for Headers {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        if self.0.shows_request() {
            visit.asked = Some(Box::new(Asked::of(request)));
        }
        Passage::Now(Flow::Continue)
    }

    fn response(&self, response: &mut Response<Body>, visit: &mut Visit) {
        let facts = Facts { visit: &*visit, asked: visit.asked.as_deref(), response: Some(&*response) };
        let filled = self.0.fill(&facts);
        self.0.apply(response.headers_mut(), filled);
    }
}
