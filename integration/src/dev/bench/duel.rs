//! `cargo dev duel`: the agent beside stock ssh, as publishers of the same upstreams at the same hithed.
//!
//! What is measured is the publisher: its CPU for the work, and the rates with it. Each round measures one after the
//! other; what counts are the ratios within a round, and their median.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use tokio::time::{sleep, timeout};

use super::figures::{Figure, Spread};
use super::measure::{Measure, probe};
use super::peers::Peer;
use super::report::number;
use super::stage::{BULK, DOMAIN, Stage, WEB};
use super::{asked_to_end, find_program};
use crate::dev::{say, tell};
use crate::{Child, TestServer, program};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::dev) struct Options {
    /// How long each load runs
    #[arg(long, default_value_t = 2, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=30))]
    seconds: u64,
    /// How often each publisher is measured; medians count
    #[arg(long, default_value_t = 5, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=50))]
    rounds: u64,
}

const EXAMPLES: &str = "\
The publishers are stock `ssh -R NAME:80:… http`, `hithe http` as it comes, and `hithe http` without its
inspector (--web-addr false), which ssh has not. CPU is the publisher's alone. Load tool, upstream, server
and publisher share the machine, so rates tell of all of them together. Wants the machine for itself.

Examples:
  cargo dev duel
  cargo dev duel --rounds 10 --seconds 3";

/// Who publishes. In the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Publisher {
    Ssh,
    Agent,
    /// Which records nothing.
    Bare,
}

impl Publisher {
    const ALL: [Self; 3] = [Self::Ssh, Self::Agent, Self::Bare];

    fn name(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Agent => "hithe",
            Self::Bare => "hithe, no inspector",
        }
    }

    fn publish(self, server: &TestServer, host: &str, upstream: u16) -> anyhow::Result<Child> {
        if self == Self::Ssh {
            let ssh = server.ssh().forward(format!("{host}:80:127.0.0.1:{upstream}")).stdin_null();
            return Ok(ssh.command("http").spawn());
        }
        let program = program::try_hithe_release().map_err(anyhow::Error::msg)?;
        let line = format!("http 127.0.0.1:{upstream} --domain {host} --schemes http");
        let agent = server.agent().program(program).words(&line);
        let agent = if self == Self::Bare { agent.words("--web-addr false") } else { agent };
        Ok(agent.spawn())
    }

    /// Publishes and waits until visitors are answered.
    async fn peer(self, server: &TestServer, host: &str, upstream: u16) -> anyhow::Result<Peer> {
        let http = server.http_address().port();
        let client = self.publish(server, host, upstream)?;
        let answered = async {
            while !probe::answers(http, host).await {
                sleep(probe::LOOK).await;
            }
        };
        let waited = timeout(PATIENCE, answered).await;
        waited.with_context(|| format!("{host} is not public: {}", client.stderr().trim()))?;
        Ok(Peer::of_client(client, http))
    }
}

/// For a publisher to be public, or gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is asked of the publisher of the web service, and of that of bulk.
const OF_WEB: [Measure; 3] = [Measure::Http, Measure::Latency, Measure::LoadedMemory];
const OF_BULK: [Measure; 2] = [Measure::Download, Measure::Upload];

type Round = BTreeMap<(Figure, Publisher), f64>;

pub(in crate::dev) fn run(options: &Options) -> anyhow::Result<()> {
    for (program, package) in [("h2load", "nghttp2-client"), ("nginx", "nginx"), ("ssh", "openssh-client")] {
        ensure!(find_program(program).is_some(), "no {program} (Debian: {package}): nothing can be measured");
    }
    tell("building hithed and hithe --release");
    program::try_hithed_release().map_err(anyhow::Error::msg)?;
    program::try_hithe_release().map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let rounds = runtime.block_on(async {
        tokio::select! {
            rounds = fight(options) => rounds,
            () = asked_to_end() => anyhow::bail!("ended before the end of the run"),
        }
    })?;
    say(&table(&rounds));
    Ok(())
}

async fn fight(options: &Options) -> anyhow::Result<Vec<Round>> {
    let stage = Stage::set_up().await?;
    let program = program::try_hithed_release().map_err(anyhow::Error::msg)?;
    let server =
        TestServer::with(|it| it.program(program).domain(DOMAIN).arg("--visitor-exempt").arg("127.0.0.1/32"))
            .await;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let mut round = Round::new();
        for publisher in Publisher::ALL {
            tell(&format!("round {number} of {}: {}", options.rounds, publisher.name()));
            let measured = [(WEB, stage.web_port, &OF_WEB[..]), (BULK, stage.bulk_port(), &OF_BULK)];
            for (host, upstream, measures) in measured {
                let mut peer = publisher.peer(&server, host, upstream).await?;
                for measure in measures {
                    let values = measure.take(&mut peer, &stage, options.seconds).await?;
                    round.extend(values.into_iter().map(|(figure, value)| ((figure, publisher), value)));
                }
                drop(peer);
                let gone = async {
                    while probe::answers(server.http_address().port(), host).await {
                        sleep(probe::LOOK).await;
                    }
                };
                timeout(PATIENCE, gone).await.context("a publisher was ended and is still there")?;
            }
        }
        rounds.push(round);
    }
    Ok(rounds)
}

/// Medians, and the agent's divided by those of ssh within each round.
fn table(rounds: &[Round]) -> String {
    let mut figures: Vec<_> = rounds.iter().flat_map(|round| round.keys().map(|key| key.0)).collect();
    figures.sort();
    figures.dedup();
    let value =
        |figure, publisher| rounds.iter().filter_map(move |round| round.get(&(figure, publisher)).copied());
    let ratio = |figure, publisher| {
        Spread::of(rounds.iter().filter_map(|round| {
            let ssh = round.get(&(figure, Publisher::Ssh)).filter(|ssh| **ssh > 0.0)?;
            Some(round.get(&(figure, publisher))? / ssh)
        }))
    };
    let mut text = format!("{:50}", "of the publisher, where it is CPU or memory");
    Publisher::ALL.iter().for_each(|it| text += &format!("{:>27}", it.name()));
    text.push('\n');
    for figure in figures {
        text += &format!("{:50}", figure.label());
        for publisher in Publisher::ALL {
            let median = Spread::of(value(figure, publisher)).map(|it| number(it.median)).unwrap_or_default();
            let cell = match ratio(figure, publisher).filter(|_| publisher != Publisher::Ssh) {
                Some(Spread { median: ratio, lowest, highest }) => {
                    format!("{median} {ratio:.2} ({lowest:.2}-{highest:.2})")
                }
                None => median,
            };
            text += &format!("{cell:>27}");
        }
        text.push('\n');
    }
    text + "\nBehind each median: it divided by that of ssh, within a round, with the lowest and the highest."
}
