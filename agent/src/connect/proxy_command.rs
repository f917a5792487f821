//! `ProxyCommand` of ssh_config(5): a program whose standard input and output are the way to a host.
//!
//! The stream reads its messages, too: what the program complains of says whose fault it is when it ends.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hithe_cli_parser::{Secret, printable, printable_bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{Sleep, sleep};

use super::ConnectError;
use super::gate::Questions;

/// For a program whose input or output has ended to end, and to say why.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of the program's messages, the last ones; and bytes of each.
const MAX_LINES: usize = 4;
const MAX_LINE: usize = 1024;
/// What a shell says where there is no such program, or it cannot be run.
const NOT_FOUND: [i32; 2] = [126, 127];

/// A program that leads to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProxyCommand {
    /// What the shell gets. It may hold a password.
    line: Secret<String>,
    /// `host:port` where it should lead.
    target: String,
}

impl ProxyCommand {
    /// Puts the values of tokens (`%h` and its like) into the line of ssh_config. `%%` is a `%`.
    ///
    /// # Errors
    /// A token is not known, or its value would mean something to the shell.
    pub(super) fn expand(line: &str, tokens: &[(char, &str)], target: String) -> Result<Self, ConnectError> {
        let refuse = |why: String| {
            let what = format!("ProxyCommand of ssh_config cannot be run: {why}");
            ConnectError::option(what, "Correct it there; %h, %n, %p, %r and %% are known.")
        };
        let mut expanded = String::with_capacity(line.len());
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                expanded.push(c);
                continue;
            }
            let name = chars.next();
            let value = match name {
                Some('%') => "%",
                Some(name) => match tokens.iter().find(|(token, _)| *token == name) {
                    Some((_, value)) if is_harmless(value) => value,
                    Some((_, value)) => {
                        return Err(refuse(format!("%{name} would be {:?}", printable(value))));
                    }
                    None => return Err(refuse(format!("%{} is not known", printable(&name.to_string())))),
                },
                None => return Err(refuse("it ends with a single %".into())),
            };
            expanded.push_str(value);
        }
        Ok(Self { line: Secret::new(expanded), target })
    }

    /// For people.
    pub(super) fn in_words(&self) -> String {
        format!("the ProxyCommand `{}`", shown(self.line.expose()))
    }

    #[cfg(test)]
    pub(super) fn line(&self) -> &str {
        self.line.expose()
    }

    /// Starts the program. It is killed when the stream is dropped.
    ///
    /// # Errors
    /// There is no shell.
    pub(super) fn start(&self, questions: &Questions) -> Result<Program, ConnectError> {
        let failed = |why: String| self.failed(&why, true);
        let mut command = shell(self.line.expose());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| failed(format!("the shell: {error}")))?;
        let (Some(input), Some(output), Some(messages)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("it has no input or output".into()));
        };
        let messages =
            Messages { from: Some(messages), line: Vec::new(), last: VecDeque::new(), to: questions.clone() };
        Ok(Program {
            command: self.clone(),
            child,
            input: Some(input),
            output,
            messages,
            end: End::default(),
        })
    }

    fn failed(&self, why: &str, is_final: bool) -> ConnectError {
        ConnectError::ProxyCommand {
            program: shown(self.line.expose()),
            target: self.target.clone(),
            why: why.to_owned(),
            is_final,
        }
    }
}

/// The name of the program: what follows may hold a password, and messages go to logs and to whoever reads them.
pub(super) fn shown(line: &str) -> String {
    let (first, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
    let first = printable(first);
    match first.split_once('=') {
        // A variable that is set for the program.
        Some((name, _)) => format!("{name}=..."),
        None if rest.is_empty() => first.into_owned(),
        None => format!("{first} ..."),
    }
}

/// Whether a shell takes this for nothing but itself. OpenSSH looks for the same since names came in that ran programs.
fn is_harmless(value: &str) -> bool {
    let means_something =
        |c: char| c.is_whitespace() || c.is_control() || "'\"`$\\;&<>|(){}^!*?~#".contains(c);
    !value.starts_with('-') && !value.contains(means_something) && value.matches('%').count() < 2
}

/// As OpenSSH: by the shell of the person, and in its place. Ctrl-C at the terminal is for us, who have to say goodbye
/// over this way.
#[cfg(unix)]
fn shell(line: &str) -> Command {
    let shell =
        std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "trap '' INT; exec \"$0\" -c \"$1\""]).arg(shell).arg(format!("exec {line}"));
    command
}

#[cfg(windows)]
fn shell(line: &str) -> Command {
    let shell = std::env::var_os("ComSpec").unwrap_or_else(|| "cmd.exe".into());
    let mut command = Command::new(shell);
    // With /s, cmd takes away the outer quotes and leaves what is in them as it is.
    command.raw_arg(format!("/d /s /c \"{line}\""));
    command
}

/// A stream through a running program.
pub(super) struct Program {
    command: ProxyCommand,
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    messages: Messages,
    end: End,
}

/// What is over.
#[derive(Debug, Default)]
struct End {
    /// The program takes nothing more. What it has said before is still read.
    is_deaf: bool,
    is_silent: bool,
    /// Runs while the program may still end by itself.
    patience: Option<Pin<Box<Sleep>>>,
    /// Who waits for output.
    reader: Option<Waker>,
}

impl Program {
    /// How the program ended, whose input or output has.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let is_late = self.poll_patience(cx).is_ready();
        let said_all = self.messages.poll(cx).is_ready();
        let exited = pin!(self.child.wait()).poll(cx);
        let (status, is_final) = match exited {
            Poll::Ready(_) if !said_all && !is_late => return Poll::Pending,
            Poll::Ready(Ok(status)) => {
                (in_words(status), status.code().is_some_and(|code| NOT_FOUND.contains(&code)))
            }
            Poll::Ready(Err(error)) => (error.to_string(), false),
            Poll::Pending if is_late => {
                let closed = if self.end.is_silent { "output" } else { "input" };
                (format!("it closed its {closed}"), false)
            }
            Poll::Pending => return Poll::Pending,
        };
        let said: Vec<_> = self.messages.last.iter().map(String::as_str).collect();
        let why = if said.is_empty() { status } else { format!("{status}: {}", said.join(" / ")) };
        Poll::Ready(io::Error::new(io::ErrorKind::BrokenPipe, self.command.failed(&why, is_final)))
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.end.patience.get_or_insert_with(|| Box::pin(sleep(PATIENCE))).as_mut().poll(cx)
    }
}

fn in_words(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("it ended with status {code}"),
        None => format!("it ended ({status})"),
    }
}

impl AsyncRead for Program {
    /// The end of its output is the end of the program, and never that of the server's words.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let _ = self.messages.poll(cx);
        let before = buffer.filled().len();
        if !self.end.is_silent {
            match Pin::new(&mut self.output).poll_read(cx, buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() == before && buffer.remaining() > 0 => {
                    self.end.is_silent = true;
                }
                Poll::Pending if self.end.is_deaf => ready!(self.poll_patience(cx)),
                Poll::Pending => {
                    self.end.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                other => return other,
            }
        }
        self.poll_end(cx).map(Err)
    }
}

impl AsyncWrite for Program {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        // A program that waits until somebody reads its messages would take nothing.
        let _ = this.messages.poll(cx);
        if this.end.is_deaf {
            return Poll::Ready(Ok(bytes.len()));
        }
        let Some(input) = &mut this.input else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        match ready!(Pin::new(input).poll_write(cx, bytes)) {
            // How it ended is told by its output, which may hold more: also what the server said last.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                this.end.is_deaf = true;
                if let Some(reader) = this.end.reader.take() {
                    reader.wake();
                }
                Poll::Ready(Ok(bytes.len()))
            }
            other => Poll::Ready(other),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.as_mut().map_or(Poll::Ready(Ok(())), |input| Pin::new(input).poll_flush(cx))
    }

    /// Gives the program some time to pass on what was written last.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input = None;
        if pin!(self.child.wait()).poll(cx).is_pending() {
            ready!(self.poll_patience(cx));
        }
        Poll::Ready(Ok(()))
    }
}

/// What the program says beside its output. It goes to the person, or to the log, line by line.
struct Messages {
    /// None when it has ended.
    from: Option<ChildStderr>,
    line: Vec<u8>,
    last: VecDeque<String>,
    to: Questions,
}

impl Messages {
    /// Ready when there will be no more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut room = [0; 512];
        while let Some(from) = &mut self.from {
            let mut buffer = ReadBuf::new(&mut room);
            let read = ready!(Pin::new(from).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                self.from = None;
                self.tell();
            }
            for byte in buffer.filled() {
                match byte {
                    b'\n' | b'\r' => self.tell(),
                    byte if self.line.len() < MAX_LINE => self.line.push(*byte),
                    _ => {}
                }
            }
        }
        Poll::Ready(())
    }

    fn tell(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return;
        }
        let line = printable_bytes(&line);
        if self.last.len() == MAX_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.clone());
        tracing::warn!("ProxyCommand: {line}");
        self.to.tell(line);
    }
}

/// What [`Program`] says of its end, if this is it.
pub(super) fn its_own_words(error: io::Error) -> Result<ConnectError, io::Error> {
    match error.get_ref().is_some_and(|inner| inner.is::<ConnectError>()) {
        false => Err(error),
        true => match error.into_inner().map(|inner| inner.downcast::<ConnectError>()) {
            Some(Ok(ours)) => Ok(*ours),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        },
    }
}
