//! A publisher that does what no stock client can be made to do: it decides for each channel open when and how
//! to answer, sends requests in any order, and signs with keys of its own making.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use russh::client::{self, ChannelOpenHandle, DisconnectReason, Handle, Msg, Session};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use russh::{Channel, ChannelId, ChannelMsg, ChannelOpenFailure, ChannelStream, SshId};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::wait::within;

/// A connection of this publisher.
pub struct ProtocolClient {
    /// For whatever has no method here.
    pub handle: Handle<Events>,
    openings: mpsc::UnboundedReceiver<Opening>,
    farewell: watch::Receiver<Option<String>>,
    asked: watch::Receiver<Asked>,
}

/// For each channel, what the server asked of it by `xon-xoff` (RFC 4254 §6.8): whether it may be written to.
type Asked = HashMap<ChannelId, Vec<bool>>;

/// What the server asks of one channel.
#[derive(Clone, Debug)]
pub struct Flow {
    channel: ChannelId,
    asked: watch::Receiver<Asked>,
}

/// A channel that the server asks for and that has no answer yet.
pub struct Opening {
    /// Address and port of the forward, as the server sent them.
    pub connected: (String, u32),
    /// Address and port of the visitor, as the server sent them.
    pub originator: (String, u32),
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
}

/// How a session's command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Both outputs in the order of arrival.
    pub output: String,
    pub code: Option<u32>,
}

impl ProtocolClient {
    /// Connects without logging in.
    pub async fn connect(server: SocketAddr) -> Self {
        Self::connect_as(server, client::Config::default()).await
    }

    async fn connect_as(server: SocketAddr, config: client::Config) -> Self {
        let socket = within("a connection", TcpStream::connect(server)).await.expect("a connection");
        let _ = socket.set_nodelay(true);
        Self::over(socket, config).await.expect("an SSH handshake")
    }

    /// Connects from this address of the machine without logging in; says why, if that cannot be done.
    pub async fn connect_from(source: IpAddr, server: SocketAddr) -> Result<Self, russh::Error> {
        let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(source, 0))?;
        let stream = within("a connection", socket.connect(server)).await?;
        Self::over(stream, client::Config::default()).await
    }

    async fn over(stream: TcpStream, config: client::Config) -> Result<Self, russh::Error> {
        let (sender, openings) = mpsc::unbounded_channel();
        let (said, farewell) = watch::channel(None);
        let (asks, asked) = watch::channel(Asked::new());
        let events = Events { openings: sender, farewell: said, asked: asks };
        let connected = client::connect_stream(Arc::new(config), stream, events);
        let handle = within("an SSH handshake", connected).await?;
        Ok(Self { handle, openings, farewell, asked })
    }

    /// Whether a login with this private key is accepted.
    pub async fn try_key(&mut self, user: &str, key: &Path) -> Result<bool, russh::Error> {
        let key = load_secret_key(key, None).expect("a private key");
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        Ok(within("a login", self.handle.authenticate_publickey(user, key)).await?.success())
    }

    /// Connects and logs in with this private key (OpenSSH format).
    pub async fn log_in(server: SocketAddr, user: &str, key: &Path) -> Self {
        Self::connect(server).await.logged_in(user, key).await
    }

    /// The same, with windows of so many bytes, which it therefore opens again and again.
    pub async fn log_in_with_window(server: SocketAddr, user: &str, key: &Path, window_size: u32) -> Self {
        let config = client::Config { window_size, ..Default::default() };
        Self::connect_as(server, config).await.logged_in(user, key).await
    }

    /// The same as a program of ours, by its version line.
    pub async fn log_in_as_ours(server: SocketAddr, user: &str, key: &Path) -> Self {
        let client_id = SshId::Standard(Cow::Borrowed("SSH-2.0-hithe_test"));
        let config = client::Config { client_id, ..Default::default() };
        Self::connect_as(server, config).await.logged_in(user, key).await
    }

    async fn logged_in(mut self, user: &str, key: &Path) -> Self {
        let accepted = self.try_key(user, key).await;
        assert!(accepted.expect("an answer to the login"), "the server accepts the key");
        self
    }

    /// Asks for a forward; the number is what the server gave for port 0.
    pub async fn forward(&self, address: &str, port: u32) -> Result<u32, russh::Error> {
        within("the answer to a forward", self.handle.tcpip_forward(address, port)).await
    }

    /// Opens a session and sends an exec line; the server's words then come from the channel.
    pub async fn exec(&self, line: &str) -> Channel<Msg> {
        let opened = within("a session", self.handle.channel_open_session()).await;
        let session = opened.expect("a session");
        session.exec(true, line).await.expect("an exec request can be sent");
        session
    }

    /// Waits for the next channel that the server wants to open.
    pub async fn opening(&mut self) -> Opening {
        within("a channel open by the server", self.openings.recv()).await.expect("a live connection")
    }

    /// The next channel, whenever it comes; `None` when the connection is over.
    pub async fn next_opening(&mut self) -> Option<Opening> {
        self.openings.recv().await
    }

    /// What the server asks of the channel that this opens.
    pub fn flow(&self, opening: &Opening) -> Flow {
        Flow { channel: opening.channel.id(), asked: self.asked.clone() }
    }

    /// Channels of which the server ever asked to pause or to go on.
    pub fn regulated(&self) -> usize {
        self.asked.borrow().len()
    }

    /// Waits for the end of the connection; the text of the server's disconnect message, or of the error if
    /// it sent none.
    pub async fn farewell(&mut self) -> Option<String> {
        let ended = self.farewell.wait_for(Option::is_some);
        within("the end of the connection", ended).await.ok().and_then(|text| text.clone())
    }
}

impl Flow {
    /// Whether the channel may be written to, each time that the server said so.
    pub fn asked(&self) -> Vec<bool> {
        self.asked.borrow().get(&self.channel).cloned().unwrap_or_default()
    }

    /// Waits until the channel may be written to. `false` when the connection is over.
    pub async fn is_open(&mut self) -> bool {
        self.is(true).await
    }

    /// Waits until the server has asked to pause and not yet to go on.
    pub async fn paused(&mut self) {
        assert!(within("a request to pause", self.is(false)).await, "the connection is over");
    }

    async fn is(&mut self, open: bool) -> bool {
        let channel = self.channel;
        let last =
            move |asked: &Asked| asked.get(&channel).and_then(|all| all.last()).is_none_or(|last| *last);
        self.asked.wait_for(|asked| last(asked) == open).await.is_ok()
    }
}

/// Reads a session until a line contains `part`; returns everything up to then.
pub async fn read_until(session: &mut Channel<Msg>, part: &str) -> String {
    let mut text = String::new();
    within(&format!("{part:?} on a session"), async {
        while !text.contains(part) {
            let message = session.wait().await.unwrap_or_else(|| panic!("the session ended: {text}"));
            text += &words(&message);
        }
    })
    .await;
    text
}

/// Reads a session to its end.
pub async fn read_to_end(session: &mut Channel<Msg>) -> Ended {
    let mut ended = Ended::default();
    within("the end of a session", async {
        while let Some(message) = session.wait().await {
            ended.output += &words(&message);
            if let ChannelMsg::ExitStatus { exit_status } = message {
                ended.code = Some(exit_status);
            }
        }
    })
    .await;
    ended
}

fn words(message: &ChannelMsg) -> String {
    match message {
        ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => {
            String::from_utf8_lossy(data).into_owned()
        }
        _ => String::new(),
    }
}

impl Opening {
    /// Confirms the channel.
    pub async fn accept(self) -> ChannelStream<Msg> {
        self.accept_channel().await.into_stream()
    }

    /// The same, for messages that are no bytes of a stream.
    pub async fn accept_channel(self) -> Channel<Msg> {
        self.reply.accept().await;
        self.channel
    }

    /// Refuses it as ssh does when nothing listens at the target.
    pub async fn refuse(self) {
        self.reply.reject(ChannelOpenFailure::ConnectFailed).await;
    }
}

impl fmt::Debug for ProtocolClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtocolClient").finish_non_exhaustive()
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("connected", &self.connected).finish_non_exhaustive()
    }
}

/// What the connection reports to its [`ProtocolClient`].
#[derive(Debug)]
pub struct Events {
    /// Unbounded, since the test decides how many visitors come.
    openings: mpsc::UnboundedSender<Opening>,
    farewell: watch::Sender<Option<String>>,
    asked: watch::Sender<Asked>,
}

impl client::Handler for Events {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        connected_address: &str,
        connected_port: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let connected = (connected_address.to_owned(), connected_port);
        let originator = (originator_address.to_owned(), originator_port);
        let _ = self.openings.send(Opening { connected, originator, channel, reply });
        Ok(())
    }

    async fn xon_xoff(
        &mut self,
        channel: ChannelId,
        client_can_do: bool,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.asked.send_modify(|asked| asked.entry(channel).or_default().push(client_can_do));
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        let text = match &reason {
            DisconnectReason::ReceivedDisconnect(said) => said.message.clone(),
            DisconnectReason::Error(error) => error.to_string(),
        };
        self.farewell.send_replace(Some(text));
        Ok(())
    }
}
