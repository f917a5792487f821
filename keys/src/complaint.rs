//! What is wrong with a line of a file, in words for its operator.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::files::FileError;

/// Characters of foreign text that are repeated.
const MAX_REPEATED: usize = 128;

/// A line, or with line 0 a whole file, that is not taken as it stands, and why. One line of printable text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub path: PathBuf,
    /// From 1; 0 when it is about the file.
    pub line: usize,
    pub severity: Severity,
    pub text: String,
}

/// What becomes of a line that is complained about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The line is used, and a part of it has no effect.
    Warning,
    /// The line admits nobody.
    Error,
}

impl Complaint {
    pub(crate) fn error(path: &Path, line: usize, text: String) -> Self {
        Self { path: path.to_owned(), line, severity: Severity::Error, text }
    }

    pub(crate) fn warning(path: &Path, line: usize, text: String) -> Self {
        Self { path: path.to_owned(), line, severity: Severity::Warning, text }
    }

    pub(crate) fn about_file(path: &Path, error: &FileError) -> Self {
        let text = match error {
            FileError::Read { source, .. } => format!("cannot be read: {source}"),
            other => other.to_string(),
        };
        Self::error(path, 0, text)
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = printable(&self.path.to_string_lossy());
        match self.line {
            0 => write!(f, "{path}: {}", self.text),
            line => write!(f, "{path}:{line}: {}", self.text),
        }
    }
}

/// The beginning of a foreign text, printable.
pub(crate) fn shortened(text: &str) -> String {
    let short: String = text.chars().take(MAX_REPEATED).collect();
    printable(&short)
}

pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c {
            ' '..='~' => vec![c],
            other => other.escape_default().collect(),
        })
        .collect()
}
