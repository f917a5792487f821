//! The report of a run as Markdown: method, machine, ratios, figures. `docs/benchmarks.md` is one.

use std::fmt::Write;

use super::figures::{Figure, Results, Spread};
use super::peers::Kind;
use super::{Plan, Run, facts};

pub(super) fn write(plan: &Plan, run: &Run) -> String {
    let peers = run.results.peers();
    let mut text = format!(
        "<!-- Written by `cargo dev bench --out docs/benchmarks.md`; do not edit. -->\n\n# Benchmarks\n\n\
         {INTRODUCTION}\n\n## Method\n\n{METHOD}\n\n\
         This run: `{}` on {}.\n",
        command(plan),
        facts::day()
    );
    let (others, stolen) = run.machine.disturbance();
    let _ = writeln!(
        text,
        "Other programs had {others:.1} % of the machine's time meanwhile, other machines of its host {stolen:.1} %."
    );
    text.push_str("\n## Machine and versions\n\n");
    text.extend(facts::machine().into_iter().map(|line| format!("- {line}\n")));
    text.extend(facts::versions(&peers).into_iter().map(|line| format!("- {line}\n")));
    let rivals: Vec<_> = peers.iter().copied().filter(|peer| *peer != Kind::Hithed).collect();
    if peers.contains(&Kind::Hithed) && !rivals.is_empty() {
        let _ = write!(text, "\n## Ratios: hithed / peer\n\n{RATIOS}\n\n");
        text.push_str(&table(&run.results, &rivals, ratio));
    }
    let _ = write!(text, "\n## Figures\n\nMedians of {} round(s).\n\n", run.results.rounds.len());
    text.push_str(&table(&run.results, &peers, |results, figure, peer| {
        results.value(figure, peer).map(|value| number(value.median))
    }));
    if !run.left_out.is_empty() {
        text.push_str("\n## Left out\n\n");
        text.extend(run.left_out.iter().map(|line| format!("- {line}\n")));
    }
    text
}

const INTRODUCTION: &str = "\
What hithed costs beside what one would use in its place: [sandhole](https://codeberg.org/sandhole/sandhole) (another
reverse tunnel server for stock ssh), OpenSSH's own `sshd` with `-R`, the same behind nginx, and nginx alone in front of
the upstream, which is no tunnel and therefore the limit. Machines differ and are noisy: compare within a run, and CPU
for the work rather than time.";

const METHOD: &str = "\
All programs run on one machine over loopback. Each round starts every server anew and takes all figures of one peer
before the next peer's turn. hithed is the release build of this tree. The publisher is the machine's stock `ssh -N -R`
with its defaults, so client and server agree on a cipher by themselves; the upstream is one nginx worker that answers
with 1 KiB. Requests come from `h2load` with one thread. For bulk, eight connections carry bytes without end, counted
where they arrive, in a window that begins half a second after they start. All who end TLS have the same P-256
certificate.

CPU is the server's alone, with all its processes (of both for sshd + nginx), from the scheduler's count. Load tool,
upstream, ssh and server share the cores, so rates tell of all of them together; CPU for the work tells of the server.
Private dirty memory is what a fresh server writes to for 50 tunnels, each an ssh of its own, or for 200 visitors who
made one HTTPS request and stay. Resident memory counts shared pages in parts. The time to the first answer is the
median of five publishers, one after the other.

hithed runs with its defaults, sandhole without its log of requests, which costs it CPU. sandhole takes HTTP/2 only to
an upstream that speaks it: it gets haproxy in front of the same nginx. sshd passes TCP on and reads no HTTP.";

const RATIOS: &str = "\
hithed's figure divided by the peer's, within each round: the median and, in brackets, the lowest and the highest.
**Bold** where hithed is at least as good: at 1 or above for rates, at 1 or below for all else.";

/// The command that does the same again.
fn command(plan: &Plan) -> String {
    let mut command = format!("cargo dev bench --seconds {} --rounds {}", plan.seconds, plan.rounds);
    let names = |all: Vec<String>| all.join(",");
    if plan.peers.len() < Kind::ALL.len() {
        command += &format!(" --only {}", names(plan.peers.iter().map(value_name).collect()));
    }
    if plan.measures.len() < super::Measure::ALL.len() {
        command += &format!(" --measure {}", names(plan.measures.iter().map(value_name).collect()));
    }
    command
}

/// What one types for it.
pub(super) fn value_name(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn table(
    results: &Results,
    peers: &[Kind],
    cell: impl Fn(&Results, Figure, Kind) -> Option<String>,
) -> String {
    let names: Vec<_> = peers.iter().map(|peer| peer.name()).collect();
    let mut table = format!("| | {} |\n|---|{}\n", names.join(" | "), "---:|".repeat(peers.len()));
    for figure in results.figures() {
        let cells = peers.iter().map(|peer| cell(results, figure, *peer));
        let cells: Vec<_> = cells.map(|cell| cell.unwrap_or_else(|| "–".to_owned())).collect();
        if cells.iter().any(|cell| cell != "–") {
            let _ = writeln!(table, "| {} | {} |", figure.label(), cells.join(" | "));
        }
    }
    table
}

fn ratio(results: &Results, figure: Figure, peer: Kind) -> Option<String> {
    let Spread { median, lowest, highest } = results.ratio(figure, peer)?;
    let shown = number(median);
    // Judged as it is shown.
    let rounded: f64 = shown.parse().unwrap_or(median);
    let good = if figure.more_is_better() { rounded >= 1.0 } else { rounded <= 1.0 };
    let shown = if good { format!("**{shown}**") } else { shown };
    let range = (results.rounds.len() > 1).then(|| format!(" ({}–{})", number(lowest), number(highest)));
    Some(shown + &range.unwrap_or_default())
}

/// Three digits are more than a machine's noise leaves true.
pub(super) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::super::figures::Round;
    use super::*;

    fn results(ours: f64, theirs: f64) -> Results {
        let key = |peer| (Figure::HttpCpu, peer);
        let round = Round::from([(key(Kind::Hithed), ours), (key(Kind::Sshd), theirs)]);
        Results { rounds: vec![round.clone(), round] }
    }

    #[test]
    fn a_ratio_is_bold_where_hithed_is_as_good() {
        let shown = |ours, theirs| ratio(&results(ours, theirs), Figure::HttpCpu, Kind::Sshd).unwrap();
        assert_eq!(shown(1.0, 2.0), "**0.50** (0.50–0.50)");
        assert_eq!(shown(1.001, 1.0), "**1.00** (1.00–1.00)");
        assert_eq!(shown(30.0, 2.0), "15.0 (15.0–15.0)");
    }

    #[test]
    fn a_table_leaves_out_rows_without_a_value() {
        let all = table(&results(1.0, 2.0), &[Kind::Nginx], ratio);
        assert_eq!(all.lines().count(), 2);
        let all = table(&results(1.0, 2.0), &[Kind::Nginx, Kind::Sshd], ratio);
        assert!(all.contains("| – | **0.50** (0.50–0.50) |"), "{all}");
    }
}
