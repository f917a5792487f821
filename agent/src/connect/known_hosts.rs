//! known_hosts: whose host keys are known, and what a key that a server shows means (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::hmac;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey};
use wildmatch::WildMatch;

use super::config::is_one_of;

/// Bytes of one file.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// What a shown key means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Known,
    /// The host is new.
    Unknown {
        fingerprint: String,
    },
    /// The host has other keys. Of whatever kind: who stands between chooses what is shown.
    Changed {
        other: HostKeyPlace,
    },
    Revoked {
        file: PathBuf,
        line: usize,
    },
}

/// Where a host key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostKeyPlace {
    /// A line of a file, from 1.
    Line { file: PathBuf, line: usize },
    /// It was accepted since this program was started, and could not be written into a file.
    Memory,
}

impl fmt::Display for HostKeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "line {line} of {}", file.display()),
            Self::Memory => f.write_str("the memory of this program"),
        }
    }
}

/// The lines of known_hosts files.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostKeys {
    lines: Vec<Line>,
    /// Files that could not be read, and lines that would have refused or admitted others. Other lines that cannot be
    /// read are passed over, as ssh does.
    pub(crate) warnings: Vec<String>,
}

#[derive(Clone, Debug)]
struct Line {
    file: PathBuf,
    /// From 1.
    number: usize,
    entry: Entry,
}

impl HostKeys {
    /// Reads the files in order. Those that do not exist know nobody.
    pub(super) fn read<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let mut keys = Self::default();
        for file in files {
            match read(file) {
                Ok(text) => keys.add(file, &text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => keys.warnings.push(format!("{} is not read: {error}", file.display())),
            }
        }
        keys
    }

    fn add(&mut self, file: &Path, text: &str) {
        for (at, line) in text.lines().enumerate() {
            // The parser takes one space; ssh takes any blanks.
            let line = line.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            // A comment may hold a #, so only whole lines are comments.
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = at + 1;
            match line.parse() {
                Ok(entry) => self.lines.push(Line { file: file.to_owned(), number, entry }),
                Err(error) if line.starts_with('@') => {
                    self.warnings.push(format!("line {number} of {} is not used: {error}", file.display()));
                }
                Err(_) => {}
            }
        }
    }

    /// What a key means that this host shows. `host` is a name, an address without brackets or an alias.
    pub(crate) fn check(&self, host: &str, port: u16, key: &PublicKey) -> Verdict {
        match self.check_name(&name(host, port), key) {
            // As in ssh, a line without the port vouches for every port. It accuses none.
            new @ Verdict::Unknown { .. } if port != 22 => match self.check_name(&name(host, 22), key) {
                Verdict::Changed { .. } => new,
                verdict => verdict,
            },
            verdict => verdict,
        }
    }

    fn check_name(&self, name: &str, key: &PublicKey) -> Verdict {
        let same = |line: &&Line| line.entry.public_key().key_data() == key.key_data();
        if let Some(line) = self.of(name, Some(Marker::Revoked)).find(same) {
            return Verdict::Revoked { file: line.file.clone(), line: line.number };
        }
        if self.of(name, None).any(|line| same(&line)) {
            return Verdict::Known;
        }
        let same_kind = |line: &&Line| kind(line.entry.public_key()) == kind(key);
        match self.of(name, None).find(same_kind).or_else(|| self.of(name, None).next()) {
            Some(Line { file, number, .. }) => {
                Verdict::Changed { other: HostKeyPlace::Line { file: file.clone(), line: *number } }
            }
            None => Verdict::Unknown { fingerprint: fingerprint(key) },
        }
    }

    /// What a certificate means. One that no `@cert-authority` line of the host vouches for counts as the key in it.
    pub(crate) fn check_certificate(
        &self,
        host: &str,
        port: u16,
        certificate: &Certificate,
        now: SystemTime,
    ) -> Verdict {
        let authority = PublicKey::from(certificate.signature_key().clone());
        let key = PublicKey::from(certificate.public_key().clone());
        let names = names(host, port);
        let named = |marker: Marker| names.iter().flat_map(move |name| self.of(name, Some(marker)));
        let revoked = named(Marker::Revoked).find(|line| {
            let revoked = line.entry.public_key().key_data();
            revoked == authority.key_data() || revoked == key.key_data()
        });
        if let Some(line) = revoked {
            return Verdict::Revoked { file: line.file.clone(), line: line.number };
        }
        let trusted = named(Marker::CertAuthority)
            .any(|line| line.entry.public_key().key_data() == authority.key_data());
        if trusted && is_for(certificate, host, now) { Verdict::Known } else { self.check(host, port, &key) }
    }

    /// The kinds of keys that are known of a host, so that the server is asked for one of these first.
    pub(crate) fn kinds(&self, host: &str, port: u16) -> Vec<Algorithm> {
        self.of(&name(host, port), None).map(|line| kind(line.entry.public_key())).collect()
    }

    /// Whether certificates of this host can be judged.
    pub(crate) fn has_authority(&self, host: &str, port: u16) -> bool {
        names(host, port).iter().any(|name| self.of(name, Some(Marker::CertAuthority)).next().is_some())
    }

    fn of(&self, name: &str, marker: Option<Marker>) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| {
            line.entry.marker() == marker.as_ref() && is_named(line.entry.host_patterns(), name)
        })
    }
}

/// As `ssh-keygen -l` shows it.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// RSA is one kind, whatever it signs with.
fn kind(key: &PublicKey) -> Algorithm {
    match key.algorithm() {
        Algorithm::Rsa { .. } => Algorithm::Rsa { hash: None },
        other => other,
    }
}

/// How a host is called there: with brackets and port unless that is 22, in lower case.
fn name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// All that a host may be called there.
fn names(host: &str, port: u16) -> Vec<String> {
    let exact = name(host, port);
    if port == 22 { vec![exact] } else { vec![exact, name(host, 22)] }
}

fn is_named(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            hmac::verify(&key, name.as_bytes(), hash).is_ok()
        }
        HostPatterns::Patterns(patterns) => {
            let patterns: Vec<_> = patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
            is_one_of(name, patterns.iter().map(String::as_str))
        }
    }
}

/// Whether the certificate is one of this host, now. That its authority is trusted has been seen to.
fn is_for(certificate: &Certificate, host: &str, now: SystemTime) -> bool {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
    let host = host.to_ascii_lowercase();
    let weak = matches!(certificate.signature().algorithm(), Algorithm::Rsa { hash: None } | Algorithm::Dsa);
    certificate.cert_type() == CertType::Host
        && !weak
        && certificate.critical_options().iter().next().is_none()
        && certificate
            .valid_principals()
            .iter()
            .any(|name| WildMatch::new(&name.to_ascii_lowercase()).matches(&host))
        && certificate.validate_at(seconds, [&authority]).is_ok()
}

/// Adds a line for a key to the file, which is made if it is not there (0600, its folder 0700). The line is written in
/// one piece at the end, so what others write at the same time stays whole.
///
/// # Errors
/// The file cannot be written.
pub(super) fn learn(file: &Path, host: &str, port: u16, key: &PublicKey, hashed: bool) -> io::Result<()> {
    if HostKeys::read([&file.to_owned()]).check(host, port, key) == Verdict::Known {
        return Ok(());
    }
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        create_folder(folder)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut opened = options.open(file)?;
    let name = name(host, port);
    let name = if hashed { hash(&name)? } else { name };
    // Without a comment: what the server calls its key is nobody's concern.
    let key = PublicKey::from(key.key_data().clone()).to_openssh().map_err(io::Error::other)?;
    let start = if ends_in_line(&mut opened) { "" } else { "\n" };
    opened.write_all(format!("{start}{name} {key}\n").as_bytes())
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Whether the file is empty or ends in a newline.
fn ends_in_line(file: &mut fs::File) -> bool {
    let mut last = [b'\n'];
    match file.seek(SeekFrom::End(-1)) {
        Ok(_) => file.read_exact(&mut last).is_err() || last == [b'\n'],
        Err(_) => true,
    }
}

/// `|1|salt|hash`, which does not say of whom it is to people who may read the file.
fn hash(name: &str) -> io::Result<String> {
    let mut salt = [0_u8; 20];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut salt).map_err(|_| io::Error::other("no random numbers"))?;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    let hash = hmac::sign(&key, name.as_bytes());
    Ok(format!("|1|{}|{}", BASE64_STANDARD.encode(salt), BASE64_STANDARD.encode(hash)))
}

fn read(file: &Path) -> io::Result<String> {
    let about = fs::metadata(file)?;
    if about.len() > MAX_FILE {
        return Err(io::Error::other("it is too large"));
    }
    // /dev/null and its like have no length.
    if !about.is_file() && !about.is_dir() {
        return Ok(String::new());
    }
    Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned())
}

#[cfg(test)]
mod tests;
