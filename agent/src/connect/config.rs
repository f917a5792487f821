//! What ssh_config says of a host. Which lines hold is decided here (`Host`, `Match`, `Include`), what a line says by
//! ssh2-config, one line at a time: a line that it cannot read costs that line and no other.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use ssh2_config::{Host, HostParams, ParseRule, SshConfig};

/// Bytes of one file, which people write by hand.
const MAX_FILE: u64 = 1024 * 1024;
/// `Include` in included files, as OpenSSH.
const MAX_DEPTH: usize = 16;
/// Files altogether.
const MAX_FILES: usize = 256;

/// The keywords that count here. Others are not read, so they may say what they like.
const KEYWORDS: &[&str] = &[
    "connecttimeout",
    "globalknownhostsfile",
    "hashknownhosts",
    "hostkeyalias",
    "hostname",
    "identitiesonly",
    "identityagent",
    "identityfile",
    "port",
    "proxyjump",
    "stricthostkeychecking",
    "user",
    "userknownhostsfile",
];

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

/// What the files say of one host.
#[derive(Debug)]
pub(super) struct Said {
    params: HostParams,
    /// `ProxyCommand` as it stands there, if no `ProxyJump` comes before it.
    pub(super) proxy_command: Option<String>,
    /// All that `CertificateFile` names.
    pub(super) certificates: Vec<String>,
    /// Of [`UNHEEDED`], as it stands there.
    unheeded: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Said {
    /// Reads the files in order; of each option the first word holds.
    pub(super) fn of(host: &str, files: &[PathBuf], home: Option<&Path>) -> Self {
        let said = Self::nothing(host);
        let mut reader = Reader { host, home, said, open: Vec::new(), files: 0 };
        for file in files {
            reader.file(file, true);
        }
        let mut said = reader.said;
        if !said.unheeded.is_empty() {
            said.warnings.push(format!("ssh_config: not heeded: {}", said.unheeded.join(", ")));
        }
        said
    }

    /// Whether `ProxyJump` names a host. `none` keeps a later one away, but no `ProxyCommand`.
    fn jumps(&self) -> bool {
        let named = self.params.proxy_jump.as_ref();
        named.is_some_and(|jumps| jumps.iter().any(|jump| !jump.eq_ignore_ascii_case("none")))
    }

    pub(super) fn params(&self) -> &HostParams {
        &self.params
    }

    /// The words of an option that ssh2-config has no field for, in lower case.
    pub(super) fn words(&self, keyword: &str) -> Option<&[String]> {
        let mut fields = self.params.unsupported_fields.iter();
        fields.find(|(name, _)| name.eq_ignore_ascii_case(keyword)).map(|(_, words)| words.as_slice())
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
    said: Said,
    /// The files that include this one.
    open: Vec<PathBuf>,
    files: usize,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, may_be_missing: bool) {
        if self.files >= MAX_FILES
            || self.open.len() >= MAX_DEPTH
            || self.open.iter().any(|open| open == path)
        {
            return self.warn(path, "not read: files include one another, or too many");
        }
        self.files += 1;
        let text = match read(path) {
            Ok(text) => text,
            Err(error) if may_be_missing && error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.warn(path, &format!("not read: {error}")),
        };
        self.open.push(path.to_owned());
        let mut holds = true;
        for (number, line) in text.lines().enumerate() {
            let place = PathBuf::from(format!("{}:{}", path.display(), number + 1));
            holds = self.line(&place, line.trim(), holds);
        }
        self.open.pop();
    }

    /// Reads one line, and says whether the next one holds.
    fn line(&mut self, place: &Path, line: &str, holds: bool) -> bool {
        if line.is_empty() || line.starts_with('#') {
            return holds;
        }
        let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
        let keyword = line.get(..end).unwrap_or_default().to_ascii_lowercase();
        let rest = line.get(end..).unwrap_or_default().trim_start().trim_start_matches('=').trim_start();
        match keyword.as_str() {
            "host" => self.is_for_us(&words(rest)),
            "match" => self.matches(place, &words(rest)),
            "include" if holds => {
                self.include(place, &words(rest));
                true
            }
            // They add up.
            "certificatefile" if holds => {
                let room = MAX_FILES.saturating_sub(self.said.certificates.len());
                self.said.certificates.extend(words(rest).into_iter().take(room.min(1)));
                true
            }
            // The whole rest of the line, with quotes and all, is the shell's. Of the two ways the first one holds.
            "proxycommand" if holds => {
                if self.said.proxy_command.is_none() && !self.said.jumps() {
                    self.said.proxy_command = Some(rest.to_owned());
                }
                true
            }
            "proxyjump" if self.said.proxy_command.is_some() => holds,
            keyword if holds && KEYWORDS.contains(&keyword) => {
                self.option(place, line);
                true
            }
            name if holds => {
                let typed = line.get(..end).unwrap_or_default();
                self.unheeded(name, typed, words(rest).first().map_or("", String::as_str));
                true
            }
            _ => holds,
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

    /// Whether one of the patterns is the host's, and none with `!`.
    fn is_for_us(&self, patterns: &[String]) -> bool {
        let clause = |word: &String| match word.strip_prefix('!') {
            Some(word) => ssh2_config::HostClause::new(word.to_owned(), true),
            None => ssh2_config::HostClause::new(word.clone(), false),
        };
        let params = SshConfig::default().query("");
        Host::new(patterns.iter().map(clause).collect(), params).intersects(self.host)
    }

    /// `Match` with what is known here; other criteria leave their block out.
    fn matches(&mut self, place: &Path, criteria: &[String]) -> bool {
        let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        match criteria {
            [all] if all.eq_ignore_ascii_case("all") => true,
            [what, patterns] if what.eq_ignore_ascii_case("originalhost") => self.is_for_us(&list(patterns)),
            [what, patterns] if what.eq_ignore_ascii_case("host") => {
                let named = self.said.params.host_name.clone();
                let host = named.as_deref().unwrap_or(self.host);
                let clauses =
                    Reader { host, home: None, said: Said::nothing(host), open: Vec::new(), files: 0 };
                clauses.is_for_us(&list(patterns))
            }
            _ => {
                let what = criteria.join(" ");
                self.warn(
                    place,
                    &format!(
                        "the block of `Match {what}` is left out: only all, host and originalhost are known"
                    ),
                );
                false
            }
        }
    }

    fn include(&mut self, place: &Path, patterns: &[String]) {
        for pattern in patterns {
            let path = match (pattern.strip_prefix("~/"), self.home) {
                (Some(rest), Some(home)) => home.join(rest),
                (None, Some(home)) if Path::new(pattern).is_relative() => home.join(".ssh").join(pattern),
                _ => PathBuf::from(pattern),
            };
            match glob::glob(&path.to_string_lossy()) {
                Ok(found) => found.take(MAX_FILES).flatten().for_each(|path| self.file(&path, false)),
                Err(error) => self.warn(place, &format!("Include {pattern}: {error}")),
            }
        }
    }

    fn option(&mut self, place: &Path, line: &str) {
        let mut config = SshConfig::default();
        if let Some(home) = self.home {
            config = config.home_dir(home);
        }
        let rules = ParseRule::ALLOW_UNKNOWN_FIELDS | ParseRule::ALLOW_UNSUPPORTED_FIELDS;
        match config.parse(&mut line.as_bytes(), rules) {
            Ok(parsed) => self.said.params.overwrite_if_none(&parsed.query(self.host)),
            Err(error) => self.warn(place, &format!("`{line}` is left out: {error}")),
        }
    }

    fn warn(&mut self, place: &Path, what: &str) {
        let warning = format!("{}: {what}", place.display());
        if self.said.warnings.len() < MAX_WARNINGS {
            self.said.warnings.push(hithe_cli_parser::printable(&warning).into_owned());
        }
    }
}

impl Said {
    fn nothing(host: &str) -> Self {
        let params = SshConfig::default().query(host);
        Self {
            params,
            proxy_command: None,
            certificates: Vec::new(),
            unheeded: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// Nobody reads more.
const MAX_WARNINGS: usize = 20;

fn read(path: &Path) -> io::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > MAX_FILE {
        return Err(io::Error::other(format!("{size} bytes are too many")));
    }
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// The words of a line up to a comment; double quotes keep blanks.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut started) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            '"' => (quoted, started) = (!quoted, true),
            '#' if !quoted && !started => break,
            c if c.is_whitespace() && !quoted => {
                if started {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
            }
            c => {
                word.push(c);
                started = true;
            }
        }
    }
    if started {
        words.push(word);
    }
    words
}

/// Replaces `%h` and its like (ssh_config(5), TOKENS), of which `tokens` says some. Others stay.
pub(super) fn expand(text: &str, tokens: &[(char, &str)]) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            expanded.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => expanded.push('%'),
            Some(name) => match tokens.iter().find(|(token, _)| *token == name) {
                Some((_, value)) => expanded.push_str(value),
                None => expanded.extend(['%', name]),
            },
            None => expanded.push('%'),
        }
    }
    expanded
}

/// The option given twice is as good as once.
pub(super) fn without_repeats<T: Clone + Eq + std::hash::Hash>(list: Vec<T>) -> Vec<T> {
    let mut seen = HashSet::new();
    list.into_iter().filter(|item| seen.insert(item.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(host: &str, text: &str) -> Said {
        said_with(host, &[("config", text)])
    }

    fn said_with(host: &str, files: &[(&str, &str)]) -> Said {
        let home = tempfile::tempdir().unwrap();
        let ssh = home.path().join(".ssh");
        for (name, text) in files {
            let path = ssh.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Said::of(host, &[ssh.join("config")], Some(home.path()))
    }

    #[test]
    fn of_each_option_the_first_word_holds_and_identity_files_add_up() {
        let text = "Host other\n User nobody\nHost t tunnel-*\n User ada\n User bob\n Port=2222\n IdentityFile a\nHost *\n User eve\n IdentityFile b";
        let said = said("t", text);
        assert_eq!(said.params().user.as_deref(), Some("ada"));
        assert_eq!(said.params().port, Some(2222));
        assert_eq!(said.params().identity_file, Some(vec!["a".into(), "b".into()]));
        assert!(said.warnings.is_empty(), "{:?}", said.warnings);
    }

    #[test]
    fn a_negated_pattern_keeps_its_block_away() {
        let text = "Host *.example.com !private.example.com\n User ada";
        assert_eq!(said("a.example.com", text).params().user.as_deref(), Some("ada"));
        assert_eq!(said("private.example.com", text).params().user, None);
    }

    #[test]
    fn a_line_that_cannot_be_read_costs_that_line_and_is_named() {
        let said =
            said("t", "Host t\n Port many\n User ada\n ServerAliveInterval 1m\n AddKeysToAgent confirm");
        assert_eq!(said.params().user.as_deref(), Some("ada"));
        assert_eq!(said.warnings.len(), 1, "{:?}", said.warnings);
        assert!(said.warnings[0].contains("config:2: `Port many` is left out"), "{:?}", said.warnings);
    }

    #[test]
    fn what_protects_and_is_not_heeded_is_named_once_and_only_for_its_host() {
        let text = "Host t\n RevokedHostKeys /r\n Ciphers aes256-gcm@openssh.com\n revokedhostkeys /s\n ForwardX11 no\n \
                    PubkeyAuthentication yes\nHost other\n BindAddress ::1";
        assert_eq!(said("t", text).warnings, ["ssh_config: not heeded: RevokedHostKeys, Ciphers"]);
    }

    #[test]
    fn a_match_block_holds_for_its_host_only() {
        let text = "Host t\n HostName real.example.com\nMatch host real.*\n User ada\nMatch exec \"true\"\n Port 1\nMatch originalhost x\n Port 2\nMatch all\n Port 3";
        let said = said("t", text);
        assert_eq!(said.params().user.as_deref(), Some("ada"));
        assert_eq!(said.params().port, Some(3));
        assert!(said.warnings[0].contains("Match exec true"), "{:?}", said.warnings);
    }

    #[test]
    fn included_files_hold_where_they_are_included() {
        let files = [
            ("config", "Host t\n Include conf.d/*.conf\nHost *\n User eve"),
            ("conf.d/1.conf", "User ada\nHost other\n Port 1"),
            ("conf.d/2.conf", "Port 2222\nInclude config"),
        ];
        let for_t = said_with("t", &files);
        assert_eq!((for_t.params().user.as_deref(), for_t.params().port), (Some("ada"), Some(2222)));
        assert!(for_t.warnings[0].contains("include one another"), "{:?}", for_t.warnings);
        let for_x = said_with("other", &files);
        assert_eq!((for_x.params().user.as_deref(), for_x.params().port), (Some("eve"), None));
    }

    #[test]
    fn options_without_a_field_are_kept_as_words() {
        let said =
            said("t", "UserKnownHostsFile ~/a \"b c\"\nidentitiesonly yes\nStrictHostKeyChecking accept-new");
        assert_eq!(said.words("UserKnownHostsFile").unwrap().len(), 2);
        assert!(said.is_yes("IdentitiesOnly"));
        assert_eq!(said.word("StrictHostKeyChecking"), Some("accept-new"));
    }

    #[test]
    fn tokens_are_replaced_and_unknown_ones_stay() {
        assert_eq!(expand("%h.x%%%q%", &[('h', "host")]), "host.x%%q%");
    }
}
