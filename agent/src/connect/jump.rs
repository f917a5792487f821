//! Jump hosts (`ProxyJump`): a login there, and a channel to the next host (RFC 4254 §7.2).

use std::time::Duration;

use russh::client::{self, DisconnectReason};
use russh::keys::PublicKeyOrCertificate;

use super::address::host_port;
use super::gate::{Gate, Questions};
use super::{ConnectError, Hop, LOGIN, login, shake_hands};
use crate::Stream;

/// A stream to the next host, over a connection to the jump host.
///
/// # Errors
/// The jump host does not let us in, or not further.
pub(super) async fn through(
    jump: &Hop,
    next: &Hop,
    stream: Box<dyn Stream>,
    limit: Duration,
    questions: &Questions,
) -> Result<Box<dyn Stream>, ConnectError> {
    let gate = Gate::new(jump, questions.clone());
    let config = client::Config { nodelay: true, ..client::Config::default() };
    let mut handle = Box::pin(shake_hands(&gate, limit, config, stream, Passing(gate.clone()))).await?;
    // Tokens are for the server alone.
    let login = login::log_in(jump, None, &mut handle, &gate);
    gate.within("the login", limit.max(LOGIN), login).await?;
    let opened = handle.channel_open_direct_tcpip(&next.host, u32::from(next.port), "127.0.0.1", 0);
    let channel =
        gate.within("the channel to the next host", limit, opened).await.map_err(|error| match error {
            ConnectError::Ssh(russh::Error::ChannelOpenFailure(reason)) => {
                let server = host_port(&next.host, next.port);
                ConnectError::Unreachable {
                    server,
                    why: format!("{} does not lead there ({reason:?})", jump.name()),
                }
            }
            ConnectError::Ssh(error) => gate.lost(&error.to_string()),
            other => other,
        })?;
    // The stream keeps the connection, which ends with it.
    Ok(Box::new(channel.into_stream()))
}

/// What is heard of a jump host goes to its gate.
struct Passing(Gate);

impl client::Handler for Passing {
    type Error = ConnectError;

    async fn auth_banner(
        &mut self,
        banner: &str,
        _session: &mut client::Session,
    ) -> Result<(), ConnectError> {
        self.0.hear_lines(banner);
        Ok(())
    }

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, ConnectError> {
        self.0.check_server_key(key).await
    }

    async fn disconnected(&mut self, reason: DisconnectReason<ConnectError>) -> Result<(), ConnectError> {
        self.0.hear_the_end(&reason);
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => Err(error),
        }
    }
}
