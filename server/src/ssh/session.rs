//! One SSH connection of a publisher: the actor that owns its state and decides.
//!
//! Clients send every `-R` before the session that carries the command (dropbear opens the session first). Each
//! forward is granted at once; nothing is public until both halves are there. The actor never waits for the client:
//! what waits runs as a future in `settling`, or in a task of its own.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hithe_cli_parser::{About, Admin, Bind, Code, Command, Parsed, parse, printable};
use russh::server::Msg;
use russh::{ChannelId, ChannelWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::console::Console;
use super::forwards::Forward;
use super::publish::{Failed, Live, publish};
use super::publisher::Publisher;
use super::{Publishers, text};
use crate::admin::{Answer, Asker};
use crate::registry::Refusal;

/// What the client did. Small, since a queue holds room for some in advance.
pub(super) enum Event {
    Forward(Box<Forward>),
    /// Refused at once; the reason is told as soon as there is a place to tell it.
    Refused(Box<(Bind, Refusal)>),
    /// The client has sent all that it had to send at its start.
    Settled,
    Cancel {
        address: String,
        tag: u32,
    },
    Opened(Box<ChannelWriteHalf<Msg>>),
    Terminal(ChannelId),
    Exec(ChannelId, String),
    Shell(ChannelId),
    Interrupt(ChannelId),
    Closed(ChannelId),
}

pub(super) struct Session {
    context: Arc<Publishers>,
    publisher: Arc<Publisher>,
    events: mpsc::Receiver<Event>,
    phase: Phase,
    /// Said as the user name: `http@host`.
    user_command: Option<Arc<Command>>,
    consoles: HashMap<ChannelId, Console>,
    /// Granted forwards whose command has not come.
    waiting: Vec<Forward>,
    refused: Vec<(Bind, Refusal)>,
    last_forward: Instant,
    /// Since when there is neither an endpoint nor anybody to make one.
    idle_since: Instant,
    live: Vec<(Owner, Live)>,
    settling: FuturesUnordered<BoxFuture<'static, Settled>>,
    /// Displaced endpoints whose visits are being finished.
    leaving: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Commands about the server that are being done; one for each session channel at most.
    answering: FuturesUnordered<BoxFuture<'static, (ChannelId, Answer)>>,
    /// Cancelled by the client while they were being published.
    cancelled: Vec<(String, u32)>,
    /// That the server is shutting down.
    has_told_of_the_end: bool,
}

/// Which session channel an endpoint belongs to; none where the user name was the command.
type Owner = Option<ChannelId>;

enum Phase {
    /// Names are asked for, nothing is public yet.
    Gathering,
    /// A command has come. It is the command of late forwards, too.
    Serving(Arc<Command>),
    /// The farewell is said; the client has a moment to leave.
    Closing,
}

/// What became of the forwards of one command.
struct Settled {
    owner: Owner,
    results: Vec<Result<Live, Failed>>,
}

enum Next {
    Event(Option<Event>),
    Settled(Settled),
    Answered(ChannelId, Answer),
    Displaced,
    Left,
    Deadline,
    /// Visitors are being drained.
    Draining,
    /// They are gone: publishers last.
    Ending,
    Killed,
}

impl Session {
    pub(super) fn new(
        context: Arc<Publishers>,
        publisher: Arc<Publisher>,
        user_command: Option<Arc<Command>>,
        events: mpsc::Receiver<Event>,
    ) -> Self {
        let now = Instant::now();
        Self {
            context,
            publisher,
            events,
            phase: Phase::Gathering,
            user_command,
            consoles: HashMap::new(),
            waiting: Vec::new(),
            refused: Vec::new(),
            last_forward: now,
            idle_since: now,
            live: Vec::new(),
            settling: FuturesUnordered::new(),
            leaving: FuturesUnordered::new(),
            answering: FuturesUnordered::new(),
            cancelled: Vec::new(),
            has_told_of_the_end: false,
        }
    }

    /// Runs until the connection ends.
    pub(super) async fn run(mut self) {
        loop {
            match self.next().await {
                Next::Event(Some(event)) => self.on_event(event),
                Next::Settled(settled) => self.on_settled(settled),
                Next::Answered(channel, answer) => self.answer(channel, &answer.text, answer.status),
                Next::Displaced => self.on_displaced(),
                Next::Left => self.on_left(),
                Next::Deadline => self.on_deadline(),
                Next::Draining => {
                    self.has_told_of_the_end = true;
                    self.print_all(&text::shutting_down());
                }
                Next::Ending => self.say_farewell(text::SHUT_DOWN),
                Next::Event(None) | Next::Killed => break,
            }
        }
        self.publisher.forget();
        tracing::info!(session = %self.publisher.session, "publisher left");
    }

    async fn next(&mut self) -> Next {
        let deadline = self.deadline();
        let overdue = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        let closing = matches!(self.phase, Phase::Closing);
        let ending = async { if closing { pending().await } else { self.context.tasks.draining().await } };
        let told = self.has_told_of_the_end;
        let draining = async { if told { pending().await } else { self.context.visitors.draining().await } };
        tokio::select! {
            biased;
            () = self.publisher.kill.cancelled() => Next::Killed,
            event = self.events.recv() => Next::Event(event),
            Some(settled) = self.settling.next() => Next::Settled(settled),
            () = self.publisher.displaced.notified() => Next::Displaced,
            Some(()) = self.leaving.next() => Next::Left,
            Some((channel, answer)) = self.answering.next() => Next::Answered(channel, answer),
            () = ending => Next::Ending,
            () = draining => Next::Draining,
            () = overdue => Next::Deadline,
        }
    }

    /// Until when something must have happened, given what is there now.
    fn deadline(&self) -> Option<Instant> {
        let nobody_here = self.consoles.is_empty();
        let idle = (nobody_here && self.publishes_nothing()).then_some(self.idle_since + IDLE_WAIT);
        let told_nobody = nobody_here && self.publishes_nothing() && !self.refused.is_empty();
        match &self.phase {
            Phase::Closing => None,
            _ if self.waiting.is_empty() && !told_nobody => idle,
            Phase::Gathering if self.user_command.is_some() && nobody_here => {
                Some(self.last_forward + USER_COMMAND_WAIT)
            }
            Phase::Gathering => Some(self.last_forward + COMMAND_WAIT),
            Phase::Serving(_) => Some(self.last_forward + LATE_FORWARD_WAIT),
        }
    }

    fn publishes_nothing(&self) -> bool {
        self.live.is_empty() && self.settling.is_empty() && self.leaving.is_empty()
    }

    fn on_deadline(&mut self) {
        let command = match &self.phase {
            Phase::Closing => return,
            Phase::Serving(first) => Some(first.clone()),
            Phase::Gathering => self.user_command.clone().filter(|_| self.consoles.is_empty()),
        };
        match command {
            _ if self.waiting.is_empty() => {
                let refused = self.refused.first().map(|(bind, refusal)| text::refused(bind, refusal));
                self.say_farewell(&refused.unwrap_or_else(text::nothing_asked));
            }
            Some(command) => self.publish(None, command),
            None => self.say_farewell(&text::no_command_in_time()),
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Forward(forward) => {
                self.last_forward = Instant::now();
                self.waiting.push(*forward);
            }
            Event::Refused(refused) => self.on_refused(*refused),
            Event::Settled => self.on_client_settled(),
            Event::Cancel { address, tag } => self.on_cancel(&address, tag),
            Event::Opened(channel) => {
                let id = channel.id();
                let ended = Arc::clone(&self.publisher.ended);
                self.consoles.insert(id, Console::open(*channel, &self.context.tasks, ended));
            }
            Event::Terminal(channel) => {
                if let Some(console) = self.consoles.get(&channel) {
                    console.is_terminal();
                }
            }
            Event::Exec(channel, line) => self.on_exec(channel, &line),
            Event::Shell(channel) => self.on_shell(channel),
            Event::Interrupt(channel) => self.end_console(channel, INTERRUPTED),
            Event::Closed(channel) => self.on_closed(channel),
        }
    }

    /// No session will follow these forwards (`ssh -N`): a command in the user name need not wait for one.
    fn on_client_settled(&mut self) {
        let gathered = !self.waiting.is_empty() || !self.refused.is_empty();
        let alone = self.user_command.is_some() && self.consoles.is_empty();
        if matches!(self.phase, Phase::Gathering) && alone && gathered {
            self.on_deadline();
        }
    }

    /// Told at once where somebody reads; otherwise kept for the session that is about to open.
    fn on_refused(&mut self, (bind, refusal): (Bind, Refusal)) {
        self.publisher.record("publish", format!("-R {bind}"), refusal.code.to_string());
        self.context.metrics.refused(refusal.code);
        match (&self.phase, self.consoles.values().next()) {
            (Phase::Serving(_), Some(console)) => console.print(text::refused(&bind, &refusal)),
            // The client has its answer, and only a farewell could say more: what is published goes on.
            (Phase::Serving(_), None) if !self.publishes_nothing() => {}
            _ if self.refused.len() < MAX_REFUSED => {
                self.last_forward = Instant::now();
                self.refused.push((bind, refusal));
            }
            _ => {}
        }
    }

    fn on_exec(&mut self, channel: ChannelId, asked: &str) {
        let line = match self.publisher.identity.rights.forced_command() {
            Some(forced) => {
                self.tell_forced(channel, asked);
                forced.to_owned()
            }
            None => asked.to_owned(),
        };
        match parse(&line) {
            Ok(Parsed::Publish(command)) => self.on_command(channel, Arc::from(command)),
            Ok(Parsed::Admin(command)) => self.on_admin(channel, command),
            Ok(Parsed::Help(help)) => self.answer(channel, &help, 0),
            Err(error) => {
                self.context.metrics.refused(error.code());
                self.answer(channel, &error.to_string(), BAD_COMMAND);
            }
        }
    }

    /// The database may have to wait for its disk, so it is asked beside the actor.
    fn on_admin(&mut self, channel: ChannelId, command: Box<Admin>) {
        let desk = self.context.desk.clone();
        let (identity, source) = (self.publisher.identity.clone(), self.publisher.peer.ip().to_canonical());
        let asker =
            Asker::Publisher { identity, session: self.publisher.session, source: source.to_string() };
        let done = tokio::task::spawn_blocking(move || desk.answer(&asker, &command));
        self.answering.push(Box::pin(async move {
            let failed = |_| Answer { text: "the server failed to answer\n".to_owned(), status: REFUSED };
            (channel, done.await.unwrap_or_else(failed))
        }));
    }

    fn on_command(&mut self, channel: ChannelId, command: Arc<Command>) {
        let refused = std::mem::take(&mut self.refused);
        if let Some(console) = self.consoles.get(&channel) {
            for (bind, refusal) in &refused {
                console.print(text::refused(bind, refusal));
            }
        }
        if !self.waiting.is_empty() {
            self.publish(Some(channel), command);
        } else if refused.is_empty() {
            self.answer(channel, &text::no_forward(), BAD_COMMAND);
        } else {
            self.end_console(channel, REFUSED);
        }
    }

    /// Another command runs than the client asked for, as sshd has it.
    fn tell_forced(&self, channel: ChannelId, asked: &str) {
        let (asked, outline) = (printable(asked), text::outline(asked));
        tracing::info!(session = %self.publisher.session, SSH_ORIGINAL_COMMAND = outline, "a forced command runs");
        if let Some(console) = self.consoles.get(&channel).filter(|_| !asked.is_empty()) {
            console.print(format!("SSH_ORIGINAL_COMMAND={asked}\n"));
        }
    }

    fn on_shell(&mut self, channel: ChannelId) {
        if self.publisher.identity.rights.forced_command().is_some() {
            return self.on_exec(channel, "");
        }
        match (&self.phase, &self.user_command) {
            (Phase::Serving(first), _) if !self.waiting.is_empty() => {
                let command = first.clone();
                self.on_command(channel, command);
            }
            (Phase::Serving(_), _) => {
                let status = self.status();
                self.answer(channel, &status, 0);
            }
            (_, Some(command)) => {
                let command = command.clone();
                self.on_command(channel, command);
            }
            (_, None) => self.answer(channel, &text::no_command(), BAD_COMMAND),
        }
    }

    /// Prints one answer and ends the channel. Forwards that came for it are given back.
    fn answer(&mut self, channel: ChannelId, answer: &str, status: u32) {
        if let Some(console) = self.consoles.get(&channel) {
            let newline = if answer.ends_with('\n') { "" } else { "\n" };
            console.print(format!("{answer}{newline}"));
        }
        self.waiting.clear();
        self.refused.clear();
        self.end_console(channel, status);
    }

    fn publish(&mut self, owner: Owner, command: Arc<Command>) {
        let forwards = std::mem::take(&mut self.waiting);
        let console = owner.or_else(|| self.consoles.keys().next().copied());
        let log = console.and_then(|id| self.consoles.get(&id)).map(Console::log);
        if matches!(self.phase, Phase::Gathering) {
            self.phase = Phase::Serving(command.clone());
        }
        let (context, publisher) = (Arc::clone(&self.context), Arc::clone(&self.publisher));
        self.settling.push(Box::pin(async move {
            Settled { owner, results: publish(context, publisher, command, forwards, log).await }
        }));
    }

    fn on_settled(&mut self, settled: Settled) {
        let Settled { owner, results } = settled;
        if owner.is_some_and(|channel| !self.consoles.contains_key(&channel)) {
            // Its session has gone in the meantime; dropping the results withdraws them.
            self.note_idle();
            return;
        }
        let mut failed = Vec::new();
        let mut published = Vec::new();
        for result in results {
            match result {
                Ok(live) if self.was_cancelled(&live) => drop(live),
                Ok(live) => published.push(live),
                Err(failure) => failed.push(failure),
            }
        }
        if self.settling.is_empty() {
            self.cancelled.clear();
        }
        self.tell_published(owner, &published, &failed);
        self.live.extend(published.into_iter().map(|live| (owner, live)));
        if owner.is_none() && !self.live.is_empty() {
            // Refused beside these, where nobody reads.
            self.refused.clear();
        }
        self.end_if_all_failed(owner, &failed);
        // Somebody may have taken over in the meantime.
        self.on_displaced();
        self.note_idle();
    }

    /// Only once for each: the same forward may be asked for again.
    fn was_cancelled(&mut self, live: &Live) -> bool {
        let is_it = |(address, tag): &(String, u32)| *address == live.bind.address && *tag == live.tag;
        let place = self.cancelled.iter().position(is_it);
        place.map(|place| self.cancelled.swap_remove(place)).is_some()
    }

    fn tell_published(&self, owner: Owner, published: &[Live], failed: &[Failed]) {
        for live in published {
            let About { name, description, .. } = live.command.about();
            let [name, description] = [name, description].map(|it| it.as_deref().map(printable));
            for url in &live.urls {
                let (name, description) = (name.as_deref(), description.as_deref());
                tracing::info!(session = %self.publisher.session, %url, name, description, "published");
                self.publisher.record("publish", url.as_ref(), "ok");
            }
        }
        for Failed { bind, refusal } in failed {
            self.publisher.record("publish", format!("-R {bind}"), refusal.code.to_string());
            self.context.metrics.refused(refusal.code);
        }
        let Some(console) = self.console_of(owner) else { return };
        let mut said = String::new();
        let is_first = !self.live.iter().any(|(of, _)| *of == owner || owner.is_none());
        if is_first && !published.is_empty() {
            said.push_str(&text::banner(&self.publisher.identity));
        }
        for live in published {
            for url in &live.urls {
                said.push_str(&text::forwarding(url, &live.bind));
            }
        }
        for Failed { bind, refusal } in failed {
            said.push_str(&text::refused(bind, refusal));
        }
        said.push('\n');
        // Who came while the others were told.
        if self.has_told_of_the_end {
            said.push_str(&text::shutting_down());
        }
        console.print(said);
    }

    /// The session ends when none of its forwards could be had.
    fn end_if_all_failed(&mut self, owner: Owner, failed: &[Failed]) {
        let any_left = self.live.iter().any(|(of, _)| *of == owner);
        let Some(first) = failed.first() else { return };
        if any_left {
            return;
        }
        match owner {
            Some(channel) => self.end_console(channel, REFUSED),
            None if self.publishes_nothing() => {
                let text = text::refused(&first.bind, &first.refusal);
                self.say_farewell(&text);
            }
            None => {}
        }
    }

    /// Newer sessions of the account serve in place of some endpoints. Their running visits are finished here; the
    /// session ends when nothing else is left of it.
    fn on_displaced(&mut self) {
        let gone: Vec<_> = self.live.extract_if(.., |(_, live)| live.is_displaced()).collect();
        for (owner, live) in gone {
            for url in &live.urls {
                tracing::info!(session = %self.publisher.session, %url, "another session took over");
                if let Some(console) = self.console_of(owner) {
                    console.print(text::taken_over(url));
                }
            }
            self.leaving.push(Box::pin(live.finish_visits()));
        }
        self.note_idle();
    }

    /// The visits of a displaced endpoint are over.
    fn on_left(&mut self) {
        if self.leaving.is_empty() && self.publishes_nothing() && self.waiting.is_empty() {
            self.say_farewell(&text::all_taken_over());
        }
        self.note_idle();
    }

    fn on_cancel(&mut self, address: &str, tag: u32) {
        self.waiting.retain(|forward| forward.bind.address != address || forward.tag != tag);
        let is_it = |live: &Live| live.bind.address == address && live.tag == tag;
        let Some(place) = self.live.iter().position(|(_, live)| is_it(live)) else {
            if !self.settling.is_empty() && self.cancelled.len() < MAX_REFUSED {
                self.cancelled.push((address.to_owned(), tag));
            }
            return;
        };
        let (owner, live) = self.live.swap_remove(place);
        if let Some(console) = self.console_of(owner) {
            for url in &live.urls {
                console.print(format!("Withdrawn   {url}\n"));
            }
        }
        drop(live);
        self.note_idle();
    }

    fn on_closed(&mut self, channel: ChannelId) {
        self.consoles.remove(&channel);
        self.withdraw(Some(channel));
        self.note_idle();
    }

    /// Says the exit status and closes the channel; its endpoints and their visits end with it.
    fn end_console(&mut self, channel: ChannelId, status: u32) {
        if let Some(mut console) = self.consoles.remove(&channel) {
            console.end(status);
        }
        self.withdraw(Some(channel));
        self.note_idle();
    }

    fn withdraw(&mut self, owner: Owner) {
        let gone = self.live.extract_if(.., |(of, _)| *of == owner).collect::<Vec<_>>();
        gone.into_iter().for_each(|(_, live)| live.cut());
    }

    fn note_idle(&mut self) {
        self.idle_since = Instant::now();
    }

    /// The console of an endpoint; where it has none of its own, any that is there.
    fn console_of(&self, owner: Owner) -> Option<&Console> {
        match owner {
            Some(channel) => self.consoles.get(&channel),
            None => self.consoles.values().next(),
        }
    }

    fn print_all(&self, line: &str) {
        self.consoles.values().for_each(|console| console.print(line));
    }

    /// What a second session on the connection is shown.
    fn status(&self) -> String {
        let mut status = text::banner(&self.publisher.identity);
        for (_, live) in &self.live {
            for url in &live.urls {
                status.push_str(&text::forwarding(url, &live.bind));
            }
            status.push_str(&text::about(live.command.about()));
        }
        status
    }

    fn say_farewell(&mut self, farewell: &str) {
        self.phase = Phase::Closing;
        self.waiting.clear();
        self.live.clear();
        let line = farewell.trim_end().to_owned();
        self.print_all(&format!("{line}\n"));
        for console in self.consoles.values_mut() {
            console.end(REFUSED);
        }
        self.publisher.disconnect(&line);
    }
}

/// Why new forwards are refused while the server shuts down.
pub(super) fn draining() -> Refusal {
    Refusal::new(Code::DRAINING, "the server is shutting down", "connect again in a moment")
}

/// From a forward to its command.
const COMMAND_WAIT: Duration = Duration::from_secs(10);
/// From the last forward to publishing, where the user name is the command and no session has opened.
const USER_COMMAND_WAIT: Duration = Duration::from_secs(1);
/// How long a late forward waits for a command of its own.
const LATE_FORWARD_WAIT: Duration = Duration::from_secs(1);
/// How long a connection may stay that publishes nothing and has no session.
const IDLE_WAIT: Duration = Duration::from_secs(60);
/// Refusals and cancellations kept for later.
const MAX_REFUSED: usize = 64;

/// Exit status of a command that cannot be understood.
const BAD_COMMAND: u32 = 2;
/// Exit status when none of the forwards could be had.
const REFUSED: u32 = 1;
/// Exit status after Ctrl-C, as a shell has it.
const INTERRUPTED: u32 = 130;
