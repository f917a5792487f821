//! Standard output that remembers what became of it: what was asked for and not printed is no success.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::exit;
use crate::publisher::Failure;

/// Writes on, and knows the first failure.
#[derive(Debug)]
pub(super) struct Output<W> {
    to: W,
    failed: Option<io::Error>,
}

impl Output<io::Stdout> {
    pub(super) fn standard() -> Self {
        Self::to(io::stdout())
    }
}

impl<W: Write> Output<W> {
    fn to(to: W) -> Self {
        Self { to, failed: None }
    }

    /// How a command ends whose output this was.
    pub(super) fn end(mut self, result: Result<ExitCode, Failure>) -> Result<ExitCode, Failure> {
        let _ = self.flush();
        match self.failed {
            None => result,
            // Who reads has seen enough: `| head -1`.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => result.or(Ok(ExitCode::SUCCESS)),
            Some(error) => {
                Err(Failure::lasting(exit::HERE, format!("cannot write to standard output: {error}")))
            }
        }
    }

    fn remember<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.failed.get_or_insert_with(|| error.kind().into());
            }
        })
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes);
        self.remember(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.to.flush();
        self.remember(flushed)
    }
}

/// Prints one text.
pub(super) fn print(text: &str) -> Result<ExitCode, Failure> {
    let mut out = Output::standard();
    let _ = out.write_all(text.as_bytes());
    out.end(Ok(ExitCode::SUCCESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails only when it is flushed, as a full disk may.
    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn what_could_not_be_printed_is_a_failure_unless_nobody_reads_it() {
        let end = |kind, result| Output::to(Failing(kind)).end(result);
        let full = end(io::ErrorKind::StorageFull, Ok(ExitCode::SUCCESS)).unwrap_err();
        assert_eq!(full.exit_status(), exit::HERE);
        assert_eq!(end(io::ErrorKind::BrokenPipe, Ok(ExitCode::SUCCESS)), Ok(ExitCode::SUCCESS));
        assert_eq!(end(io::ErrorKind::BrokenPipe, Ok(ExitCode::from(2))), Ok(ExitCode::from(2)));
        assert_eq!(Output::to(Vec::new()).end(Ok(ExitCode::SUCCESS)), Ok(ExitCode::SUCCESS));
    }
}
