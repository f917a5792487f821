//! The report of a run, as text.

use std::fmt::Write;

use super::figures::{Figures, memory_bound};
use super::tally::Tally;

/// What was seen of the server, from its start to the last rest.
#[derive(Clone, Debug, Default)]
pub(super) struct Course {
    pub(super) start: Figures,
    pub(super) peak: Figures,
    /// When everybody had left, after each round; the first is what the last is compared with.
    pub(super) rests: Vec<Figures>,
}

pub(super) fn write(tally: &Tally, course: &Course) -> String {
    tally.with(|counts| {
        let mut text = String::from("\n");
        let _ = writeln!(text, "{:44}{:>9}{:>9}{:>9}{:>8}", "", "right", "owed", "excused", "faults");
        for (what, deed) in &counts.deeds {
            let _ = writeln!(
                text,
                "{what:44}{:>9}{:>9}{:>9}{:>8}",
                deed.done, deed.owed, deed.excused, deed.faults
            );
        }
        text.push_str("\nFailures while a publisher was being harmed:\n");
        let mut excused: Vec<_> = counts.excused.iter().collect();
        excused.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (why, count) in excused.into_iter().take(25) {
            let _ = writeln!(text, "{count:8}  {why}");
        }
        counts.published.sort_unstable();
        let at = |part: usize| {
            let last = counts.published.len().saturating_sub(1);
            counts.published.get(last * part / 100).copied().unwrap_or_default()
        };
        let _ = writeln!(
            text,
            "\nFrom the start of ssh to being public, in ms: median {}, 99 of 100 {}, longest {}",
            at(50),
            at(99),
            at(100)
        );
        text.push_str(&table(course));
        let _ = writeln!(text, "\n{} fault(s)", counts.fault_count);
        counts.faults.iter().for_each(|fault| {
            let _ = writeln!(text, "{fault}");
        });
        text
    })
}

fn table(course: &Course) -> String {
    let mut text = format!(
        "\n{:24}{:>10}{:>13}{:>9}{:>13}{:>11}{:>10}{:>11}\n",
        "server", "RSS MiB", "descriptors", "threads", "spool files", "spool MiB", "sessions", "endpoints"
    );
    let mut row = |name: &str, it: Figures| {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let _ = writeln!(
            text,
            "{name:24}{:>10.1}{:>13}{:>9}{:>13}{:>11.1}{:>10}{:>11}",
            mib(it.rss_kib << 10),
            it.files,
            it.threads,
            it.spool_files,
            mib(it.spool_bytes),
            it.sessions,
            it.endpoints
        );
    };
    row("start", course.start);
    row("peak", course.peak);
    for (number, rest) in course.rests.iter().enumerate() {
        row(
            &if number == 0 { "all left, warm-up".to_owned() } else { format!("all left, round {number}") },
            *rest,
        );
    }
    if let Some(first) = course.rests.first() {
        let bound = memory_bound(first.rss_kib) as f64 / 1024.0;
        let _ = writeln!(
            text,
            "bound for RSS at the end: {bound:.1} MiB (a quarter more than after the warm-up, and 16 MiB)"
        );
    }
    text
}
