//! Response headers: added and removed just before a response goes to the visitor (behaviour.md 3.9).

use hithe_cli_parser::ResponseHeaders;
use http::{Request, Response};

use super::header_values::{Asked, Facts, Rules};
use super::{BuildError, Flow, Module, Passage, Plan, Visit};
use crate::body::Body;

pub(super) fn build(config: &ResponseHeaders, plan: &mut Plan) -> Result<(), BuildError> {
    let rules = Rules::new(&config.add, &config.remove)?;
    plan.chain.push(Headers { shows_request: rules.shows_request(), rules });
    Ok(())
}

struct Headers {
    rules: Rules,
    shows_request: bool,
}

impl Module for Headers {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        if self.shows_request {
            visit.asked = Some(Box::new(Asked::of(request, visit)));
        }
        Passage::Now(Flow::Continue)
    }

    fn response(&self, response: &mut Response<Body>, visit: &mut Visit) {
        let facts = Facts { visit: &*visit, asked: visit.asked.as_deref(), response: Some(&*response) };
        let filled = self.rules.fill(&facts);
        self.rules.apply(response.headers_mut(), filled);
    }
}
