//! A tree as YAML again, with the comments that stood before and beside its keys.

use std::collections::BTreeMap;

use super::tree::{Entry, Node, Value};

/// The comments of a file by their lines: whole ones, and those beside a key.
#[derive(Debug, Default)]
pub(super) struct Comments {
    whole: BTreeMap<u64, String>,
    beside: BTreeMap<u64, String>,
}

impl Comments {
    pub(super) fn of(text: &str) -> Self {
        let mut comments = Self::default();
        for (line, number) in text.lines().zip(1..) {
            if line.trim_start().starts_with('#') {
                comments.whole.insert(number, line.trim().to_owned());
            } else if let Some(at) = comment(line) {
                comments.beside.insert(number, line.get(at..).unwrap_or_default().trim().to_owned());
            }
        }
        comments
    }

    /// Those that stand right above a line.
    fn above(&mut self, line: u64) -> Vec<String> {
        let mut first = line;
        while first > 1 && self.whole.contains_key(&(first - 1)) {
            first -= 1;
        }
        (first..line).filter_map(|number| self.whole.remove(&number)).collect()
    }

    /// Those that no key has taken along.
    pub(super) fn left(&self) -> usize {
        self.whole.len() + self.beside.len()
    }
}

/// Where a comment begins behind something else. In a text in quotes there is none.
pub(super) fn comment(line: &str) -> Option<usize> {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') if before.is_whitespace() => return Some(at),
            (None, '"' | '\'') if before.is_whitespace() || "[{,".contains(before) => quote = Some(c),
            (Some(open), _) if c == open && before != '\\' => quote = None,
            _ => {}
        }
        before = c;
    }
    None
}

/// Lines of YAML.
#[derive(Debug)]
pub(super) struct Emitter {
    pub(super) text: String,
    pub(super) comments: Comments,
}

impl Emitter {
    pub(super) fn new(comments: Comments) -> Self {
        Self { text: String::new(), comments }
    }

    fn line(&mut self, indent: usize, text: &str) {
        self.text.push_str(&" ".repeat(indent));
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// A mapping, the first key of which may stand behind a hyphen.
    pub(super) fn map(&mut self, map: &[Entry], indent: usize, hyphen: bool) {
        for (index, entry) in map.iter().enumerate() {
            let lead = if hyphen && index == 0 { "- " } else { "" };
            let indent_of_key = if hyphen && index == 0 { indent.saturating_sub(2) } else { indent };
            for comment in self.comments.above(entry.position.line) {
                self.line(indent_of_key, &comment);
            }
            let beside = self.comments.beside.remove(&entry.position.line);
            let beside = beside.map(|it| format!(" {it}")).unwrap_or_default();
            let key = format!("{lead}{}:", scalar(&entry.key));
            match &entry.node.value {
                Value::Null => self.line(indent_of_key, &format!("{key}{beside}")),
                Value::Text(text) if text.contains('\n') && is_block(text) => {
                    self.line(indent_of_key, &format!("{key} |{beside}"));
                    text.trim_end_matches('\n').split('\n').for_each(|it| self.line(indent + 2, it));
                }
                Value::Text(text) => self.line(indent_of_key, &format!("{key} {}{beside}", scalar(text))),
                Value::List(list) if list.is_empty() => {
                    self.line(indent_of_key, &format!("{key} []{beside}"))
                }
                Value::Map(map) if map.is_empty() => self.line(indent_of_key, &format!("{key} {{}}{beside}")),
                Value::List(list) => {
                    self.line(indent_of_key, &format!("{key}{beside}"));
                    self.list(list, indent + 2);
                }
                Value::Map(map) => {
                    self.line(indent_of_key, &format!("{key}{beside}"));
                    self.map(map, indent + 2, false);
                }
            }
        }
    }

    fn list(&mut self, list: &[Node], indent: usize) {
        for node in list {
            match &node.value {
                Value::Map(map) if !map.is_empty() => {
                    self.map(map, indent + 2, true);
                    continue;
                }
                _ => {}
            }
            for comment in self.comments.above(node.position.line) {
                self.line(indent, &comment);
            }
            let beside = self.comments.beside.remove(&node.position.line);
            let beside = beside.map(|it| format!(" {it}")).unwrap_or_default();
            self.line(indent, &format!("- {}{beside}", flow(node)));
        }
    }
}

/// On one line, as JSON has it.
fn flow(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Text(text) => scalar(text),
        Value::List(list) => format!("[{}]", list.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Map(map) => {
            let entry = |it: &Entry| format!("{}: {}", scalar(&it.key), flow(&it.node));
            format!("{{{}}}", map.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Whether a literal block gives these lines back: PEM.
fn is_block(text: &str) -> bool {
    let plain =
        |line: &str| !line.is_empty() && !line.starts_with([' ', '\t']) && !line.ends_with([' ', '\r']);
    text.ends_with('\n')
        && text.trim_end_matches('\n').len() + 1 == text.len()
        && text.trim_end_matches('\n').split('\n').all(plain)
        && !text.contains(|c: char| c.is_control() && c != '\n')
}

/// As it is where YAML takes it for what it is, or else in quotes.
pub(super) fn scalar(text: &str) -> String {
    let letter = |c: char| c.is_ascii_alphanumeric() || "_./~@+-:".contains(c);
    let is_time = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':') && text.contains(':');
    let plain = !text.is_empty()
        && text.chars().all(letter)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || "/_".contains(c))
        && !text.ends_with(':')
        && !is_time
        && !["null", "Null", "NULL"].contains(&text);
    // A text of JSON is one of YAML.
    if plain { text.to_owned() } else { serde_json::to_string(text).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::tree::parse;

    proptest::proptest! {
        /// What is written is read again as it was.
        #[test]
        fn any_text_survives(text in "\\PC{0,20}|[a-z:#'\" \\n-]{0,12}", key in "[a-z_]{1,8}") {
            let at = parse(Path::new("a.yml"), b"a: b\n").unwrap();
            let node = Node { value: Value::Text(text.clone()), ..at.clone() };
            let list = Node { value: Value::List(vec![node.clone()]), ..at.clone() };
            let position = at.position;
            let entry = |key: &str, node| Entry { key: key.to_owned(), position: position.clone(), node };
            let mut emitter = Emitter::new(Comments::default());
            emitter.map(&[entry(&format!("{key}1"), node), entry(&format!("{key}2"), list)], 0, false);
            let read = parse(Path::new("a.yml"), emitter.text.as_bytes()).unwrap();
            let map = read.map("").unwrap();
            proptest::prop_assert_eq!(map[0].node.text("").unwrap(), text.as_str());
            proptest::prop_assert_eq!(map[1].node.list()[0].text("").unwrap(), text.as_str());
        }
    }

    #[test]
    fn a_comment_begins_behind_a_blank_and_not_in_quotes() {
        for (line, at) in [
            ("a: b # c", Some(5)),
            ("a: b#c", None),
            ("a: 'b # c'", None),
            ("a: \"b # c\" # d", Some(11)),
            ("a: it's # c", Some(8)),
            ("a: [b, 'c # d'] # e", Some(16)),
        ] {
            assert_eq!(comment(line), at, "{line}");
        }
    }
}
