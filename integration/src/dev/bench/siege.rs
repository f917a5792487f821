//! `cargo dev siege`: what visitors notice of an attack on the server, beside what they notice of one on nginx.
//!
//! Servers, publishers and the visitor who is measured have one processor, attackers have another, so that what is
//! measured is what an attack makes the server do. The visitor is measured before, during and after each attack; what
//! counts is the ratio within such a round, and the median of several.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::measure::{load, probe};
use super::peers::{Kind, Peer};
use super::stage::{Stage, WEB};
use super::{asked_to_end, find_program};
use crate::dev::{say, tell};
use crate::visitor::frames::{END_HEADERS, END_STREAM, HEADERS, RST_STREAM, block, frame};
use crate::{Child, Visitor};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::dev) struct Options {
    /// How long the visitor is measured each time
    #[arg(long, default_value_t = 3, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=30))]
    seconds: u64,
    /// Rounds of each attack; medians count
    #[arg(long, default_value_t = 5, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=20))]
    rounds: u64,
    /// The most by which the slowest hundredth of requests may be slower while hithed is attacked
    #[arg(long, default_value_t = 2.0, value_name = "RATIO")]
    bound: f64,
}

const EXAMPLES: &str = "\
The attacks are the four of slowhttptest (Debian: slowhttptest) with 1,000 connections each: heads, bodies
and ranges that take for ever, and answers that are read byte by byte; and requests over HTTP/2 that are
reset at once, as many as the server takes. The visitor makes one request after the other on a kept
connection (h2load). Servers, publisher, upstream and visitor run on the first processor, attackers on
the second. The visitor goes to the endpoint of another publisher than the attacked one, and then to the
attacked one, whose ssh has 1,000 channels to look after; nginx is there to tell what the machine does.
The exit status is 0 if no median ratio at the other publisher is above the bound. Wants the machine for
itself, and takes a quarter of an hour.

Examples:
  cargo dev siege
  cargo dev siege --rounds 3 --seconds 2";

/// Until an attack of slowhttptest stands: its 1,000 connections come at 500 a second.
const UNTIL_IT_STANDS: Duration = Duration::from_secs(4);
/// How much longer than it should a measurement may take.
const AT_MOST_LATE: Duration = Duration::from_secs(15);
/// Where the flood comes from: an address that is not exempt from limits, as that of the others is.
const FLOODER: [u8; 4] = [127, 0, 0, 9];
/// HTTP/2 connections of the flood.
const FLOODS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Attack {
    SlowHeads,
    SlowBodies,
    Ranges,
    SlowReaders,
    Resets,
}

impl Attack {
    const ALL: [Self; 5] = [Self::SlowHeads, Self::SlowBodies, Self::Ranges, Self::SlowReaders, Self::Resets];

    fn name(self) -> &'static str {
        match self {
            Self::SlowHeads => "slow heads (-H)",
            Self::SlowBodies => "slow bodies (-B)",
            Self::Ranges => "ranges (-R)",
            Self::SlowReaders => "slow readers (-X)",
            Self::Resets => "HTTP/2 resets",
        }
    }

    /// Of slowhttptest; none for the flood of resets.
    fn flags(self) -> Option<&'static [&'static str]> {
        match self {
            Self::SlowHeads => Some(&["-H", "-i", "5"]),
            Self::SlowBodies => Some(&["-B", "-i", "5", "-s", "8192"]),
            Self::Ranges => Some(&["-R", "-a", "10", "-b", "3000"]),
            Self::SlowReaders => Some(&["-X", "-w", "10", "-y", "100", "-n", "1", "-z", "5", "-k", "3"]),
            Self::Resets => None,
        }
    }
}

/// Median and slowest hundredth of requests, in microseconds.
type Latency = [f64; 2];

/// Where the visitor goes who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// To the endpoint that is attacked.
    Attacked,
    /// To the endpoint of another publisher of the same server.
    Another,
}

impl Goal {
    fn host(self) -> &'static str {
        match self {
            Self::Attacked => WEB,
            Self::Another => ANOTHER,
        }
    }
}

/// Who is attacked, and where the visitor goes.
const SCENES: [(Kind, Goal, &str); 3] = [
    (Kind::Hithed, Goal::Another, "hithed, another publisher"),
    (Kind::Hithed, Goal::Attacked, "hithed, same publisher"),
    (Kind::Nginx, Goal::Attacked, "nginx, no tunnel"),
];
const ANOTHER: &str = "another.tunnel.test";

/// What the rounds of one attack on one peer came to.
#[derive(Debug, Default)]
struct Outcome {
    alone: Vec<Latency>,
    attacked: Vec<Latency>,
    /// Of the slowest hundredth, within a round.
    ratios: Vec<f64>,
}

pub(in crate::dev) fn run(options: &Options) -> anyhow::Result<()> {
    for (program, package) in
        [("h2load", "nghttp2-client"), ("slowhttptest", "slowhttptest"), ("nginx", "nginx")]
    {
        ensure!(find_program(program).is_some(), "no {program} (Debian: {package}): nothing can be measured");
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(processors > 1, "servers and attackers need a processor each, and there is one in all");
    tell("building hithed --release");
    crate::program::try_hithed_release().map_err(anyhow::Error::msg)?;
    pin("0", &std::process::id().to_string())?; // whatever is started from here on inherits it
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    runtime.block_on(async {
        tokio::select! {
            done = besiege(options) => done,
            () = asked_to_end() => anyhow::bail!("ended before the end of the run"),
        }
    })
}

async fn besiege(options: &Options) -> anyhow::Result<()> {
    let stage = Stage::set_up().await?;
    let mut text = format!(
        "{:20}{:27}{:>17}{:>17}{:>17}{:>17}{:>8}   ratios of the rounds\n",
        "", "", "median alone µs", "attacked", "p99 alone µs", "attacked", "ratio"
    );
    let mut worst: f64 = 0.0;
    for attack in Attack::ALL {
        for (kind, goal, name) in SCENES {
            tell(&format!("{}: {name}", attack.name()));
            let mut outcome = Outcome::default();
            for _ in 0..options.rounds {
                if let Err(error) =
                    one_round((kind, goal), attack, &stage, options.seconds, &mut outcome).await
                {
                    tell(&format!("  {error:#}"));
                    outcome.ratios.push(f64::INFINITY);
                }
            }
            let ratio = median(&outcome.ratios);
            text += &row(attack, name, &outcome);
            if goal == Goal::Another {
                worst = worst.max(ratio);
            }
        }
    }
    say(&text);
    ensure!(
        worst <= options.bound,
        "the slowest hundredth is {worst:.2} times as slow, {} is the most",
        options.bound
    );
    Ok(())
}

/// Measures alone, attacked, and alone again; with a new server, which owes nothing to the last attack.
async fn one_round(
    (kind, goal): (Kind, Goal),
    attack: Attack,
    stage: &Stage,
    seconds: u64,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let mut peer = kind.start(stage).await?;
    peer.publish().await?;
    let _another = publish_another(&peer, stage, goal).await?;
    let measure = |seconds| measure(&peer, stage, goal, seconds);
    measure(1).await?; // the first answers of a server are slow
    let before = measure(seconds).await?;
    let attackers = Attackers::begin(attack, &peer, seconds).await?;
    let attacked = measure(seconds).await.with_context(|| format!("under {}", attack.name()))?;
    attackers.end().await;
    sleep(Duration::from_secs(1)).await; // until what they left is cleared away
    let after = measure(seconds).await?;
    let [_, attacked_tail] = attacked;
    outcome.ratios.push(attacked_tail / ((before[1] + after[1]) / 2.0));
    outcome.alone.extend([before, after]);
    outcome.attacked.push(attacked);
    Ok(())
}

/// A publisher beside the attacked one, if the visitor goes there.
async fn publish_another(peer: &Peer, stage: &Stage, goal: Goal) -> anyhow::Result<Option<Child>> {
    let Some(publisher) = peer.publisher.as_ref().filter(|_| goal == Goal::Another) else { return Ok(None) };
    let ssh = publisher.publish_with(&format!("{ANOTHER}:80:127.0.0.1:{}", stage.web_port), "http");
    let answered = async {
        while !probe::answers(peer.http, ANOTHER).await {
            sleep(probe::LOOK).await;
        }
    };
    timeout(AT_MOST_LATE, answered).await.context("the other publisher is not there")?;
    Ok(Some(ssh))
}

async fn measure(peer: &Peer, stage: &Stage, goal: Goal, seconds: u64) -> anyhow::Result<Latency> {
    let measured = load::latency(peer, stage, goal.host(), seconds);
    let values = timeout(Duration::from_secs(seconds) + AT_MOST_LATE, measured).await;
    let values = values.context("the visitor is not answered any more")??;
    let [(_, median), (_, tail)] = values.as_slice() else { anyhow::bail!("two figures are a latency") };
    Ok([*median, *tail])
}

/// Those who attack, on a processor of their own. They end when dropped.
enum Attackers {
    Program(tokio::process::Child),
    Flood { over: std::sync::Arc<std::sync::atomic::AtomicBool>, thread: std::thread::JoinHandle<()> },
}

impl Attackers {
    async fn begin(attack: Attack, peer: &Peer, seconds: u64) -> anyhow::Result<Self> {
        let Some(flags) = attack.flags() else {
            let begun = Self::flood(peer)?;
            sleep(Duration::from_secs(1)).await;
            return Ok(begun);
        };
        let length = (UNTIL_IT_STANDS.as_secs() + seconds + 10).to_string();
        let mut program = Command::new("taskset");
        program.args(["-c", "1", "slowhttptest"]).args(flags);
        program.args(["-c", "1000", "-r", "500", "-l", &length, "-p", "3", "-v", "0"]);
        // A proxy's requests have the whole URL, and so the name that nobody has to look up.
        program.args(["-d", &format!("127.0.0.1:{}", peer.http), "-u", &format!("http://{WEB}/")]);
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = program.spawn().context("cannot start slowhttptest")?;
        sleep(UNTIL_IT_STANDS).await;
        // It ends by itself when the server has closed all its connections: that is an attack too, of short life.
        if let Some(status) = child.try_wait().context("cannot look after slowhttptest")? {
            tell(&format!("  the attack had ended before it was measured ({status})"));
        }
        Ok(Self::Program(child))
    }

    fn flood(peer: &Peer) -> anyhow::Result<Self> {
        let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = std::sync::Arc::clone(&over);
        let address = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let https = peer.https.context("a peer with TLS")?;
        let from = std::net::IpAddr::from(FLOODER);
        let visitor = Visitor::of(address(peer.http), address(https)).insecure().from(from);
        let thread = std::thread::spawn(move || {
            let own = std::fs::read_link("/proc/thread-self").ok();
            let own = own.and_then(|path| path.file_name()?.to_str().map(str::to_owned));
            let pinned = own.is_some_and(|own| pin_one("1", &own).is_ok());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let (true, Ok(runtime)) = (pinned, runtime) {
                let floods = (0..FLOODS).map(|_| flood(&visitor, &told));
                runtime.block_on(futures_util::future::join_all(floods));
            }
        });
        Ok(Self::Flood { over, thread })
    }

    async fn end(self) {
        match self {
            Self::Program(mut child) => {
                let _ = child.kill().await; // fails only if it has ended already
            }
            Self::Flood { over, thread } => {
                over.store(true, std::sync::atomic::Ordering::Relaxed);
                let _ = tokio::task::spawn_blocking(|| thread.join()).await;
            }
        }
    }
}

/// Requests that are reset at once, on a new connection whenever the server has closed the last one.
async fn flood(visitor: &Visitor, over: &std::sync::atomic::AtomicBool) {
    use std::sync::atomic::Ordering::Relaxed;
    let head = block([(":method", "GET"), (":scheme", "https"), (":authority", WEB), (":path", "/")]);
    while !over.load(Relaxed) {
        let Ok(mut frames) = visitor.try_frames(WEB, &[]).await else {
            // It is turned away for a while, and comes again and again.
            sleep(Duration::from_millis(1)).await;
            continue;
        };
        for stream in (1..u32::MAX / 4).step_by(2) {
            let request = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head);
            let both = [request, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat();
            let written = timeout(Duration::from_secs(1), frames.write(&both));
            if over.load(Relaxed) || !matches!(written.await, Ok(Ok(()))) {
                break;
            }
        }
    }
}

/// Every thread of a process, and what they start.
fn pin(processor: &str, pid: &str) -> anyhow::Result<()> {
    taskset(&["-a", "-c", "-p", processor, pid])
}

/// One thread.
fn pin_one(processor: &str, thread: &str) -> anyhow::Result<()> {
    taskset(&["-c", "-p", processor, thread])
}

fn taskset(arguments: &[&str]) -> anyhow::Result<()> {
    let output = std::process::Command::new("taskset").args(arguments).stdin(Stdio::null()).output();
    let output = output.context("cannot start taskset of util-linux")?;
    ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn row(attack: Attack, name: &str, outcome: &Outcome) -> String {
    let of = |latencies: &[Latency], which: fn(&Latency) -> f64| {
        median(&latencies.iter().map(which).collect::<Vec<_>>())
    };
    let (middle, tail) = (|it: &Latency| it[0], |it: &Latency| it[1]);
    let ratios: Vec<_> = outcome.ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    format!(
        "{:20}{name:27}{:>16.0}{:>17.0}{:>16.0}{:>17.0}{:>8.2}   {}\n",
        attack.name(),
        of(&outcome.alone, middle),
        of(&outcome.attacked, middle),
        of(&outcome.alone, tail),
        of(&outcome.attacked, tail),
        median(&outcome.ratios),
        ratios.join(" ")
    )
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY)
}
