//! The sockets of a server, all bound before anything is served.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use serde::Serialize;

use super::StartError;
use super::activation::Passed;
use crate::config::{Listen, ListenAddress};
use crate::listen;

/// Every bound address.
#[derive(Clone, Debug, Serialize)]
pub struct Addresses {
    pub ssh: Vec<SocketAddr>,
    pub http: Vec<SocketAddr>,
    pub https: Vec<SocketAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<SocketAddr>,
}

/// Of each kind.
pub(super) struct Sockets {
    pub(super) ssh: Vec<TcpListener>,
    pub(super) http: Vec<TcpListener>,
    pub(super) https: Vec<TcpListener>,
    /// Those of ssh and https.
    pub(super) shared: Vec<TcpListener>,
    pub(super) health: Vec<TcpListener>,
}

impl Sockets {
    /// Those that systemd passed in the place of those that options name.
    ///
    /// # Errors
    /// Names the socket that cannot be had.
    pub(super) fn bind(wanted: &Listen, mut passed: Passed) -> Result<Self, StartError> {
        let mut of = |name, option, addresses: &[ListenAddress]| match passed.named(name) {
            sockets if sockets.is_empty() => listen_on(option, addresses),
            sockets => Ok(sockets),
        };
        let (shared, ssh): (Vec<_>, Vec<_>) = wanted.ssh.iter().partition(|it| wanted.is_shared(**it));
        let https: Vec<_> = wanted.https.iter().copied().filter(|it| !wanted.is_shared(*it)).collect();
        Ok(Self {
            ssh: of("ssh", "ssh-listen", &ssh)?,
            http: of("http", "http-listen", &wanted.http)?,
            https: of("https", "https-listen", &https)?,
            shared: of("shared", "ssh-listen", &shared)?,
            health: of("health", "health-listen", &wanted.health)?,
        })
    }

    pub(super) fn addresses(&self) -> Addresses {
        Addresses {
            ssh: addresses(self.ssh.iter().chain(&self.shared)),
            http: addresses(&self.http),
            https: addresses(self.https.iter().chain(&self.shared)),
            health: addresses(&self.health),
        }
    }
}

impl Addresses {
    /// Into the ready file, which appears whole.
    pub(super) fn write(&self, path: &Path) -> Result<(), StartError> {
        let failed = |source| StartError::ReadyFile { path: path.to_owned(), source };
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        serde_json::to_writer(&file, self).map_err(|error| failed(error.into()))?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

fn listen_on(option: &'static str, wanted: &[ListenAddress]) -> Result<Vec<TcpListener>, StartError> {
    let listen = |wanted: &ListenAddress| {
        let failed = |source| StartError::Listen { option, address: wanted.address, source };
        listen::listen(*wanted).map_err(failed)
    };
    wanted.iter().map(listen).collect()
}

fn addresses<'a>(sockets: impl IntoIterator<Item = &'a TcpListener>) -> Vec<SocketAddr> {
    sockets.into_iter().filter_map(|socket| socket.local_addr().ok()).collect()
}
