//! `cargo dev bench`: hithed beside what one would use in its place, on the same work in one run.
//!
//! A run has rounds; each [starts](peers) every peer anew on a common [stage] and [measures](measure) it for a
//! short time. Machines are noisy, so what counts are the ratios within a round, and CPU for the work rather
//! than time. Whatever happens, every process that was started is ended.

pub(super) mod duel;
mod facts;
mod figures;
mod measure;
mod peers;
mod process;
mod report;
pub(super) mod siege;
mod stage;
mod usage;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::figures::{Results, Round};
use self::measure::{Measure, Outcome};
use self::peers::Kind;
use self::stage::Stage;
use self::usage::Machine;
use super::{setup, tell};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Options {
    /// How long each load runs
    #[arg(long, default_value_t = 2, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=30))]
    seconds: u64,
    /// How often every peer is measured; the tables show medians
    #[arg(long, default_value_t = 3, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=20))]
    rounds: u64,
    /// Measure only these peers; ratios need hithed among them
    #[arg(long, value_name = "PEER", value_delimiter = ',', value_enum)]
    only: Vec<Kind>,
    /// Take only these measures
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_enum)]
    measure: Vec<Measure>,
    /// Write the report to this file too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Installs nothing: what a machine does not have is left out, and the report says so and names the
Debian package. `cargo dev setup --bench` installs them all. sandhole is measured where it is in
PATH or named by SANDHOLE. The report goes to standard output, the progress to standard error. A
full run takes some six minutes and wants the machine for itself.

Examples:
  cargo dev bench
  cargo install --root target/peers sandhole
  SANDHOLE=target/peers/bin/sandhole cargo dev bench --out docs/benchmarks.md
  cargo dev bench --only hithed,nginx --measure http,https --rounds 1";

/// What a run is to do.
#[derive(Debug)]
struct Plan {
    peers: Vec<Kind>,
    measures: Vec<Measure>,
    seconds: u64,
    rounds: u64,
}

/// What it came to.
#[derive(Debug, Default)]
struct Run {
    results: Results,
    /// Peers and figures that are not there, and why.
    left_out: Vec<String>,
    /// What happened on the machine while rounds ran.
    machine: Machine,
}

/// After this long no further peer is measured, so that a run ends on any machine.
const BUDGET: Duration = Duration::from_secs(15 * 60);

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let missing = setup::missing_for_bench();
    if !missing.is_empty() {
        tell(&format!("missing: {} (`cargo dev setup --bench` installs them)", missing.join(" ")));
    }
    for (program, package) in [("nginx", "nginx"), ("ssh", "openssh-client")] {
        let there = find_program(program).is_some();
        ensure!(there, "no {program} (Debian: {package}): nothing can be measured without it");
    }
    let mut run = Run::default();
    let plan = Arc::new(Plan::new(options, &mut run.left_out));
    ensure!(!plan.peers.is_empty(), "nobody to measure: {}", run.left_out.join("; "));
    if plan.peers.contains(&Kind::Hithed) {
        tell("building hithed --release");
        crate::program::try_hithed_release().map_err(anyhow::Error::msg)?;
    }
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        tokio::select! {
            done = compare(&plan, &mut run) => done,
            () = asked_to_end() => bail!("ended before the end of the run"),
        }
    })?;
    let text = report::write(&plan, &run);
    super::say(&text);
    if let Some(file) = &options.out {
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let ours = run.left_out.iter().find(|line| line.starts_with(Kind::Hithed.name()));
    ours.map_or(Ok(()), |line| bail!("{line}"))
}

/// Dropping the run ends what it started; a signal would leave servers and folders behind.
pub(super) async fn asked_to_end() {
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be awaited");
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be awaited");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

async fn compare(plan: &Arc<Plan>, run: &mut Run) -> anyhow::Result<()> {
    let stage = Arc::new(Stage::set_up().await?);
    let end = Instant::now() + BUDGET;
    for number in 1..=plan.rounds {
        let before = Machine::now();
        let whole = one_round(number, &stage, plan, end, run).await;
        run.machine = run.machine + (Machine::now() - before);
        if !whole {
            break;
        }
    }
    Ok(())
}

/// Measures each peer once. Whether there was time for all of them.
async fn one_round(number: u64, stage: &Arc<Stage>, plan: &Arc<Plan>, end: Instant, run: &mut Run) -> bool {
    let mut round = Round::new();
    let mut whole = true;
    for peer in &plan.peers {
        let turn = format!("round {number} of {}: {}", plan.rounds, peer.name());
        whole = Instant::now() < end;
        if !whole {
            leave_out(&mut run.left_out, format!("{turn} and all after it: the time was over"));
            break;
        }
        tell(&turn);
        let outcome = measure_one(*peer, stage, plan).await;
        round.extend(outcome.values.into_iter().map(|(figure, value)| ((figure, *peer), value)));
        let failures = outcome.failures.iter().map(|why| format!("{}: {why}", peer.name()));
        failures.for_each(|line| note(&mut run.left_out, line));
    }
    if !round.is_empty() {
        run.results.rounds.push(round);
    }
    whole
}

/// Once, however many rounds it happens in.
fn note(left_out: &mut Vec<String>, line: String) {
    if !left_out.contains(&line) {
        left_out.push(line);
    }
}

fn leave_out(left_out: &mut Vec<String>, line: String) {
    tell(&line);
    note(left_out, line);
}

/// In a task of its own: the harness fails by panicking, and one peer's failure is not that of the others.
async fn measure_one(peer: Kind, stage: &Arc<Stage>, plan: &Arc<Plan>) -> Outcome {
    let mut task = JoinSet::new(); // unlike a handle, it takes the task with it
    let (stage, plan) = (Arc::clone(stage), Arc::clone(plan));
    task.spawn(async move { measure::all(peer, &stage, &plan).await });
    match task.join_next().await {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Outcome { failures: vec![error.to_string()], ..Outcome::default() },
        None => Outcome::default(),
    }
}

impl Plan {
    /// What the options ask for, without what this machine cannot do.
    fn new(options: &Options, left_out: &mut Vec<String>) -> Self {
        let chosen = |peer: &Kind| options.only.is_empty() || options.only.contains(peer);
        let wanted = |measure: &Measure| options.measure.is_empty() || options.measure.contains(measure);
        let mut plan = Self {
            peers: Kind::ALL.into_iter().filter(chosen).collect(),
            measures: Measure::ALL.iter().copied().filter(wanted).collect(),
            seconds: options.seconds,
            rounds: options.rounds,
        };
        plan.peers.retain(|peer| {
            let missing = peer.missing();
            missing.into_iter().for_each(|why| leave_out(left_out, format!("{}: {why}", peer.name())));
            missing.is_none()
        });
        if find_program("h2load").is_none() {
            leave_out(left_out, "all loads of requests: no h2load (Debian: nghttp2-client)".to_owned());
            plan.measures.retain(|measure| !measure.needs_h2load());
        }
        let http2 = plan.peers.contains(&Kind::Sandhole) && plan.measures.contains(&Measure::Http2);
        if http2 && find_program("haproxy").is_none() {
            leave_out(left_out, "sandhole: HTTP/2: no haproxy (Debian: haproxy)".to_owned());
        }
        plan
    }
}

/// The path of a program in PATH, or where Debian keeps daemons.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}
