//! A server under measure as a child process with all that it forks. Ended by its id when dropped, whatever
//! went wrong before.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::usage::family;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(10);
/// How long it may take to end when asked to; then it is killed.
const END: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);

/// A running server. Its output goes to a file, of which an error shows the end.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(super) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(log).context("cannot write a log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("cannot write a log")?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it accepts connections at this port of the loopback.
    pub(super) async fn listening(&mut self, port: u16) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if let Some(status) = self.child.try_wait().context("cannot look after a child")? {
                bail!("it ended with {status}: {}", self.last_words());
            }
            if Instant::now() > deadline {
                bail!("it does not listen: {}", self.last_words());
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Process {
    /// SIGTERM lets nginx and sshd end their children; what is left of the family is killed.
    fn drop(&mut self) {
        let family: Vec<_> = family(&[self.pid()]).into_iter().map(|pid| (pid, started(pid))).collect();
        signal(self.pid(), Signal::TERM);
        let mut waits = END.as_millis() / LOOK.as_millis();
        while waits > 0 && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK);
            waits -= 1;
        }
        let left = family.into_iter().filter(|(pid, start)| start.is_some() && started(*pid) == *start);
        left.for_each(|(pid, _)| signal(pid, Signal::KILL));
        let _ = self.child.wait();
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = kill_process(pid, signal); // it may have ended by itself
    }
}

/// When a process started: with its id this names it for good, although ids are used again.
fn started(pid: u32) -> Option<u64> {
    super::usage::stat_field(pid, 22)
}
