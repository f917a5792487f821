//! `cargo dev bench`: hithed beside what one would use in its place, on the same work in one run.
//!
//! A run has rounds; each [starts](peers) every peer anew on a common [stage] and [measures](measure) it for a
//! short time. Machines are noisy, so what counts are the ratios within a round, and CPU for the work rather
//! than time. Whatever happens, every process that was started is ended.

mod facts;
mod figures;
mod measure;
mod peers;
mod process;
mod report;
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
Installs what it needs from Debian's packages, as `cargo dev setup --bench` does. sandhole is
measured where it is in PATH or named by SANDHOLE. What a machine does not have is left out, and
the report says so. The report goes to standard output, the progress to standard error. A full
run takes some six minutes and wants the machine for itself.

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

/// After this long no further round begins, so that a run ends on any machine.
const BUDGET: Duration = Duration::from_secs(15 * 60);

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    setup::run_for_bench();
    for program in ["nginx", "h2load", "ssh"] {
        ensure!(find_program(program).is_some(), "no {program}: nothing can be measured without it");
    }
    tell("building hithed --release");
    let built = crate::program::try_hithed_release().map_err(anyhow::Error::msg);
    let plan = Arc::new(Plan::new(options));
    if plan.peers.contains(&Kind::Hithed) {
        built?;
    }
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let run = runtime.block_on(async {
        tokio::select! {
            run = compare(&plan) => run,
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
async fn asked_to_end() {
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be awaited");
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be awaited");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

async fn compare(plan: &Arc<Plan>) -> anyhow::Result<Run> {
    let stage = Arc::new(Stage::set_up().await?);
    let mut run = Run::default();
    let peers = plan.present_peers(&mut run.left_out);
    let start = Instant::now();
    for number in 1..=plan.rounds {
        if start.elapsed() > BUDGET {
            run.left_out.push(format!("rounds {number} to {}: the time was over", plan.rounds));
            break;
        }
        let before = Machine::now();
        let mut round = Round::new();
        for peer in &peers {
            tell(&format!("round {number} of {}: {}", plan.rounds, peer.name()));
            let outcome = measure_one(*peer, &stage, plan).await;
            round.extend(outcome.values.into_iter().map(|(figure, value)| ((figure, *peer), value)));
            let failures = outcome.failures.iter().map(|why| format!("{}: {why}", peer.name()));
            run.left_out.extend(failures);
        }
        run.results.rounds.push(round);
        run.machine = run.machine + (Machine::now() - before);
    }
    Ok(run)
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
    fn new(options: &Options) -> Self {
        let chosen = |peer: &Kind| options.only.is_empty() || options.only.contains(peer);
        let wanted = |measure: &Measure| options.measure.is_empty() || options.measure.contains(measure);
        Self {
            peers: Kind::ALL.into_iter().filter(chosen).collect(),
            measures: Measure::ALL.iter().copied().filter(wanted).collect(),
            seconds: options.seconds,
            rounds: options.rounds,
        }
    }

    fn present_peers(&self, left_out: &mut Vec<String>) -> Vec<Kind> {
        let missing = self.peers.iter().filter_map(|peer| Some((peer, peer.missing()?)));
        for (peer, why) in missing {
            let line = format!("{}: {why}", peer.name());
            tell(&line);
            left_out.push(line);
        }
        self.peers.iter().copied().filter(|peer| peer.missing().is_none()).collect()
    }
}

/// The path of a program in PATH, or where Debian keeps daemons.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}
