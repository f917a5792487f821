//! What a publisher reads when a command cannot be understood: a code, the offending word, and what to do.

use std::fmt;

use crate::{Code, printable};

/// A command line that was refused. Nothing is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    code: Code,
    message: String,
    word: Option<String>,
    hint: Option<String>,
}

impl CommandError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), word: None, hint: None }
    }

    /// The word that is at fault, if it can be told. Never a secret.
    pub(crate) fn word(mut self, word: &str) -> Self {
        self.word = (!word.is_empty()).then(|| printable(word).into_owned());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub const fn code(&self) -> Code {
        self.code
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn offending_word(&self) -> Option<&str> {
        self.word.as_deref()
    }

    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// A block of lines for a terminal.
impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if let Some(word) = &self.word {
            write!(f, ": {word}")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CommandError {}
