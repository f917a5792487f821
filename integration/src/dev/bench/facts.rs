//! Which machine and which programs: what makes figures worth reading later.

use std::path::Path;
use std::process::Command;

use super::find_program;
use super::peers::Kind;

/// One line for each fact.
pub(super) fn machine() -> Vec<String> {
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kib: f64 = memory.trim_end_matches(" kB").parse().unwrap_or(0.0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let system = read("/etc/os-release");
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    vec![
        format!("{cpu}, {cores} cores, {:.0} GiB memory", kib / f64::from(1 << 20)),
        format!("{}, kernel {}", system.trim_matches('"'), kernel_version(&kernel)),
    ]
}

/// Without what a builder appends, which may name the machine's owner.
fn kernel_version(release: &str) -> &str {
    release.trim().split('-').next().unwrap_or_default()
}

/// Of every program that took part.
pub(super) fn versions(peers: &[Kind]) -> Vec<String> {
    let mut versions: Vec<_> = peers.iter().filter_map(|peer| peer.version()).collect();
    let tools = [("ssh", "-V"), ("nginx", "-v"), ("haproxy", "-v"), ("h2load", "--version")];
    let tools = tools.iter().filter_map(|(name, flag)| first_line(&find_program(name)?, flag));
    versions.extend(tools.map(|line| line.replace("nginx version: ", "")));
    versions
}

/// With the commit, since its version stays the same for long.
pub(super) fn hithed() -> Option<String> {
    let version = first_line(crate::program::try_hithed_release().ok()?, "--version")?;
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--exclude=*"]).current_dir(crate::dev::root());
    let commit = git.output().ok().filter(|output| output.status.success());
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    Some(commit.map_or(version.clone(), |commit| format!("{version} (commit {commit})")))
}

/// What a program says first of its version, on whichever output.
pub(super) fn first_line(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    said.lines().next().map(|line| line.trim().to_owned())
}

/// The day on which this runs.
pub(super) fn day() -> String {
    first_line(Path::new("/bin/date"), "+%F").unwrap_or_default()
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = read(file);
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start().strip_prefix(':')?.trim().to_owned())
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}
