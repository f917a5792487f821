//! `cargo dev soak`: publishers that come and go, visitors of all kinds, and what is left of it.
//!
//! A run has rounds. In each, publishers with stock ssh stand at their posts and are lost in every way there is, while
//! visitors come; then everybody leaves, and the server has to be as it was before. A visit is *owed* its answer if
//! its publisher was public and unharmed all the while; its failure is a fault. What is answered has to be right in
//! any case.

mod bystanders;
mod figures;
mod place;
mod publishers;
mod report;
mod stage;
mod tally;
mod upstream;
mod visits;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use fastrand::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::figures::{Figures, at_rest, memory_bound};
use self::place::Unrest;
use self::report::Course;
use self::stage::Stage;
use self::tally::Tally;
use super::tell;
use crate::TestServer;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Options {
    /// How long publishers and visitors come and go, warm-up included
    #[arg(long, default_value_t = 2, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// Repeats the random decisions of the run that printed it [default: another one each time]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Visitors at a time
    #[arg(long, default_value_t = 24, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    visitors: u64,
    /// Soak the server as tests build it, without optimisations, instead of a release build
    #[arg(long)]
    debug: bool,
}

const EXAMPLES: &str = "\
Sixteen publishers with stock ssh, of four accounts, serve thirteen places over http, https, tls and tcp,
in pools, with -N, under chosen and random names. They leave, are killed, stopped, cut off from the
network, paused, taken over and kicked, and come back. Visitors make requests over HTTP/1.1 and HTTP/2,
upload, listen to events, talk over WebSockets, tls and tcp, read slowly, leave in the middle and
guess passwords. Every byte is checked.

A visit is owed its answer if its publisher was public and unharmed all the while; if it fails, that is a
fault. Other failures are excused and counted. Wrong bytes, an answer of another place, an upload that
was answered and did not arrive, an end that looks orderly and is none, and whatever takes longer than
100 s are faults in any case. So is what remains when everybody has left: after a warm-up (a quarter of
the time, two minutes at most) and after each round of five minutes all publishers and visitors leave,
and within 60 s sessions, endpoints, descriptors, threads and spool files have to be as they were.
Memory at the end may be a quarter and 16 MiB more than after the warm-up.

A line of progress comes every 10 s on standard error, faults as they happen, and the report at the end on
standard output. The exit status is 0 if there was no fault. Ctrl-C ends the run with a report of what
there was. A seed repeats the decisions; what comes of them also depends on the machine.

Examples:
  cargo dev soak
  cargo dev soak --minutes 30
  cargo dev soak --minutes 5 --seed 17 --debug";

/// One round after the warm-up.
const ROUND: Duration = Duration::from_secs(5 * 60);
const LONGEST_WARM_UP: Duration = Duration::from_secs(2 * 60);
/// How long those who were there may take to leave: no visit is longer.
const TO_LEAVE: Duration = Duration::from_secs(150);
const PROGRESS: Duration = Duration::from_secs(10);

/// A run and what came of it so far, which Ctrl-C does not take away.
struct Soak {
    seed: u64,
    visitors: u64,
    course: Arc<Mutex<Course>>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    tell(&format!("building hithed{}", if options.debug { "" } else { " --release" }));
    let program =
        if options.debug { crate::program::try_hithed() } else { crate::program::try_hithed_release() };
    let program = program.map_err(anyhow::Error::msg)?;
    tell(&format!("seed {seed}"));
    // The harness fails by panicking; here a failure is counted, and told where it is a fault.
    std::panic::set_hook(Box::new(|_| {}));
    let soak = Soak { seed, visitors: options.visitors, course: Arc::default() };
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        let server = TestServer::with(|server| server.without_keys().program(program)).await;
        let stage = Arc::new(Stage::set_up(server, Tally::new(seed)).await);
        let ended = tokio::select! {
            () = soak.rounds(&stage, Duration::from_secs(60 * options.minutes)) => true,
            () = super::bench::asked_to_end() => false,
        };
        look_at_the_log(&stage);
        super::say(&report::write(&stage.tally, &soak.course()));
        let faults = stage.tally.with(|counts| counts.fault_count);
        if !ended {
            bail!("ended before the end of the run, with {faults} fault(s)");
        }
        ensure!(faults == 0, "{faults} fault(s), seed {seed}");
        Ok(())
    })
}

impl Soak {
    fn course(&self) -> Course {
        self.course.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, change: impl FnOnce(&mut Course)) {
        change(&mut self.course.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn rounds(&self, stage: &Arc<Stage>, whole: Duration) {
        let (start, wrong) = at_rest(stage, Figures::whatever()).await;
        wrong.iter().for_each(|wrong| stage.tally.fault("look", "server", wrong));
        self.note(|course| course.start = start);
        let warm_up = LONGEST_WARM_UP.min(whole / 4);
        let mut before = self.round(stage, 0, warm_up, start).await;
        let first = before.rss_kib;
        let mut left = whole.saturating_sub(warm_up);
        let mut number = 1;
        while !left.is_zero() {
            // A last round that would be short is added to the one before it.
            let length = if left < 2 * ROUND { left } else { ROUND };
            before = self.round(stage, number, length, before).await;
            left = left.saturating_sub(length);
            number += 1;
        }
        let bound = memory_bound(first);
        if before.rss_kib > bound {
            let why = format!("{} KiB, {first} KiB after the warm-up, {bound} KiB at most", before.rss_kib);
            stage.tally.fault("memory at the end", "server", &why);
        }
    }

    /// Everybody comes, stays so long and leaves. Gives the figures after that.
    async fn round(&self, stage: &Arc<Stage>, number: u64, length: Duration, before: Figures) -> Figures {
        tell(&format!("round {number}: {} s", length.as_secs()));
        let (end, over) = watch::channel(false);
        let mut everybody = self.everybody(stage, number, &over);
        let end_of_round = Instant::now() + length;
        while Instant::now() < end_of_round {
            self.watch(stage, end_of_round.min(Instant::now() + PROGRESS)).await;
        }
        end.send_replace(true);
        tell("everybody leaves");
        let mut unrest = Vec::new(); // until the last visitor has left
        let left = async {
            while let Some(one) = everybody.join_next().await {
                match one {
                    Ok(kept) => unrest.extend(kept),
                    Err(error) => stage.tally.fault("harness", "somebody", &error.to_string()),
                }
            }
        };
        if timeout(TO_LEAVE, left).await.is_err() {
            stage.tally.fault("leave", "somebody", &format!("is still there after {TO_LEAVE:?}"));
        }
        drop((everybody, unrest));
        // What a lazy start had not opened yet is there after the warm-up.
        let expected = if number == 0 { before.before_warm_up() } else { before };
        let (rest, wrong) = at_rest(stage, expected).await;
        wrong.iter().for_each(|wrong| stage.tally.fault("left behind", "server", wrong));
        self.note(|course| course.rests.push(rest));
        tell(&format!(
            "all left: {} KiB, {} descriptors, {} threads",
            rest.rss_kib, rest.files, rest.threads
        ));
        // All rounds are compared with the first one, so that what grows slowly shows.
        if number == 0 { rest } else { Figures { rss_kib: rest.rss_kib, ..before } }
    }

    /// All tasks of a round; each has random decisions of its own.
    fn everybody(
        &self,
        stage: &Arc<Stage>,
        round: u64,
        over: &watch::Receiver<bool>,
    ) -> JoinSet<Option<Unrest>> {
        let mut all = JoinSet::new();
        let mut decisions = Rng::with_seed(self.seed.wrapping_mul(1_000_003).wrapping_add(round));
        for post in &stage.posts {
            let (decisions, unrest) = (decisions.fork(), post.unrest()); // before the first visitor comes
            all.spawn(publishers::stand(stage.clone(), post.clone(), decisions, over.clone(), unrest));
        }
        for number in 0..self.visitors {
            let number = usize::try_from(number).unwrap_or_default();
            all.spawn(visits::come(stage.clone(), number, decisions.fork(), over.clone()));
        }
        all.spawn(bystanders::operate(stage.clone(), decisions.fork(), over.clone()));
        all.spawn(bystanders::intrude(stage.clone(), decisions.fork(), over.clone()));
        all
    }

    /// Looks at the server until then, and tells how things are.
    async fn watch(&self, stage: &Stage, until: Instant) {
        let mut now = Figures::now(stage);
        while Instant::now() < until {
            sleep(Duration::from_millis(500).min(until - Instant::now())).await;
            now = Figures::now(stage);
            self.note(|course| course.peak = course.peak.peak(now));
        }
        if let Ok(asked) = Figures::asked(stage).await {
            self.note(|course| course.peak = course.peak.peak(asked));
        }
        let counted = stage.tally.with(|counts| {
            let of = |prefix: &str| {
                let deeds = counts.deeds.iter().filter(move |(what, _)| what.starts_with(prefix));
                deeds.fold((0, 0, 0), |sum, (_, deed)| {
                    (sum.0 + deed.done, sum.1 + deed.owed, sum.2 + deed.excused)
                })
            };
            let (visits, publishers) = (of("visits"), of("publishers started"));
            format!(
                "{} visits right ({} owed), {} excused, {} publishers started, {} faults",
                visits.0, visits.1, visits.2, publishers.0, counts.fault_count
            )
        });
        tell(&format!(
            "{:5} s: {counted}; {} MiB, {} descriptors, {} threads, {} MiB in {} spool files",
            stage.tally.seconds(),
            now.rss_kib >> 10,
            now.files,
            now.threads,
            now.spool_bytes >> 20,
            now.spool_files
        ));
    }
}

/// What the server should never have to say.
fn look_at_the_log(stage: &Stage) {
    let log = stage.server.log();
    let bad = log.lines().filter(|line| line.contains("panicked") || line.contains(" ERROR "));
    for line in bad.take(20) {
        stage.tally.fault("log", "server", line);
    }
}
