//! Headers that a publisher adds to requests or responses, or removes from them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Objection;
use crate::{Code, Template};

/// `name: value`, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HeaderRule {
    pub name: String,
    pub value: Template,
}

/// Which of the two messages, and the codes that go with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    pub(super) add: &'static str,
    pub(super) remove: &'static str,
    pub(super) not_a_rule: Code,
    pub(super) not_changeable: Code,
    /// Beyond those that frame a message or belong to one connection only.
    pub(super) kept: &'static [&'static str],
}

impl Side {
    pub(super) fn rule(self, text: &str) -> Result<HeaderRule, Objection> {
        let (name, value) = text.split_once(':').ok_or_else(|| {
            Objection::new(self.not_a_rule, format!("{} takes NAME: VALUE, and there is no colon", self.add))
        })?;
        let name = self.name(name.trim())?;
        let value = value.trim();
        if value.len() > MAX_VALUE {
            let message = format!("a value of {} is longer than {MAX_VALUE} bytes", self.add);
            return Err(Objection::new(Code::HEADER_VALUE_LENGTH, message));
        }
        if value.chars().any(|c| c.is_control() && c != '\t') {
            let message = format!("a value of {} holds a control character", self.add);
            return Err(Objection::new(Code::HEADER_NAME, message));
        }
        Ok(HeaderRule { name, value: value.parse()? })
    }

    /// A name that can be added or removed.
    pub(super) fn name(self, text: &str) -> Result<String, Objection> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if text.len() > MAX_NAME {
            let message = format!("a header's name is longer than {MAX_NAME} bytes");
            return Err(Objection::new(Code::HEADER_NAME_LENGTH, message));
        }
        if text.is_empty() || !text.bytes().all(token) {
            let shown: String = text.chars().take(64).collect();
            let message = format!("{:?} is not the name of a header", crate::printable(&shown));
            return Err(Objection::new(Code::HEADER_NAME, message));
        }
        let lower = text.to_ascii_lowercase();
        if FRAMING.contains(&lower.as_str()) || self.kept.contains(&lower.as_str()) {
            let message = format!("{} and {} cannot change {lower}", self.add, self.remove);
            return Err(Objection::new(self.not_changeable, message));
        }
        Ok(text.to_owned())
    }

    pub(super) fn check(self, add: &[HeaderRule], remove: &[String]) -> Result<(), Objection> {
        for (flag, count) in [(self.add, add.len()), (self.remove, remove.len())] {
            if count > MAX_RULES {
                let message = format!("{flag} can be given {MAX_RULES} times at most");
                return Err(Objection::new(Code::HEADER_COUNT, message));
            }
        }
        for (index, rule) in add.iter().enumerate() {
            let twin = add.iter().skip(index + 1).find(|it| it.name.eq_ignore_ascii_case(&rule.name));
            if twin.is_some_and(|twin| twin.name != rule.name) {
                let message = format!("{} is written in two ways", rule.name);
                return Err(Objection::new(Code::HEADER_CASE, message));
            }
        }
        Ok(())
    }

    pub(super) fn flags(
        self,
        add: &[HeaderRule],
        remove: &[String],
        flags: &mut Vec<(&'static str, Option<String>)>,
    ) {
        flags.extend(add.iter().map(|rule| (self.add, Some(rule.to_string()))));
        flags.extend(remove.iter().map(|name| (self.remove, Some(name.clone()))));
    }
}

/// What frames a message or belongs to one connection (RFC 9110 §7.6.1): changed, it would let one request pass for
/// two, or one answer for another.
const FRAMING: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "hithe-error-code",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const MAX_RULES: usize = 10;
const MAX_NAME: usize = 256;
const MAX_VALUE: usize = 4096;

impl fmt::Display for HeaderRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.value)
    }
}

impl TryFrom<String> for HeaderRule {
    type Error = Objection;

    fn try_from(text: String) -> Result<Self, Objection> {
        super::request_headers::SIDE.rule(&text)
    }
}

impl From<HeaderRule> for String {
    fn from(rule: HeaderRule) -> Self {
        rule.to_string()
    }
}
