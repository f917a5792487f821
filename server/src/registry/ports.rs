//! The TCP ports that publishers may have: bound at the forward, listening when the endpoint is public.

use std::io;
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::time::Duration;

use hithe_cli_parser::Code;
use socket2::Socket;

use super::{NameSecret, Refusal};
use crate::account::Account;
use crate::config::ListenIp;
use crate::listen;

/// A port that began to listen, for the edge to accept on.
#[derive(Debug)]
pub(crate) struct OpenedPort {
    /// In non-blocking mode.
    pub(crate) listener: TcpListener,
    /// Who answers there is asked of the registry.
    pub(crate) port: u16,
}

pub(super) struct PortRange {
    ports: RangeInclusive<u16>,
    address: ListenIp,
}

impl PortRange {
    pub(super) fn new(ports: RangeInclusive<u16>, address: ListenIp) -> Self {
        Self { ports, address }
    }

    pub(super) fn ports(&self) -> &RangeInclusive<u16> {
        &self.ports
    }

    pub(super) fn check(&self, port: u16) -> Result<(), Refusal> {
        if self.ports.contains(&port) {
            return Ok(());
        }
        let message = format!(
            "port {port} is outside of this server's range {}-{}",
            self.ports.start(),
            self.ports.end()
        );
        let hint = "use -R 0:... to let the server choose; http has 80 or 443, tls has 443";
        Err(Refusal::new(Code::PORT_NOT_FOR_COMMAND, message, hint))
    }

    /// The ports of the range in the order in which a key tries them: its own first ones, then the rest in turn.
    pub(super) fn candidates(
        &self,
        secret: &NameSecret,
        account: &Account,
    ) -> impl Iterator<Item = u16> + use<> {
        let (start, size) = (*self.ports.start(), u64::from(self.ports.end() - self.ports.start()) + 1);
        let nth = move |offset: u64| start + u16::try_from(offset % size).unwrap_or(0);
        let own: Vec<u64> = (0..OWN_PORTS).map(|index| secret.derive("port", account, index)).collect();
        let rest_from = own.first().copied().unwrap_or(0) % size;
        own.into_iter().map(nth).chain((1..size).map(move |step| nth(rest_from + step)))
    }

    /// Binds without listening.
    pub(super) fn bind(&self, port: u16) -> Result<Socket, Refusal> {
        listen::bind(self.address.with_port(port)).map_err(|error| in_use(port, &error))
    }

    /// Listens on `bound`, or on a fresh socket.
    pub(super) fn listen(&self, port: u16, bound: Option<Socket>) -> Result<TcpListener, Refusal> {
        let socket = bound.map_or_else(|| self.bind(port), Ok)?;
        socket.listen(listen::BACKLOG).map_err(|error| in_use(port, &error))?;
        Ok(socket.into())
    }
}

fn in_use(port: u16, error: &io::Error) -> Refusal {
    let message = format!("port {port} cannot be opened on the server: {error}");
    Refusal::new(Code::NAME_IN_USE, message, "use -R 0:... to let the server choose")
}

pub(super) fn not_chosen_when_open() -> Refusal {
    let hint = "use -R 0:... to let the server choose";
    Refusal::new(Code::PORT_NOT_FOR_COMMAND, "an open server gives no chosen TCP port", hint)
}

pub(super) fn range_exhausted(range: &RangeInclusive<u16>) -> Refusal {
    let message = format!("every TCP port of {}-{} is taken", range.start(), range.end());
    Refusal::new(Code::NAME_IN_USE, message, "try again later, or ask the operator for a wider --tcp-ports")
}

/// Its listener closed at the very moment when it was wanted again.
pub(super) fn closed_just_now(port: u16) -> Refusal {
    Refusal::new(Code::NAME_IN_USE, format!("port {port} is just being closed"), "connect again")
}

pub(super) fn too_many_at_once() -> Refusal {
    let hint = "connect again in a moment";
    Refusal::new(Code::NAME_IN_USE, "the server is opening too many ports at once", hint)
}

/// Ports derived from the key alone; beyond them any free port of the range will do.
const OWN_PORTS: u32 = 64;
/// Ports on their way to the edge, which takes them at once; more are refused.
pub(super) const OPENED_BACKLOG: usize = 256;
/// For how long a port is tried that was closed a moment ago.
pub(super) const PREDECESSOR_WAIT: Duration = Duration::from_secs(1);
pub(super) const PREDECESSOR_STEP: Duration = Duration::from_millis(10);
