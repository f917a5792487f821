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
    /// Beyond those that frame a message or belong to one connection only, and why.
    pub(super) kept: &'static [(&'static str, &'static str)],
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
        if value.contains(char::REPLACEMENT_CHARACTER) {
            let message = format!("a value of {} must be UTF-8 text", self.add);
            return Err(Objection::new(Code::HEADER_NAME, message));
        }
        Ok(HeaderRule { name, value: value.parse()? })
    }

    /// A name that is to be removed.
    pub(super) fn removed(self, text: &str) -> Result<String, Objection> {
        if text.contains(':') {
            let message = format!("{} takes a NAME alone, without a colon and a value", self.remove);
            return Err(Objection::new(Code::HEADER_NAME, message));
        }
        self.name(text.trim())
    }

    /// A name that can be added or removed. It is not repeated: what is no name may be a secret without its colon.
    fn name(self, text: &str) -> Result<String, Objection> {
        let token = |c: &char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(*c);
        if text.len() > MAX_NAME {
            let message = format!("a header's name is longer than {MAX_NAME} bytes");
            return Err(Objection::new(Code::HEADER_NAME_LENGTH, message));
        }
        let wrong = text.chars().find(|c| !token(c)).map(|c| format!("a header's name cannot hold {c:?}"));
        let empty = || text.is_empty().then(|| "a header needs a name before its colon".to_owned());
        if let Some(message) = wrong.or_else(empty) {
            return Err(Objection::new(Code::HEADER_NAME, message));
        }
        let lower = text.to_ascii_lowercase();
        if let Some(why) = self.why_kept(&lower) {
            let message = format!("{} and {} cannot change {lower}: {why}", self.add, self.remove);
            return Err(Objection::new(self.not_changeable, message));
        }
        Ok(text.to_owned())
    }

    fn why_kept(self, lower: &str) -> Option<&'static str> {
        let framing = FRAMING.contains(&lower).then_some("it frames messages or belongs to one connection");
        framing.or_else(|| self.kept.iter().find(|(name, _)| *name == lower).map(|(_, why)| *why))
    }

    pub(super) fn check(self, add: &[HeaderRule], remove: &[String]) -> Result<(), Objection> {
        // Not all rules were typed behind a flag.
        for name in add.iter().map(|rule| &rule.name).chain(remove) {
            self.name(name)?;
        }
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
const FRAMING: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The header by which errors of ours are known.
pub(super) const ERROR_CODE: (&str, &str) = ("hithe-error-code", "it tells the errors of this server");

/// For rules that do not say yet on which side they stand; [`Side::check`] follows.
const EITHER: Side = Side { kept: &[], ..super::request_headers::SIDE };

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
        EITHER.rule(&text)
    }
}

impl From<HeaderRule> for String {
    fn from(rule: HeaderRule) -> Self {
        rule.to_string()
    }
}
