//! `cargo dev check`: the house rules that neither the compiler nor clippy knows.

use std::path::Path;

use anyhow::{Context, bail};

use super::{generate, order, platforms, root, say, tracked_files};

/// Longer files are split.
const MOST_LINES: usize = 600;

/// Folders of build machines have no business in here. Joined, so that this file passes its own check.
const MACHINE_PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

pub(super) fn run() -> anyhow::Result<()> {
    let files = tracked_files()?;
    let mut faults = Vec::new();
    for path in &files {
        let bytes = std::fs::read(root().join(path)).with_context(|| path.display().to_string())?;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        if path.extension().is_some_and(|extension| extension == "rs") {
            faults.extend(file_faults(path, &text));
            faults.extend(order::faults(path, &text));
        }
        faults.extend(machine_paths(path, &text));
    }
    faults.extend(order::manifest_faults(root())?);
    if let Err(error) = generate::run(true) {
        faults.push(format!("{error:#}"));
    }
    if !faults.is_empty() {
        bail!("{} fault(s):\n{}", faults.len(), faults.join("\n"));
    }
    say(&format!("check: {} files keep the house rules", files.len()));
    platforms::check()
}

/// Each source opens with its module doc and has a length one can read.
fn file_faults(path: &Path, text: &str) -> Vec<String> {
    let path = path.display();
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push(format!("{path}: opens without a `//!` line that says what the file is for"));
    }
    let lines = text.lines().count();
    if lines > MOST_LINES {
        faults.push(format!("{path}: has {lines} lines, {MOST_LINES} are the most"));
    }
    faults
}

fn machine_paths(path: &Path, text: &str) -> Vec<String> {
    let numbered = text.lines().zip(1..);
    let faulty = numbered.filter(|(line, _)| MACHINE_PATHS.iter().any(|machine| names_path(line, machine)));
    faulty
        .map(|(_, number)| format!("{}:{number}: names a folder of a build machine", path.display()))
        .collect()
}

/// Whether `line` has this absolute path, rather than a relative one or a URL that ends like it.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line.get(..at).and_then(|head| head.chars().next_back());
        !before.is_some_and(|letter| letter.is_alphanumeric() || "._-/*}".contains(letter))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_module_doc_or_with_too_many_lines_is_a_fault() {
        let path = Path::new("server/src/x.rs");
        assert!(file_faults(path, "//! What it is for.\n").is_empty());
        assert_eq!(file_faults(path, "fn main() {}\n").len(), 1);
        assert_eq!(file_faults(path, &"//! Long.\n".repeat(MOST_LINES + 1)).len(), 1);
    }

    #[test]
    fn absolute_machine_paths_are_found_and_relative_ones_are_not() {
        let machine = MACHINE_PATHS[0];
        assert!(names_path(&format!("see {machine}main"), machine));
        assert!(names_path(&format!("\"{machine}main\""), machine));
        assert!(!names_path(&format!("docs{machine}x"), machine));
        assert!(!names_path(&format!("https://example.com{machine}x"), machine));
    }
}
