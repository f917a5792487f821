//! Questions to a person: whether a host key is right, what a passphrase is.

use std::fmt::Debug;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::Arc;

use hithe_cli_parser::Secret;

/// Somebody who can be asked. Its methods wait for a person, so they are called on a thread of their own.
pub trait Ask: Debug + Send + Sync {
    /// Whether there is somebody. Otherwise nothing is asked.
    fn is_there(&self) -> bool;

    /// Shows text that needs no answer.
    ///
    /// # Errors
    /// The terminal is gone.
    fn show(&self, text: &str) -> io::Result<()>;

    /// An answer that may be seen.
    ///
    /// # Errors
    /// The terminal is gone.
    fn line(&self, question: &str) -> io::Result<String>;

    /// An answer that nobody may see.
    ///
    /// # Errors
    /// The terminal is gone.
    fn secret(&self, question: &str) -> io::Result<Secret<String>>;
}

/// The terminal that the program was started at, if it was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terminal;

impl Ask for Terminal {
    fn is_there(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    fn show(&self, text: &str) -> io::Result<()> {
        writeln!(io::stderr(), "{text}")
    }

    fn line(&self, question: &str) -> io::Result<String> {
        let mut terminal = io::stderr();
        write!(terminal, "{question}")?;
        terminal.flush()?;
        let mut answer = String::new();
        if io::stdin().lock().read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
    }

    fn secret(&self, question: &str) -> io::Result<Secret<String>> {
        rpassword::prompt_password(question).map(Secret::new)
    }
}

/// Nobody can be asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Ask for Nobody {
    fn is_there(&self) -> bool {
        false
    }

    fn show(&self, _text: &str) -> io::Result<()> {
        Ok(())
    }

    fn line(&self, _question: &str) -> io::Result<String> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn secret(&self, _question: &str) -> io::Result<Secret<String>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Asks on a thread that may wait.
///
/// # Errors
/// The terminal is gone.
pub(super) async fn ask<T: Send + 'static>(
    whom: &Arc<dyn Ask>,
    question: impl FnOnce(&dyn Ask) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let whom = Arc::clone(whom);
    tokio::task::spawn_blocking(move || question(&*whom))
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
