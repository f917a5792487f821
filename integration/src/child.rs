//! A client program as a child process: its output is kept from the first byte, and a test waits for lines
//! of it. It is killed when dropped; ssh can sit for minutes on a SIGTERM, so with SIGKILL.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio::sync::watch;

use crate::terminal::Terminal;
use crate::wait::within;

/// A running client and what it wrote so far.
pub struct Child {
    process: tokio::process::Child,
    pid: Pid,
    input: Option<ChildStdin>,
    terminal: Option<File>,
    transcript: Transcript,
    reading: watch::Sender<bool>,
    /// The process that reads standard output, as in `ssh … | cat`.
    reader: Option<tokio::process::Child>,
    forwards: usize,
}

/// One line `Forwarding  URL -> BIND` of the server's greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    pub url: String,
    pub bind: String,
}

/// Which of the two outputs.
#[derive(Clone, Copy, Debug)]
enum Output {
    Stdout,
    Stderr,
}

impl Child {
    /// Starts `command`. With a `terminal`, standard input and output are that terminal; otherwise they are
    /// pipes, and standard input is what `command` says (a pipe only if it was set to one).
    pub fn spawn(mut command: Command, terminal: Option<Terminal>) -> Self {
        let master = terminal.map(|terminal| {
            command.stdin(terminal.end()).stdout(terminal.end());
            terminal.into_master()
        });
        if master.is_none() {
            command.stdout(Stdio::piped());
        }
        Self::start(command, master, None)
    }

    /// Starts `command` with its standard output read by a `cat`.
    pub fn spawn_into_pipe(mut command: Command) -> Self {
        let (output, input) = std::io::pipe().expect("a pipe");
        let reader = Command::new("cat").stdin(output).stdout(Stdio::piped()).kill_on_drop(true).spawn();
        command.stdout(input);
        Self::start(command, None, Some(reader.expect("cat starts")))
    }

    fn start(mut command: Command, master: Option<File>, mut reader: Option<tokio::process::Child>) -> Self {
        let mut process =
            command.stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("the client program starts");
        drop(command); // it holds the far end of a terminal or pipe, whose last close is the end of the output
        let pid = Pid::from_raw(process.id().expect("just started").cast_signed()).expect("not zero");
        let (reading, gate) = watch::channel(true);
        let transcript = Transcript::default();
        let stdout = reader.as_mut().map_or_else(|| process.stdout.take(), |reader| reader.stdout.take());
        if let Some(stdout) = stdout {
            tokio::spawn(transcript.clone().record(Output::Stdout, stdout, gate.clone()));
        }
        if let Some(stderr) = process.stderr.take() {
            tokio::spawn(transcript.clone().record(Output::Stderr, stderr, gate.clone()));
        }
        if let Some(master) = &master {
            let master = master.try_clone().expect("a second handle of the terminal");
            transcript.clone().record_terminal(master, gate);
        }
        let input = process.stdin.take();
        Self { process, pid, input, terminal: master, transcript, reading, reader, forwards: 1 }
    }

    /// Says how many `Forwarding` lines [`Self::forwarding`] waits for.
    pub fn expecting(mut self, forwards: usize) -> Self {
        self.forwards = forwards.max(1);
        self
    }

    /// Waits for the greeting's `Forwarding` lines, as many as forwards were asked for.
    pub async fn forwarding(&mut self) -> Vec<Forwarding> {
        self.forwardings(self.forwards).await
    }

    /// Waits until `count` lines `Forwarding  URL -> BIND` were printed; returns all of them in order.
    pub async fn forwardings(&mut self, count: usize) -> Vec<Forwarding> {
        let what = format!("{count} Forwarding line(s)");
        let found = self.wait_for(&what, |text| {
            let found: Vec<_> = whole_lines(text).filter_map(Forwarding::parse).collect();
            (found.len() >= count).then_some(found)
        });
        found.await
    }

    /// As [`Self::forwarding`], where a publisher that is refused is no failed test: says why.
    pub async fn try_forwarding(&mut self) -> Result<Vec<Forwarding>, String> {
        let count = self.forwards;
        let found = self.look_for(|text| {
            let found: Vec<_> = whole_lines(text).filter_map(Forwarding::parse).collect();
            (found.len() >= count).then_some(found)
        });
        found.await.map_err(|why| format!("{why} {count} Forwarding line(s):\n{}", self.transcript))
    }

    /// The first public URL of this publisher, without a slash at the end.
    pub async fn url(&mut self) -> String {
        let found = self.forwardings(1).await;
        found.into_iter().next().expect("at least one").url
    }

    /// Waits for a whole line, of either output, that `wanted` accepts; returns it.
    pub async fn wait_for_line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_for("the awaited line", |text| {
            whole_lines(text).find(|line| wanted(line)).map(str::to_owned)
        })
        .await
    }

    /// Waits for a line that contains `part`.
    pub async fn wait_for_text(&mut self, part: &str) -> String {
        self.wait_for(&format!("a line with {part:?}"), |text| {
            whole_lines(text).find(|line| line.contains(part)).map(str::to_owned)
        })
        .await
    }

    async fn wait_for<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        match self.look_for(find).await {
            Ok(found) => found,
            Err(why) => panic!("{why} {what}:\n{}", self.transcript),
        }
    }

    /// Waits until `find` finds something in either output. The error says what came before that.
    async fn look_for<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Result<T, &'static str> {
        let mut changes = self.transcript.changed.subscribe();
        let search = async {
            loop {
                let ended = self.transcript.ended();
                let texts = [Output::Stdout, Output::Stderr].map(|output| self.transcript.text(output));
                if let Some(found) = texts.iter().find_map(|text| find(text)) {
                    return Some(found);
                }
                if ended || changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        match tokio::time::timeout(crate::wait::PATIENCE, search).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err("the client ended before"),
            Err(_) => Err("the time was over before"),
        }
    }

    /// What was written to standard output so far, or to the terminal if it has one.
    pub fn stdout(&self) -> String {
        self.transcript.text(Output::Stdout)
    }

    /// What was written to standard error so far.
    pub fn stderr(&self) -> String {
        self.transcript.text(Output::Stderr)
    }

    /// Both outputs so far, standard output first.
    pub fn output(&self) -> String {
        self.stdout() + &self.stderr()
    }

    /// Waits for the end of the process and of its output.
    pub async fn wait(&mut self) -> ExitStatus {
        let status = within(&format!("end of the client ({})", self.transcript), self.process.wait()).await;
        let mut changes = self.transcript.changed.subscribe();
        let end = changes.wait_for(|readers| *readers == 0); // not ended(): that would lock the same lock again
        // A child of the client (`ssh -f`, a mux master) may keep the pipes open; the process has ended all the same.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), end).await;
        status.expect("a child can be waited for")
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_pid().cast_unsigned()
    }

    /// Writes to standard input, or types at the terminal.
    pub async fn type_in(&mut self, bytes: &[u8]) {
        match (&mut self.terminal, &mut self.input) {
            (Some(terminal), _) => terminal.write_all(bytes).expect("the terminal takes input"),
            (None, Some(input)) => {
                input.write_all(bytes).await.expect("the client takes input");
                input.flush().await.expect("the client takes input");
            }
            (None, None) => panic!("this client has no standard input: ask for stdin_pipe() or terminal()"),
        }
    }

    /// Ends standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Ctrl-C: typed if there is a terminal, the signal otherwise.
    pub async fn interrupt(&mut self) {
        if self.terminal.is_some() { self.type_in(b"\x03").await } else { self.signal(Signal::INT) }
    }

    /// Ends the process at once, as if the power had gone (its kernel still closes the connection).
    pub async fn kill(&mut self) {
        let _ = self.process.start_kill(); // fails only if it has ended already
        let _ = self.process.wait().await;
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGSTOP: the process stands still, its connections stay open.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: ends [`Self::stop`].
    pub fn cont(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGSTOP to the process that reads standard output, as when somebody stops a pipeline's last part.
    pub fn stop_reader(&self) {
        self.signal_reader(Signal::STOP);
    }

    /// SIGCONT: ends [`Self::stop_reader`].
    pub fn cont_reader(&self) {
        self.signal_reader(Signal::CONT);
    }

    fn signal_reader(&self, signal: Signal) {
        let reader = self.reader.as_ref().and_then(tokio::process::Child::id).expect("a reader that runs");
        let pid = Pid::from_raw(reader.cast_signed()).expect("not zero");
        kill_process(pid, signal).expect("the reader still runs");
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the client still runs");
    }

    /// Stops reading the client's output, as a terminal after Ctrl-S does.
    pub fn stop_reading(&self) {
        self.reading.send_replace(false);
    }

    /// Reads on after [`Self::stop_reading`].
    pub fn read_on(&self) {
        self.reading.send_replace(true);
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- client {}\n{}", self.pid(), self.transcript);
        }
        let _ = self.process.start_kill();
    }
}

impl Forwarding {
    fn parse(line: &str) -> Option<Self> {
        let (url, bind) = line.trim().strip_prefix("Forwarding")?.trim().split_once(" -> ")?;
        Some(Self { url: url.trim().to_owned(), bind: bind.trim().to_owned() })
    }

    /// The port in the URL.
    pub fn port(&self) -> Option<u16> {
        self.url.parse::<http::Uri>().ok()?.port_u16()
    }

    /// The host name in the URL.
    pub fn host(&self) -> String {
        let uri: http::Uri = self.url.parse().expect("a Forwarding line shows a URL");
        uri.host().expect("a public URL has a host").to_owned()
    }
}

/// The lines that are complete; a terminal ends them with CR LF.
fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| line.trim_end_matches(['\r', '\n']))
}

/// Both outputs, shared with the tasks that read them.
#[derive(Clone)]
struct Transcript {
    outputs: Arc<Mutex<[Vec<u8>; 2]>>,
    /// Readers at work; each send says that something changed.
    changed: Arc<watch::Sender<usize>>,
}

impl Default for Transcript {
    fn default() -> Self {
        Self { outputs: Arc::default(), changed: Arc::new(watch::Sender::new(0)) }
    }
}

impl Transcript {
    fn record(
        self,
        output: Output,
        mut source: impl AsyncRead + Unpin + Send,
        mut gate: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send {
        self.changed.send_modify(|readers| *readers += 1);
        async move {
            let mut buffer = vec![0; 16 * 1024];
            while gate.wait_for(|open| *open).await.is_ok() {
                match source.read(&mut buffer).await {
                    Ok(count @ 1..) => self.add(output, buffer.get(..count).unwrap_or_default()),
                    _ => break,
                }
            }
            self.changed.send_modify(|readers| *readers -= 1);
        }
    }

    /// A thread, since a terminal cannot be polled like a socket; it ends when the client closes its end.
    fn record_terminal(self, mut master: File, mut gate: watch::Receiver<bool>) {
        self.changed.send_modify(|readers| *readers += 1);
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 16 * 1024];
            while runtime.block_on(gate.wait_for(|open| *open)).is_ok() {
                match master.read(&mut buffer) {
                    Ok(count @ 1..) => self.add(Output::Stdout, buffer.get(..count).unwrap_or_default()),
                    _ => break,
                }
            }
            self.changed.send_modify(|readers| *readers -= 1);
        });
    }

    fn add(&self, output: Output, bytes: &[u8]) {
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let [stdout, stderr] = &mut *outputs;
        match output {
            Output::Stdout => stdout.extend_from_slice(bytes),
            Output::Stderr => stderr.extend_from_slice(bytes),
        }
        drop(outputs);
        self.changed.send_modify(|_| {});
    }

    fn text(&self, output: Output) -> String {
        let outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let [stdout, stderr] = &*outputs;
        let bytes = match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        };
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn ended(&self) -> bool {
        *self.changed.borrow() == 0
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "stdout:\n{}", self.text(Output::Stdout))?;
        writeln!(f, "stderr:\n{}", self.text(Output::Stderr))
    }
}
