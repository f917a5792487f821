//! What a person sees: a full-screen view on a terminal, plain lines elsewhere.
//!
//! It reads channels and writes to the terminal, and nothing waits for it: requests that it cannot show in time are
//! counted, and drawing happens on a thread of its own, ten times a second at most and only when something changed.

mod app;
pub(crate) mod plain;
mod qr;
mod screen;
mod terminal;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ratatui::crossterm::event::Event;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::Status;
use app::{App, Wish};
pub(crate) use screen::Look;
use terminal::Terminal;

/// Connections of all endpoints in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Numbers {
    pub(crate) total: u64,
    pub(crate) open: u64,
    /// Connections a second, over the last minute.
    pub(crate) rate1: f64,
    /// The same over five minutes.
    pub(crate) rate5: f64,
    /// How long half of the connections lasted at most.
    pub(crate) p50: Duration,
    /// The same of nine in ten.
    pub(crate) p90: Duration,
}

/// A finished request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// When it came.
    pub(crate) when: SystemTime,
    /// The endpoint's name.
    pub(crate) endpoint: Arc<str>,
    pub(crate) method: String,
    pub(crate) path: String,
    /// None where the upstream did not answer.
    pub(crate) status: Option<u16>,
    pub(crate) duration: Duration,
}

/// What the console shows.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) numbers: watch::Receiver<Numbers>,
    pub(crate) requests: broadcast::Receiver<Line>,
}

/// Why the console has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Somebody pressed `q` or Ctrl-C.
    Quit,
    /// The process was asked to end, by SIGINT, SIGTERM or SIGHUP or what Windows has instead.
    Signal,
    /// Nobody keeps the status up to date any more.
    Over,
}

/// Shows the full-screen view until somebody quits. The terminal is as it was when this future has ended, was dropped
/// or has panicked; what panics meanwhile elsewhere in the process is printed then.
///
/// # Errors
/// There is no terminal, or it cannot be written to.
pub(crate) async fn run(sources: Sources, look: Look) -> io::Result<Left> {
    let Sources { mut status, mut numbers, mut requests } = sources;
    let terminal = Terminal::take()?;
    let mut keys = terminal.events();
    let app = Arc::new(Mutex::new(App::new(look)));
    let with = |act: &mut dyn FnMut(&mut App)| act(&mut app.lock().unwrap_or_else(PoisonError::into_inner));
    with(&mut |app| app.status = status.borrow_and_update().clone());

    let signal = asked_to_end();
    tokio::pin!(signal);
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_stale = true;
    let mut are_requests_over = false;
    let mut are_numbers_over = false;
    let mut not_before = Instant::now();
    loop {
        tokio::select! {
            () = &mut signal => return Ok(Left::Signal),
            changed = status.changed() => {
                let Ok(()) = changed else { return Ok(Left::Over) };
                with(&mut |app| app.status = status.borrow_and_update().clone());
                is_stale = true;
            }
            changed = numbers.changed(), if !are_numbers_over => {
                are_numbers_over = changed.is_err();
                with(&mut |app| app.numbers = *numbers.borrow_and_update());
                is_stale = true;
            }
            line = requests.recv(), if !are_requests_over => {
                with(&mut |app| are_requests_over = app.take(&line));
                is_stale = true;
            }
            Some(event) = next(&mut keys) => {
                let mut wish = Wish::Nothing;
                with(&mut |app| wish = app.on(&event));
                match wish {
                    Wish::Nothing => {}
                    Wish::Draw => is_stale = true,
                    Wish::DrawAnew => {
                        terminal.clear()?;
                        is_stale = true;
                    }
                    Wish::Quit => return Ok(Left::Quit),
                }
            }
            // A countdown goes on without news.
            _ = second.tick() => with(&mut |app| is_stale |= app.counts_down()),
            () = sleep_until(not_before), if is_stale => {
                is_stale = false;
                let drawing = terminal.draw(Arc::clone(&app));
                tokio::select! {
                    () = &mut signal => return Ok(Left::Signal),
                    drawn = drawing => drawn?,
                }
                not_before = Instant::now() + BETWEEN_FRAMES;
            }
        }
    }
}

/// Waits for ever when there are no more keys: the view goes on without.
async fn next(keys: &mut mpsc::Receiver<Event>) -> Option<Event> {
    match keys.recv().await {
        Some(event) => Some(event),
        None => std::future::pending().await,
    }
}

#[cfg(unix)]
pub(crate) async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    // nohup(1) has it ignored, and means it.
    let wanted = kinds.into_iter().filter(|kind| *kind != SignalKind::hangup() || !hangup_is_ignored());
    let mut signals: Vec<_> = wanted.filter_map(|kind| signal(kind).ok()).collect();
    if signals.is_empty() {
        std::future::pending::<()>().await;
    }
    futures_util::future::select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
}

/// Whether the program was started so. Known on Linux only.
#[cfg(unix)]
fn hangup_is_ignored() -> bool {
    static IGNORED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    // Once, before a handler of ours changes it.
    *IGNORED.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
    })
}

#[cfg(windows)]
pub(crate) async fn asked_to_end() {
    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close};
    let (Ok(mut interrupt), Ok(mut leave), Ok(mut close)) = (ctrl_c(), ctrl_break(), ctrl_close()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = leave.recv() => {}
        _ = close.recv() => {}
        () = END.notified() => {}
    }
}

/// What a signal does elsewhere: the service control manager sends none.
#[cfg(windows)]
pub(crate) fn ask_to_end() {
    END.notify_one();
}

#[cfg(windows)]
static END: tokio::sync::Notify = tokio::sync::Notify::const_new();

/// More often than ten times a second nobody reads.
const BETWEEN_FRAMES: Duration = Duration::from_millis(100);

#[cfg(test)]
mod demo;
