//! Response headers: what can be said about them.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::header_rules::{ERROR_CODE, HeaderRule, Side};
use super::{Definition, Kind, Manual, Objection, Stage};
use crate::Code;

/// Adds headers to responses on their way to the visitor, and removes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResponseHeaders {
    /// Add a header to each response, with ${...} for what is known of the visit; repeat for more, up to 10
    #[arg(long = "response-header-add", value_name = "NAME: VALUE", value_parser = rule, id = "response-header-add")]
    pub add: Vec<HeaderRule>,
    /// Remove a header from each response, before any is added; repeat for more, up to 10
    #[arg(long = "response-header-remove", value_name = "NAME", value_parser = name, id = "response-header-remove")]
    pub remove: Vec<String>,
}

const SIDE: Side = Side {
    add: "--response-header-add",
    remove: "--response-header-remove",
    not_a_rule: Code::RESPONSE_HEADER_RULE,
    not_changeable: Code::RESPONSE_HEADER_KEPT,
    kept: &[ERROR_CODE],
};

fn rule(text: &str) -> Result<HeaderRule, Objection> {
    SIDE.rule(text)
}

fn name(text: &str) -> Result<String, Objection> {
    SIDE.removed(text)
}

impl Definition for ResponseHeaders {
    const STAGE: Stage = Stage::Rewrite;
    const ON: &'static [Kind] = &[Kind::Http];
    const MANUAL: Manual = Manual {
        what: "Changes the headers of a response just before it goes to the visitor, by the same rules as Request \
               headers. Pages that Hithe answers itself are left as they are. A cookie that is added reaches no further than \
               one of the upstream: a `Domain` of the server's own domain is taken from it.",
        line: "ssh -R 443:localhost:80 HOST http --response-header-add='x-frame-options: DENY' --response-header-remove=server",
        defaults: "Headers that frame a message or belong to one connection cannot be changed.",
        codes: &[
            Code::RESPONSE_HEADER_RULE,
            Code::RESPONSE_HEADER_KEPT,
            Code::HEADER_NAME,
            Code::HEADER_CASE,
            Code::HEADER_COUNT,
            Code::HEADER_NAME_LENGTH,
            Code::HEADER_VALUE_LENGTH,
        ],
    };

    fn check(&self) -> Result<(), Objection> {
        SIDE.check(&self.add, &self.remove)
    }

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        SIDE.flags(&self.add, &self.remove, flags);
    }
}
