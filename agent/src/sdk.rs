//! The face for programs that publish by themselves.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hithe_cli_parser::{Kind, Secret};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::agent::{self, StartError};
use crate::connect::{ConnectError, Route};
use crate::inspect::{Inspector, Limits};
use crate::publisher::{AskOnDrop, Failure, Heartbeat, Publisher, Stop};
use crate::session::{Target, Upstream};
use crate::status::{Board, Reach, Status};
use crate::upstream::acceptor;
use crate::{
    Ask, Connection, Endpoint, EndpointError, EndpointStatus, HostKeyPolicy, Nobody, Phase, ServerOptions,
};

/// A server, and the way to it. Endpoints are published through it, each over an SSH connection of its own.
///
/// ```no_run
/// # async fn example() -> Result<(), hithe::Error> {
/// let session = hithe::Session::builder()
///     .server("tunnel.example.com")
///     .identity("/home/ada/.ssh/id_ed25519")
///     .build()?;
/// let endpoint = session.http().domain("app").forward("localhost:3000").await?;
/// println!("{} leads to localhost:3000", endpoint.url());
/// endpoint.ended().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Session {
    route: Arc<Route>,
    heartbeat: Heartbeat,
}

/// Where the server is and who we are; what is not said comes from `~/.ssh/config`, ssh-agent and the usual files, as
/// for `ssh`.
#[derive(Clone, Debug)]
#[must_use]
pub struct SessionBuilder {
    options: ServerOptions,
    heartbeat: Heartbeat,
    ask: Arc<dyn Ask>,
}

/// Why an endpoint cannot be published, or no longer is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server, or the way to it, cannot be meant.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Endpoint(#[from] EndpointError),
    /// Something of this machine, such as a certificate that cannot be used.
    #[error("{0}")]
    Here(String),
    /// The server refused, or was lost for good.
    #[error("{0}")]
    Publish(#[from] Failure),
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        Self::Here(error.to_string())
    }
}

impl Session {
    /// Begins with nothing said: the server at least is needed.
    pub fn builder() -> SessionBuilder {
        SessionBuilder {
            options: ServerOptions::default(),
            heartbeat: Heartbeat::default(),
            ask: Arc::new(Nobody),
        }
    }

    /// A web service over https, http or both.
    pub fn http(&self) -> EndpointBuilder {
        self.endpoint(Kind::Http)
    }

    /// A TLS service, passed through undecrypted.
    pub fn tls(&self) -> EndpointBuilder {
        self.endpoint(Kind::Tls)
    }

    /// Any TCP service, on a port of the server.
    pub fn tcp(&self) -> EndpointBuilder {
        self.endpoint(Kind::Tcp)
    }

    fn endpoint(&self, kind: Kind) -> EndpointBuilder {
        EndpointBuilder { session: self.clone(), kind, words: Vec::new() }
    }
}

impl SessionBuilder {
    /// `[user@]host[:port]`, or a `Host` of `~/.ssh/config`.
    pub fn server(mut self, address: impl Into<String>) -> Self {
        self.options.address = Some(address.into());
        self
    }

    /// A private key to log in with. May be said several times.
    pub fn identity(mut self, key: impl Into<PathBuf>) -> Self {
        self.options.identities.push(key.into());
        self
    }

    /// An access token in place of a key.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.options.token = Some(Secret::new(token.into()));
        self
    }

    /// What to do about a server whose key is not known yet. Without it, and without [`Self::ask`], it is refused.
    pub fn host_keys(mut self, policy: HostKeyPolicy) -> Self {
        self.options.host_key_policy = Some(policy);
        self
    }

    /// The file of known host keys, in place of the usual ones.
    pub fn known_hosts(mut self, file: impl Into<PathBuf>) -> Self {
        self.options.known_hosts = Some(file.into());
        self
    }

    /// Who is asked about unknown host keys and for passphrases. Nobody, otherwise.
    pub fn ask(mut self, whom: impl Ask + 'static) -> Self {
        self.ask = Arc::new(whom);
        self
    }

    /// How often the server is asked whether it is there, and how long it may take to answer: 10 s and 15 s.
    pub fn heartbeat(mut self, interval: Duration, tolerance: Duration) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        self.heartbeat = Heartbeat { interval, tolerance };
        self
    }

    /// Everything else that can be said of a server.
    pub fn options(mut self, change: impl FnOnce(&mut ServerOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// Finds out what all that means here. Nothing is connected yet.
    ///
    /// # Errors
    /// No server was named, or something cannot be meant.
    pub fn build(self) -> Result<Session, Error> {
        let route = Route::resolve(&self.options)?.asking(self.ask);
        Ok(Session { route: Arc::new(route), heartbeat: self.heartbeat })
    }
}

/// What is to be published: the flags of the command line, by their names.
#[derive(Clone)]
#[must_use]
pub struct EndpointBuilder {
    session: Session,
    kind: Kind,
    words: Vec<OsString>,
}

/// Without the options, among which are passwords.
impl fmt::Debug for EndpointBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointBuilder").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl EndpointBuilder {
    /// The name that visitors use: `app`, `app.example.com` or `*.app`.
    pub fn domain(self, name: &str) -> Self {
        self.option("domain", name)
    }

    /// The public port of a tcp endpoint: `host:port`.
    pub fn remote_addr(self, address: &str) -> Self {
        self.option("remote-addr", address)
    }

    /// Admits visitors with this name and password. May be said several times.
    pub fn basic_auth(self, user: &str, password: &str) -> Self {
        self.option("basic-auth", &format!("{user}:{password}"))
    }

    /// Shares the address with other sessions of the account that say so too.
    pub fn pooling_enabled(self) -> Self {
        self.flag("pooling-enabled")
    }

    /// Any option of the command line with its value: `.option("circuit-breaker", "0.5")` is `--circuit-breaker 0.5`.
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.words.push(format!("--{name}={value}").into());
        self
    }

    /// Any option that has no value: `.flag("compression")`.
    pub fn flag(mut self, name: &str) -> Self {
        self.words.push(format!("--{name}").into());
        self
    }

    /// Publishes, and gives visitors' connections to the program.
    ///
    /// Returns when the endpoint is public. After that it stays so, over reconnects, until the listener is closed or
    /// dropped.
    ///
    /// # Errors
    /// An option is wrong, or the server refuses. A server that cannot be reached is tried again and again: bound the
    /// time with `tokio::time::timeout` where that is not wanted.
    pub async fn listen(self) -> Result<Listener, Error> {
        let (connections, arriving) = mpsc::channel(BACKLOG);
        let endpoint = Endpoint::from_words(NAME, self.kind, self.words)?;
        if endpoint.tls.is_some() {
            return Err(Error::Here(
                "a listener gets what visitors send; end TLS in the program itself".into(),
            ));
        }
        let board = board(&self.session, &endpoint);
        let published = publish(&self.session, endpoint, board, Target::Program(connections)).await?;
        Ok(Listener { arriving, published })
    }

    /// Publishes what is there: `3000`, `localhost:3000`, `https://…`, `unix:/path`, `file:///folder`.
    ///
    /// # Errors
    /// As [`Self::listen`].
    pub async fn forward(self, address: &str) -> Result<Published, Error> {
        let words = std::iter::once(address.into()).chain(self.words);
        let endpoint = Endpoint::from_words(NAME, self.kind, words)?;
        let dialer = agent::dialer(&endpoint)?;
        let tls = endpoint.tls.as_ref().map(acceptor).transpose().map_err(StartError::from)?;
        let nothing = Inspector::new(Limits { memory: 0, ..Limits::default() });
        let board = board(&self.session, &endpoint);
        let reach = Reach::new(board.clone(), endpoint.name.clone());
        let target = Target::Upstream(Arc::new(Upstream { dialer, tls, tap: nothing.meter(NAME), reach }));
        publish(&self.session, endpoint, board, target).await
    }
}

fn board(session: &Session, endpoint: &Endpoint) -> Board {
    let endpoints = vec![agent::first_status(endpoint)];
    Board::new(Status { server: session.route.address(), web: None, endpoints })
}

async fn publish(
    session: &Session,
    endpoint: Endpoint,
    board: Board,
    target: Target,
) -> Result<Published, Error> {
    let stop = Stop::default();
    let status = board.watch();
    let publisher = Publisher {
        endpoint: Arc::new(endpoint),
        route: Arc::clone(&session.route),
        target,
        heartbeat: session.heartbeat,
        board,
        stop: stop.clone(),
    };
    let tasks = TaskTracker::new();
    let (over, ended) = watch::channel(None);
    tasks.spawn(async move {
        let result = publisher.run().await;
        over.send_replace(Some(result));
    });
    tasks.close();
    let mut published = Published { status, ended, tasks, stop: AskOnDrop(stop) };
    published.becomes_public().await?;
    Ok(published)
}

/// An endpoint that is published until this is closed or dropped. After that there are no new visits, and running ones
/// have 10 s, as long as the program's runtime lasts.
#[derive(Debug)]
pub struct Published {
    status: watch::Receiver<Status>,
    ended: watch::Receiver<Option<Result<(), Failure>>>,
    tasks: TaskTracker,
    stop: AskOnDrop,
}

impl Published {
    /// The first address of the endpoint: `https://app.tunnel.example.com`.
    pub fn url(&self) -> String {
        self.urls().into_iter().next().unwrap_or_default()
    }

    /// All of them.
    pub fn urls(&self) -> Vec<String> {
        self.status().urls
    }

    /// How it stands with the endpoint now.
    pub fn status(&self) -> EndpointStatus {
        first(&self.status.borrow())
    }

    /// What becomes of the endpoint: losses, reconnects, addresses.
    pub fn events(&self) -> Events {
        Events { status: self.status.clone() }
    }

    /// Waits until the endpoint has ended for good, which it does only by what another attempt would not change.
    ///
    /// # Errors
    /// What ended it.
    pub async fn ended(&self) -> Result<(), Error> {
        let mut ended = self.ended.clone();
        let over = ended.wait_for(Option::is_some).await;
        let result = over.ok().and_then(|it| (*it).clone()).unwrap_or(Ok(()));
        result.map_err(Error::Publish)
    }

    /// Withdraws the endpoint in order: new visitors are told at once that there is nothing, and running visits have 10 s.
    /// Returns when they are over. Dropping the future cuts them: `timeout(limit, endpoint.close())` gives them less time.
    pub async fn close(self) {
        let _cut = self.stop.0.cut_on_drop();
        self.stop.0.ask();
        self.tasks.wait().await;
    }

    async fn becomes_public(&mut self) -> Result<(), Error> {
        let mut status = self.status.clone();
        let public = status.wait_for(|status| matches!(first(status).phase, Phase::Online { .. }));
        tokio::select! {
            Ok(_) = public => Ok(()),
            ended = self.ended() => ended.and(Err(Error::Here("the endpoint ended before it was public".into()))),
        }
    }
}

/// What becomes of an endpoint.
#[derive(Clone, Debug)]
pub struct Events {
    status: watch::Receiver<Status>,
}

impl Events {
    /// The next change. None when the endpoint is over. Changes that come faster than they are asked for are seen as
    /// one.
    pub async fn next(&mut self) -> Option<EndpointStatus> {
        self.status.changed().await.ok()?;
        Some(first(&self.status.borrow_and_update()))
    }
}

/// Visitors' connections, one by one. Works with `axum::serve` and with hyper.
#[derive(Debug)]
pub struct Listener {
    arriving: mpsc::Receiver<Connection>,
    published: Published,
}

impl Listener {
    /// The next connection. None when the endpoint is over.
    pub async fn accept(&mut self) -> Option<Connection> {
        tokio::select! {
            biased;
            arrived = self.arriving.recv() => arrived,
            _ = self.published.ended() => self.arriving.try_recv().ok(),
        }
    }

    /// The endpoint itself: its addresses, its events.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// The first address of the endpoint.
    pub fn url(&self) -> String {
        self.published.url()
    }

    /// Withdraws the endpoint, as [`Published::close`]: connections that were accepted have 10 s to be finished and dropped,
    /// those that were not are closed.
    pub async fn close(self) {
        drop(self.arriving);
        self.published.close().await;
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    /// Waits for ever once the endpoint is over, as axum wants it.
    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match Self::accept(self).await {
            Some(connection) => {
                let visitor = connection.visitor();
                (connection, visitor)
            }
            None => std::future::pending().await,
        }
    }

    /// Of no use here: the endpoint has no address of this machine.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([0, 0, 0, 0], 0)))
    }
}

fn first(status: &Status) -> EndpointStatus {
    match status.endpoints.first() {
        Some(endpoint) => endpoint.clone(),
        None => EndpointStatus::default(),
    }
}

/// Of an endpoint that has a program of its own.
const NAME: &str = "program";
/// Connections that wait to be accepted.
const BACKLOG: usize = 128;
