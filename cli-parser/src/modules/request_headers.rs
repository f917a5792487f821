//! Request headers: what can be said about them.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::header_rules::{HeaderRule, Side};
use super::{Definition, Kind, Manual, Objection, Stage};
use crate::Code;

/// Adds headers to requests on their way to the upstream, and removes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestHeaders {
    /// Add a header to each request, with ${...} for what is known of the visit; repeat for more, up to 10
    #[arg(long = "request-header-add", value_name = "NAME: VALUE", value_parser = rule, id = "request-header-add")]
    pub add: Vec<HeaderRule>,
    /// Remove a header from each request, before any is added; repeat for more, up to 10
    #[arg(long = "request-header-remove", value_name = "NAME", value_parser = name, id = "request-header-remove")]
    pub remove: Vec<String>,
}

pub(super) const SIDE: Side = Side {
    add: "--request-header-add",
    remove: "--request-header-remove",
    not_a_rule: Code::REQUEST_HEADER_RULE,
    not_changeable: Code::REQUEST_HEADER_KEPT,
    kept: &["user-agent"],
};

fn rule(text: &str) -> Result<HeaderRule, Objection> {
    SIDE.rule(text)
}

fn name(text: &str) -> Result<String, Objection> {
    SIDE.name(text)
}

impl RequestHeaders {
    fn adds_host(&self) -> bool {
        self.add.iter().any(|rule| rule.name.eq_ignore_ascii_case("host"))
    }
}

impl Definition for RequestHeaders {
    const STAGE: Stage = Stage::Rewrite;
    const ON: &'static [Kind] = &[Kind::Http];
    const MANUAL: Manual = Manual {
        what: "Changes the headers of a request just before it goes to the upstream. Removal comes first, so that \
               removing and adding the same name replaces it; adding alone appends. `host` is replaced, and answers \
               that point at the new host are turned back to the public one (see Host rewriting). `X-Forwarded-For`, \
               `-Proto` and `-Host` can be removed like any other header.\n\nA value may hold `${...}`: see \
               Variables below. What a visitor sent is put in without its control characters, and a value is cut \
               after 8 KiB.",
        line: "ssh -R 443:localhost:80 HOST http --request-header-add='x-visitor: ${conn.client_ip}' --request-header-remove=cookie",
        defaults: "Headers that frame a message or belong to one connection (`content-length`, `transfer-encoding`, \
                   `connection`, `upgrade`, ...) and `user-agent` cannot be changed.",
        codes: &[
            Code::REQUEST_HEADER_RULE,
            Code::REQUEST_HEADER_KEPT,
            Code::HEADER_NAME,
            Code::HEADER_CASE,
            Code::HEADER_COUNT,
            Code::HEADER_NAME_LENGTH,
            Code::HEADER_VALUE_LENGTH,
            Code::HOST_REMOVED,
        ],
    };

    fn check(&self) -> Result<(), Objection> {
        SIDE.check(&self.add, &self.remove)?;
        if self.remove.iter().any(|name| name.eq_ignore_ascii_case("host")) && !self.adds_host() {
            let message = "a request needs a host: add another one with --request-header-add 'host: NAME'";
            return Err(Objection::new(Code::HOST_REMOVED, message));
        }
        Ok(())
    }

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        SIDE.flags(&self.add, &self.remove, flags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Code {
        rule(text).expect_err(text).code
    }

    #[test]
    fn the_first_colon_separates_name_and_value() {
        let rule = rule("X-Url:  https://a:1/ ").unwrap();
        assert_eq!((rule.name.as_str(), rule.value.as_str()), ("X-Url", "https://a:1/"));
    }

    #[test]
    fn what_frames_a_message_cannot_be_changed() {
        for name in ["Content-Length", "transfer-encoding", "connection", "upgrade", "te", "user-agent"] {
            assert_eq!(refused(&format!("{name}: 1")), Code::REQUEST_HEADER_KEPT, "{name}");
            assert_eq!(super::name(name).unwrap_err().code, Code::REQUEST_HEADER_KEPT);
        }
    }

    #[test]
    fn mistakes_have_their_codes() {
        assert_eq!(refused("no colon"), Code::REQUEST_HEADER_RULE);
        assert_eq!(refused(": x"), Code::HEADER_NAME);
        assert_eq!(refused("a b: x"), Code::HEADER_NAME);
        assert_eq!(refused("a: x\r\nb: y"), Code::HEADER_NAME);
        assert_eq!(refused(&format!("{}: x", "a".repeat(257))), Code::HEADER_NAME_LENGTH);
        assert_eq!(refused(&format!("a: {}", "x".repeat(4097))), Code::HEADER_VALUE_LENGTH);
        let check = |add: &[&str], remove: &[&str]| {
            let add = add.iter().map(|it| rule(it).unwrap()).collect();
            let remove = remove.iter().map(|it| (*it).to_owned()).collect();
            RequestHeaders { add, remove }.check().map_err(|objection| objection.code)
        };
        assert_eq!(check(&["X-A: 1", "x-a: 2"], &[]), Err(Code::HEADER_CASE));
        assert_eq!(check(&["x-a: 1", "x-a: 2"], &[]), Ok(()));
        assert_eq!(check(&[], &["Host"]), Err(Code::HOST_REMOVED));
        assert_eq!(check(&["host: localhost"], &["host"]), Ok(()));
        assert_eq!(check(&["a: b"; 11], &[]), Err(Code::HEADER_COUNT));
    }
}
