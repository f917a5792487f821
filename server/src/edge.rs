//! The public side: listeners that visitors connect to.
//!
//! A connection is accepted ([`accept`]), recognised ([`hello`]), matched with an endpoint of the
//! [registry](crate::registry), and given to the [`proxy`](crate::proxy).

pub(crate) mod accept;
pub(crate) mod announced;
pub(crate) mod arrival;
mod facts;
pub(crate) mod hello;
mod http;
pub(crate) mod https;
mod linger;
mod place;
mod tcp;
mod tls;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hithe_cli_parser::{Code, HostName};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use crate::certs::{self, Certificates};
use crate::drain::DrainWatch;
use crate::limits::{VisitorPlace, Visitors};
use crate::proxy::Site;
use crate::registry::OpenedPort;
use crate::workers::Workers;

/// Connections of visitors at a time, over all listeners. Each holds a socket here, and perhaps a channel.
const MAX_VISITORS: usize = 65_536;

/// For who had connected when the drain began to say what they want.
const LAST_WORD: Duration = Duration::from_secs(2);

/// What visitors connect to: bound, nonblocking sockets, and the ports that publishers open.
pub(crate) struct Listeners {
    pub(crate) http: Vec<std::net::TcpListener>,
    pub(crate) https: Vec<std::net::TcpListener>,
    pub(crate) tcp: mpsc::Receiver<OpenedPort>,
}

/// What the public listeners share.
pub(crate) struct EdgeContext {
    site: Arc<Site>,
    /// Offers `h2` and `http/1.1` by ALPN.
    tls: Arc<rustls::ServerConfig>,
    visitors: Arc<Semaphore>,
    workers: Arc<Workers>,
    /// Owns the tasks of visits.
    visits: DrainWatch,
}

impl EdgeContext {
    /// # Errors
    /// When the machine has no randomness.
    pub(crate) fn new(
        site: Site,
        certificates: &Arc<Certificates>,
        workers: Arc<Workers>,
    ) -> Result<Arc<Self>, rustls::Error> {
        let routes = site.registry.clone();
        let resolver = certificates.resolver(Arc::new(move |name: &HostName| routes.is_live(name.as_str())));
        Ok(Self::with_tls(site, certs::server_config(resolver)?, workers))
    }

    /// Counts a connection for its source. One too many is closed after these words.
    fn admit(&self, stream: &TcpStream, source: IpAddr, words: &[u8]) -> Option<VisitorPlace> {
        if self.site.trust.trusts(source) {
            return Some(self.site.visitors.exempt());
        }
        let place = self.site.visitors.admit(source);
        if place.is_none() {
            let socket = SockRef::from(stream);
            // What is left unread would make a reset of the end. Nobody waits for a visitor here.
            let _ = socket.recv(&mut [std::mem::MaybeUninit::uninit(); 4096]);
            let _ = socket.send(words);
        }
        place
    }

    /// Counts a connection that is no HTTP as a request of its source: whether there may be one more.
    fn counts(&self, held: &VisitorPlace) -> bool {
        let counts = held.request().is_ok();
        if !counts {
            self.site.metrics.refused(Code::VISITOR_REQUESTS);
        }
        counts
    }

    /// For connections of visitors; each holds one.
    pub(crate) fn permits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.visitors)
    }

    /// Where visitors come from.
    pub(crate) fn visitors(&self) -> Arc<Visitors> {
        Arc::clone(&self.site.visitors)
    }

    fn with_tls(site: Site, tls: Arc<rustls::ServerConfig>, workers: Arc<Workers>) -> Arc<Self> {
        let visits = site.visits.clone();
        let visitors = Arc::new(Semaphore::new(MAX_VISITORS));
        Arc::new(Self { site: Arc::new(site), tls, visitors, workers, visits })
    }
}

/// Accepts visitors in tasks of its own until the drain begins.
pub(crate) fn serve(context: &Arc<EdgeContext>, listeners: Listeners) {
    for listener in listeners.http.into_iter().filter_map(asynchronous) {
        context.visits.spawn(http::serve(listener, Arc::clone(context)));
    }
    for listener in listeners.https.into_iter().filter_map(asynchronous) {
        context.visits.spawn(https::serve(listener, Arc::clone(context)));
    }
    context.visits.spawn(tcp::serve(listeners.tcp, Arc::clone(context)));
}

fn asynchronous(listener: std::net::TcpListener) -> Option<TcpListener> {
    TcpListener::from_std(listener)
        .inspect_err(|error| tracing::error!(%error, "a public listener cannot be served"))
        .ok()
}
