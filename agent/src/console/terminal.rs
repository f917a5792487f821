//! The terminal while the full-screen view has it, given back on every way out.

use std::io::{self, Write as _, stdout};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, SetTitle,
    disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute, queue};
use tokio::sync::mpsc;

use super::app::App;
use super::screen;

/// Dropping it restores the terminal.
pub(super) struct Terminal {
    inner: Arc<Mutex<DefaultTerminal>>,
    is_over: Arc<AtomicBool>,
    title: Arc<Mutex<Option<String>>>,
}

impl Terminal {
    /// # Errors
    /// There is none, or it is in use by another view of this process.
    pub(super) fn take() -> io::Result<Self> {
        // What a panic prints would be lost with the screen.
        keep_panics();
        if IS_TAKEN.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let entered = enable_raw_mode()
            .and_then(|()| execute!(stdout(), SaveTitle, EnterAlternateScreen, cursor::Hide))
            .and_then(|()| ratatui::Terminal::new(CrosstermBackend::new(stdout())));
        match entered {
            Ok(inner) => Ok(Self {
                inner: Arc::new(Mutex::new(inner)),
                is_over: Arc::default(),
                title: Arc::default(),
            }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Keys and changes of the size. The thread that reads them ends soon after the terminal is given back.
    pub(super) fn events(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(64);
        let is_over = Arc::clone(&self.is_over);
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                match event::poll(Duration::from_millis(100)) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(_) => return,
                }
                let Ok(event) = event::read() else { return };
                // Who types faster than we draw loses keys, and nothing else.
                if let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(event) {
                    return;
                }
            }
        });
        receiver
    }

    pub(super) fn clear(&self) -> io::Result<()> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clear()
    }

    /// On a thread where a terminal that does not read holds up nobody.
    pub(super) async fn draw(&self, app: Arc<Mutex<App>>) -> io::Result<()> {
        let (inner, shown) = (Arc::clone(&self.inner), Arc::clone(&self.title));
        let drawing = tokio::task::spawn_blocking(move || {
            let mut terminal = inner.lock().unwrap_or_else(PoisonError::into_inner);
            let app = app.lock().unwrap_or_else(PoisonError::into_inner);
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            let title = screen::title(&app);
            if *shown != title {
                if let Some(title) = &title {
                    queue!(stdout(), SetTitle(title))?;
                }
                *shown = title;
            }
            queue!(stdout(), BeginSynchronizedUpdate)?;
            let drawn = terminal.draw(|frame| screen::draw(&app, frame)).map(|_| ());
            execute!(stdout(), EndSynchronizedUpdate)?;
            drawn
        });
        match drawing.await {
            Ok(drawn) => drawn,
            Err(error) => match error.try_into_panic() {
                Ok(reason) => panic::resume_unwind(reason),
                Err(cancelled) => Err(io::Error::other(cancelled)),
            },
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        restore();
    }
}

fn restore() {
    // Each on its own: one that fails does not keep the others from it.
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), EndSynchronizedUpdate, LeaveAlternateScreen);
    let _ = execute!(stdout(), RestoreTitle, cursor::Show);
    IS_TAKEN.store(false, Ordering::SeqCst);
    for panic in std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner)) {
        let _ = writeln!(io::stderr(), "{panic}");
    }
}

/// Panics of other tasks end one connection and not the program: the view stays, and they are printed behind it.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_TAKEN.load(Ordering::SeqCst) {
                return usual(info);
            }
            let trace = std::backtrace::Backtrace::capture();
            let text = match trace.status() {
                std::backtrace::BacktraceStatus::Captured => format!("{info}\n{trace}"),
                _ => info.to_string(),
            };
            let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
            if panics.len() < KEPT_PANICS {
                panics.push(text);
            }
        }));
    });
}

static IS_TAKEN: AtomicBool = AtomicBool::new(false);
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
const KEPT_PANICS: usize = 8;

/// xterm's stack of titles. Terminals that do not know it take no notice.
struct SaveTitle;
struct RestoreTitle;

impl ratatui::crossterm::Command for SaveTitle {
    fn write_ansi(&self, f: &mut impl std::fmt::Write) -> std::fmt::Result {
        f.write_str("\x1b[22;2t")
    }

    #[cfg(windows)]
    fn execute_winapi(&self) -> io::Result<()> {
        Ok(())
    }
}

impl ratatui::crossterm::Command for RestoreTitle {
    fn write_ansi(&self, f: &mut impl std::fmt::Write) -> std::fmt::Result {
        f.write_str("\x1b[23;2t")
    }

    #[cfg(windows)]
    fn execute_winapi(&self) -> io::Result<()> {
        Ok(())
    }
}
