//! What processes and the machine have used: CPU time and memory, from /proc.

use std::fs::read_to_string;
use std::io::ErrorKind;
use std::iter::Sum;
use std::ops::{Add, Sub};
use std::time::Duration;

/// The unit of times in /proc, which Linux keeps at 100 a second whatever it counts in itself.
const TICK: Duration = Duration::from_millis(10);

/// These processes and all that they have started, as far as they live.
pub(super) fn family(roots: &[u32]) -> Vec<u32> {
    let parents: Vec<_> = live().filter_map(|pid| Some((pid, stat_field(pid, 4)?))).collect();
    let mut family = roots.to_vec();
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        let children = parents.iter().filter(|(_, of)| *of == u64::from(parent)).map(|(pid, _)| *pid);
        family.extend(children);
        at += 1;
    }
    family
}

fn live() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// CPU time of these processes and all below them.
///
/// The scheduler's own count is exact but forgets threads that have ended; the process's remembers them in
/// steps of 10 ms. The greater one is nearer to the truth.
pub(super) fn cpu(roots: &[u32]) -> Duration {
    let of_process = |pid: u32| {
        let exact: u64 = tasks(pid, "schedstat").filter_map(|line| numbers(&line).next()).sum();
        let coarse = ticks(pid, 14) + ticks(pid, 15);
        Duration::from_nanos(exact).max(coarse)
    };
    family(roots).into_iter().map(of_process).sum()
}

/// Memory of a family of processes, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// Resident, with a page that several share counted in parts.
    pub(super) resident: f64,
    /// Written to and shared with nobody: what more work costs.
    pub(super) private: f64,
}

impl Memory {
    /// `None` if the kernel does not tell us: another user's process, or one that hides its memory.
    pub(super) fn of(roots: &[u32]) -> Option<Self> {
        family(roots).into_iter().map(Self::of_process).sum()
    }

    fn of_process(pid: u32) -> Option<Self> {
        let rollup = match read_to_string(format!("/proc/{pid}/smaps_rollup")) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return None,
            read => read.unwrap_or_default(), // one that has just ended has no memory
        };
        let field = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse().unwrap_or(0.0)
        };
        Some(Self { resident: field("Pss:"), private: field("Private_Dirty:") })
    }
}

impl Sum for Memory {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |all, part| Self {
            resident: all.resident + part.resident,
            private: all.private + part.private,
        })
    }
}

/// What the whole machine has done, and which part of it was this program with all that it started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Machine {
    all: Duration,
    idle: Duration,
    stolen: Duration,
    ours: Duration,
}

impl Machine {
    pub(super) fn now() -> Self {
        let stat = read_to_string("/proc/stat").unwrap_or_default();
        let columns: Vec<Duration> =
            numbers(stat.lines().next().unwrap_or_default()).map(from_ticks).take(8).collect();
        let column = |at: usize| columns.get(at).copied().unwrap_or_default();
        let own = std::process::id();
        // 16 and 17: of children that have ended.
        let ended: Duration = family(&[own]).into_iter().map(|pid| ticks(pid, 16) + ticks(pid, 17)).sum();
        Self {
            all: columns.iter().sum(),
            idle: column(3) + column(4),
            stolen: column(7),
            ours: cpu(&[own]) + ended,
        }
    }

    /// The part of the time that went to other programs and to other machines of the same host, in percent.
    pub(super) fn disturbance(self) -> (f64, f64) {
        let busy = self.all.saturating_sub(self.idle).saturating_sub(self.stolen);
        let percent = |part: Duration| 100.0 * part.as_secs_f64() / self.all.as_secs_f64().max(0.01);
        (percent(busy.saturating_sub(self.ours)), percent(self.stolen))
    }
}

impl Sub for Machine {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            all: self.all.saturating_sub(before.all),
            idle: self.idle.saturating_sub(before.idle),
            stolen: self.stolen.saturating_sub(before.stolen),
            ours: self.ours.saturating_sub(before.ours),
        }
    }
}

impl Add for Machine {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            all: self.all + more.all,
            idle: self.idle + more.idle,
            stolen: self.stolen + more.stolen,
            ours: self.ours + more.ours,
        }
    }
}

/// A field of /proc/PID/stat by its number in proc(5).
pub(super) fn stat_field(pid: u32, number: usize) -> Option<u64> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, in which anything may stand.
    let (_, behind_name) = stat.rsplit_once(") ")?;
    behind_name.split(' ').nth(number.checked_sub(3)?)?.parse().ok()
}

fn ticks(pid: u32, field: usize) -> Duration {
    from_ticks(stat_field(pid, field).unwrap_or(0))
}

fn from_ticks(count: u64) -> Duration {
    TICK * u32::try_from(count).unwrap_or(u32::MAX)
}

/// This file of each thread of a process that still runs.
fn tasks(pid: u32, file: &'static str) -> impl Iterator<Item = String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(move |task| read_to_string(task.path().join(file)).ok())
}

fn numbers(line: &str) -> impl Iterator<Item = u64> {
    line.split_whitespace().filter_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_of_a_process_has_its_children() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let family = family(&[std::process::id()]);
        let found = family.contains(&child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }

    #[test]
    fn this_process_has_used_cpu_and_memory() {
        let own = [std::process::id()];
        let memory = Memory::of(&own).unwrap();
        assert!(cpu(&own) > Duration::ZERO);
        assert!(memory.private > 0.0 && memory.resident > memory.private);
    }
}
