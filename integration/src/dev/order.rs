//! The one direction of knowledge: which item of the server may use which, and which crate of ours another.

use std::path::Path;

use anyhow::Context;

/// The server's items from the top down. An item uses what stands in lower rows, and its own inside; those of
/// the first row may use one another.
const ROWS: &[&[&str]] = &[
    &["main", "bench", "fuzzing", "server", "api", "demo", "cli", "logging"],
    &["ssh", "edge"],
    &["proxy", "admin"],
    &["registry"],
    &["endpoint"],
    &["modules"],
    &["tunnel", "access"],
    &["certs", "store", "events", "listen", "proof", "trust"],
    &["body", "limits"],
    &["visit", "drain", "workers", "metrics", "config", "stall", "wrapped", "account"],
];

/// Which of our crates each crate may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("cli-parser", &[]),
    ("keys", &[]),
    ("server", &["hithe-cli-parser", "hithe-keys"]),
    ("agent", &["hithe-cli-parser", "hithe-keys"]),
    // The agent's library is for programs of others, and the tests are one.
    ("integration", &["hithe-cli-parser", "hithe"]),
];

/// Where this file of the server uses what stands beside or above it.
pub(super) fn faults(path: &Path, text: &str) -> Vec<String> {
    let Ok(inside) = path.strip_prefix("server/src") else { return Vec::new() };
    let Some(item) = inside.iter().next().and_then(|part| part.to_str()) else { return Vec::new() };
    let item = item.trim_end_matches(".rs");
    if item == "lib" {
        return Vec::new();
    }
    let path = path.display();
    let Some(row) = row(item) else {
        return vec![format!("{path}: `{item}` has no place in the order (dev/order.rs)")];
    };
    let code = code(text);
    used_items(&code)
        .filter(|(used, _)| *used != item && !may_use(row, used))
        .map(|(used, number)| {
            format!("{path}:{number}: `{item}` uses `{used}`, which does not stand below it")
        })
        .collect()
}

/// Whether an item of this row may use that item. What is no module (a macro, a re-export) says nothing.
fn may_use(user: usize, used: &str) -> bool {
    row(used).is_none_or(|used| used > user || used == 0 && user == 0)
}

fn row(item: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&item))
}

/// The text without comments, up to the unit tests, which may use anything.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The first segments of every `crate::…` path, those of a group `crate::{a::B, c}` too, with line numbers.
fn used_items(code: &str) -> impl Iterator<Item = (&str, usize)> {
    code.match_indices("crate::").flat_map(|(at, found)| {
        let number = code.get(..at).unwrap_or_default().lines().count().max(1);
        let rest = code.get(at + found.len()..).unwrap_or_default();
        let items = rest.strip_prefix('{').map_or_else(|| vec![first_segment(rest)], group_items);
        items.into_iter().map(move |item| (item, number))
    })
}

fn group_items(group: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                items.extend(group.get(start..at).map(|item| first_segment(item.trim())));
                start = at + 1;
                if letter == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    items
}

fn first_segment(path: &str) -> &str {
    path.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or_default()
}

/// Where a crate's manifest names a crate of ours that it must not know.
pub(super) fn manifest_faults(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for (folder, allowed) in CRATES {
        let path = root.join(folder).join("Cargo.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let manifest: toml::Table = text.parse().with_context(|| path.display().to_string())?;
        let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
        let tables = kinds.iter().filter_map(|kind| manifest.get(*kind)?.as_table());
        let ours = tables.flat_map(toml::Table::keys).filter(|name| name.starts_with("hithe"));
        let strangers = ours.filter(|name| !allowed.contains(&name.as_str()));
        faults.extend(strangers.map(|name| format!("{folder}/Cargo.toml: must not depend on {name}")));
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(path: &str, text: &str) -> usize {
        faults(Path::new(path), text).len()
    }

    #[test]
    fn an_item_uses_what_stands_below_it() {
        assert_eq!(faults_of("server/src/edge/tls.rs", "use crate::registry::Registry;\n"), 0);
        assert_eq!(faults_of("server/src/registry.rs", "use crate::edge::Hello;\n"), 1);
        assert_eq!(faults_of("server/src/registry/names.rs", "fn f(x: &crate::ssh::Session) {}\n"), 1);
    }

    #[test]
    fn an_item_uses_its_own_inside_but_nothing_beside_it() {
        assert_eq!(faults_of("server/src/ssh/auth.rs", "use crate::ssh::session::Session;\n"), 0);
        assert_eq!(faults_of("server/src/ssh.rs", "use crate::edge;\n"), 1);
        assert_eq!(faults_of("server/src/server.rs", "use crate::demo;\n"), 0);
    }

    #[test]
    fn groups_are_seen_and_comments_and_tests_are_not() {
        assert_eq!(faults_of("server/src/proxy.rs", "use crate::{endpoint::{A, B}, edge::C, drain};\n"), 1);
        assert_eq!(faults_of("server/src/proxy.rs", "use crate::{\n    edge::C,\n    drain,\n};\n"), 1);
        assert_eq!(faults_of("server/src/proxy.rs", "//! As [`crate::edge`] does.\n"), 0);
        assert_eq!(
            faults_of("server/src/proxy.rs", "#[cfg(test)]\nmod tests {\n use crate::edge::C;\n}\n"),
            0
        );
    }

    #[test]
    fn an_item_without_a_place_is_a_fault() {
        assert_eq!(faults_of("server/src/utils.rs", ""), 1);
        assert_eq!(faults_of("server/src/lib.rs", "pub mod utils;"), 0);
    }
}
