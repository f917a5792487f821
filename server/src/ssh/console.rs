//! What a publisher reads on a session channel: lines that never hold up data.
//!
//! Each console is a task with a bounded queue. When the terminal stops reading (Ctrl-S), the queue fills, further
//! lines are dropped and counted; the channel's own window keeps it from the other channels. Lines about visits that
//! come in quick succession are sent together: a message for each costs the server and the client as much as a request.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::server::Msg;
use russh::{ChannelId, ChannelWriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use super::text;
use crate::drain::DrainWatch;
use crate::visit::{VisitLog, VisitRecord};

/// The writing end of one session channel.
pub(super) struct Console {
    lines: mpsc::Sender<Line>,
    dropped: Arc<AtomicU64>,
    /// There is something that does not wait for more.
    urgent: Arc<Notify>,
    end: Option<oneshot::Sender<u32>>,
}

/// Session channels that we closed, of which russh does not say that the client has closed them too.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<Vec<ChannelId>>);

impl Ended {
    fn note(&self, channel: ChannelId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
    }

    /// Those since the last time.
    pub(super) fn take(&self) -> Vec<ChannelId> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

enum Line {
    Text(String),
    /// From now on lines end in CR LF.
    Terminal,
}

impl Console {
    pub(super) fn open(channel: ChannelWriteHalf<Msg>, tasks: &DrainWatch, ended: Arc<Ended>) -> Self {
        let (lines, queue) = mpsc::channel(QUEUE);
        let (end, asked_to_end) = oneshot::channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let urgent = Arc::new(Notify::new());
        let writer = Writer {
            channel,
            queue,
            dropped: Arc::clone(&dropped),
            urgent: Arc::clone(&urgent),
            ended,
            terminal: false,
        };
        tasks.spawn(writer.run(asked_to_end));
        Self { lines, dropped, urgent, end: Some(end) }
    }

    /// The client asked for a terminal.
    pub(super) fn is_terminal(&self) {
        self.send(Line::Terminal);
    }

    pub(super) fn print(&self, text: impl Into<String>) {
        self.send(Line::Text(text.into()));
    }

    /// What is printed so far goes out, then the exit status, then the channel is closed.
    pub(super) fn end(&mut self, status: u32) {
        if let Some(end) = self.end.take() {
            let _ = end.send(status);
        }
    }

    /// Where the visits of this console's endpoints are told.
    pub(super) fn log(&self) -> Arc<dyn VisitLog> {
        Arc::new(ConsoleLog {
            lines: self.lines.clone(),
            dropped: Arc::clone(&self.dropped),
            advised: Mutex::default(),
        })
    }

    fn send(&self, line: Line) {
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.urgent.notify_one();
    }
}

struct ConsoleLog {
    lines: mpsc::Sender<Line>,
    dropped: Arc<AtomicU64>,
    /// Each request of a broken forward has the same advice; each is given once.
    advised: Mutex<Vec<&'static str>>,
}

impl ConsoleLog {
    fn send(&self, line: Line) {
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl VisitLog for ConsoleLog {
    fn record(&self, record: VisitRecord) {
        let Ok(place) = self.lines.try_reserve() else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // In words: as long as it is a record, it holds the head of its request, which may be a megabyte.
        place.send(Line::Text(text::visit(&record)));
    }

    fn advise(&self, advice: &'static str) {
        let mut advised = self.advised.lock().unwrap_or_else(PoisonError::into_inner);
        if !advised.contains(&advice) {
            advised.push(advice);
            self.send(Line::Text(format!("{advice}\n")));
        }
    }
}

struct Writer {
    channel: ChannelWriteHalf<Msg>,
    queue: mpsc::Receiver<Line>,
    dropped: Arc<AtomicU64>,
    urgent: Arc<Notify>,
    ended: Arc<Ended>,
    terminal: bool,
}

impl Writer {
    async fn run(mut self, mut ended: oneshot::Receiver<u32>) {
        let mut lines = Vec::new();
        let status = loop {
            tokio::select! {
                biased;
                status = &mut ended => break status.ok(),
                count = self.queue.recv_many(&mut lines, QUEUE) => if count == 0 { break None },
            }
            let Some(text) = self.render(&mut lines) else { continue };
            let mut written = pin!(self.channel.data_bytes(text));
            tokio::select! {
                biased;
                written = &mut written => if written.is_err() { return },
                // A terminal that reads nothing must not keep the end from coming.
                status = &mut ended => {
                    let _ = timeout(FLUSH, written).await;
                    break status.ok();
                }
            }
            tokio::select! {
                biased;
                status = &mut ended => break status.ok(),
                _ = timeout(GATHER, self.urgent.notified()) => {}
            }
        };
        let Some(status) = status else { return };
        let _ = timeout(FLUSH, self.flush()).await;
        let _ = self.channel.exit_status(status).await;
        let _ = self.channel.eof().await;
        let _ = self.channel.close().await;
        self.ended.note(self.channel.id());
    }

    async fn flush(&mut self) {
        self.queue.close();
        let mut lines = Vec::new();
        while self.queue.recv_many(&mut lines, QUEUE).await > 0 {
            if let Some(text) = self.render(&mut lines)
                && self.channel.data_bytes(text).await.is_err()
            {
                return;
            }
        }
    }

    /// Empties `lines`.
    fn render(&mut self, lines: &mut Vec<Line>) -> Option<Bytes> {
        let mut text = match self.dropped.swap(0, Ordering::Relaxed) {
            0 => String::new(),
            lines => text::dropped(lines),
        };
        for line in lines.drain(..) {
            match line {
                Line::Text(line) if self.terminal => text.push_str(&line.replace('\n', "\r\n")),
                Line::Text(line) => text.push_str(&line),
                Line::Terminal => self.terminal = true,
            }
        }
        (!text.is_empty()).then(|| text.into())
    }
}

/// Lines that wait for a terminal; more are dropped and counted.
const QUEUE: usize = 1024;
/// How long lines about visits gather after one was sent: less than a reader sees.
const GATHER: Duration = Duration::from_millis(20);
/// How long the end waits for a terminal to take what was printed before.
const FLUSH: Duration = Duration::from_secs(2);
