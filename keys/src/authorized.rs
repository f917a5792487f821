//! The keys that may publish: files in the format of sshd(8), AUTHORIZED_KEYS FILE FORMAT.
//!
//! A line that cannot be honoured to the letter admits nobody and becomes a [`Complaint`]: a restriction is never
//! ignored. Only reads; the server decides when to read again.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use russh::keys::{Algorithm, PublicKey};

use crate::Fingerprint;

/// Bytes of one file. A file that is larger is not a list of keys.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Characters of a comment that are kept.
const MAX_COMMENT: usize = 128;

/// A set of public keys.
#[derive(Clone, Debug, Default)]
pub struct AuthorizedKeys(HashMap<Fingerprint, Authorized>);

/// One key that may publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorized {
    pub fingerprint: Fingerprint,
    /// The comment of the line, printable ASCII with everything else escaped; empty when there is none.
    pub comment: String,
}

/// A line, or with line 0 a whole file, that admits nobody, and why. One line of printable text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub path: PathBuf,
    /// From 1; 0 when it is about the file.
    pub line: usize,
    pub text: String,
}

/// Why there is no set of keys at all.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizedKeysError {
    #[error("cannot read the authorized keys {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is larger than 16 MiB, which is no list of keys")]
    TooLarge { path: PathBuf },
    #[error("everybody on this machine can write to {path} (mode {mode:04o}): run chmod o-w {path}")]
    Writable { path: PathBuf, mode: u32 },
}

impl AuthorizedKeys {
    /// Reads a file, or each file of a directory whose name neither starts with `.` nor ends with `~`.
    ///
    /// Folders in the directory are passed over, symbolic links to files are followed. A file of the directory that
    /// cannot be read becomes a complaint; the path itself must be readable.
    pub fn load(path: &Path) -> Result<(Self, Vec<Complaint>), AuthorizedKeysError> {
        let unreadable = |source| AuthorizedKeysError::Read { path: path.to_owned(), source };
        let mut keys = Self::default();
        let mut complaints = Vec::new();
        if !fs::metadata(path).map_err(unreadable)?.is_dir() {
            keys.add_file(path, &mut complaints)?;
            return Ok((keys, complaints));
        }
        for file in files_of(path).map_err(unreadable)? {
            if let Err(error) = keys.add_file(&file, &mut complaints) {
                complaints.push(Complaint::about_file(&file, &error));
            }
        }
        Ok((keys, complaints))
    }

    /// The entry of this key, if it may publish.
    pub fn get(&self, key: &PublicKey) -> Option<&Authorized> {
        self.by_fingerprint(&Fingerprint::of(key))
    }

    /// The entry of the key with this fingerprint, if it may publish.
    pub fn by_fingerprint(&self, fingerprint: &Fingerprint) -> Option<&Authorized> {
        self.0.get(fingerprint)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add_file(&mut self, path: &Path, complaints: &mut Vec<Complaint>) -> Result<(), AuthorizedKeysError> {
        let content = read(path)?;
        for (line, number) in content.split(|byte| *byte == b'\n').zip(1..) {
            match parse_line(line) {
                Ok(None) => {}
                // As in sshd, the first line of a key counts.
                Ok(Some(key)) => {
                    self.0.entry(key.fingerprint).or_insert(key);
                }
                Err(text) => complaints.push(Complaint { path: path.to_owned(), line: number, text }),
            }
        }
        Ok(())
    }
}

impl Complaint {
    fn about_file(path: &Path, error: &AuthorizedKeysError) -> Self {
        let text = match error {
            AuthorizedKeysError::Read { source, .. } => format!("cannot be read: {source}"),
            other => other.to_string(),
        };
        Self { path: path.to_owned(), line: 0, text }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = printable(&self.path.to_string_lossy());
        match self.line {
            0 => write!(f, "{path}: {}", self.text),
            line => write!(f, "{path}:{line}: {}", self.text),
        }
    }
}

fn files_of(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let passed_over = name.starts_with('.') || name.ends_with('~');
        // A dangling link stays in the list, so that it is complained about.
        let is_file =
            fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file()) || entry.file_type()?.is_symlink();
        if !passed_over && is_file && !entry.path().is_dir() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, AuthorizedKeysError> {
    let unreadable = |source| AuthorizedKeysError::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o002 != 0 {
        return Err(AuthorizedKeysError::Writable { path: path.to_owned(), mode });
    }
    let mut content = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > MAX_FILE {
        return Err(AuthorizedKeysError::TooLarge { path: path.to_owned() });
    }
    Ok(content)
}

/// A key, nothing (a blank line or a comment), or why the line admits nobody.
fn parse_line(line: &[u8]) -> Result<Option<Authorized>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "is not UTF-8, so it admits nobody".to_owned())?.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (first, rest) = split_word(line);
    if is_key_type(first) {
        return parse_key(first, rest).map(Some);
    }
    let (options, rest) = split_options(line)?;
    if !is_key_type(split_word(rest).0) {
        return Err(format!("has no key of a known type after {:?}", shortened(first)));
    }
    Err(format!("the option {} is not supported yet, so this line admits nobody", first_option(options)))
}

fn parse_key(algorithm: &str, rest: &str) -> Result<Authorized, String> {
    if algorithm.contains("-cert-v01@") {
        return Err("is a certificate, not a key: certificates are not supported yet".to_owned());
    }
    if algorithm == Algorithm::Dsa.as_str() {
        return Err("ssh-dss keys are not secure: make a new one with ssh-keygen -t ed25519".to_owned());
    }
    let (blob, comment) = split_word(rest);
    let key = PublicKey::from_openssh(&format!("{algorithm} {blob}"))
        .map_err(|error| format!("is not a valid {} key: {error}", printable(algorithm)))?;
    Ok(Authorized { fingerprint: Fingerprint::of(&key), comment: shortened(comment) })
}

fn is_key_type(word: &str) -> bool {
    word.starts_with("ssh-") || word.starts_with("ecdsa-sha2-") || word.starts_with("sk-")
}

/// The options end at the first blank outside of double quotes; `\"` does not end a quotation.
fn split_options(line: &str) -> Result<(&str, &str), String> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => {
                let (options, rest) = line.split_at(at);
                return Ok((options, rest.trim_start()));
            }
            _ => {}
        }
        escaped = c == '\\';
    }
    if quoted {
        return Err("has a quotation without an end".to_owned());
    }
    Ok((line, ""))
}

fn first_option(options: &str) -> String {
    let end = options.find(['=', ',']).unwrap_or(options.len());
    shortened(options.get(..end).unwrap_or(options))
}

fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn shortened(text: &str) -> String {
    let short: String = text.chars().take(MAX_COMMENT).collect();
    printable(&short)
}

fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c {
            ' '..='~' => vec![c],
            other => other.escape_default().collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";

    fn load(content: impl AsRef<[u8]>) -> (AuthorizedKeys, Vec<String>) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("keys");
        fs::write(&path, content).unwrap();
        let (keys, complaints) = AuthorizedKeys::load(&path).unwrap();
        let texts = complaints.into_iter().map(|it| format!("{}: {}", it.line, it.text)).collect();
        (keys, texts)
    }

    fn comment<'a>(keys: &'a AuthorizedKeys, key: &str) -> Option<&'a str> {
        keys.get(&PublicKey::from_openssh(key).unwrap()).map(|it| it.comment.as_str())
    }

    #[test]
    fn a_file_admits_its_keys_and_nobody_else() {
        let (keys, complaints) = load(format!("# who may publish\n\n  {ED25519}  ada at her laptop\r\n"));
        assert_eq!(comment(&keys, ED25519), Some("ada at her laptop"));
        assert_eq!(comment(&keys, OTHER), None);
        assert_eq!(complaints, [""; 0]);
    }

    #[test]
    fn a_key_needs_no_comment_and_tabs_are_blanks() {
        let tabbed = ED25519.replace(' ', "\t");
        let (keys, _) = load(tabbed);
        assert_eq!(comment(&keys, ED25519), Some(""));
    }

    #[test]
    fn each_key_type_of_ssh_keygen_is_admitted() {
        let directory = TempDir::new().unwrap();
        let types =
            [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "2048")];
        for (at, (kind, bits)) in types.iter().enumerate() {
            let path = directory.path().join(at.to_string());
            let status = std::process::Command::new("ssh-keygen")
                .args(["-q", "-N", "", "-t", kind, "-b", bits, "-f"])
                .arg(&path)
                .status()
                .unwrap();
            assert!(status.success());
            fs::remove_file(path).unwrap();
        }
        let (keys, complaints) = AuthorizedKeys::load(directory.path()).unwrap();
        assert_eq!((keys.len(), complaints), (types.len(), vec![]));
    }

    #[test]
    fn security_keys_are_admitted() {
        // The public half alone: name of the type, a 32 byte key, the application "ssh:".
        let mut blob = b"\0\0\0\x1ask-ssh-ed25519@openssh.com\0\0\0\x20".to_vec();
        blob.extend([7; 32]);
        blob.extend(b"\0\0\0\x04ssh:");
        let key = PublicKey::from_bytes(&blob).unwrap().to_openssh().unwrap();
        let (keys, complaints) = load(format!("{key} token\n"));
        assert_eq!(complaints, [""; 0]);
        assert_eq!(comment(&keys, &key), Some("token"));
    }

    #[test]
    fn an_option_makes_its_line_unusable_and_never_drops_the_restriction() {
        for (options, named) in [
            ("restrict", "restrict"),
            ("no-pty,restrict", "no-pty"),
            (r#"from="10.0.0.0/8""#, "from"),
            (r#"command="echo \" ssh-ed25519 hi",no-pty"#, "command"),
            ("cert-authority", "cert-authority"),
        ] {
            let (keys, complaints) = load(format!("{options} {ED25519} ada\n"));
            assert!(keys.is_empty(), "{options}");
            let wanted = format!("1: the option {named} is not supported yet, so this line admits nobody");
            assert_eq!(complaints, [wanted]);
        }
    }

    #[test]
    fn a_bad_line_is_named_and_does_not_harm_its_neighbours() {
        let rsa_as_ed25519 = OTHER.replace("ssh-ed25519 ", "ssh-rsa ");
        let lines = [
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            "ssh-ed25519 not*base64",
            &rsa_as_ed25519,
            "hello",
            "from=\"no end",
            "ssh-dss AAAA",
            "ssh-ed25519-cert-v01@openssh.com AAAA",
        ];
        let (keys, complaints) = load(format!("{}\n{ED25519} ada", lines.join("\n")));
        assert_eq!(comment(&keys, ED25519), Some("ada"));
        let numbers: Vec<usize> =
            complaints.iter().map(|it| it.split(':').next().unwrap().parse::<usize>().unwrap()).collect();
        assert_eq!(numbers, (1..=lines.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_key_with_bytes_after_its_end_is_not_valid() {
        let mut bytes = PublicKey::from_openssh(ED25519).unwrap().to_bytes().unwrap();
        bytes.push(0);
        assert!(PublicKey::from_bytes(&bytes).is_err());
    }

    #[test]
    fn nothing_unprintable_gets_through() {
        let (keys, _) = load(format!("{ED25519} a\x1b[31md\u{e4}"));
        assert_eq!(comment(&keys, ED25519), Some("a\\u{1b}[31md\\u{e4}"));
        let (_, complaints) = load(format!("\x1b[2J {ED25519}\n\u{202e}"));
        assert!(complaints.iter().all(|it| it.is_ascii() && !it.contains('\x1b')), "{complaints:?}");
        let (_, complaints) = load(b"ssh-ed25519 \xff\n");
        assert_eq!(complaints, ["1: is not UTF-8, so it admits nobody"]);
    }

    #[test]
    fn a_directory_admits_the_keys_of_all_its_files() {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("ada.pub"), format!("{ED25519} ada")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("folder/linked"), format!("{OTHER} linked")).unwrap();
        for ignored in [".hidden", "backup~"] {
            fs::write(at(ignored), "not a key").unwrap();
        }
        let (keys, complaints) = AuthorizedKeys::load(directory.path()).unwrap();
        assert_eq!((keys.len(), complaints), (1, vec![]));

        symlink(at("folder/linked"), at("link.pub")).unwrap();
        symlink(at("gone"), at("dangling")).unwrap();
        let (keys, complaints) = AuthorizedKeys::load(directory.path()).unwrap();
        assert_eq!(comment(&keys, OTHER), Some("linked"));
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].to_string().contains("dangling: cannot be read"), "{}", complaints[0]);
    }

    #[test]
    fn a_file_that_everybody_can_write_is_refused() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("keys");
        fs::write(&path, ED25519).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let error = AuthorizedKeys::load(&path).unwrap_err();
        assert!(error.to_string().contains("chmod o-w"), "{error}");
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error_that_names_it() {
        let error = AuthorizedKeys::load(Path::new("/nowhere/keys")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the authorized keys /nowhere/keys");
    }
}
