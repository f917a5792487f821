//! User agent filter: admits visitors by what they say they are (behaviour.md 3.13).

use hithe_cli_parser::{Code, Patterns, UserAgentFilter, compile};
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use regex::bytes::RegexSet;

use super::{BuildError, Flow, Module, Passage, Plan, Refusal, Visit};
use crate::body::Body;

pub(super) fn build(config: &UserAgentFilter, plan: &mut Plan) -> Result<(), BuildError> {
    plan.chain.push(Filter::new(config)?);
    Ok(())
}

struct Filter {
    allow: RegexSet,
    deny: RegexSet,
}

impl Filter {
    fn new(config: &UserAgentFilter) -> Result<Self, BuildError> {
        let set = |patterns: &[Patterns]| -> Result<RegexSet, BuildError> {
            let expressions: Vec<&str> = patterns.iter().flat_map(Patterns::expressions).collect();
            // Each for itself, so that an error names the one at fault.
            expressions.iter().try_for_each(|expression| compile(expression).map(drop))?;
            let set = RegexSet::new(expressions);
            Ok(set.map_err(|error| {
                hithe_cli_parser::Objection::new(Code::USER_AGENT_PATTERN, error.to_string())
            })?)
        };
        Ok(Self { allow: set(&config.allow)?, deny: set(&config.deny)? })
    }

    /// Only the first of several headers counts.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let agent = headers.get(USER_AGENT);
        let text = agent.map(HeaderValue::as_bytes).unwrap_or_default();
        self.allow.is_match(text) || (agent.is_some() && !self.deny.is_match(text))
    }
}

impl Module for Filter {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, _visit: &'a mut Visit) -> Passage<'a> {
        if self.admits(request.headers()) {
            return Passage::Now(Flow::Continue);
        }
        let refusal = Refusal {
            status: StatusCode::FORBIDDEN,
            code: Code::USER_AGENT_REFUSED,
            text: "Your browser or program is not admitted here",
            hint: "The publisher of this site chooses which ones are, by their header User-Agent.",
            header: None,
        };
        Passage::Now(refusal.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(allow: &[&str], deny: &[&str], agent: Option<&str>) -> bool {
        let patterns = |list: &[&str]| list.iter().map(|it| it.parse().unwrap()).collect();
        let filter = Filter::new(&UserAgentFilter { allow: patterns(allow), deny: patterns(deny) }).unwrap();
        let headers = agent.map(|agent| (USER_AGENT, agent.parse().unwrap())).into_iter().collect();
        filter.admits(&headers)
    }

    #[test]
    fn what_is_allowed_overrides_what_is_denied_and_the_rest_passes() {
        assert!(!admits(&[], &["(?i)bot"], Some("GoodBot/1")));
        assert!(admits(&["^GoodBot"], &["(?i)bot"], Some("GoodBot/1")));
        assert!(!admits(&["^GoodBot"], &["(?i)bot"], Some("BadBot/1")));
        assert!(admits(&["^GoodBot"], &[], Some("curl/8")));
        assert!(admits(&["(foo),(bar)"], &[".*"], Some("a bar b")));
    }

    #[test]
    fn a_visitor_without_the_header_needs_a_rule_for_the_empty_text() {
        assert!(!admits(&[], &["bot"], None));
        assert!(!admits(&["curl"], &[], None));
        assert!(admits(&["^$"], &["bot"], None));
        assert!(admits(&[], &["bot"], Some("")));
    }
}
