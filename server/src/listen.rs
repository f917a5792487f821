//! Sockets to listen on: bound by one function for all listeners.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::ListenAddress;

/// Takes as many open files as the system allows: each connection is one, and the usual default of 1,024 is kept only
/// for programs that use select(2).
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    if getrlimit(Resource::Nofile).current.is_some_and(|files| files < FEW_FILES) {
        tracing::warn!(
            files = getrlimit(Resource::Nofile).current,
            "few connections are possible: raise the limit of open files (LimitNOFILE= in systemd, ulimit -n)"
        );
    }
}

/// Binds without listening. `[::]` takes IPv4 as well; a default `[::]` gives way to 0.0.0.0 where IPv6 is off.
pub(crate) fn bind(wanted: ListenAddress) -> io::Result<Socket> {
    bind_to(wanted.address).or_else(|error| {
        if !wanted.fallback || !no_ipv6(&error) {
            return Err(error);
        }
        tracing::info!(address = %wanted, "IPv6 is off: listening on 0.0.0.0 in its place");
        bind_to(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), wanted.address.port()))
    })
}

/// Binds and listens, in non-blocking mode.
pub(crate) fn listen(wanted: ListenAddress) -> io::Result<TcpListener> {
    let socket = bind(wanted)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_to(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Connections of the last process in TIME_WAIT must not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Fewer are worth a warning.
const FEW_FILES: u64 = 8192;
/// Connections that may wait for the accept loop.
pub(crate) const BACKLOG: i32 = 1024;
/// Linux' number; std has no kind for "address family not supported".
const EAFNOSUPPORT: i32 = 97;
