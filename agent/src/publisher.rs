//! Keeps one endpoint published: connects, serves, and connects again under the same name after each loss.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use hithe_cli_parser::Code;

use crate::Endpoint;
use crate::connect::{ConnectError, Route};
use crate::exit;
use crate::retry::{self, Backoff};
use crate::session::{Heard, Session, Target};
use crate::status::{Board, Phase};

/// Why an endpoint is not, or no longer, published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Failure {
    why: String,
    /// With what status the program ends; none where another attempt may help.
    status: Option<u8>,
}

impl Failure {
    pub(crate) fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), status: None }
    }

    pub(crate) fn lasting(status: u8, why: impl Into<String>) -> Self {
        Self { why: why.into(), status: Some(status) }
    }

    /// Whether another attempt would end the same way.
    pub const fn is_final(&self) -> bool {
        self.status.is_some()
    }

    /// With what status a program should end.
    pub const fn exit_status(&self) -> u8 {
        match self.status {
            Some(status) => status,
            None => exit::NETWORK,
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        if error.is_final() {
            return Self::lasting(error.exit_status(), error.in_full());
        }
        Self::passing(error.to_string())
    }
}

/// How often the server is asked whether it is there, and how long it may take to answer (behaviour.md 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub interval: Duration,
    pub tolerance: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), tolerance: Duration::from_secs(15) }
    }
}

/// One endpoint's connection, again and again.
pub(crate) struct Publisher {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) route: Arc<Route>,
    pub(crate) target: Target,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) board: Board,
    pub(crate) stop: CancellationToken,
}

/// How a connection came to its end.
enum End {
    /// As we were asked to.
    Stopped,
    Failed(Failure),
}

impl Publisher {
    /// Runs until it is stopped.
    ///
    /// # Errors
    /// What another attempt would not change.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let mut backoff = Backoff::default();
        let mut server = None;
        loop {
            self.phase(Phase::Connecting);
            let failure = match self.serve(&mut backoff, &mut server).await {
                End::Stopped => return Ok(()),
                End::Failed(failure) => failure,
            };
            if failure.is_final() {
                self.phase(Phase::Ended { why: failure.to_string() });
                return Err(failure);
            }
            let wait = backoff.next();
            tracing::warn!(
                endpoint = self.endpoint.name,
                "{failure}; trying again in {:.1} s",
                wait.as_secs_f32()
            );
            self.phase(Phase::Waiting { until: SystemTime::now() + wait, why: failure.to_string() });
            tokio::select! {
                () = retry::pause(wait, server) => {}
                () = self.stop.cancelled() => return Ok(()),
            }
        }
    }

    /// One connection from its beginning to its end.
    async fn serve(&self, backoff: &mut Backoff, server: &mut Option<SocketAddr>) -> End {
        let connected = async {
            let (session, mut heard) = self.connect(server).await?;
            self.hear_where(&session, &mut heard).await?;
            Ok((session, heard))
        };
        let connected = tokio::select! {
            connected = connected => connected,
            () = self.stop.cancelled() => return End::Stopped,
        };
        let (session, mut heard) = match connected {
            Ok(connected) => connected,
            Err(failure) => return End::Failed(failure),
        };
        let online = Instant::now();
        let end = self.attend(&session, &mut heard).await;
        if online.elapsed() >= SETTLED {
            backoff.reset();
        }
        if matches!(end, End::Stopped) {
            session.leave().await;
        }
        end
    }

    async fn connect(
        &self,
        server: &mut Option<SocketAddr>,
    ) -> Result<(Session, mpsc::Receiver<Heard>), Failure> {
        let session = Session::open(&self.route, self.target.clone()).await?;
        if server.is_none() {
            // For the way there, any of its addresses will do.
            *server = self.route.first_addresses().await.ok().and_then(|all| all.first().copied());
        }
        let (tell, heard) = mpsc::channel(LINES);
        session.publish(self.endpoint.bind(), &self.endpoint.command.to_string(), tell).await?;
        Ok((session, heard))
    }

    /// Waits for the server to say where the endpoint is.
    async fn hear_where(&self, session: &Session, heard: &mut mpsc::Receiver<Heard>) -> Result<(), Failure> {
        let mut said = Vec::new();
        let mut urls = Vec::new();
        let first = async {
            loop {
                match heard.recv().await.unwrap_or(Heard::Closed) {
                    Heard::Forwarding(url) => {
                        urls.push(url);
                        return Ok(());
                    }
                    Heard::Account(account) => {
                        self.board.endpoint(&self.endpoint.name, |it| it.account = Some(account))
                    }
                    Heard::Error(line) | Heard::Line(line) if said.len() < LINES => said.push(line),
                    Heard::Error(_) | Heard::Line(_) | Heard::Exit(_) => {}
                    Heard::Closed => return Err(()),
                }
            }
        };
        let told = timeout(PUBLISH, first).await;
        let told = told.map_err(|_| Failure::passing("the server does not answer to the command"))?;
        if told.is_err() {
            return Err(refusal(why(&said).or_else(|| session.farewell())));
        }
        self.board.endpoint(&self.endpoint.name, |it| {
            it.urls = urls;
            it.phase = Phase::Online { since: SystemTime::now() };
        });
        Ok(())
    }

    /// Serves until the connection is lost or we are to stop.
    async fn attend(&self, session: &Session, heard: &mut mpsc::Receiver<Heard>) -> End {
        tokio::select! {
            failure = self.listen(session, heard) => End::Failed(failure),
            failure = self.beat(session) => End::Failed(failure),
            () = self.stop.cancelled() => End::Stopped,
        }
    }

    /// To what the server says while it forwards.
    async fn listen(&self, session: &Session, heard: &mut mpsc::Receiver<Heard>) -> Failure {
        let name = &self.endpoint.name;
        let mut last_error = None;
        loop {
            match heard.recv().await.unwrap_or(Heard::Closed) {
                Heard::Forwarding(url) => self.board.endpoint(name, |it| it.urls.push(url)),
                Heard::Account(account) => self.board.endpoint(name, |it| it.account = Some(account)),
                Heard::Error(line) => {
                    tracing::warn!(endpoint = name, "{line}");
                    last_error = Some(line);
                }
                Heard::Line(line) => tracing::debug!(endpoint = name, "{line}"),
                Heard::Exit(_) => {}
                Heard::Closed => return refusal_later(session.farewell().or(last_error)),
            }
        }
    }

    /// Asks the server again and again whether it is there.
    async fn beat(&self, session: &Session) -> Failure {
        let mut tick = interval(self.heartbeat.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match session.heartbeat(self.heartbeat.tolerance).await {
                Ok(latency) => self.board.endpoint(&self.endpoint.name, |it| it.latency = Some(latency)),
                Err(error) => return error.into(),
            }
        }
    }

    fn phase(&self, phase: Phase) {
        self.board.endpoint(&self.endpoint.name, |it| it.phase = phase);
    }
}

/// Of what the server said, the part with a code.
fn why(said: &[String]) -> Option<String> {
    let from = said.iter().position(|line| line.contains("ERR_HITHE_"))?;
    said.get(from..).map(|lines| lines.join("\n"))
}

/// A command that the server did not carry out.
fn refusal(said: Option<String>) -> Failure {
    let Some(said) = said else { return Failure::passing("the server ended the connection without a word") };
    if PASSING.iter().any(|code| said.contains(&format!("{code}:"))) {
        return Failure::passing(said);
    }
    Failure::lasting(exit::REFUSED, said)
}

/// The end of a connection over which an endpoint was published.
fn refusal_later(said: Option<String>) -> Failure {
    match said {
        Some(said) if said.contains(&format!("{}:", Code::TAKEN_OVER)) => {
            Failure::lasting(exit::REFUSED, said)
        }
        Some(said) => Failure::passing(said),
        None => Failure::passing("the server closed the connection"),
    }
}

/// Refusals that may not last.
const PASSING: [Code; 3] = [Code::DRAINING, Code::SESSION_LIMIT, Code::TRAFFIC_USED_UP];

/// From the command to the first address.
const PUBLISH: Duration = Duration::from_secs(30);
/// A connection that lasted so long says that the next attempt may come soon.
const SETTLED: Duration = Duration::from_secs(10);
/// Of the server that wait to be read.
const LINES: usize = 256;
