//! Listening sockets that systemd made, and keeps while the server restarts: `sd_listen_fds(3)`.
//!
//! Their names say what they are for: `FileDescriptorName=ssh`, `http`, `https` or `health` in the socket unit.

use std::net::TcpListener;

use listenfd::ListenFd;
use socket2::SockRef;

use super::StartError;

/// What was passed, in the order in which it came.
#[derive(Debug, Default)]
pub struct Passed(Vec<(String, TcpListener)>);

/// What a socket may be named.
const NAMES: [&str; 4] = ["ssh", "http", "https", "health"];

impl Passed {
    /// Takes the sockets out of the environment. To be called before there is a second thread: it takes the variables
    /// out too, so that no child takes the sockets for its own.
    ///
    /// # Errors
    /// One of them is none that the server can use; says what to change.
    pub fn take() -> Result<Self, StartError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        let mut names = names.split(':');
        let mut passed = Vec::new();
        for number in 0..sockets.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let refused = |why| StartError::Passed { name: name.clone(), why };
            if !NAMES.contains(&name.as_str()) {
                let why = "its unit needs FileDescriptorName= with ssh, http, https or health";
                return Err(refused(why.to_owned()));
            }
            let socket = sockets.take_tcp_listener(number).map_err(|error| refused(error.to_string()))?;
            let socket = socket.filter(|socket| SockRef::from(socket).is_listener().unwrap_or(false));
            let socket =
                socket.ok_or_else(|| refused("it does not listen for TCP connections".to_owned()))?;
            socket.set_nonblocking(true).map_err(|error| refused(error.to_string()))?;
            passed.push((name, socket));
        }
        Ok(Self(passed))
    }

    /// Those of this name. With any, the option of that name is of no use.
    pub(super) fn named(&mut self, wanted: &str) -> Vec<TcpListener> {
        let (these, others) = std::mem::take(&mut self.0).into_iter().partition(|(name, _)| name == wanted);
        self.0 = others;
        let these: Vec<(String, TcpListener)> = these;
        these.into_iter().map(|(_, socket)| socket).collect()
    }
}
