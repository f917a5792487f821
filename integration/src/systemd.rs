//! What systemd does for a service, without systemd: it hears of its states, and holds its sockets while it restarts.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use tokio::net::UnixDatagram;

use crate::server::ports::PortBlock;
use crate::wait::{eventually, within};

/// Hears what a service tells by `sd_notify(3)`.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    /// Listens at a socket in this folder.
    pub fn listen(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket to hear at");
        Self { socket, path }
    }

    /// The value of `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for a state that has this line, say `READY=1`; gives all of its lines.
    pub async fn hears(&self, line: &str) -> Vec<String> {
        within(&format!("the service tells {line}"), async {
            loop {
                let mut state = [0; 4096];
                let length = self.socket.recv(&mut state).await.expect("the socket stays open");
                let text = String::from_utf8_lossy(state.get(..length).unwrap_or_default()).into_owned();
                let lines: Vec<String> = text.lines().map(str::to_owned).collect();
                if lines.iter().any(|said| said == line) {
                    return lines;
                }
            }
        })
        .await
    }
}

/// Listening sockets named `ssh`, `http` and `https` that outlive the servers they are passed to.
#[derive(Debug)]
pub struct KeptSockets([TcpListener; 3]);

impl KeptSockets {
    /// On free ports of the loopback.
    pub fn listen() -> Self {
        Self([(); 3].map(|()| {
            let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let flags = rustix::io::FdFlags::empty();
            rustix::io::fcntl_setfd(socket.as_fd(), flags).expect("a socket that children inherit");
            socket
        }))
    }

    /// What runs the command behind it with these sockets, as systemd would: as descriptors 3 to 5, named.
    pub fn launcher(&self) -> Vec<OsString> {
        let numbers = self.0.iter().map(|socket| socket.as_raw_fd().to_string());
        ["bash", "-c", PASS, "pass"]
            .map(str::to_owned)
            .into_iter()
            .chain(numbers)
            .map(OsString::from)
            .collect()
    }
}

/// The numbers that the sockets have here may be among 3, 4 and 5: so they are moved away first.
const PASS: &str = "exec {a}<&$1 {b}<&$2 {c}<&$3 && exec 3<&$a 4<&$b 5<&$c && shift 3
    export LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES=ssh:http:https
    exec \"$@\"";

/// Debian's `systemd-socket-activate`, which listens on three ports and starts a program at the first connection.
#[derive(Debug)]
pub struct SocketActivation {
    ports: PortBlock,
    names: &'static str,
}

impl SocketActivation {
    /// With these names for the sockets: `ssh:http:https`.
    pub fn named(names: &'static str) -> Self {
        Self { ports: PortBlock::reserve(), names }
    }

    /// What runs the command behind it so.
    pub fn launcher(&self) -> Vec<OsString> {
        let listen = (0..3).flat_map(|number| ["-l".to_owned(), self.address(number).to_string()]);
        let head = ["systemd-socket-activate", "--fdname", self.names].map(str::to_owned);
        head.into_iter().chain(listen).map(OsString::from).collect()
    }

    /// Where it listens.
    pub fn address(&self, number: usize) -> SocketAddr {
        let port = self.ports.range().nth(number).expect("a port of the block");
        ([127, 0, 0, 1], port).into()
    }

    /// Makes the first connection.
    pub async fn wake(&self) {
        eventually("systemd-socket-activate listens", || TcpStream::connect(self.address(0)).ok()).await;
    }
}
