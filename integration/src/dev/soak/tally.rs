//! What came of everything that was done, and each fault with its time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::dev::tell;

/// Faults that are kept for the report; all are counted.
const KEPT: usize = 200;
/// Different reasons for excused failures that are kept.
const REASONS: usize = 200;

/// Counts of a whole run.
#[derive(Debug)]
pub(super) struct Tally {
    began: Instant,
    seed: u64,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By what was done: visits by their kind, publishers by their end.
    pub(super) deeds: BTreeMap<&'static str, Deed>,
    /// Why visits failed that were not owed an answer.
    pub(super) excused: BTreeMap<String, u64>,
    pub(super) faults: Vec<String>,
    pub(super) fault_count: u64,
    /// Posts whose names and ports belong to their account from now on.
    pub(super) met: BTreeSet<usize>,
    /// How long publishers took to be public, in milliseconds.
    pub(super) published: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deed {
    /// With the right outcome.
    pub(super) done: u64,
    /// Those of them, or of the faults, where nothing would have excused a failure.
    pub(super) owed: u64,
    /// Failures while a publisher was being harmed.
    pub(super) excused: u64,
    pub(super) faults: u64,
}

impl Tally {
    pub(super) fn new(seed: u64) -> Self {
        Self { began: Instant::now(), seed, counts: Mutex::default() }
    }

    pub(super) fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Something that is only counted.
    pub(super) fn count(&self, what: &'static str) {
        self.with(|counts| counts.deeds.entry(what).or_default().done += 1);
    }

    pub(super) fn done(&self, what: &'static str, owed: bool) {
        self.with(|counts| {
            let deed = counts.deeds.entry(what).or_default();
            deed.done += 1;
            deed.owed += u64::from(owed);
        });
    }

    pub(super) fn excused(&self, what: &'static str, why: &str) {
        self.with(|counts| {
            counts.deeds.entry(what).or_default().excused += 1;
            let why = class(why);
            if counts.excused.len() < REASONS || counts.excused.contains_key(&why) {
                *counts.excused.entry(why).or_default() += 1;
            }
        });
    }

    /// Something that must not happen; told at once.
    pub(super) fn fault(&self, what: &'static str, who: &str, why: &str) {
        let at = self.began.elapsed().as_secs_f64();
        let line = format!("fault at {at:.1} s, seed {}, {who}: {what}: {why}", self.seed);
        tell(&line);
        self.with(|counts| {
            let deed = counts.deeds.entry(what).or_default();
            deed.faults += 1;
            deed.owed += 1;
            counts.fault_count += 1;
            if counts.faults.len() < KEPT {
                counts.faults.push(line);
            }
        });
    }

    /// The publisher at this post is public.
    pub(super) fn published(&self, post: usize, milliseconds: u64) {
        self.with(|counts| {
            counts.met.insert(post);
            counts.published.push(milliseconds);
        });
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Counts) -> T) -> T {
        look(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The same for failures that differ in numbers alone.
fn class(why: &str) -> String {
    let line = why.lines().next().unwrap_or_default();
    let mut class = String::new();
    for letter in line.chars().take(100) {
        match letter {
            '0'..='9' if class.ends_with('#') => {}
            '0'..='9' if !class.ends_with("ERR_HITHE_") && !in_code(&class) => class.push('#'),
            _ => class.push(letter),
        }
    }
    class
}

fn in_code(text: &str) -> bool {
    text.trim_end_matches(|letter: char| letter.is_ascii_digit()).ends_with("ERR_HITHE_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_differ_in_numbers_alone_are_one_class() {
        assert_eq!(class("task 17 ended after 204 bytes\nmore"), "task # ended after # bytes");
        assert_eq!(class("404 ERR_HITHE_3200"), "# ERR_HITHE_3200");
    }
}
