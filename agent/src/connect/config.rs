//! What ssh_config says of a host: which lines hold (`Host`, `Match`, `Include`), and what they say. ssh stops at a line that
//! it cannot read; here it costs that line and no other.

mod words;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use glob::Pattern;
use hithe_cli_parser::printable;
use wildmatch::WildMatch;

pub(super) use self::words::{expand, expand_all};
use self::words::{is_blank, split, time};
use super::ConnectError;
use super::modes::can_be_changed;

/// Bytes of one file, which people write by hand.
const MAX_FILE: u64 = 1024 * 1024;
/// `Include` in included files, as OpenSSH.
const MAX_DEPTH: usize = 16;
/// Files altogether, and those that one keyword may name.
const MAX_FILES: usize = 256;
/// Nobody reads more.
const MAX_WARNINGS: usize = 20;

/// The keywords that count here, beside those whose value is the rest of the line. Others are not read, so they may say
/// what they like.
const KEYWORDS: &[&str] = &[
    "certificatefile",
    "connecttimeout",
    "globalknownhostsfile",
    "hashknownhosts",
    "hostkeyalias",
    "hostname",
    "identitiesonly",
    "identityagent",
    "identityfile",
    "port",
    "stricthostkeychecking",
    "user",
    "userknownhostsfile",
];
/// Of them, those that take several words.
const LISTS: &[&str] = &["globalknownhostsfile", "userknownhostsfile"];

/// Keywords that would protect or lead another way and are not heeded, which a person should know, with what they may say
/// without meaning anything here.
const UNHEEDED: &[(&str, &[&str])] = &[
    ("addressfamily", &["any"]),
    ("batchmode", &["no"]),
    ("bindaddress", &[]),
    ("bindinterface", &[]),
    ("canonicalizehostname", &["no"]),
    ("casignaturealgorithms", &[]),
    ("ciphers", &[]),
    ("hostkeyalgorithms", &[]),
    ("kexalgorithms", &[]),
    ("knownhostscommand", &["none"]),
    ("macs", &[]),
    ("numberofpasswordprompts", &["3"]),
    ("passwordauthentication", &["yes"]),
    ("pkcs11provider", &["none"]),
    ("preferredauthentications", &[]),
    ("proxyusefdpass", &["no"]),
    ("pubkeyacceptedalgorithms", &[]),
    ("pubkeyacceptedkeytypes", &[]),
    ("pubkeyauthentication", &["yes"]),
    ("requiredrsasize", &[]),
    ("revokedhostkeys", &["none"]),
    ("verifyhostkeydns", &["no"]),
];

/// A file that is read because it is there, and not because another one includes it.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) kind: SourceKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceKind {
    /// `~/.ssh/config`.
    Users,
    /// Whoever names a file answers for its mode.
    Named,
    /// `/etc/ssh/ssh_config`.
    System,
}

/// What the files say of one host.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// By keyword in lower case.
    options: HashMap<String, Vec<String>>,
    pub(super) port: Option<u16>,
    /// 0 is ssh's word for no limit of its own.
    pub(super) connect_timeout: Option<Duration>,
    /// The hosts of `ProxyJump`; an empty list for `none`.
    pub(super) jumps: Option<Vec<String>>,
    /// `ProxyCommand` as it stands there, if no `ProxyJump` comes before it.
    pub(super) proxy_command: Option<String>,
    /// All that `IdentityFile` names, `none` included.
    pub(super) identities: Vec<String>,
    /// All that `CertificateFile` names.
    pub(super) certificates: Vec<String>,
    /// Of [`UNHEEDED`], as it stands there.
    unheeded: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Said {
    /// Reads the files in order; of each option the first word holds.
    ///
    /// # Errors
    /// Others than the user could have written one.
    pub(super) fn of(host: &str, sources: &[Source], home: Option<&Path>) -> Result<Self, ConnectError> {
        let said = Self::default();
        let mut reader = Reader { host, home, beside: None, said, open: Vec::new(), files: 0 };
        for source in sources {
            let is_system = source.kind == SourceKind::System;
            reader.beside = source.path.parent().filter(|_| is_system);
            reader.file(&source.path, true, source.kind == SourceKind::Users)?;
        }
        let mut said = reader.said;
        if !said.unheeded.is_empty() {
            said.warnings.push(format!("ssh_config: not heeded: {}", said.unheeded.join(", ")));
        }
        Ok(said)
    }

    /// The host that is meant by what was typed.
    pub(super) fn host_name(&self, typed: &str) -> String {
        self.word("HostName").map_or_else(|| typed.to_owned(), |name| expand(name, &[('h', typed)]))
    }

    pub(super) fn words(&self, keyword: &str) -> Option<&[String]> {
        self.options.get(&keyword.to_ascii_lowercase()).map(Vec::as_slice)
    }

    pub(super) fn word(&self, keyword: &str) -> Option<&str> {
        self.words(keyword)?.first().map(String::as_str)
    }

    pub(super) fn is_yes(&self, keyword: &str) -> bool {
        self.word(keyword)
            .is_some_and(|word| word.eq_ignore_ascii_case("yes") || word.eq_ignore_ascii_case("true"))
    }
}

struct Reader<'a> {
    /// As it was typed.
    host: &'a str,
    home: Option<&'a Path>,
    /// The folder of the system's file, while that one is read.
    beside: Option<&'a Path>,
    said: Said,
    /// The files that include this one.
    open: Vec<PathBuf>,
    files: usize,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, may_be_missing: bool, is_checked: bool) -> Result<(), ConnectError> {
        if self.files >= MAX_FILES
            || self.open.len() >= MAX_DEPTH
            || self.open.iter().any(|open| open == path)
        {
            self.warn(path, "not read: files include one another, or too many");
            return Ok(());
        }
        self.files += 1;
        let text = match read(path, is_checked) {
            Ok(text) => text,
            Err(Unread::Exposed(error)) => return Err(error),
            Err(Unread::Io(error)) => {
                if !may_be_missing || error.kind() != io::ErrorKind::NotFound {
                    self.warn(path, &format!("not read: {error}"));
                }
                return Ok(());
            }
        };
        self.open.push(path.to_owned());
        let mut holds = true;
        for (number, line) in text.lines().enumerate() {
            let place = PathBuf::from(format!("{}:{}", path.display(), number + 1));
            holds = self.line(&place, line.trim(), holds)?;
        }
        self.open.pop();
        Ok(())
    }

    /// Reads one line, and says whether the next one holds.
    fn line(&mut self, place: &Path, line: &str, holds: bool) -> Result<bool, ConnectError> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(holds);
        }
        let (typed, rest) = line.split_at(line.find(|c| is_blank(c) || c == '=').unwrap_or(line.len()));
        let keyword = typed.to_ascii_lowercase();
        let rest = rest.trim_start();
        match keyword.as_str() {
            "proxycommand" | "proxyjump" => {
                if holds {
                    self.way(&keyword, rest.trim_start_matches(|c| is_blank(c) || c == '='));
                }
                return Ok(holds);
            }
            _ => {}
        }
        let Some(words) = split(rest.strip_prefix('=').unwrap_or(rest)) else {
            // Of a keyword that means nothing here the value may be a secret.
            self.leave_out(place, typed, "a quote is not closed");
            return Ok(holds && !matches!(keyword.as_str(), "host" | "match"));
        };
        match keyword.as_str() {
            "host" => return Ok(is_one_of(self.host, words.iter().map(String::as_str))),
            "match" => return Ok(self.matches(place, &words)),
            _ if !holds => {}
            "include" => self.include(place, &words)?,
            known if KEYWORDS.contains(&known) => self.option(place, typed, words),
            _ => self.unheeded(&keyword, typed, words.first().map_or("", String::as_str)),
        }
        Ok(holds)
    }

    fn option(&mut self, place: &Path, typed: &str, words: Vec<String>) {
        let keyword = typed.to_ascii_lowercase();
        let line = format!("{typed} {}", words.join(" "));
        let word = match words.as_slice() {
            words if words.iter().all(String::is_empty) => {
                return self.leave_out(place, typed, "nothing stands behind it");
            }
            [_, _, ..] if !LISTS.contains(&keyword.as_str()) => {
                return self.leave_out(place, &line, "only one word can stand behind it");
            }
            words => words.first().cloned().unwrap_or_default(),
        };
        let said = &mut self.said;
        match keyword.as_str() {
            // They add up.
            "identityfile" if said.identities.len() < MAX_FILES => said.identities.push(word),
            "certificatefile" if said.certificates.len() < MAX_FILES => said.certificates.push(word),
            "identityfile" | "certificatefile" => {}
            "port" => match word.parse() {
                Ok(port) if port > 0 => said.port = said.port.or(Some(port)),
                _ => self.leave_out(place, &line, "it is no port"),
            },
            // To ssh this is as if nothing was said, so a later word may hold.
            "connecttimeout" if word == "none" => {}
            "connecttimeout" => match time(&word) {
                Some(limit) => said.connect_timeout = said.connect_timeout.or(Some(limit)),
                None => self.leave_out(place, &line, "it is no time"),
            },
            _ => {
                said.options.entry(keyword).or_insert(words);
            }
        }
    }

    /// `ProxyCommand` and `ProxyJump`, of which the first one holds. The whole rest of the line is theirs, and quotes in it the
    /// shell's.
    fn way(&mut self, keyword: &str, rest: &str) {
        let said = &mut self.said;
        if said.proxy_command.is_some() {
            return;
        }
        if keyword == "proxycommand" {
            // `ProxyJump none` keeps a later `ProxyJump` away, but no `ProxyCommand`.
            if said.jumps.as_ref().is_none_or(Vec::is_empty) {
                said.proxy_command = Some(rest.to_owned());
            }
        } else if said.jumps.is_none() {
            let list = rest.split('#').next().unwrap_or_default();
            let jumps = list.split(',').map(|jump| jump.trim().trim_matches('"').trim());
            let jumps = jumps.filter(|jump| !jump.is_empty() && !jump.eq_ignore_ascii_case("none"));
            said.jumps = Some(jumps.map(str::to_owned).collect());
        }
    }

    /// Takes down what is not read and should be known. The first word of a keyword is the one that would hold.
    fn unheeded(&mut self, keyword: &str, typed: &str, value: &str) {
        let Some((_, harmless)) = UNHEEDED.iter().find(|(name, _)| *name == keyword) else { return };
        if !harmless.iter().any(|word| word.eq_ignore_ascii_case(value))
            && !self.said.unheeded.iter().any(|known| known.eq_ignore_ascii_case(typed))
        {
            self.said.unheeded.push(typed.to_owned());
        }
    }

    /// `Match` with what is known here; other criteria leave their block out. Unlike `Host` it takes small letters for large
    /// ones.
    fn matches(&mut self, place: &Path, criteria: &[String]) -> bool {
        let is_named =
            |host: &str, list: &str| is_one_of(&host.to_lowercase(), list.to_lowercase().split(','));
        match criteria {
            [all] if all.eq_ignore_ascii_case("all") => true,
            [what, list] if what.eq_ignore_ascii_case("originalhost") => is_named(self.host, list),
            [what, list] if what.eq_ignore_ascii_case("host") => {
                is_named(&self.said.host_name(self.host), list)
            }
            _ => {
                let what = format!("the block of `Match {}`", shown(criteria));
                self.warn(place, &format!("{what} is left out: only all, host and originalhost are known"));
                false
            }
        }
    }

    fn include(&mut self, place: &Path, patterns: &[String]) -> Result<(), ConnectError> {
        for pattern in patterns.iter().filter(|pattern| !pattern.is_empty()) {
            let Some(path) = self.included(pattern) else {
                self.warn(place, &format!("Include {pattern}: the system's file can name no home directory"));
                continue;
            };
            match glob::glob(&path.to_string_lossy()) {
                Ok(found) => {
                    let found = found.flatten().filter(|found| is_shown(found, &path));
                    for path in found.take(MAX_FILES) {
                        self.file(&path, false, true)?;
                    }
                }
                Err(error) => self.warn(place, &format!("Include {pattern}: {error}")),
            }
        }
        Ok(())
    }

    /// Where a pattern leads that need not be absolute.
    fn included(&self, pattern: &str) -> Option<PathBuf> {
        let below =
            |folder: &Path, rest: &str| PathBuf::from(Pattern::escape(&folder.to_string_lossy())).join(rest);
        // To glob two stars are any number of folders, to ssh they are one.
        let mut pattern = pattern.to_owned();
        while pattern.contains("**") {
            pattern = pattern.replace("**", "*");
        }
        match (self.beside, self.home) {
            (Some(_), _) if pattern.starts_with('~') => None,
            (Some(folder), _) => Some(below(folder, &pattern)),
            (None, Some(home)) => Some(match pattern.strip_prefix("~/") {
                Some(rest) => below(home, rest),
                None if pattern.starts_with('~') => PathBuf::from(pattern),
                None => below(&home.join(".ssh"), &pattern),
            }),
            (None, None) => Some(PathBuf::from(pattern)),
        }
    }

    fn leave_out(&mut self, place: &Path, what: &str, why: &str) {
        self.warn(place, &format!("`{what}` is left out: {why}"));
    }

    fn warn(&mut self, place: &Path, what: &str) {
        let warning = format!("{}: {what}", place.display());
        if self.said.warnings.len() < MAX_WARNINGS {
            self.said.warnings.push(printable(&warning).into_owned());
        }
    }
}

/// Whether a shell would find it by this pattern: names that begin with a dot are hidden from `*` and its like. (glob can
/// look away from them only altogether.)
fn is_shown(found: &Path, pattern: &Path) -> bool {
    let has_dot = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b".");
    let mut parts = found.components().rev().zip(pattern.components().rev());
    parts.all(|(found, pattern)| !has_dot(found) || has_dot(pattern))
}

/// Whether one of the patterns is the host's, and none with `!` (ssh_config(5), PATTERNS).
pub(super) fn is_one_of<'a>(host: &str, patterns: impl Iterator<Item = &'a str>) -> bool {
    let mut is_one = false;
    for pattern in patterns {
        let (pattern, is_negated) = pattern.strip_prefix('!').map_or((pattern, false), |rest| (rest, true));
        if WildMatch::new(pattern).matches(host) {
            if is_negated {
                return false;
            }
            is_one = true;
        }
    }
    is_one
}

/// Criteria for a message. A command may hold a password.
fn shown(criteria: &[String]) -> String {
    let command = criteria.iter().position(|word| word.trim_start_matches('!').eq_ignore_ascii_case("exec"));
    match command {
        Some(at) => format!("{} ...", criteria.get(..=at).unwrap_or_default().join(" ")),
        None => criteria.join(" "),
    }
}

/// Why a file is not read.
enum Unread {
    Io(io::Error),
    Exposed(ConnectError),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn read(path: &Path, is_checked: bool) -> Result<String, Unread> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if let Some(exposed) = can_be_changed(path, &metadata).filter(|_| is_checked) {
        let path = path.to_string_lossy();
        let what =
            format!("{} is not trusted, though it can start programs: {}", printable(&path), exposed.why);
        let advice = format!("Run `{}`, or go without it: --ssh-config none.", exposed.mend);
        return Err(Unread::Exposed(ConnectError::option(what, advice)));
    }
    if metadata.len() > MAX_FILE {
        return Err(io::Error::other(format!("{} bytes are too many", metadata.len())).into());
    }
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The option given twice is as good as once.
pub(super) fn without_repeats<T: Clone + Eq + std::hash::Hash>(list: Vec<T>) -> Vec<T> {
    let mut seen = HashSet::new();
    list.into_iter().filter(|item| seen.insert(item.clone())).collect()
}

#[cfg(test)]
mod tests;
