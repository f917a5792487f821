//! Who is asked: the person at the terminal, until the full-screen view has it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hithe_cli_parser::Secret;

use crate::{Ask, Terminal};

/// The terminal, as long as nothing else is drawn there. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Asker {
    taken: Arc<AtomicBool>,
}

impl Asker {
    /// From now on nobody can be asked.
    pub(super) fn give_up_terminal(&self) {
        self.taken.store(true, Ordering::Release);
    }
}

impl Ask for Asker {
    fn is_there(&self) -> bool {
        !self.taken.load(Ordering::Acquire) && Terminal.is_there()
    }

    fn show(&self, text: &str) -> io::Result<()> {
        // Without a person, whoever reads what a service prints may want to know.
        if self.taken.load(Ordering::Acquire) { Ok(()) } else { Terminal.show(text) }
    }

    fn line(&self, question: &str) -> io::Result<String> {
        if self.is_there() { Terminal.line(question) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    fn secret(&self, question: &str) -> io::Result<Secret<String>> {
        if self.is_there() { Terminal.secret(question) } else { Err(io::ErrorKind::Unsupported.into()) }
    }
}

/// How the terminal was when the program began. Put back when this is dropped: a question that was not answered leaves
/// it without echo.
#[cfg(unix)]
pub(super) struct TerminalState(Option<rustix::termios::Termios>);

#[cfg(unix)]
impl TerminalState {
    pub(super) fn now() -> Self {
        Self(rustix::termios::tcgetattr(io::stdin()).ok())
    }
}

#[cfg(unix)]
impl Drop for TerminalState {
    fn drop(&mut self) {
        if let Some(state) = &self.0 {
            let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, state);
        }
    }
}

#[cfg(not(unix))]
pub(super) struct TerminalState;

#[cfg(not(unix))]
impl TerminalState {
    pub(super) fn now() -> Self {
        Self
    }
}
