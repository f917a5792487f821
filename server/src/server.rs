//! Start and end of the whole: binds every socket or says which one failed, serves, drains.
//!
//! Visitors drain first, publishers last: a visit needs the session that carries it.

mod activation;
mod health;
mod reload;
mod shared;
mod shutdown;
mod sockets;
mod supervisor;
mod upkeep;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use hithe_cli_parser::Code;
use hithe_keys::host;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

pub use activation::Passed;
use health::Health;
use reload::Reload;
pub use shutdown::Shutdown;
pub use sockets::Addresses;
use sockets::Sockets;
use supervisor::Supervisor;

use crate::access::Access;
use crate::admin::{Desk, Running};
use crate::certs::Certificates;
use crate::config::{Config, KeyPolicy, ListenerKind};
use crate::drain::{Drain, DrainWatch, Outcome};
use crate::edge::accept::Queued;
use crate::edge::arrival::introduce;
use crate::edge::{self, EdgeContext};
use crate::limits::{Accounts, Month, Visitors};
use crate::listen;
use crate::logging::Level;
use crate::metrics::Metrics;
use crate::modules::{Commons, check_client_cas};
use crate::proof::Prover;
use crate::proxy::Site;
use crate::registry::{NameRules, NameSecret, OpenedPort, Registry, RegistryConfig};
use crate::ssh::{self, Algorithms, Door, HostKeys, PublicPorts, Publishers};
use crate::store::{PastOwners, Recorder, Reservations, Store};
use crate::trust::Trust;
use crate::tunnel::spool::Spool;
use crate::workers::{Parcel, Workers};

/// Why the server cannot start. The operator reads it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address} (--{option}){}", advice(source))]
    Listen { option: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("cannot use the socket {name:?} that systemd passed: {why}")]
    Passed { name: String, why: String },
    #[error("{0}")]
    State(String),
    #[error("cannot keep anything for slow visitors in {path} (--spool-dir)")]
    Spool { path: std::path::PathBuf, source: std::io::Error },
    #[error("cannot start the threads that serve (--workers)")]
    Workers(#[source] std::io::Error),
    #[error("cannot write {path}")]
    ReadyFile { path: std::path::PathBuf, source: std::io::Error },
}

fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "; another program listens there: stop it, or choose another port",
        std::io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need root or CAP_NET_BIND_SERVICE (docs/operating.md)"
        }
        std::io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

fn state(error: impl std::error::Error) -> StartError {
    StartError::State(with_causes(&error))
}

/// The error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A server whose sockets are bound and listen; [`Self::run`] serves them.
pub struct Server {
    config: Config,
    sockets: Sockets,
    addresses: Addresses,
    registry: Registry,
    opened: mpsc::Receiver<OpenedPort>,
    certificates: Arc<Certificates>,
    access: Access,
    prover: Option<Prover>,
    algorithms: Algorithms,
    store: Store,
    accounts: Accounts,
    metrics: Arc<Metrics>,
    spool: Arc<Spool>,
    visitors: (Drain, DrainWatch),
    workers: Arc<Workers>,
    edge: Arc<EdgeContext>,
    trust: Trust,
    level: Option<Level>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Server {
    /// Reads keys and certificates and binds all sockets. Nothing is accepted yet.
    ///
    /// # Errors
    /// Names the file or the socket that is at fault, and what to do.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        Self::bind_with(config, Passed::default())
    }

    /// The same with sockets that are there already.
    ///
    /// # Errors
    /// As above.
    pub fn bind_with(config: Config, passed: Passed) -> Result<Self, StartError> {
        listen::raise_open_files();
        let store = Store::open(&config.state_dir).map_err(state)?;
        let spool = open_spool(&config)?;
        let algorithms = Algorithms::new(host_keys(&config)?, config.ssh_cipher);
        let access = access(&config, &store)?;
        let prover = config.custom_domains.map(Prover::new).transpose().map_err(state)?;
        let certificates = Arc::new(Certificates::load(&config).map_err(state)?);
        let (registry, opened) = Registry::new(RegistryConfig {
            rules: name_rules(&config, &store)?,
            tcp_ports: config.tcp_ports.clone(),
            tcp_address: config.tcp_listen_address,
            past: past_owners(&store),
            reserved: reservations(&store),
            hold: config.hold,
        });
        let accounts = accounts(&config, &store);
        let workers = Workers::start(config.workers).map_err(StartError::Workers)?;
        let visitors = Drain::new();
        let metrics = Arc::<Metrics>::default();
        let site = Site {
            registry: registry.clone(),
            domain: config.domain.clone(),
            trust: Trust::new(config.proxies.clone()),
            visits: visitors.1.clone(),
            metrics: Arc::clone(&metrics),
            visitors: Visitors::new(config.limits.visitors.clone(), Arc::clone(&metrics)),
        };
        let trust = site.trust.clone();
        let edge = EdgeContext::new(site, &certificates, Arc::clone(&workers)).map_err(state)?;
        let sockets = Sockets::bind(&config.listen, passed)?;
        let addresses = sockets.addresses();
        if let Some(path) = &config.ready_file {
            addresses.write(path)?;
        }
        Ok(Self {
            config,
            sockets,
            addresses,
            registry,
            opened,
            certificates,
            access,
            prover,
            algorithms,
            accounts,
            metrics,
            store,
            spool,
            visitors,
            workers,
            edge,
            trust,
            level: None,
        })
    }

    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Lets the configuration file change how much is logged, while the server runs.
    pub fn with_log_level(self, level: Level) -> Self {
        Self { level: Some(level), ..self }
    }

    /// Where the server's own certificate authority stands, for visitors to trust.
    pub fn ca_file(&self) -> Option<std::path::PathBuf> {
        self.certificates.ca_file()
    }

    /// Serves until `shutdown` begins and the drain is over.
    pub async fn run(mut self, shutdown: Shutdown) {
        self.announce();
        let (publishers, publisher_tasks) = Drain::new();
        let audit = Recorder::default();
        let accounts = self.accounts.clone();
        let upkeep = Arc::new(upkeep::Upkeep {
            certificates: Arc::clone(&self.certificates),
            access: self.access.clone(),
            registry: self.registry.clone(),
            store: self.store.clone(),
            accounts: accounts.clone(),
            visitors: self.edge.visitors(),
            audit: audit.clone(),
        });
        let level = self.level.clone();
        let mut reload = Reload::new(&self.config, self.registry.clone(), self.trust.clone(), level);
        let (questions, question_tasks) = Drain::new();
        let health = Health::new(self.registry.clone(), self.visitors.1.clone());
        health.serve(std::mem::take(&mut self.sockets.health), &question_tasks);
        // Ends them when everything else has ended.
        let workers = Arc::clone(&self.workers);
        let supervisor = Supervisor::from_environment();
        let (registry, draining) = (self.registry.clone(), self.visitors.1.clone());
        supervisor.attend(registry, Arc::clone(&workers), draining, &question_tasks);
        let visitors = self.serve(&publisher_tasks, audit, accounts);
        health.note_serving();
        supervisor.ready();
        loop {
            tokio::select! {
                () = shutdown.begun() => break,
                () = upkeep.run() => {}
                () = shutdown.reload() => {
                    supervisor.reloading();
                    reload.read_again();
                    upkeep.look_again();
                    supervisor.ready();
                }
            }
        }
        let grace = reload.grace();
        supervisor.stopping(grace);
        tracing::info!(?grace, "shutting down: finishing running visits");
        let visits = visitors.drain(grace, shutdown.hurried()).await;
        let sessions = publishers.drain(PUBLISHER_GRACE, shutdown.hurried()).await;
        upkeep.save();
        questions.drain(Duration::ZERO, std::future::pending()).await;
        upkeep.save_traffic();
        match (visits, sessions) {
            (Outcome::Cut(visits), _) => tracing::warn!(visits, "shut down; visits were cut"),
            (Outcome::Drained, _) => tracing::info!("shut down; every visit was finished"),
        }
    }

    /// Starts to accept. What is returned ends the visitors.
    fn serve(self, publishers: &DrainWatch, audit: Recorder, accounts: Accounts) -> Drain {
        let (drain, visitors) = self.visitors;
        let public = PublicPorts {
            http: public_port(self.config.public_http_port, &self.addresses.http),
            https: public_port(self.config.public_https_port, &self.addresses.https),
        };
        let metrics = self.metrics;
        let running = Running {
            access: self.access.clone(),
            registry: self.registry.clone(),
            accounts: accounts.clone(),
            metrics: Arc::clone(&metrics),
            audit: audit.clone(),
        };
        let context = Arc::new(Publishers {
            registry: self.registry.clone(),
            certificates: Arc::clone(&self.certificates),
            desk: Desk::of_server(self.store.database, running),
            access: self.access,
            prover: self.prover,
            accounts,
            audit,
            public,
            tasks: publishers.clone(),
            visitors: visitors.clone(),
            algorithms: self.algorithms,
            door: Door::new(&self.config.limits.logins, self.config.keys == KeyPolicy::Open),
            metrics,
            spool: self.spool,
            commons: Arc::new(Commons::new(self.config.client_cas.clone())),
            trust: self.trust,
        });
        let admittance = Admittance {
            context,
            permits: Arc::new(Semaphore::new(MAX_PUBLISHERS)),
            workers: self.workers,
            tasks: publishers.clone(),
        };
        accept_publishers(self.sockets.ssh, &admittance, &visitors);
        shared::serve(self.sockets.shared, &self.edge, &admittance, &visitors);
        let listeners =
            edge::Listeners { http: self.sockets.http, https: self.sockets.https, tcp: self.opened };
        edge::serve(&self.edge, listeners);
        drain
    }

    fn announce(&self) {
        let show = |addresses: &[SocketAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        tracing::info!(
            ssh = show(&self.addresses.ssh),
            http = show(&self.addresses.http),
            https = show(&self.addresses.https),
            domain = %self.config.domain,
            "hithed {} is ready",
            env!("CARGO_PKG_VERSION")
        );
        tracing::info!(
            path = %self.config.spool_dir.display(),
            mebibytes = self.spool.limit() >> 20,
            "the spool for slow visitors"
        );
        if self.config.keys == KeyPolicy::Open {
            tracing::warn!(
                "OPEN: ANY key may publish on this server. Give --authorized-keys to choose who may"
            );
        }
        for complaint in self.config.client_cas.iter().flat_map(|path| check_client_cas(path)) {
            tracing::warn!("{complaint}");
        }
        if let Some(path) = self.ca_file() {
            tracing::info!(
                ca = %path.display(),
                "visitors see certificates of this server's own authority; let them trust this file, or give --certificates"
            );
        }
    }
}

/// What a connection of a publisher needs to be served.
#[derive(Clone)]
struct Admittance {
    context: Arc<Publishers>,
    /// More wait in the kernel's queue.
    permits: Arc<Semaphore>,
    workers: Arc<Workers>,
    /// Owns the sessions.
    tasks: DrainWatch,
}

impl Admittance {
    /// Serves a connection in a task of its own, if there is a place.
    fn admit(&self, socket: TcpStream, peer: SocketAddr) {
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => self.serve(socket, move |context, socket| async move {
                ssh::serve(context, socket, peer).await;
                drop(permit);
            }),
            Err(_) => self.context.metrics.refused(Code::TOO_BUSY),
        }
    }

    /// As [`Self::admit`], where a trusted proxy may say first who comes.
    fn introduce(&self, socket: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        self.serve(socket, move |context, socket| async move {
            attend_publisher(context, socket, peer).await;
            drop(permit);
        });
    }

    fn serve<F>(&self, socket: TcpStream, with: impl FnOnce(Arc<Publishers>, TcpStream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (context, worker) = (Arc::clone(&self.context), self.workers.least_engaged());
        let engaged = worker.engage();
        let Ok(parcel) = Parcel::pack(socket) else { return };
        let served = async move {
            if let Ok(socket) = parcel.unpack() {
                with(context, socket).await;
            }
            drop(engaged);
        };
        self.tasks.spawn_on(served, worker.runtime());
    }
}

/// Stops accepting as soon as visitors drain.
fn accept_publishers(sockets: Vec<std::net::TcpListener>, admittance: &Admittance, visitors: &DrainWatch) {
    for listener in sockets.into_iter().filter_map(|socket| TcpListener::from_std(socket).ok()) {
        let (admittance, stop) = (admittance.clone(), visitors.clone());
        visitors.spawn(async move {
            // Who connects now is better off with the next server.
            let stop = async move {
                stop.draining().await;
                Queued::Left
            };
            edge::accept::accept(&listener, Arc::clone(&admittance.permits), stop, |socket, peer, permit| {
                admittance.introduce(socket, peer, permit);
            })
            .await;
        });
    }
}

/// Serves a publisher, who may have come through a proxy.
async fn attend_publisher(context: Arc<Publishers>, mut socket: TcpStream, peer: SocketAddr) {
    let introduced = introduce(&mut socket, peer, ListenerKind::Ssh, &context.trust).await;
    if let Some(publisher) = introduced {
        ssh::serve(context, socket, publisher.socket_addr()).await;
    }
}

fn public_port(said: Option<u16>, bound: &[SocketAddr]) -> u16 {
    said.or_else(|| bound.first().map(SocketAddr::port)).unwrap_or_default()
}

fn host_keys(config: &Config) -> Result<HostKeys, StartError> {
    let mut found = HostKeys::default();
    let own = [host::path_in(&config.state_dir)];
    let paths = if config.host_keys.is_empty() { &own[..] } else { &config.host_keys };
    for path in paths {
        let key = match config.host_keys.is_empty() {
            true => host::load_or_create(&config.state_dir).map_err(state)?,
            false => host::load(path).map_err(state)?,
        };
        if let Some(certificate) = host::certificate(path, &key, SystemTime::now()).map_err(state)? {
            certificate.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            found.certificates.push(certificate.certificate);
        }
        found.keys.push(key);
    }
    Ok(found)
}

fn open_spool(config: &Config) -> Result<Arc<Spool>, StartError> {
    Spool::open(&config.spool_dir, config.spool_limit)
        .map_err(|source| StartError::Spool { path: config.spool_dir.clone(), source })
}

fn name_rules(config: &Config, store: &Store) -> Result<NameRules, StartError> {
    Ok(NameRules {
        domain: config.domain.clone(),
        choice: ArcSwap::from_pointee(reload::name_choice(config)),
        open: config.keys == KeyPolicy::Open,
        proofs: config.custom_domains.is_some(),
        secret: NameSecret::new(&store.name_secret().map_err(state)?),
    })
}

/// Where the bytes of the month cannot be read, they count from now on, which is the lesser evil.
fn accounts(config: &Config, store: &Store) -> Accounts {
    let month = Month::of(SystemTime::now());
    let moved = store.database.traffic(month).unwrap_or_else(|error| {
        let path = store.database.path().display();
        tracing::error!(%path, error = with_causes(&error), "how many bytes accounts have moved cannot be read: put a backup in place");
        HashMap::new()
    });
    Accounts::new(config.limits.accounts.into(), month, moved)
}

/// Where they cannot be read, nobody may take what might be kept for another.
fn reservations(store: &Store) -> Reservations {
    store.database.reservations().unwrap_or_else(|error| {
        let path = store.database.path().display();
        tracing::error!(
            %path,
            error = with_causes(&error),
            "reservations cannot be read: until they can, accounts get only names and ports that they had within the last \
             day, what is known to be kept for them, and random names"
        );
        store.database.readable_reservations()
    })
}

/// Where they cannot be read, names are free early, which is the lesser evil.
fn past_owners(store: &Store) -> PastOwners {
    store.database.past_owners().unwrap_or_else(|error| {
        let path = store.database.path().display();
        tracing::error!(%path, error = with_causes(&error), "who had which name last cannot be read: put a backup in place");
        PastOwners::default()
    })
}

fn access(config: &Config, store: &Store) -> Result<Access, StartError> {
    if let Some(why) = store.database.read_only() {
        tracing::error!(path = %store.database.path().display(), "the database can only be read: {why}");
    }
    match store.database.damages() {
        Ok(damages) => damages.iter().for_each(|damage| tracing::error!("the database is damaged: {damage}")),
        Err(error) => tracing::error!(error = with_causes(&error), "the database cannot be checked"),
    }
    let (access, complaints) = Access::load(config.keys.clone(), store.database.clone()).map_err(state)?;
    upkeep::complain(&complaints);
    if access.admits_nobody() {
        tracing::warn!(
            "nobody can publish yet: write public keys into a file for --authorized-keys, or make an account with \
             hithed admin accounts add NAME and hithed admin keys add NAME \"$(cat id_ed25519.pub)\"; --open lets \
             anybody publish"
        );
    }
    Ok(access)
}

/// Connections of publishers, logged in or not; more wait in the kernel's queue.
const MAX_PUBLISHERS: usize = 16 * 1024;
/// Time for publishers to be told and to leave, once the last visitor has gone.
const PUBLISHER_GRACE: Duration = Duration::from_secs(3);
