//! What a person wants to see of the entries: words that must all hold, as in
//! `method:post path:/api status:4xx duration:>500ms header:accept=json -endpoint:admin text`.

use super::entry::{Entry, Http, Message, Upgrade};

/// All of these hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter(Vec<Condition>);

#[derive(Clone, Debug)]
struct Condition {
    is_negated: bool,
    term: Term,
}

#[derive(Clone, Debug, PartialEq)]
enum Term {
    Method(Vec<String>),
    Path(String),
    Status(Vec<Range>),
    /// In seconds.
    Duration(Range),
    /// In bytes.
    Size(Range),
    Header(String, Option<String>),
    Endpoint(String),
    From(String),
    Is(State),
    Text(String),
}

/// From and to, both included unless strict.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    from: f64,
    to: f64,
    is_strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Http,
    WebSocket,
    Connection,
    Replay,
    Open,
    Cut,
    Error,
    Incomplete,
}

/// Longest filter, in bytes, and most words of one.
const LONGEST: usize = 1024;
const WORDS: usize = 32;

/// How much of each message is searched for text, in bytes.
const SEARCHED: usize = 256 * 1024;

impl Filter {
    /// # Errors
    /// A word cannot be understood; the text says which and why.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("a filter has at most {LONGEST} bytes"));
        }
        let words = words(text);
        if words.len() > WORDS {
            return Err(format!("a filter has at most {WORDS} words"));
        }
        words.iter().map(|word| Condition::parse(word)).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn admits(&self, entry: &Entry) -> bool {
        self.0.iter().all(|condition| condition.term.holds(entry) != condition.is_negated)
    }
}

/// Blanks separate words, but not between quotes.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            c if c.is_whitespace() && !is_quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

impl Condition {
    fn parse(word: &str) -> Result<Self, String> {
        let (is_negated, word) = match word.strip_prefix('-') {
            Some(rest) if !rest.is_empty() => (true, rest),
            _ => (false, word),
        };
        let term = match word.split_once(':') {
            Some((key, value)) => Term::parse(key, value, word)?,
            None => Term::Text(word.to_lowercase()),
        };
        Ok(Self { is_negated, term })
    }
}

impl Term {
    fn parse(key: &str, value: &str, word: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("“{value}” is {what}"));
        let lower = || value.to_lowercase();
        Ok(match key {
            "method" => Self::Method(value.split(',').map(str::to_uppercase).collect()),
            "path" => Self::Path(lower()),
            "status" => match value.split(',').map(status).collect() {
                Some(ranges) => Self::Status(ranges),
                None => return wrong("no status: 404, 4xx, 400-499 or >=500"),
            },
            "duration" => match range(value, seconds) {
                Some(range) => Self::Duration(range),
                None => return wrong("no duration: >500ms, <2s or 100ms-1s"),
            },
            "size" => match range(value, bytes) {
                Some(range) => Self::Size(range),
                None => return wrong("no size: >10kb, <1mb or 1kb-10kb"),
            },
            "header" => match value.split_once('=') {
                Some((name, value)) => Self::Header(name.to_owned(), Some(value.to_lowercase())),
                None => Self::Header(value.to_owned(), None),
            },
            "endpoint" => Self::Endpoint(lower()),
            "from" => Self::From(lower()),
            "is" => Self::Is(match value {
                "http" => State::Http,
                "websocket" | "ws" => State::WebSocket,
                "connection" | "tcp" => State::Connection,
                "replay" => State::Replay,
                "open" => State::Open,
                "cut" => State::Cut,
                "error" => State::Error,
                "incomplete" => State::Incomplete,
                _ => {
                    return wrong(
                        "not known: http, websocket, connection, replay, open, cut, error, incomplete",
                    );
                }
            }),
            // Somebody looks for a text with a colon.
            _ => Self::Text(word.to_lowercase()),
        })
    }

    fn holds(&self, entry: &Entry) -> bool {
        let http = entry.http();
        match self {
            Self::Method(methods) => {
                http.is_some_and(|http| methods.contains(&http.method.as_str().to_uppercase()))
            }
            Self::Path(path) => http.is_some_and(|http| matches_path(&http.target.to_lowercase(), path)),
            Self::Status(ranges) => {
                let status = http.and_then(Http::status);
                status.is_some_and(|status| ranges.iter().any(|range| range.has(f64::from(status))))
            }
            Self::Duration(range) => entry.duration.is_some_and(|it| range.has(it.as_secs_f64())),
            #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
            Self::Size(range) => range.has(super::show::size(entry) as f64),
            Self::Header(name, value) => messages(http).any(|message| {
                message.headers().iter().any(|header| {
                    let has_value = |value: &String| header.value.to_lowercase().contains(value);
                    header.is(name) && value.as_ref().is_none_or(has_value)
                })
            }),
            Self::Endpoint(name) => entry.endpoint.to_lowercase().contains(name),
            Self::From(address) => entry.remote().to_lowercase().starts_with(address),
            Self::Is(state) => state.holds(entry),
            Self::Text(text) => {
                entry.endpoint.to_lowercase().contains(text)
                    || messages(http).any(|message| {
                        contains(message.raw.get(..SEARCHED).unwrap_or(&message.raw), text.as_bytes())
                    })
                    || http
                        .and_then(|http| http.upgrade.as_deref())
                        .is_some_and(|upgrade| said(upgrade, text))
            }
        }
    }
}

impl State {
    fn holds(self, entry: &Entry) -> bool {
        let http = entry.http();
        match self {
            Self::Http => http.is_some(),
            Self::WebSocket => {
                http.is_some_and(|http| matches!(http.upgrade.as_deref(), Some(Upgrade::WebSocket(_))))
            }
            Self::Connection => http.is_none(),
            Self::Replay => entry.replay_of.is_some(),
            Self::Open => entry.duration.is_none(),
            Self::Cut => entry.is_cut,
            Self::Error => entry.is_cut || http.and_then(Http::status).is_some_and(|status| status >= 400),
            Self::Incomplete => entry.incomplete.is_some(),
        }
    }
}

fn messages(http: Option<&Http>) -> impl Iterator<Item = &Message> {
    let response = http.and_then(|http| http.response.as_ref()).map(|response| &response.message);
    http.map(|http| &http.request).into_iter().chain(response)
}

fn said(upgrade: &Upgrade, text: &str) -> bool {
    match upgrade {
        Upgrade::WebSocket(talk) => talk.frames.iter().any(|frame| contains(&frame.payload, text.as_bytes())),
        Upgrade::Other(_) => false,
    }
}

/// Whether the text occurs, in small letters or capitals of ASCII.
fn contains(bytes: &[u8], text: &[u8]) -> bool {
    let Some((first, _)) = text.split_first() else { return true };
    let fits = |window: &[u8]| {
        window.first().is_some_and(|byte| byte.eq_ignore_ascii_case(first))
            && window.eq_ignore_ascii_case(text)
    };
    bytes.windows(text.len()).any(fits)
}

/// A part of the path, or the whole with stars.
fn matches_path(path: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return path.contains(pattern) };
    let Some(mut left) = path.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = left.get(at + part.len()..).unwrap_or_default();
    }
    left.ends_with(last)
}

impl Range {
    fn has(self, number: f64) -> bool {
        if self.is_strict {
            self.from < number && number < self.to
        } else {
            self.from <= number && number <= self.to
        }
    }
}

fn range(text: &str, number: fn(&str) -> Option<f64>) -> Option<Range> {
    let (from, to, is_strict) = if let Some(rest) = text.strip_prefix(">=") {
        (number(rest)?, f64::INFINITY, false)
    } else if let Some(rest) = text.strip_prefix("<=") {
        (f64::NEG_INFINITY, number(rest)?, false)
    } else if let Some(rest) = text.strip_prefix('>') {
        (number(rest)?, f64::INFINITY, true)
    } else if let Some(rest) = text.strip_prefix('<') {
        (f64::NEG_INFINITY, number(rest)?, true)
    } else if let Some((from, to)) = text.split_once('-') {
        (number(from)?, number(to)?, false)
    } else {
        (number(text)?, number(text)?, false)
    };
    Some(Range { from, to, is_strict })
}

fn status(text: &str) -> Option<Range> {
    let lower = text.to_ascii_lowercase();
    if let Some(first) = lower.strip_suffix("xx") {
        let first: u8 = first.parse().ok().filter(|it| (1..=9).contains(it))?;
        let from = f64::from(first) * 100.0;
        return Some(Range { from, to: from + 99.0, is_strict: false });
    }
    range(text, |number| number.parse::<u16>().ok().map(f64::from))
}

fn seconds(text: &str) -> Option<f64> {
    scaled(text, &[("ms", 0.001), ("µs", 0.000_001), ("us", 0.000_001), ("s", 1.0), ("m", 60.0), ("", 0.001)])
}

fn bytes(text: &str) -> Option<f64> {
    scaled(text, &[("kb", 1e3), ("mb", 1e6), ("gb", 1e9), ("k", 1e3), ("m", 1e6), ("b", 1.0), ("", 1.0)])
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let lower = text.to_lowercase();
    let (number, scale) = units.iter().find_map(|(unit, scale)| Some((lower.strip_suffix(unit)?, scale)))?;
    let number: f64 = number.trim().parse().ok()?;
    // Rounded to what can be told apart: 0.001 is no number in binary, and 700 of it are not 0.7.
    (number.is_finite() && number >= 0.0).then(|| (number * scale * 1e9).round() / 1e9)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::inspect::testing::{exchange, inspector};

    fn admits(filter: &str) -> bool {
        let inspector = inspector();
        exchange(
            &inspector,
            b"POST /api/Orders?id=7 HTTP/1.1\r\nHost: a\r\nX-Token: Abc\r\nX-Forwarded-For: 203.0.113.9\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        );
        let filter = Filter::parse(filter).unwrap();
        let entries = inspector.store().all();
        assert_eq!(entries.len(), 1);
        let mut entry = (*entries[0]).clone();
        entry.duration = Some(Duration::from_millis(700));
        filter.admits(&entry)
    }

    #[test]
    fn all_words_of_a_filter_must_hold() {
        assert!(admits(""));
        assert!(admits(
            "method:post path:/api status:4xx duration:>500ms header:x-token=abc endpoint:web hello"
        ));
        assert!(!admits("method:post path:/api status:5xx"));
        assert!(!admits("method:get path:/api"));
    }

    #[test]
    fn every_kind_of_word_can_hold_or_not() {
        for (word, other) in [
            ("method:get,post", "method:get"),
            ("path:orders", "path:customers"),
            ("path:/api/*id=*", "path:/api/*x"),
            ("path:*7", "path:orders*"),
            ("status:404", "status:403"),
            ("status:2xx,4xx", "status:2xx,5xx"),
            ("status:400-499", "status:405-499"),
            ("status:>=404", "status:>404"),
            ("duration:>500ms", "duration:>1s"),
            ("duration:0.5s-1s", "duration:<700"),
            ("size:>100", "size:>10kb"),
            ("header:X-TOKEN", "header:x-tokens"),
            ("header:content-type=json", "header:content-type=xml"),
            ("endpoint:web", "endpoint:db"),
            ("from:203.0.113", "from:198"),
            ("is:http", "is:websocket"),
            ("is:error", "is:open"),
            ("HELLO", "goodbye"),
            ("\"Not Found\"", "\"not there\""),
            ("x-forwarded-for:", "nothing:here"),
        ] {
            assert!(admits(word), "{word}");
            assert!(!admits(&format!("-{word}")), "-{word}");
            assert!(!admits(other), "{other}");
            assert!(admits(&format!("-{other}")), "-{other}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_said() {
        for (filter, reason) in [
            ("status:abc", "no status"),
            ("status:0xx", "no status"),
            ("duration:long", "no duration"),
            ("duration:-1s", "no duration"),
            ("size:>x", "no size"),
            ("is:happy", "not known"),
        ] {
            assert!(Filter::parse(filter).unwrap_err().contains(reason), "{filter}");
        }
        assert!(Filter::parse(&"a".repeat(LONGEST + 1)).is_err());
        assert!(Filter::parse(&"a ".repeat(WORDS + 1)).is_err());
    }
}
