//! russh's callbacks, translated. They run inside the connection's own read loop, so they never wait: events go to
//! the session's actor by a bounded queue, and what must be answered at once is answered from state that is here.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;

use hithe_cli_parser::{Bind, Command, MAX_LINE, Parsed, UserName, parse};
use russh::keys::ssh_key::Certificate;
use russh::server::{
    Auth, ChannelOpenHandle, Handler as RusshHandler, Msg, PublicKeyOffer, Response, Session as RusshSession,
    VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, Pty, Sig};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::forwards::{ForwardTable, to_be_told};
use super::link::Pulse;
use super::live::Live;
use super::login::Login;
use super::publisher::{Publisher, cut_after_farewell, disconnect_text};
use super::session::{Event, Session};
use super::{Publishers, text};
use crate::limits::Admitted;
use crate::registry::SessionId;
use crate::tunnel::channel::{Arrival, Inboxes, MAX_OPENS};

pub(super) struct Handler(Box<State>);

/// Apart, since russh keeps its handler in several places of a task.
pub(super) struct State {
    context: Arc<Publishers>,
    peer: SocketAddr,
    pulse: Arc<Pulse>,
    kill: CancellationToken,
    logged_in: CancellationToken,
    /// Set at login.
    publisher: Arc<OnceLock<Arc<Publisher>>>,
    /// Whether the client is known to send its forwards and its session before it answers anything.
    sends_first: bool,
    /// Whether the client is of our own making, and can pause single channels.
    is_ours: bool,
    /// Given back at login.
    admitted: Option<Admitted>,
    pub(super) login: Login,
    live: Option<Live>,
}

impl Deref for Handler {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for Handler {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

impl Handler {
    pub(super) fn new(
        context: Arc<Publishers>,
        peer: SocketAddr,
        pulse: Arc<Pulse>,
        kill: CancellationToken,
        admitted: Admitted,
    ) -> Self {
        Self(Box::new(State {
            context,
            peer,
            pulse,
            kill,
            logged_in: CancellationToken::new(),
            publisher: Arc::default(),
            sends_first: false,
            is_ours: false,
            admitted: Some(admitted),
            login: Login::from(peer.ip()),
            live: None,
        }))
    }
}

impl State {
    /// Cancelled when the client has logged in.
    pub(super) fn logged_in(&self) -> CancellationToken {
        self.logged_in.clone()
    }

    /// Who has logged in.
    pub(super) fn publisher(&self) -> Arc<OnceLock<Arc<Publisher>>> {
        Arc::clone(&self.publisher)
    }

    /// What the client's version line tells of its ways.
    pub(super) fn know(&mut self, version: &str) {
        self.sends_first = version.starts_with("SSH-2.0-OpenSSH_");
        self.is_ours = version.starts_with("SSH-2.0-hithe_");
    }

    /// With a command in the user name and without a session (`ssh -N`), what the client will yet send is nothing. A
    /// request that it refuses at once tells when that is so: its answer follows all that it sent before.
    fn ask_for_the_rest(&mut self) {
        let Some(live) = &mut self.live else { return };
        let needed = self.sends_first && live.user_command.is_some() && live.sessions.is_empty();
        if !needed || std::mem::replace(&mut live.asked, true) {
            return;
        }
        let (handle, events) = (live.publisher.handle.clone(), live.events.clone());
        self.context.tasks.spawn(async move {
            let _ = handle.forward_tcpip(String::new(), 0).await;
            // A queue that is full ends the session anyway.
            let _ = events.try_send(Event::Settled);
        });
    }

    /// Whether a channel carries a visit. What russh has queued for it is then taken out: nothing else does that for
    /// messages that no visit has a use for, and a full queue stops russh.
    fn is_visit(&self, channel: ChannelId) -> bool {
        let Some(live) = &self.live else { return false };
        live.publisher.inboxes.arrived(channel) != Arrival::Unknown
    }

    /// A full queue means a client that sends faster than its session can decide: it is cut.
    fn tell(&self, event: Event) {
        let Some(live) = &self.live else { return };
        if live.events.try_send(event).is_err() {
            tracing::debug!(peer = %self.peer, "a publisher's client sends more requests than are handled: cut");
            self.kill.cancel();
        }
    }

    /// Whether this is the channel's first shell or exec.
    fn start(&mut self, channel: ChannelId) -> bool {
        let Some(live) = &mut self.live else { return false };
        let first = !live.started.contains(&channel);
        if first {
            live.started.push(channel);
        }
        first
    }

    /// Ends a connection that nothing has begun for.
    fn turn_away(&self, session: &mut RusshSession, why: &str) -> Result<(), russh::Error> {
        self.context.tasks.spawn(cut_after_farewell(self.kill.clone()));
        session.disconnect(Disconnect::ByApplication, &disconnect_text(why), "")
    }

    fn begin(&mut self, session: &RusshSession, user_command: Option<Arc<Command>>) {
        let Some(identity) = self.login.identity.clone() else { return };
        let user_command = match identity.rights.forced_command().map(parse) {
            Some(Ok(Parsed::Publish(forced))) => Some(Arc::from(forced)),
            Some(_) => None,
            None => user_command,
        };
        let account = identity.account.clone();
        let publisher = Arc::new(Publisher {
            session: SessionId::next(),
            identity,
            peer: self.peer,
            since: SystemTime::now(),
            handle: session.handle(),
            opens: Arc::new(Semaphore::new(MAX_OPENS)),
            kill: self.kill.clone(),
            pulse: Arc::clone(&self.pulse),
            tasks: self.context.tasks.clone(),
            registry: self.context.registry.clone(),
            access: self.context.access.clone(),
            audit: self.context.audit.clone(),
            asking: Arc::new(AtomicBool::new(false)),
            ended: Arc::default(),
            in_order: AtomicBool::new(false),
            held: Mutex::default(),
            displaced: Notify::new(),
            usage: self.context.accounts.usage(&account, self.context.access.limits(&account)),
            inboxes: Arc::new(Inboxes::of_client(self.is_ours)),
        });
        tracing::info!(
            session = %publisher.session,
            peer = %self.peer,
            account = %publisher.identity.account,
            credential = %publisher.identity.credential,
            "publisher logged in"
        );
        publisher.record("login", publisher.identity.credential.to_string(), "ok");
        let _ = self.publisher.set(Arc::clone(&publisher));
        publisher.registry.enter(Arc::clone(&publisher) as _);
        self.context.tasks.spawn(Arc::clone(&publisher).watch_over());
        let (events, queue) = mpsc::channel(EVENTS);
        let context = Arc::clone(&self.context);
        let actor = Session::new(context, Arc::clone(&publisher), user_command.clone(), queue);
        self.context.tasks.spawn(actor.run());
        self.live = Some(Live {
            events,
            publisher,
            user_command,
            forwards: ForwardTable::default(),
            terminals: Vec::new(),
            started: Vec::new(),
            sessions: Vec::new(),
            left_behind: 0,
            turn: 0,
            asked: false,
        });
    }
}

impl Drop for State {
    /// Names are free when the connection is, whatever the actor still has to do.
    fn drop(&mut self) {
        self.kill.cancel();
        if let Some(live) = &self.live {
            live.publisher.forget();
            live.publisher.inboxes.end();
        }
    }
}

impl RusshHandler for Handler {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        let this = &mut *self.0;
        Ok(this.login.offer(&this.context.access, user, &offer))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let this = &mut *self.0;
        Ok(this.login.key(&this.context.access, user, &key))
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let this = &mut *self.0;
        Ok(this.login.password(&this.context.access, user, password))
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        let this = &mut *self.0;
        Ok(this.login.certificate(&this.context.access, user, certificate))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let this = &mut *self.0;
        Ok(match response {
            None => this.login.question(&this.context.access),
            Some(mut answers) => this.login.answer(&this.context.access, user, answers.next().as_deref()),
        })
    }

    async fn auth_succeeded(&mut self, session: &mut RusshSession) -> Result<(), Self::Error> {
        self.logged_in.cancel();
        self.admitted = None;
        if self.context.visitors.is_draining() {
            return self.turn_away(session, "the server is shutting down");
        }
        match UserName::parse(&self.login.user) {
            UserName::UnknownVersion(version) => {
                return self.turn_away(session, &text::unknown_version(&version));
            }
            UserName::Command(command) => self.begin(session, Some(Arc::from(command))),
            UserName::Version2 => self.begin(session, None),
        }
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _session: &mut RusshSession,
    ) -> Result<bool, Self::Error> {
        let this = &mut *self.0;
        let Some(live) = &mut this.live else { return Ok(false) };
        let bind = Bind { address: address.to_owned(), port: *port };
        let granted = if this.context.visitors.is_draining() {
            Err(super::session::draining())
        } else {
            live.forwards.grant(&live.publisher, live.user_command.as_deref(), bind.clone())
        };
        let is_granted = granted.is_ok();
        match granted {
            Ok(forward) => {
                *port = forward.tag;
                self.tell(Event::Forward(Box::new(forward)));
            }
            Err(refusal) => self.tell(Event::Refused(Box::new((to_be_told(&bind), refusal)))),
        }
        self.ask_for_the_rest();
        Ok(is_granted)
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _session: &mut RusshSession,
    ) -> Result<bool, Self::Error> {
        let Some(live) = &mut self.live else { return Ok(false) };
        let known = live.forwards.cancel(address, port);
        if known {
            self.tell(Event::Cancel { address: address.to_owned(), tag: port });
        }
        Ok(known)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        let Some(live) = &mut self.live else { return Ok(()) };
        if !live.has_room_for_a_session() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        live.sessions.push(channel.id());
        reply.accept().await;
        // Input arrives by `data` as well; the read half would fill up if nobody read it.
        let (_, writer) = channel.split();
        self.tell(Event::Opened(Box::new(writer)));
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        if let Some(live) = &mut self.live {
            if live.publisher.inboxes.arrived(channel) != Arrival::Unknown {
                return Ok(());
            }
            if !live.forget_session(channel) {
                return Ok(());
            }
        }
        self.tell(Event::Closed(channel));
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        if self.is_visit(channel) {
            return session.channel_failure(channel);
        }
        if let Some(live) = &mut self.live
            && !live.publisher.identity.rights.options.pty
        {
            return session.channel_failure(channel);
        }
        if let Some(live) = &mut self.live
            && live.sessions.contains(&channel)
            && !live.terminals.contains(&channel)
        {
            live.terminals.push(channel);
        }
        self.tell(Event::Terminal(channel));
        session.channel_success(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        if self.is_visit(channel) {
            return session.channel_failure(channel);
        }
        session.channel_failure(channel)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        if self.is_visit(channel) {
            return session.channel_failure(channel);
        }
        if !self.start(channel) {
            return session.channel_failure(channel);
        }
        session.channel_success(channel)?;
        self.tell(Event::Shell(channel));
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        if self.is_visit(channel) {
            return session.channel_failure(channel);
        }
        if !self.start(channel) {
            return session.channel_failure(channel);
        }
        session.channel_success(channel)?;
        // One that is too long stays too long, and takes no more room than that.
        let line = line.get(..=MAX_LINE).unwrap_or(line);
        self.tell(Event::Exec(channel, String::from_utf8_lossy(line).into_owned()));
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        if self.is_visit(channel) {
            return session.channel_failure(channel);
        }
        session.channel_failure(channel)
    }

    /// What arrives for a visit goes on to where it waits for its visitor. The only waits here are for the disk, and for
    /// the rate of the account.
    ///
    /// On a session, a terminal in raw mode sends Ctrl-C as a byte.
    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        let this = &mut *self.0;
        let Some(live) = &mut this.live else { return Ok(()) };
        match live.publisher.inboxes.arrived(channel) {
            Arrival::Taken => {
                live.publisher.usage.moved(data.len());
                live.turn += data.len();
                if live.turn >= TURN {
                    live.turn = 0;
                    tokio::task::yield_now().await;
                }
                if let Some(pause) = live.publisher.pause() {
                    // Boxed: russh holds room for this in every session's task.
                    Box::pin(this.kill.run_until_cancelled(pause)).await;
                }
            }
            Arrival::Unknown if live.terminals.contains(&channel) && data.contains(&CTRL_C) => {
                self.tell(Event::Interrupt(channel));
            }
            Arrival::Unknown => {}
        }
        Ok(())
    }

    /// Called when russh has topped a window up: from now on, this is what it tops up to.
    fn adjust_window(&mut self, _channel: ChannelId, window: u32) -> u32 {
        self.live.as_ref().map_or(window, |live| live.publisher.inboxes.window())
    }

    /// The news that a window was opened stands in the channel's queue as well, and would fill it during an upload.
    async fn window_adjusted(
        &mut self,
        channel: ChannelId,
        _new_size: u32,
        _session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        if let Some(live) = &self.live {
            live.publisher.inboxes.arrived(channel);
        }
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        channel: ChannelId,
        _max_packet_size: u32,
        _window_size: u32,
        _session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        self.is_visit(channel);
        Ok(())
    }

    async fn extended_data(
        &mut self,
        channel: ChannelId,
        _code: u32,
        _data: &[u8],
        _session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        self.is_visit(channel);
        Ok(())
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        self.is_visit(channel);
        Ok(())
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        self.is_visit(channel);
        session.channel_failure(channel)
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        _session: &mut RusshSession,
    ) -> Result<bool, Self::Error> {
        self.is_visit(channel);
        Ok(false)
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        _session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        if let Some(live) = &self.live {
            live.publisher.inboxes.arrived(channel);
        }
        Ok(())
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        _session: &mut RusshSession,
    ) -> Result<(), Self::Error> {
        if self.is_visit(channel) {
            return Ok(());
        }
        if matches!(signal, Sig::INT | Sig::TERM | Sig::HUP) {
            self.tell(Event::Interrupt(channel));
        }
        Ok(())
    }
}

const CTRL_C: u8 = 0x03;
/// Requests of one session that wait for its actor, which answers without waiting; more end the session.
const EVENTS: usize = 128;
/// What a session may receive at a stretch: the runtime itself would let it go on for megabytes, and all others on its
/// thread wait.
const TURN: usize = 128 * 1024;
