//! One SSH connection with one endpoint, as stock `ssh -R` has it.
//!
//! [`client`] answers russh's callbacks: it takes what arrives for a visit out of russh's queue at once ([`inbox`]), so
//! that no visit holds up another. Each visit is a [`Connection`]; [`relay`] takes it to the upstream and back.
//! [`console`] reads what the server prints.

mod client;
mod connection;
mod console;
mod inbox;
mod link;
mod relay;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use hithe_cli_parser::Bind;
use russh::client::Handle;
use russh::{Disconnect, Limits, SshId, cipher, kex};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

pub use connection::Connection;
pub(crate) use console::Heard;
pub(crate) use relay::{Target, Upstream};

use self::client::{Client, Shared};
use self::link::Link;
use crate::connect::{ConnectError, Gate, Route};

/// A connection that is logged in, or about to.
pub(crate) struct Session {
    pub(crate) handle: Handle<Client>,
    pub(crate) shared: Arc<Shared>,
    /// What the server said.
    gate: Gate,
    killer: link::Killer,
}

impl Session {
    /// Connects and logs in.
    ///
    /// # Errors
    /// The server cannot be reached, is another one, or does not let us in.
    pub(crate) async fn open(route: &Route, target: Target) -> Result<Self, ConnectError> {
        let gate = route.gate();
        let (link, killer) = Link::new(route.dial().await?);
        let shared = Arc::new(Shared::new(target));
        let client = Client::new(Arc::clone(&shared), gate.clone());
        let greeted = Box::pin(route.greet(&gate, config(), Box::new(link), client)).await;
        let mut session = Self { handle: greeted?, shared, gate, killer };
        Box::pin(route.log_in(&mut session.handle, &session.gate)).await?;
        Ok(session)
    }

    /// Asks for the forward and sends the command. What the server prints goes to `heard`: also why, if it refuses the
    /// forward, which the answer to that cannot carry.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn publish(
        &self,
        bind: Bind,
        line: &str,
        heard: mpsc::Sender<Heard>,
    ) -> Result<(), ConnectError> {
        let lost = |error: russh::Error| self.lost(&error);
        self.shared.expect(bind.clone());
        match self.handle.tcpip_forward(bind.address.clone(), bind.port).await {
            Ok(port) if bind.port == 0 => self.shared.expect(Bind { port, ..bind }),
            Ok(_) | Err(russh::Error::RequestDenied) => {}
            Err(error) => return Err(lost(error)),
        }
        let channel = self.handle.channel_open_session().await.map_err(lost)?;
        channel.exec(true, line).await.map_err(lost)?;
        self.shared.tasks.spawn(console::read(channel, heard));
        Ok(())
    }

    /// To the server and back.
    ///
    /// # Errors
    /// No answer within the tolerance, or the connection is lost.
    pub(crate) async fn heartbeat(&self, tolerance: Duration) -> Result<Duration, ConnectError> {
        let asked = Instant::now();
        match timeout(tolerance, self.handle.send_ping()).await {
            Ok(Ok(())) if !self.handle.is_closed() => Ok(asked.elapsed()),
            Ok(Ok(())) => Err(self.lost(&russh::Error::Disconnect)),
            Ok(Err(error)) => Err(self.lost(&error)),
            Err(_) => {
                Err(ConnectError::Timeout { what: "the answer to a heartbeat".into(), limit: tolerance })
            }
        }
    }

    /// Takes the forward back, so that no new visit comes, and waits for those that run, or for the loss of the connection.
    pub(crate) async fn finish(&self, heard: &mut mpsc::Receiver<Heard>) {
        let finished = async {
            self.withdraw(heard).await;
            // A visit may be on its way whose request the server had accepted.
            loop {
                self.idle().await;
                let _ = timeout(FAREWELL, self.handle.send_ping()).await;
                if self.shared.visits() == 0 {
                    return;
                }
            }
        };
        tokio::select! {
            () = finished => {}
            () = self.shared.over.cancelled() => {}
        }
    }

    /// Asks for no more visits; those that run go on. Whether the server agreed.
    pub(crate) async fn take_back(&self) -> bool {
        let Some(Bind { address, port }) = self.shared.expected() else { return false };
        let taken_back = timeout(FAREWELL, self.handle.cancel_tcpip_forward(address, port)).await;
        taken_back.is_ok_and(|it| it.is_ok())
    }

    /// Until the server says that the endpoint is not public any more: its answer to the request comes before that.
    async fn withdraw(&self, heard: &mut mpsc::Receiver<Heard>) {
        let withdrawn = async {
            if !self.take_back().await {
                return;
            }
            while let Some(said) = heard.recv().await {
                match said {
                    Heard::Line(line) if line.starts_with("Withdrawn ") => return,
                    Heard::Closed => return,
                    _ => {}
                }
            }
        };
        let _ = timeout(FAREWELL, withdrawn).await;
    }

    /// Waits until no visit is open.
    pub(crate) async fn idle(&self) {
        loop {
            let emptied = self.shared.emptied.notified();
            if self.shared.visits() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Says goodbye: visitors get an answer at once and are not held for a reconnect.
    pub(crate) async fn leave(mut self) {
        let _ = timeout(FAREWELL, self.handle.disconnect(Disconnect::ByApplication, "", "")).await;
        // It has gone out when russh's task has ended.
        let _ = timeout(FAREWELL, &mut self.handle).await;
        let _ = timeout(FAREWELL, self.shared.tasks.end()).await;
    }

    /// With what words the server ended the connection, if it did.
    pub(crate) fn farewell(&self) -> Option<String> {
        self.gate.heard().disconnect.map(|(_, text)| text).filter(|text| !text.is_empty())
    }

    /// The same, when everything it sends has been read.
    pub(crate) async fn parting_words(&self) -> Option<String> {
        let _ = timeout(FAREWELL, self.shared.over.cancelled()).await;
        self.farewell()
    }

    /// In the server's words, if it said any.
    pub(crate) fn lost(&self, error: &russh::Error) -> ConnectError {
        self.gate.lost(&error.to_string())
    }
}

impl Drop for Session {
    /// russh writes without a bound in time; a dead connection would keep its task.
    fn drop(&mut self) {
        self.shared.end();
        self.killer.kill();
    }
}

fn config() -> russh::client::Config {
    let preferred = russh::Preferred {
        // One that every server of ours has, and the cheapest that is safe.
        cipher: Cow::Borrowed(&[cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305]),
        kex: Cow::Borrowed(&[
            kex::MLKEM768X25519_SHA256,
            kex::CURVE25519,
            kex::CURVE25519_PRE_RFC_8731,
            kex::EXTENSION_SUPPORT_AS_CLIENT,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        ]),
        compression: Cow::Borrowed(&[russh::compression::NONE]),
        ..russh::Preferred::default()
    };
    russh::client::Config {
        client_id: SshId::Standard(Cow::Borrowed(VERSION)),
        // A connection is replaced before so much has passed; see `Shared::is_worn`.
        limits: Limits {
            rekey_write_limit: usize::MAX,
            rekey_read_limit: usize::MAX,
            rekey_time_limit: NEVER,
        },
        window_size: WINDOW,
        maximum_packet_size: 32 * 1024,
        preferred,
        nodelay: true,
        ..russh::client::Config::default()
    }
}

/// What the server knows us by: to this it sends `xon-xoff`.
pub(crate) const VERSION: &str = concat!("SSH-2.0-hithe_", env!("CARGO_PKG_VERSION"));
/// Of one visit's upload on its way, before the upstream has taken it.
const WINDOW: u32 = 2 << 20;
const FAREWELL: Duration = Duration::from_secs(2);
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
