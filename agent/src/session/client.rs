//! What russh asks of us while a session runs. Its callbacks run within the loop that serves all channels: none waits.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use hithe_cli_parser::{Bind, printable};
use russh::client::{ChannelOpenHandle, DisconnectReason, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelId, ChannelOpenFailure, Sig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SessionError;
use super::connection::Connection;
use super::inbox::Inbox;
use super::relay::Target;

/// Whether a server's key is the one that it should be.
pub(crate) trait HostKeyCheck: Send + Sync {
    /// # Errors
    /// Why not, in words for who started the agent.
    fn check<'a>(&'a self, key: &'a PublicKeyOrCertificate) -> BoxFuture<'a, Result<(), String>>;
}

/// What the callbacks share with the rest of a session.
pub(crate) struct Shared {
    target: Target,
    asked: Mutex<Option<Bind>>,
    inboxes: Mutex<HashMap<ChannelId, Arc<Inbox>>>,
    /// What the server said before and at the end.
    said: Mutex<Said>,
    pub(super) tasks: TaskTracker,
    pub(super) over: CancellationToken,
    ended: AtomicBool,
    /// Channels that we closed first. russh keeps something of each until the session ends.
    closings: AtomicU64,
    moved: AtomicU64,
}

#[derive(Default)]
struct Said {
    banner: String,
    farewell: Option<String>,
}

impl Shared {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            asked: Mutex::default(),
            inboxes: Mutex::default(),
            said: Mutex::default(),
            tasks: TaskTracker::new(),
            over: CancellationToken::new(),
            ended: AtomicBool::new(false),
            closings: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        }
    }

    /// The forward for which channels may be opened.
    pub(super) fn expect(&self, bind: Bind) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(bind);
    }

    /// Channels are ours to open only for what we asked for (RFC 4254 §7.2). Before the answer to a forward for port 0
    /// nobody knows its number.
    fn is_expected(&self, address: &str, port: u32) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.as_ref().is_some_and(|bind| bind.address == address && (bind.port == port || bind.port == 0))
    }

    /// What the server said at the end, or else at the beginning.
    pub(crate) fn farewell(&self) -> Option<String> {
        let said = self.said();
        let banner = Some(said.banner.trim()).filter(|it| !it.is_empty());
        said.farewell.clone().or_else(|| banner.map(str::to_owned))
    }

    /// Visits that are open.
    pub(crate) fn visits(&self) -> usize {
        self.inboxes().len()
    }

    /// Whether a new connection should take this one's place: russh keeps some 6 KiB of each channel that we closed
    /// first, and keys are not for ever (RFC 4344 §3.2).
    pub(crate) fn is_worn(&self) -> bool {
        self.closings.load(Ordering::Relaxed) > MOST_CLOSINGS
            || self.moved.load(Ordering::Relaxed) > MOST_MOVED
    }

    pub(super) fn moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn leave(&self, channel: ChannelId, closed_by_us: bool) {
        let mut inboxes = self.inboxes();
        inboxes.remove(&channel);
        if inboxes.is_empty() {
            *inboxes = HashMap::new();
        }
        drop(inboxes);
        self.closings.fetch_add(u64::from(closed_by_us), Ordering::Relaxed);
    }

    /// Ends all visits.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.over.cancel();
        for inbox in std::mem::take(&mut *self.inboxes()).values() {
            inbox.end();
        }
    }

    fn pump(&self, channel: ChannelId) {
        let inbox = self.inboxes().get(&channel).cloned();
        if let Some(inbox) = inbox {
            inbox.pump();
        }
    }

    fn inboxes(&self) -> MutexGuard<'_, HashMap<ChannelId, Arc<Inbox>>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// russh's handler.
pub(crate) struct Client {
    shared: Arc<Shared>,
    host_key: Arc<dyn HostKeyCheck>,
}

/// Why a callback ended the session.
#[derive(Debug)]
pub(crate) enum Fault {
    Ssh(russh::Error),
    HostKey(String),
}

impl From<russh::Error> for Fault {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl Fault {
    pub(super) fn into_session(self) -> SessionError {
        match self {
            Self::Ssh(error) => SessionError::Handshake(error.to_string()),
            Self::HostKey(why) => SessionError::HostKey(why),
        }
    }
}

impl Client {
    pub(super) fn new(shared: Arc<Shared>, host_key: Arc<dyn HostKeyCheck>) -> Self {
        Self { shared, host_key }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl russh::client::Handler for Client {
    type Error = Fault;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Fault> {
        self.host_key.check(key).await.map_err(Fault::HostKey)?;
        Ok(true)
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), Fault> {
        let mut said = self.shared.said();
        if said.banner.len() + banner.len() <= MOST_SAID {
            said.banner.push_str(&printable(banner.trim_end()));
        }
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        visitor: &str,
        visitor_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        if !self.shared.is_expected(address, port) || self.shared.visits() >= MOST_VISITS {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        }
        let visitor = SocketAddr::new(
            visitor.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            u16::try_from(visitor_port).unwrap_or_default(),
        );
        let id = channel.id();
        let (source, control) = channel.split();
        let control = Arc::new(control);
        let inbox = Inbox::new(source, Arc::clone(&control), self.shared.tasks.clone());
        self.shared.inboxes().insert(id, Arc::clone(&inbox));
        let connection = Connection::new(inbox, control, Arc::clone(&self.shared), visitor);
        let target = self.shared.target.clone();
        self.shared.tasks.spawn(target.take(connection, reply));
        Ok(())
    }

    // Everything that russh queues for a channel is taken out in the callback that follows, whatever it is.
    async fn data(&mut self, channel: ChannelId, _: &[u8], _: &mut Session) -> Result<(), Fault> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn extended_data(
        &mut self,
        channel: ChannelId,
        _: u32,
        _: &[u8],
        _: &mut Session,
    ) -> Result<(), Fault> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Fault> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Fault> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn channel_success(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Fault> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn channel_failure(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Fault> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn window_adjusted(&mut self, channel: ChannelId, _: u32, _: &mut Session) -> Result<(), Fault> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn exit_status(&mut self, channel: ChannelId, _: u32, _: &mut Session) -> Result<(), Fault> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn exit_signal(
        &mut self,
        channel: ChannelId,
        _: Sig,
        _: bool,
        _: &str,
        _: &str,
        _: &mut Session,
    ) -> Result<(), Fault> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn xon_xoff(&mut self, channel: ChannelId, go_on: bool, _: &mut Session) -> Result<(), Fault> {
        let inbox = self.shared.inboxes().get(&channel).cloned();
        if let Some(inbox) = inbox {
            inbox.pump();
            inbox.hold(!go_on);
        }
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Fault>) -> Result<(), Fault> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                let message = printable(info.message.trim()).chars().take(MOST_SAID).collect::<String>();
                self.shared.said().farewell = Some(message).filter(|it| !it.is_empty());
                Ok(())
            }
            DisconnectReason::Error(error) => Err(error),
        }
    }
}

/// At once; the server has bounds of its own.
const MOST_VISITS: usize = 16_384;
const MOST_SAID: usize = 4096;
const MOST_CLOSINGS: u64 = 8192;
/// Half of what one AES-GCM key may encrypt in OpenSSH.
const MOST_MOVED: u64 = 32 << 30;
