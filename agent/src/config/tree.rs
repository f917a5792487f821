//! YAML as a tree whose nodes know where they stand, so that whatever is wrong later is told with line and column.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hithe_cli_parser::printable;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::{Fault, advice};

/// Where something stands. Counted from 1; 0 is the file as a whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Position {
    pub file: Arc<Path>,
    pub line: u64,
    pub column: u64,
}

impl Position {
    pub(super) fn file(path: &Path) -> Self {
        Self { file: Arc::from(path), line: 0, column: 0 }
    }
}

/// `file:line:column`, as compilers say it and editors understand it.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.file.to_string_lossy()))?;
        match (self.line, self.column) {
            (0, _) => Ok(()),
            (line, column) => write!(f, ":{line}:{column}"),
        }
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A value of the file. Prints nothing of what it holds, since that may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) position: Position,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    /// As it is written, whatever YAML would make of it.
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) position: Position,
    pub(super) node: Node,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.key, self.node)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.kind(), self.position)
    }
}

impl Node {
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    pub(super) fn fault(&self, path: &str, message: impl Into<String>) -> Fault {
        Fault::at(&self.position, path, message)
    }

    pub(super) fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// Nothing, or a list or mapping of nothing.
    pub(super) fn is_empty(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Text(text) => text.is_empty(),
            Value::List(list) => list.is_empty(),
            Value::Map(map) => map.is_empty(),
        }
    }

    pub(super) fn text(&self, path: &str) -> Result<&str, Fault> {
        match &self.value {
            Value::Text(text) => Ok(text),
            // `- x-name: value` is what people write who mean a header.
            Value::Map(map) if map.len() == 1 => {
                let message = "a text belongs here, not a mapping; quotes make one of it: \"name: value\"";
                Err(self.fault(path, message))
            }
            _ => Err(self.fault(path, format!("a text belongs here, not {}", self.kind()))),
        }
    }

    pub(super) fn boolean(&self, path: &str) -> Result<bool, Fault> {
        boolean(self.text(path)?).ok_or_else(|| self.fault(path, "true or false belongs here"))
    }

    /// Its parts; one value alone is a list of one.
    pub(super) fn list(&self) -> &[Self] {
        match &self.value {
            Value::Null => &[],
            Value::List(list) => list,
            Value::Text(_) | Value::Map(_) => std::slice::from_ref(self),
        }
    }

    pub(super) fn map(&self, path: &str) -> Result<&[Entry], Fault> {
        match &self.value {
            Value::Null => Ok(&[]),
            Value::Map(map) => Ok(map),
            Value::Text(_) | Value::List(_) => Err(self.fault(path, self.no_map(path.is_empty()))),
        }
    }

    /// What is said where a mapping belongs.
    pub(super) fn no_map(&self, is_root: bool) -> String {
        let remedy = match &self.value {
            Value::List(_) => "leave out the hyphens",
            _ if is_root => "begin the file with version: 3",
            _ => "is a colon missing?",
        };
        let example = if is_root { "version: 3" } else { "key: value" };
        format!("keys with values belong here, as in {example}, not {}; {remedy}", self.kind())
    }

    /// The same with one value each, so that of several wrong ones each is found. As many as the file has values at most.
    pub(super) fn pieces(&self) -> Vec<Self> {
        let piece = |value| Self { value, position: self.position.clone() };
        match &self.value {
            Value::Map(map) if !map.is_empty() => {
                let of = |entry: &Entry| {
                    let (key, position) = (entry.key.clone(), entry.position.clone());
                    let around = move |node| Entry { key: key.clone(), position: position.clone(), node };
                    entry.node.pieces().into_iter().map(move |node| piece(Value::Map(vec![around(node)])))
                };
                map.iter().flat_map(of).collect()
            }
            Value::List(list) if !list.is_empty() => {
                let parts = list.iter().flat_map(Self::pieces);
                parts.map(|node| piece(Value::List(vec![node]))).collect()
            }
            Value::Null | Value::Text(_) | Value::List(_) | Value::Map(_) => vec![self.clone()],
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(map) = &self.value else { return None };
        map.iter().find(|entry| entry.key == key).map(|entry| &entry.node).filter(|node| !node.is_null())
    }

    /// Lays another over this one: mappings by key, all else as a whole.
    pub(super) fn merge(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Map(under), Value::Map(over)) => over.into_iter().for_each(|entry| put(under, entry)),
            (_, value) => *self = Self { value, position: over.position },
        }
    }
}

/// Adds an entry, or lays it over the one of the same key.
pub(super) fn put(map: &mut Vec<Entry>, entry: Entry) {
    match map.iter_mut().find(|it| it.key == entry.key) {
        Some(under) => under.node.merge(entry.node),
        None => map.push(entry),
    }
}

/// The booleans of YAML 1.1, which people write.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => Some(true),
        "false" | "no" | "off" | "n" => Some(false),
        _ => None,
    }
}

/// Bytes that a file may have.
pub(super) const MAX_FILE: usize = 1 << 20;

/// # Errors
/// It is too large, no UTF-8, no YAML, or a few aliases in it stand for too much.
pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Node, Fault> {
    let whole = Position::file(file);
    let fault = |message: &str| Fault::at(&whole, "", message);
    if bytes.len() > MAX_FILE {
        return Err(fault("the file is larger than 1 MiB: it can hardly be the one that is meant"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (line, column, message) = advice::of_bytes(bytes, error);
        Fault::at(&Position { line, column, ..whole.clone() }, "", message)
    })?;
    // Its own offsets do not count the mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Node { value: Value::Null, position: whole });
    }
    match serde_saphyr::from_str_with_options::<Spanned<Raw<'_>>>(text, options()) {
        Ok(raw) => Settler { source: text, file: whole.file, left: 2 * MAX_FILE }.node(raw),
        Err(error) => {
            let at = error.location();
            let (line, column) = at.map_or((0, 0), |it| (it.line(), it.column()));
            let position = Position { line, column, ..whole };
            let said = first_line(&error.without_snippet().to_string());
            Err(Fault::at(&position, "", advice::of_yaml(&said)))
        }
    }
}

/// Without the place, which stands before it.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.split(" at line ").next().unwrap_or(line);
    let line = line.split_once(": ").filter(|(head, _)| head.starts_with("line ")).map_or(line, |it| it.1);
    printable(line).into_owned()
}

/// All that aliases can make of 1 MiB stays below some MiB.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: 32,
            max_nodes: 50_000,
            max_events: 200_000,
            max_anchors: 256,
            max_aliases: 256,
            max_merge_keys: 256,
            max_recorded_anchor_events: 4096,
            max_recorded_anchor_bytes: 64 << 10,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 8,
        },
    }
}

/// What serde sees. Texts are those of the file where they can be, which its own bounds rely on.
enum Raw<'de> {
    Null,
    /// Of an unquoted text that YAML takes for something else.
    Plain(String),
    Text(Cow<'de, str>),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<Self>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw<'de>, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw<'de>, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw<'de>, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw<'de>, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw<'de>, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw<'de>, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw<'de>, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw<'de>, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw<'de>, E> {
        Ok(Raw::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Raw<'de>, E> {
        Ok(Raw::Text(Cow::Borrowed(value)))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw<'de>, E> {
        Ok(Raw::Text(Cow::Owned(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw<'de>, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Raw::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

/// Makes nodes of what was read.
struct Settler<'a> {
    source: &'a str,
    file: Arc<Path>,
    /// Bytes of text that may still come: aliases repeat what stands in the file once.
    left: usize,
}

impl Settler<'_> {
    fn position(&self, at: serde_saphyr::Location) -> Position {
        Position { file: self.file.clone(), line: at.line(), column: at.column() }
    }

    fn node(&mut self, raw: Spanned<Raw<'_>>) -> Result<Node, Fault> {
        let position = self.position(raw.referenced);
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Plain(value) => match source_of(&raw.defined, self.source) {
                Some(written) => self.text(Cow::Borrowed(written), &position)?,
                None => self.text(Cow::Owned(value), &position)?,
            },
            Raw::Text(text) => self.text(text, &position)?,
            Raw::List(list) => {
                Value::List(list.into_iter().map(|it| self.node(it)).collect::<Result<_, _>>()?)
            }
            Raw::Map(map) => Value::Map(map.into_iter().map(|it| self.entry(it)).collect::<Result<_, _>>()?),
        };
        Ok(Node { value, position })
    }

    fn text(&mut self, text: Cow<'_, str>, position: &Position) -> Result<Value, Fault> {
        let left = self.left.checked_sub(text.len());
        self.left = left.ok_or_else(|| Fault::at(position, "", "aliases repeat too much text"))?;
        Ok(Value::Text(text.into_owned()))
    }

    fn entry(&mut self, (key, node): (Spanned<Raw<'_>>, Spanned<Raw<'_>>)) -> Result<Entry, Fault> {
        let key = self.node(key)?;
        match key.value {
            Value::Text(name) => Ok(Entry { key: name, position: key.position, node: self.node(node)? }),
            _ => Err(Fault::at(&key.position, "", format!("a key is a text, not {}", key.kind()))),
        }
    }
}

/// `1.10` and `no` are also names, and have to stay as they are written.
fn source_of<'a>(location: &serde_saphyr::Location, source: &'a str) -> Option<&'a str> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
    let text = source.get(start..end)?.trim();
    // A tag or quotes before it.
    (!text.is_empty() && !text.starts_with(['!', '"', '\'', '&', '*'])).then_some(text)
}

/// `~/file` in the home directory.
pub(super) fn at_home(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), etcetera::home_dir()) {
        (Some(rest), Ok(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}
