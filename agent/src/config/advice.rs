//! What a parser of YAML says, in words for who wrote the file: what is wrong and what to do.

use std::io;

/// What its messages contain, and what that means here.
const MEANINGS: &[(&str, &str)] = &[
    ("tabs disallowed", "a tab: indent with blanks"),
    (
        "multiline quoted scalar",
        "a quote that was opened above is not closed, or its text goes on without indentation",
    ),
    (
        "quoted scalar, found unknown escape",
        "a backslash that means nothing: write \\\\, or single quotes around the text",
    ),
    ("unknown anchor", "no &anchor of this name stands above; a value that begins with * needs quotes"),
    ("scanning an anchor or alias", "a value that begins with * or & needs quotes"),
    (
        "mapping values are not allowed",
        "a key in the wrong place: indent it as the lines above, or put quotes around a value with a colon in it",
    ),
    ("illegal placement of ':'", "a colon in the wrong place: a bracket or quote above may not be closed"),
    ("simple key expected ':'", "a colon is missing behind the key, or the line needs more indentation"),
    ("unclosed bracket", "a bracket that is opened here is not closed"),
    ("flow mapping", "a brace { is not closed, or there is a comma too many"),
    ("flow sequence", "a bracket [ is not closed, or there is a comma too many"),
    ("found unexpected end of stream", "the file ends too early: a quote or bracket is not closed"),
    ("unexpected EOF", "the file ends too early: a quote or bracket is not closed"),
    ("invalid !!", "a tag (!!) that does not fit its value: leave it out"),
    ("Documents {", "a second document begins: remove the line ---, or make two files of it"),
    ("Depth {", "more than 32 levels in one another"),
    ("Nodes {", "more than 50000 values"),
    ("Anchor", "too many anchors (&), or they stand for too much: write out what they repeat"),
    ("Alias", "too many aliases (*), or they stand for too much: write out what they repeat"),
    ("Events {", "too much: anchors and aliases stand for more than a file should have"),
    ("MergeKeys {", "too many merge keys (<<)"),
];

/// In one line.
pub(super) fn of_yaml(said: &str) -> String {
    if let Some(rest) = said.split_once("duplicate mapping key: ").map(|it| it.1) {
        let key = rest.split(", set Dup").next().unwrap_or(rest);
        return format!("{key} stands there twice: leave one of them out");
    }
    if let Some((_, rest)) = said.split_once("unexpected character: `") {
        let what = rest.strip_suffix('\'').unwrap_or(rest);
        return match what.starts_with("\\u") {
            true => format!("a control character, {what}: remove it"),
            false => format!("a value that begins with {what} needs quotes"),
        };
    }
    match MEANINGS.iter().find(|(part, _)| said.contains(part)) {
        Some((_, meaning)) => (*meaning).to_owned(),
        None => format!("this is no YAML: {said}"),
    }
}

/// Why a file cannot be read.
pub(super) fn of_reading(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such file; without --config the one of `hithe config path` is read".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "you may not read this file: its owner can change that with chmod".to_owned()
        }
        io::ErrorKind::IsADirectory => "this is a folder: name the file in it".to_owned(),
        _ => format!("cannot read the file: {error}"),
    }
}

/// Bytes that are no UTF-8: where, counted from 1, and what to do.
pub(super) fn of_bytes(bytes: &[u8], error: std::str::Utf8Error) -> (u64, u64, &'static str) {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return (1, 1, "the file is UTF-16: save it as UTF-8");
    }
    let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
    let before = String::from_utf8_lossy(before);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (
        line as u64,
        column as u64,
        "this character is not UTF-8: save the file as UTF-8, or write the character anew",
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tree::parse;

    /// What is said of these bytes.
    fn said(bytes: &[u8]) -> String {
        parse(Path::new("a.yml"), bytes).and_then(|root| root.map("").map(drop)).unwrap_err().to_string()
    }

    #[test]
    fn a_broken_file_is_told_with_line_and_column_and_with_what_to_do() {
        for (text, expected) in [
            ("version: 3\nagent:\n\tconnect_url: a\n", ":3:2: a tab: indent with blanks"),
            ("version: 3\na: \"b\nc: d\n", ":3:1: a quote that was opened above is not closed"),
            ("version: 3\na: 'b\n", ":3:1: a quote that was opened above is not closed"),
            ("a: b\na: c\n", ":2:1: a stands there twice: leave one of them out"),
            ("a: \"b\\qc\"\n", ":1:4: a backslash that means nothing: write \\\\"),
            (
                "a: *b\n",
                ":1:4: no &anchor of this name stands above; a value that begins with * needs quotes",
            ),
            ("a: *\n", ":1:4: a value that begins with * or & needs quotes"),
            ("a: b: c\n", ":1:5: a key in the wrong place: indent it as the lines above"),
            (
                "a: [b, c\nd: e\n",
                ":2:2: a colon in the wrong place: a bracket or quote above may not be closed",
            ),
            ("a: |\nb\n", ":2:1: a colon is missing behind the key"),
            ("a: {b: c\n", ":1:4: a bracket that is opened here is not closed"),
            ("{a: b,,}\n", ":1:7: a brace { is not closed, or there is a comma too many"),
            ("a: !!binary x\n", "a tag (!!) that does not fit its value"),
            ("a: b\n---\na: b\n", ":2:1: a second document begins: remove the line ---"),
            ("a: @b\n", ":1:4: a value that begins with @ needs quotes"),
            ("a: `b`\n", ":1:4: a value that begins with ` needs quotes"),
            ("a: b\u{1}\n", "a control character, \\u{1}: remove it"),
            ("hello\n", ":1:1: keys with values belong here, as in version: 3, not a text"),
            ("- a\n", ":1:1: keys with values belong here, as in version: 3, not a list"),
        ] {
            let said = said(text.as_bytes());
            assert!(said.contains(expected), "{text:?}: {said}");
            assert!(!said.contains("budget") && !said.contains("scalar"), "{said}");
        }
    }

    #[test]
    fn what_aliases_repeat_and_what_lies_too_deep_is_told() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for at in 1..9 {
            let all = vec![format!("*a{}", at - 1); 9].join(", ");
            bomb.push_str(&format!("a{at}: &a{at} [{all}]\n"));
        }
        assert!(said(bomb.as_bytes()).contains("write out what they repeat"), "{}", said(bomb.as_bytes()));
        let deep = format!("a: {}{}\n", "[".repeat(100), "]".repeat(100));
        assert!(said(deep.as_bytes()).contains(":1:35: more than 32 levels"), "{}", said(deep.as_bytes()));
        let anchors: String = (0..400).map(|at| format!("k{at}: &b{at} x\n")).collect();
        assert!(said(anchors.as_bytes()).contains("too many anchors"), "{}", said(anchors.as_bytes()));
    }

    #[test]
    fn bytes_that_are_no_text_are_found() {
        assert!(said(b"a: b\nc: d\xff\n").contains("a.yml:2:5: this character is not UTF-8"));
        assert!(said(b"\xff\xfea\0").contains("a.yml:1:1: the file is UTF-16"));
    }
}
