//! The state of the full-screen view, and what keys do to it.

use std::collections::VecDeque;

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use tokio::sync::broadcast::error::RecvError;

use super::{Line, Look, Numbers};
use crate::{Phase, Status};

#[derive(Debug)]
pub(super) struct App {
    pub(super) status: Status,
    pub(super) numbers: Numbers,
    /// The newest first.
    pub(super) requests: VecDeque<Line>,
    /// Requests that came faster than they could be taken.
    pub(super) missed: u64,
    /// How many of the newest requests are above the list's first row.
    pub(super) scrolled: usize,
    pub(super) view: View,
    pub(super) look: Look,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Main,
    QrCode,
    Help,
}

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Draw,
    /// Something else wrote on the terminal.
    DrawAnew,
    Quit,
}

impl App {
    pub(super) fn new(look: Look) -> Self {
        Self {
            status: Status::default(),
            numbers: Numbers::default(),
            requests: VecDeque::with_capacity(KEPT),
            missed: 0,
            scrolled: 0,
            view: View::Main,
            look,
        }
    }

    /// Whether it was the last.
    pub(super) fn take(&mut self, line: &Result<Line, RecvError>) -> bool {
        match line {
            Ok(line) => self.add(line.clone()),
            Err(RecvError::Lagged(count)) => self.missed += count,
            Err(RecvError::Closed) => return true,
        }
        false
    }

    pub(super) fn add(&mut self, line: Line) {
        self.requests.truncate(KEPT - 1);
        self.requests.push_front(line);
        // Who looks at older ones keeps them before the eyes.
        if self.scrolled > 0 {
            self.scroll(1);
        }
    }

    /// Whether time alone changes what is shown.
    pub(super) fn counts_down(&self) -> bool {
        self.status.endpoints.iter().any(|endpoint| matches!(endpoint.phase, Phase::Waiting { .. }))
    }

    pub(super) fn on(&mut self, event: &Event) -> Wish {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.on_key(*key),
            Event::Resize(..) => Wish::Draw,
            _ => Wish::Nothing,
        }
    }

    fn on_key(&mut self, key: KeyEvent) -> Wish {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c' | 'C') => Wish::Quit,
                KeyCode::Char('l' | 'L') => Wish::DrawAnew,
                _ => Wish::Nothing,
            };
        }
        match key.code {
            KeyCode::Char('q' | 'Q') => return Wish::Quit,
            KeyCode::Char('u' | 'U') => self.toggle(View::QrCode),
            KeyCode::Char('?' | 'h') => self.toggle(View::Help),
            KeyCode::Esc => self.view = View::Main,
            KeyCode::Up | KeyCode::Char('k') => self.scroll(-1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::PageUp => self.scroll(-10),
            KeyCode::PageDown => self.scroll(10),
            KeyCode::Home => self.scrolled = 0,
            KeyCode::End => self.scroll(isize::MAX),
            _ => return Wish::Nothing,
        }
        Wish::Draw
    }

    fn toggle(&mut self, view: View) {
        self.view = if self.view == view { View::Main } else { view };
    }

    fn scroll(&mut self, by: isize) {
        self.scrolled = self.scrolled.saturating_add_signed(by).min(self.requests.len().saturating_sub(1));
    }
}

/// Requests that can be scrolled to.
const KEPT: usize = 1000;

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn line(path: &str) -> Line {
        Line {
            when: SystemTime::UNIX_EPOCH,
            endpoint: "web".into(),
            method: "GET".into(),
            path: path.into(),
            status: Some(200),
            duration: Duration::ZERO,
        }
    }

    fn press(app: &mut App, code: KeyCode) -> Wish {
        app.on(&Event::Key(code.into()))
    }

    #[test]
    fn q_and_control_c_quit_and_other_keys_do_not() {
        let mut app = App::new(Look::default());
        assert_eq!(press(&mut app, KeyCode::Char('q')), Wish::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(app.on(&Event::Key(interrupt)), Wish::Quit);
        assert_eq!(press(&mut app, KeyCode::Char('c')), Wish::Nothing);
        let mut released = KeyEvent::from(KeyCode::Char('q'));
        released.kind = KeyEventKind::Release;
        assert_eq!(app.on(&Event::Key(released)), Wish::Nothing);
    }

    #[test]
    fn a_view_goes_with_the_key_with_which_it_came() {
        let mut app = App::new(Look::default());
        for (key, view) in [
            (KeyCode::Char('u'), View::QrCode),
            (KeyCode::Char('u'), View::Main),
            (KeyCode::Char('?'), View::Help),
            (KeyCode::Char('u'), View::QrCode),
            (KeyCode::Esc, View::Main),
        ] {
            assert_eq!(press(&mut app, key), Wish::Draw);
            assert_eq!(app.view, view);
        }
    }

    #[test]
    fn the_list_keeps_its_place_while_requests_come_and_never_grows_without_end() {
        let mut app = App::new(Look::default());
        assert_eq!(press(&mut app, KeyCode::Down), Wish::Draw);
        assert_eq!(app.scrolled, 0, "there is nothing to scroll");
        for number in 0..KEPT + 50 {
            app.add(line(&number.to_string()));
        }
        assert_eq!((app.requests.len(), app.scrolled), (KEPT, 0));
        press(&mut app, KeyCode::Down);
        let before = app.requests[app.scrolled].path.clone();
        app.add(line("new"));
        assert_eq!(app.requests[app.scrolled].path, before);
        press(&mut app, KeyCode::End);
        assert_eq!(app.scrolled, KEPT - 1);
        press(&mut app, KeyCode::Home);
        assert_eq!(app.requests[app.scrolled].path, "new");
    }
}
