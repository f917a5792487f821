//! What russh asks of us while a session runs. Its callbacks run within the loop that serves all channels: none waits.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hithe_cli_parser::Bind;
use russh::client::{ChannelOpenHandle, DisconnectReason, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelId, ChannelOpenFailure, Sig};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use super::inbox::Inbox;
use super::relay::Target;
use crate::connect::{ConnectError, Gate};

/// Tasks of a session, on the runtime that it was opened on: also when something of it is dropped elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    runtime: Handle,
}

impl Tasks {
    fn here() -> Self {
        Self { tracker: TaskTracker::new(), runtime: Handle::current() }
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(task, &self.runtime);
    }

    /// Waits until all have ended.
    pub(super) async fn end(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// What the callbacks share with the rest of a session.
pub(crate) struct Shared {
    target: Target,
    asked: Mutex<Option<Bind>>,
    inboxes: Mutex<HashMap<ChannelId, Arc<Inbox>>>,
    /// The last visit has ended.
    pub(super) emptied: Notify,
    pub(super) tasks: Tasks,
    pub(crate) over: CancellationToken,
    /// Channels that we closed first. russh keeps something of each until the session ends.
    closings: AtomicU64,
    /// Bytes in both directions.
    moved: AtomicU64,
}

impl Shared {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            asked: Mutex::default(),
            inboxes: Mutex::default(),
            emptied: Notify::new(),
            tasks: Tasks::here(),
            over: CancellationToken::new(),
            closings: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        }
    }

    /// The forward for which channels may be opened.
    pub(super) fn expect(&self, bind: Bind) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(bind);
    }

    /// The forward that was asked for, with the port that it was given.
    pub(super) fn expected(&self) -> Option<Bind> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Channels are ours to open only for what we asked for (RFC 4254 §7.2). Before the answer to a forward for port 0
    /// nobody knows its number.
    fn is_expected(&self, address: &str, port: u32) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.as_ref().is_some_and(|bind| bind.address == address && (bind.port == port || bind.port == 0))
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
            self.emptied.notify_waiters();
        }
        drop(inboxes);
        self.closings.fetch_add(u64::from(closed_by_us), Ordering::Relaxed);
    }

    /// Ends all visits.
    pub(super) fn end(&self) {
        self.over.cancel();
        for inbox in std::mem::take(&mut *self.inboxes()).values() {
            inbox.end();
        }
        self.emptied.notify_waiters();
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
}

/// russh's handler.
pub(crate) struct Client {
    shared: Arc<Shared>,
    gate: Gate,
}

impl Client {
    pub(super) fn new(shared: Arc<Shared>, gate: Gate) -> Self {
        Self { shared, gate }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl russh::client::Handler for Client {
    type Error = ConnectError;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, ConnectError> {
        self.gate.check_server_key(key).await
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), ConnectError> {
        self.gate.hear_lines(banner);
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
    ) -> Result<(), ConnectError> {
        let refusal = match () {
            () if !self.shared.is_expected(address, port) => {
                Some(ChannelOpenFailure::AdministrativelyProhibited)
            }
            () if self.shared.visits() >= MOST_VISITS => Some(ChannelOpenFailure::ResourceShortage),
            () => None,
        };
        if let Some(refusal) = refusal {
            reply.reject(refusal).await;
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
    async fn data(&mut self, channel: ChannelId, data: &[u8], _: &mut Session) -> Result<(), ConnectError> {
        self.shared.moved(data.len());
        self.shared.pump(channel);
        Ok(())
    }

    async fn extended_data(
        &mut self,
        channel: ChannelId,
        _: u32,
        _: &[u8],
        _: &mut Session,
    ) -> Result<(), ConnectError> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), ConnectError> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), ConnectError> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn channel_success(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), ConnectError> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn channel_failure(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), ConnectError> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn window_adjusted(
        &mut self,
        channel: ChannelId,
        _: u32,
        _: &mut Session,
    ) -> Result<(), ConnectError> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn exit_status(&mut self, channel: ChannelId, _: u32, _: &mut Session) -> Result<(), ConnectError> {
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
    ) -> Result<(), ConnectError> {
        self.shared.pump(channel);
        Ok(())
    }

    async fn xon_xoff(
        &mut self,
        channel: ChannelId,
        go_on: bool,
        _: &mut Session,
    ) -> Result<(), ConnectError> {
        let inbox = self.shared.inboxes().get(&channel).cloned();
        if let Some(inbox) = inbox {
            inbox.pump();
            inbox.hold(!go_on);
        }
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<ConnectError>) -> Result<(), ConnectError> {
        self.gate.hear_the_end(&reason);
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => Err(error),
        }
    }
}

/// At once; the server has bounds of its own.
const MOST_VISITS: usize = 16_384;
const MOST_CLOSINGS: u64 = 8192;
/// Half of what one AES-GCM key may encrypt in OpenSSH.
const MOST_MOVED: u64 = 32 << 30;
