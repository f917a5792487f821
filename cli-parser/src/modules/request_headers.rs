//! Request headers: what can be said about them.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::header_rules::{ERROR_CODE, HeaderRule, Side};
use super::host_rewrite::is_authority;
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
    kept: &[ERROR_CODE, ("user-agent", "an upstream is to see what the visitor says")],
};

fn rule(text: &str) -> Result<HeaderRule, Objection> {
    let rule = SIDE.rule(text)?;
    check_host(&rule)?;
    Ok(rule)
}

fn name(text: &str) -> Result<String, Objection> {
    SIDE.removed(text)
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host")
}

/// One with variables is looked at when they are filled in.
fn check_host(rule: &HeaderRule) -> Result<(), Objection> {
    if !is_host(&rule.name) || rule.value.constant().is_none_or(is_authority) {
        return Ok(());
    }
    let message = "the value of host is a name and perhaps a port, such as localhost:3000, and no URL";
    Err(Objection::new(Code::HEADER_NAME, message))
}

impl RequestHeaders {
    fn adds_host(&self) -> bool {
        self.add.iter().any(|rule| is_host(&rule.name))
    }
}

impl Definition for RequestHeaders {
    const STAGE: Stage = Stage::Rewrite;
    const ON: &'static [Kind] = &[Kind::Http];
    const MANUAL: Manual = Manual {
        what: "Changes the headers of a request just before it goes to the upstream. Removal comes first, so that \
               removing and adding the same name replaces it; adding alone appends. `host` is replaced, and answers \
               that point at the new host are turned back to the public one (see Host rewriting); a value with variables that \
               comes out as no host is left out, and the last of several counts. `X-Forwarded-For`, \
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
        self.add.iter().try_for_each(check_host)?;
        if self.remove.iter().any(|name| is_host(name)) && !self.adds_host() {
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
            let untyped = RequestHeaders { add: Vec::new(), remove: vec![name.to_owned()] };
            assert_eq!(untyped.check().unwrap_err().code, Code::REQUEST_HEADER_KEPT);
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        for objection in [
            name("authorization: Bearer horse").unwrap_err(),
            name("authorization horse").unwrap_err(),
            rule("authorization Bearer horse:battery").unwrap_err(),
            rule("authorization Bearer horse").unwrap_err(),
            rule("authorization: horse\u{7}").unwrap_err(),
        ] {
            assert!(!objection.message.contains("horse"), "{objection}");
        }
    }

    #[test]
    fn mistakes_have_their_codes() {
        assert_eq!(refused("no colon"), Code::REQUEST_HEADER_RULE);
        assert_eq!(refused(": x"), Code::HEADER_NAME);
        assert_eq!(refused("a b: x"), Code::HEADER_NAME);
        assert_eq!(refused("host: http://localhost:3000"), Code::HEADER_NAME);
        assert_eq!(refused("Host:"), Code::HEADER_NAME);
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
