//! What the handler of a connection has after login: its publisher, its forwards and its session channels.

use std::sync::Arc;

use hithe_cli_parser::Command;
use russh::ChannelId;
use tokio::sync::mpsc;

use super::forwards::ForwardTable;
use super::publisher::Publisher;
use super::session::Event;

/// What there is after login.
pub(super) struct Live {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) user_command: Option<Arc<Command>>,
    pub(super) forwards: ForwardTable,
    pub(super) terminals: Vec<ChannelId>,
    /// Channels that have had their shell or exec: there is one for each (RFC 4254 §6.5).
    pub(super) started: Vec<ChannelId>,
    /// Sessions (RFC 4254 §6.1) that are open.
    pub(super) sessions: Vec<ChannelId>,
    /// How many of them we have closed: russh keeps something of each until the connection ends.
    pub(super) left_behind: usize,
    /// Bytes received since the visits of this thread had their turn.
    pub(super) turn: usize,
    /// Whether the client was asked to tell that it has sent everything.
    pub(super) asked: bool,
}

impl Live {
    /// Whether the channel was an open session.
    pub(super) fn forget_session(&mut self, channel: ChannelId) -> bool {
        let Some(place) = self.sessions.iter().position(|open| *open == channel) else { return false };
        self.sessions.swap_remove(place);
        self.terminals.retain(|terminal| *terminal != channel);
        self.started.retain(|started| *started != channel);
        true
    }

    pub(super) fn has_room_for_a_session(&mut self) -> bool {
        for channel in self.publisher.ended.take() {
            self.left_behind += usize::from(self.forget_session(channel));
        }
        self.sessions.len() < MAX_SESSION_CHANNELS && self.left_behind < MAX_LEFT_BEHIND
    }
}

/// As sshd's `MaxSessions`.
const MAX_SESSION_CHANNELS: usize = 10;
/// Sessions of one connection that we may close, at some 4 KiB each.
const MAX_LEFT_BEHIND: usize = 4096;
