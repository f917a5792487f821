//! Who may begin a login: not too many at a time, and nobody whose network has failed too often.
//!
//! Who is turned away costs no cryptography: the reason goes out as plain text, in the one message that a client reads
//! before the key exchange (RFC 4253 §11.1).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hithe_cli_parser::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::VERSION;
use crate::config::LoginLimits;
use crate::limits::{Admission, Admitted, Full, Offence, PenaltyBox};
use crate::metrics::Metrics;

/// What is counted of connections before and, on an open server, after their login.
#[derive(Debug)]
pub(crate) struct Door {
    waiting: Admission,
    /// On an open server: every connection.
    all: Option<Admission>,
    penalties: Arc<PenaltyBox>,
    grace: Duration,
    /// Those who are being told why they are turned away.
    farewells: Semaphore,
}

/// A connection that may begin its login.
pub(super) struct Entered {
    /// Given back at the login.
    pub(super) waiting: Admitted,
    /// Given back at the end.
    pub(super) counted: Option<Admitted>,
}

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnedAway {
    /// For so long.
    Penalty(Duration),
    Full(Full),
}

impl Door {
    pub(crate) fn new(limits: &LoginLimits, is_open: bool) -> Self {
        Self {
            waiting: Admission::new(limits.total, limits.per_source),
            all: is_open.then(|| Admission::new(usize::MAX, limits.per_source_when_open)),
            penalties: Arc::new(PenaltyBox::new(limits.penalties, limits.exempt.clone())),
            grace: limits.grace,
            farewells: Semaphore::new(MAX_FAREWELLS),
        }
    }

    /// From accept to login.
    pub(super) fn grace(&self) -> Duration {
        self.grace
    }

    pub(super) fn enter(&self, source: IpAddr) -> Result<Entered, TurnedAway> {
        if let Some(wait) = self.penalties.wait(source) {
            return Err(TurnedAway::Penalty(wait));
        }
        let waiting = self.waiting.admit(source).map_err(TurnedAway::Full)?;
        let counted = self.all.as_ref().map(|all| all.admit(source)).transpose().map_err(TurnedAway::Full)?;
        Ok(Entered { waiting, counted })
    }

    /// Tells a client why, if not too many are being told, and closes.
    pub(super) async fn turn_away(&self, mut socket: TcpStream, why: TurnedAway, metrics: &Metrics) {
        metrics.refused(why.code());
        let Ok(_place) = self.farewells.try_acquire() else { return };
        let said = async {
            socket.write_all(&farewell(&why.text())).await?;
            socket.shutdown().await?;
            // What the client has sent unread would make a reset of the end, and the reset would overtake the words.
            let mut unread = [0; 512];
            while socket.read(&mut unread).await? > 0 {}
            std::io::Result::Ok(())
        };
        // Nobody is left to be told if this fails.
        let _ = timeout(FAREWELL, said).await;
    }

    /// Watches a connection until it is told how it ended.
    pub(super) fn watch(&self, source: IpAddr) -> Watched {
        Watched { penalties: Arc::clone(&self.penalties), source }
    }
}

impl TurnedAway {
    fn code(self) -> Code {
        match self {
            Self::Penalty(_) => Code::LOGIN_PENALTY,
            Self::Full(Full::InTotal) => Code::LOGINS_TOTAL,
            Self::Full(Full::OfSource) => Code::LOGINS_OF_SOURCE,
        }
    }

    fn text(self) -> String {
        let code = self.code();
        match self {
            Self::Penalty(wait) => format!(
                "{code}: too many logins from your network failed: try again in {} s",
                wait.as_secs_f64().ceil()
            ),
            Self::Full(Full::InTotal) => {
                format!("{code}: too many clients are logging in: try again in a moment")
            }
            Self::Full(Full::OfSource) => {
                format!("{code}: there are too many connections from your network")
            }
        }
    }
}

/// One connection before its login.
#[derive(Debug)]
pub(super) struct Watched {
    penalties: Arc<PenaltyBox>,
    source: IpAddr,
}

impl Watched {
    /// With nothing to blame it for, if it logged in.
    pub(super) fn ended(self, offence: Option<Offence>) {
        if let Some(offence) = offence {
            self.punish(offence);
        }
    }

    fn punish(&self, offence: Offence) {
        if self.penalties.punish(self.source, offence) {
            tracing::info!(source = %self.source.to_canonical(), ?offence, "a source is turned away for a while");
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.punish(Offence::Crash);
        }
    }
}

/// Our version line and an `SSH_MSG_DISCONNECT` (RFC 4253 §6, §11.1) as it is before the key exchange: not encrypted.
fn farewell(text: &str) -> Vec<u8> {
    let mut payload = vec![SSH_MSG_DISCONNECT];
    payload.extend(TOO_MANY_CONNECTIONS.to_be_bytes());
    for string in [text, ""] {
        payload.extend(u32::try_from(string.len()).unwrap_or_default().to_be_bytes());
        payload.extend(string.as_bytes());
    }
    // Length, padding's length, payload and padding come to a multiple of 8; the padding is at least 4 bytes long.
    let unpadded = 5 + payload.len();
    let padding = 4 + (8 - (unpadded + 4) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).unwrap_or_default();
    let mut bytes = format!("{VERSION}\r\n").into_bytes();
    bytes.extend(length.to_be_bytes());
    bytes.push(u8::try_from(padding).unwrap_or_default());
    bytes.extend(payload);
    bytes.resize(bytes.len() + padding, 0);
    bytes
}

const SSH_MSG_DISCONNECT: u8 = 1;
/// RFC 4253 §11.1.
const TOO_MANY_CONNECTIONS: u32 = 12;
/// Who comes beyond them is turned away without a word.
const MAX_FAREWELLS: usize = 64;
/// For a client to read why.
const FAREWELL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Options};

    #[test]
    fn who_makes_the_server_fail_is_turned_away_at_once() {
        let config = Config::load(Options { open: Some(true), ..Options::default() }).unwrap();
        let door = Door::new(&config.limits.logins, true);
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let watched = door.watch(source);
        let failed = std::thread::spawn(move || {
            let _watched = watched;
            std::panic::resume_unwind(Box::new("as a bug would"));
        });
        assert!(failed.join().is_err());
        assert!(matches!(door.enter(source), Err(TurnedAway::Penalty(_))));
        assert!(door.enter("192.0.2.2".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_farewell_is_one_whole_packet() {
        for length in 0..64 {
            let text = "x".repeat(length);
            let bytes = farewell(&text);
            let packet = &bytes[VERSION.len() + 2..];
            let said = u32::from_be_bytes(packet[..4].try_into().unwrap()) as usize;
            assert_eq!((packet.len(), packet.len() % 8), (said + 4, 0));
            assert!(packet[4] >= 4 && packet[14..].starts_with(text.as_bytes()));
        }
    }
}
