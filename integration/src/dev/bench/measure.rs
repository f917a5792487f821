//! What is measured, and on which server: memory on fresh ones, all else on one that has just been started and
//! that keeps its publisher.

mod bulk;
mod idle;
pub(super) mod load;
pub(super) mod probe;

use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use clap::ValueEnum;
use tokio::time::{sleep, timeout};

use self::load::Load;
use super::figures::{Figure, Spread};
use super::peers::{Http2, Kind, Peer};
use super::report::{number, value_name};
use super::stage::{Stage, WEB};
use super::{Plan, tell};

/// A load, or another thing to look at; each gives one or two figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Measure {
    /// Memory of an idle tunnel
    TunnelMemory,
    /// Memory of a visitor who sits on an idle TLS connection
    VisitorMemory,
    /// From the start of ssh to the first answer
    Start,
    /// GET of 1 KiB on 32 connections
    Http,
    /// The same inside TLS
    Https,
    /// GET of 1 KiB on 4 connections with 8 streams each
    Http2,
    /// GET of 1 KiB on 1 connection: how long each takes
    Latency,
    /// New connections with a TLS handshake and one request
    Connect,
    /// 8 visitors download
    Download,
    /// 8 visitors upload
    Upload,
    /// Memory after all of the above
    LoadedMemory,
}

impl Measure {
    pub(super) const ALL: &[Self] = &[
        Self::TunnelMemory,
        Self::VisitorMemory,
        Self::Start,
        Self::Http,
        Self::Https,
        Self::Http2,
        Self::Latency,
        Self::Connect,
        Self::Download,
        Self::Upload,
        Self::LoadedMemory,
    ];

    /// Whether this peer has what is measured.
    fn applies(self, peer: &Peer) -> bool {
        match self {
            Self::TunnelMemory | Self::Start => peer.publisher.is_some(),
            Self::VisitorMemory | Self::Https | Self::Connect => peer.https.is_some(),
            Self::Http2 => !matches!(peer.http2, Http2::None),
            _ => true,
        }
    }

    pub(super) fn needs_h2load(self) -> bool {
        matches!(self, Self::Http | Self::Https | Self::Http2 | Self::Latency | Self::Connect)
    }

    fn wants_fresh_server(self) -> bool {
        matches!(self, Self::TunnelMemory | Self::VisitorMemory)
    }

    pub(super) async fn take(self, peer: &mut Peer, stage: &Stage, seconds: u64) -> anyhow::Result<Values> {
        match self {
            Self::TunnelMemory => idle::tunnels(peer, stage.web_port).await,
            Self::VisitorMemory => idle::visitors(peer).await,
            Self::Start => start(peer).await,
            Self::Http => {
                let load = load::http1(peer, WEB, seconds);
                rate(&load, peer, [Figure::HttpRate, Figure::HttpCpu]).await
            }
            Self::Https => {
                let load = load::https1(peer, WEB, seconds)?;
                rate(&load, peer, [Figure::HttpsRate, Figure::HttpsCpu]).await
            }
            Self::Http2 => http2(peer, seconds).await,
            Self::Latency => load::latency(peer, stage, WEB, seconds).await,
            Self::Connect => load::connect(peer, WEB, seconds).await,
            Self::Download => bulk::download(peer, seconds).await,
            Self::Upload => bulk::upload(peer, stage, seconds).await,
            Self::LoadedMemory => Ok(vec![(Figure::LoadedMemory, peer.memory()?.resident / 1024.0)]),
        }
    }
}

pub(super) type Values = Vec<(Figure, f64)>;

/// What one peer came to in one round.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) values: Vec<(Figure, f64)>,
    /// What could not be measured, and why.
    pub(super) failures: Vec<String>,
}

/// Takes all that the plan asks for from one peer.
pub(super) async fn all(kind: Kind, stage: &Stage, plan: &Plan) -> Outcome {
    let mut outcome = Outcome::default();
    let fresh = plan.measures.iter().filter(|measure| measure.wants_fresh_server());
    let others = plan.measures.iter().copied().filter(|measure| !measure.wants_fresh_server());
    let servers = fresh.map(|measure| vec![*measure]).chain([others.collect()]);
    for measures in servers.filter(|measures| !measures.is_empty()) {
        if let Err(error) = on_one_server(kind, &measures, stage, plan, &mut outcome).await {
            outcome.fail(&format!("{error:#}"));
        }
    }
    outcome
}

async fn on_one_server(
    kind: Kind,
    measures: &[Measure],
    stage: &Stage,
    plan: &Plan,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let mut peer = kind.start(stage).await?;
    if measures != [Measure::TunnelMemory] {
        peer.publish().await?;
    }
    let applying: Vec<_> = measures.iter().filter(|measure| measure.applies(&peer)).collect();
    for measure in applying {
        let limit = PATIENCE + Duration::from_secs(10 * plan.seconds);
        let taken = timeout(limit, measure.take(&mut peer, stage, plan.seconds)).await;
        match taken.unwrap_or_else(|_| Err(anyhow!("not done within {limit:?}"))) {
            Ok(values) => outcome.add(values),
            Err(error) => outcome.fail(&format!("{}: {error:#}", value_name(measure))),
        }
    }
    Ok(())
}

/// What a measure may take besides its loads.
const PATIENCE: Duration = Duration::from_secs(40);

impl Outcome {
    fn add(&mut self, values: Values) {
        for (figure, value) in &values {
            tell(&format!("    {:>9}  {}", number(*value), figure.label()));
        }
        self.values.extend(values);
    }

    fn fail(&mut self, why: &str) {
        tell(&format!("    failed     {why}"));
        self.failures.push(why.to_owned());
    }
}

/// Rate and CPU of a load.
async fn rate(load: &Load, peer: &Peer, [rate, cpu]: [Figure; 2]) -> anyhow::Result<Values> {
    let before = peer.cpu();
    let done = load.run().await?;
    let spent = peer.cpu().saturating_sub(before).as_secs_f64();
    Ok(vec![(rate, done.requests / done.took.as_secs_f64()), (cpu, spent / done.requests * 10_000.0)])
}

async fn http2(peer: &Peer, seconds: u64) -> anyhow::Result<Values> {
    const FIGURES: [Figure; 2] = [Figure::Http2Rate, Figure::Http2Cpu];
    let Http2::Own { host, forward, command } = &peer.http2 else {
        return rate(&load::http2(peer, WEB, seconds)?, peer, FIGURES).await;
    };
    let publisher = peer.publisher.as_ref().context("an endpoint without a publisher")?;
    let _published = publisher.publish_with(forward, command);
    let one = load::one_http2(peer, host)?;
    let mut tries = 50;
    while let Err(error) = one.run().await {
        tries -= 1;
        ensure!(tries > 0, "the endpoint for HTTP/2 does not answer: {error:#}");
        sleep(Duration::from_millis(100)).await;
    }
    rate(&load::http2(peer, host, seconds)?, peer, FIGURES).await
}

/// The median of some publishers, one after the other.
async fn start(peer: &mut Peer) -> anyhow::Result<Values> {
    const TIMES: usize = 5;
    let mut times = Vec::new();
    let mut failed = 0;
    while times.len() < TIMES {
        peer.withdraw().await?;
        match peer.publish().await {
            Ok(time) => times.push(time.as_secs_f64() * 1000.0),
            // The port of the one before may still be taken.
            Err(_) if failed < TIMES => failed += 1,
            Err(error) => return Err(error),
        }
    }
    let median = Spread::of(times.into_iter()).context("no times")?.median;
    Ok(vec![(Figure::Start, median)])
}
