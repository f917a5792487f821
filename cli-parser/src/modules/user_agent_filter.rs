//! User agent filter: what can be said about it.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{Definition, Kind, Manual, Objection, Stage};
use crate::Code;

/// Admits visitors by what they say they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserAgentFilter {
    /// Admit visitors whose User-Agent matches this regular expression, whatever --ua-filter-deny says; repeat for more, up to 10
    #[arg(long = "ua-filter-allow", value_name = "REGEX", id = "ua-filter-allow")]
    pub allow: Vec<Patterns>,
    /// Refuse visitors whose User-Agent matches this regular expression; repeat for more, up to 10
    #[arg(long = "ua-filter-deny", value_name = "REGEX", id = "ua-filter-deny")]
    pub deny: Vec<Patterns>,
}

impl Definition for UserAgentFilter {
    const STAGE: Stage = Stage::Screen;
    const ON: &'static [Kind] = &[Kind::Http];
    const MANUAL: Manual = Manual {
        what: "Looks at the header `User-Agent`, which visitors can write as they like: it keeps crawlers away, not \
               attackers. A visitor is admitted if an allowed expression matches; otherwise it is refused if a denied \
               one does; otherwise it is admitted. One without the header is looked at as if it were empty, and \
               refused unless an allowed expression matches the empty text (`^$`).\n\nExpressions are those of RE2: \
               no look-around and no back-references, so that the time for a match grows only with the length of \
               the text. They match anywhere in it unless anchored with `^` and `$`. A list of expressions in \
               parentheses may be separated by commas: `'(bot),(curl)'`; any other comma belongs to its expression. Each \
               flag takes up to 10 expressions, and each value has up to 1024 bytes.",
        line: "ssh -R 443:localhost:80 HOST http --ua-filter-deny '(?i)bot'",
        defaults: "What is refused gets status 403. An allowed expression alone refuses nobody but those without the \
                   header; to admit only what it matches, add `--ua-filter-deny '.*'`.",
        codes: &[Code::USER_AGENT_REFUSED, Code::USER_AGENT_PATTERN],
    };

    fn check(&self) -> Result<(), Objection> {
        for (flag, patterns) in [("--ua-filter-allow", &self.allow), ("--ua-filter-deny", &self.deny)] {
            if patterns.iter().map(|it| it.expressions().count()).sum::<usize>() > MAX_PATTERNS {
                let message = format!("{flag} takes {MAX_PATTERNS} expressions at most");
                return Err(Objection::new(Code::BAD_FLAG, message));
            }
        }
        Ok(())
    }

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        flags.extend(self.allow.iter().map(|it| ("--ua-filter-allow", Some(it.0.clone()))));
        flags.extend(self.deny.iter().map(|it| ("--ua-filter-deny", Some(it.0.clone()))));
    }
}

/// One regular expression, or several in parentheses with commas between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Patterns(String);

impl Patterns {
    /// A comma separates only between a closing and an opening parenthesis: elsewhere it is part of an expression.
    pub fn expressions(&self) -> impl Iterator<Item = &str> {
        let mut rest = Some(self.0.as_str());
        std::iter::from_fn(move || {
            let text = rest?;
            match text.find("),(") {
                Some(at) => {
                    let (first, behind) = text.split_at_checked(at + 1)?;
                    rest = behind.strip_prefix(',');
                    Some(first)
                }
                None => rest.take(),
            }
        })
    }
}

impl FromStr for Patterns {
    type Err = Objection;

    fn from_str(text: &str) -> Result<Self, Objection> {
        let patterns = Self(text.to_owned());
        if text.len() > MAX_LENGTH {
            let message = format!("a regular expression is longer than {MAX_LENGTH} bytes");
            return Err(Objection::new(Code::USER_AGENT_PATTERN, message));
        }
        for expression in patterns.expressions() {
            compile(expression)?;
        }
        Ok(patterns)
    }
}

/// # Errors
/// It is no regular expression, or one that takes too much memory.
pub fn compile(expression: &str) -> Result<Regex, Objection> {
    let objection = |message| Objection::new(Code::USER_AGENT_PATTERN, message);
    if expression.is_empty() {
        // A slip with an unset variable of the shell, which would admit or refuse everyone.
        let message = "a regular expression is empty; ^$ matches visitors that say nothing, .* everyone";
        return Err(objection(message.to_owned()));
    }
    check_syntax(expression).map_err(objection)?;
    regex::RegexBuilder::new(expression).size_limit(MAX_SIZE).build().map_err(|_| {
        objection(format!(
            "a regular expression takes more than {} KiB of memory; use fewer or smaller repetitions",
            MAX_SIZE >> 10
        ))
    })
}

/// What is wrong, and at which character.
fn check_syntax(expression: &str) -> Result<(), String> {
    let Err(error) = regex_syntax::parse(expression) else { return Ok(()) };
    let (what, offset) = match &error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), error.span().start.offset),
        regex_syntax::Error::Translate(error) => (error.kind().to_string(), error.span().start.offset),
        other => (other.to_string(), 0),
    };
    let at = expression.get(..offset).map_or(1, |before| before.chars().count() + 1);
    let shown: String = expression.chars().take(64).collect();
    Err(format!("{} is no regular expression: {what}, at character {at}", crate::printable(&shown)))
}

const MAX_PATTERNS: usize = 10;
const MAX_LENGTH: usize = 1024;
/// Of a compiled expression, in bytes.
const MAX_SIZE: usize = 256 << 10;

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Patterns {
    type Error = Objection;

    fn try_from(text: String) -> Result<Self, Objection> {
        text.parse()
    }
}

impl From<Patterns> for String {
    fn from(patterns: Patterns) -> Self {
        patterns.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expressions(text: &str) -> Vec<String> {
        text.parse::<Patterns>().unwrap().expressions().map(str::to_owned).collect()
    }

    #[test]
    fn a_comma_separates_only_between_parentheses() {
        assert_eq!(expressions("(foo),(bar)"), ["(foo)", "(bar)"]);
        assert_eq!(expressions("a{1,3}"), ["a{1,3}"]);
        assert_eq!(expressions("Mozilla, like"), ["Mozilla, like"]);
    }

    #[test]
    fn a_bad_expression_says_what_is_wrong_and_where() {
        let said = |text: &str| {
            let objection = text.parse::<Patterns>().expect_err(text);
            assert_eq!(objection.code, Code::USER_AGENT_PATTERN);
            objection.message
        };
        assert_eq!(
            said("\u{e9}(foo"),
            "\\u{e9}(foo is no regular expression: unclosed group, at character 2"
        );
        assert!(said("(foo),(b[ar)").ends_with("unclosed character class, at character 3"));
        assert!(said("a(?=look)").contains("look-around"));
        assert!(said(r"(a)\1").ends_with("backreferences are not supported, at character 4"));
        assert!(said("(a{1000}){1000}").contains("KiB of memory"));
        assert!(said(&"x".repeat(1025)).contains("longer than 1024 bytes"));
        assert!(said("").contains("is empty"));
    }

    #[test]
    fn there_are_ten_at_most_however_they_are_written() {
        let check = |allow: &[&str]| {
            let allow = allow.iter().map(|it| it.parse().unwrap()).collect();
            UserAgentFilter { allow, deny: Vec::new() }.check().map_err(|objection| objection.code)
        };
        assert_eq!(check(&["(a),(b)", "c", "d", "e", "f", "g", "h", "i", "j"]), Ok(()));
        assert_eq!(check(&["(a),(b)", "c", "d", "e", "f", "g", "h", "i", "j,k", "l"]), Err(Code::BAD_FLAG));
    }
}
