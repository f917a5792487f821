//! The server's own keys: what the client sees in its known_hosts.
//!
//! [`load`] reads a key that the operator gives, [`load_or_create`] keeps one in the state directory. Where a
//! certificate lies beside a key, [`certificate`] reads it.

mod certificate;

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, Error as KeyError, PrivateKey, decode_secret_key};
use tempfile::NamedTempFile;

pub use certificate::{HostCertificate, HostCertificateError, certificate};

/// The name that sshd gives to such a key too.
const FILE_NAME: &str = "ssh_host_ed25519_key";

/// Why there is no host key. Each says what the operator has to do.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    #[error("cannot read the host key {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "others can read the host key {path} (mode {mode:04o}): run chmod 600 {path}, and make a new key if it leaked"
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{path} is a public key: give the private key, the file without .pub")]
    Public { path: PathBuf },
    #[error(
        "the host key {path} has a passphrase, which a server cannot type: remove it with ssh-keygen -p -f {path}"
    )]
    Encrypted { path: PathBuf },
    #[error(
        "{path} is not a private key in OpenSSH or PEM format: make one with ssh-keygen -t ed25519 -f {path}"
    )]
    NotAKey { path: PathBuf, source: KeyError },
    #[error(
        "the host key {path} is of type {algorithm}, which cannot serve: make one with ssh-keygen -t ed25519"
    )]
    Unsupported { path: PathBuf, algorithm: Algorithm },
    #[error("cannot write the new host key {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot make a host key")]
    Make(#[source] KeyError),
}

/// Reads a private key that is not encrypted, and only if nobody else can read it, as sshd does.
pub fn load(path: &Path) -> Result<PrivateKey, HostKeyError> {
    let unreadable = |source| HostKeyError::Read { path: path.to_owned(), source };
    let text = fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8_lossy(&text);
    if is_public(&text) {
        return Err(HostKeyError::Public { path: path.to_owned() });
    }
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(HostKeyError::Exposed { path: path.to_owned(), mode });
    }
    decode(path, &text)
}

/// Where [`load_or_create`] keeps the key of this state directory.
pub fn path_in(directory: &Path) -> PathBuf {
    directory.join(FILE_NAME)
}

/// The ed25519 key of this state directory. The first start makes directory and key.
pub fn load_or_create(directory: &Path) -> Result<PrivateKey, HostKeyError> {
    let path = path_in(directory);
    if !path.exists() {
        create(directory, &path)?;
    }
    load(&path)
}

fn decode(path: &Path, text: &str) -> Result<PrivateKey, HostKeyError> {
    let key = decode_secret_key(text, None).map_err(|source| match source {
        _ if is_encrypted(text) => HostKeyError::Encrypted { path: path.to_owned() },
        KeyError::KeyIsEncrypted => HostKeyError::Encrypted { path: path.to_owned() },
        source => HostKeyError::NotAKey { path: path.to_owned(), source },
    })?;
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. } => Ok(key),
        algorithm => Err(HostKeyError::Unsupported { path: path.to_owned(), algorithm }),
    }
}

fn is_public(text: &str) -> bool {
    text.starts_with("ssh-") || text.starts_with("ecdsa-") || text.starts_with("sk-")
}

/// PEM keys say it in their headers (RFC 1421 §4.6.1.1, RFC 5958 §3).
fn is_encrypted(text: &str) -> bool {
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

fn create(directory: &Path, path: &Path) -> Result<(), HostKeyError> {
    let make = |error| HostKeyError::Make(KeyError::SshKey(error));
    let mut key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).map_err(make)?;
    key.set_comment("hithed");
    let secret = key.to_openssh(LineEnding::LF).map_err(make)?;
    let public = key.public_key().to_openssh().map_err(make)? + "\n";

    let unwritable = |source| HostKeyError::Write { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unwritable)?;
    write_new(directory, path, secret.as_bytes(), 0o600).map_err(unwritable)?;
    let public_path = path.with_added_extension("pub");
    write_new(directory, &public_path, public.as_bytes(), 0o644)
        .map_err(|source| HostKeyError::Write { path: public_path, source })
}

/// A reader sees the whole file or none. A file that another process made in the meantime stays.
fn write_new(directory: &Path, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(refused) => Err(refused.error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn ssh_keygen(directory: &TempDir, arguments: &[&str]) -> PathBuf {
        let path = directory.path().join("key");
        let made = Command::new("ssh-keygen").args(["-q", "-f"]).arg(&path).args(arguments).status().unwrap();
        assert!(made.success());
        path
    }

    #[test]
    fn the_first_start_makes_a_key_that_only_its_owner_can_read() {
        let state = TempDir::new().unwrap();
        let directory = state.path().join("not/yet/there");
        let key = load_or_create(&directory).unwrap();
        assert_eq!(key.algorithm(), Algorithm::Ed25519);
        assert_eq!(mode(&directory.join(FILE_NAME)), 0o600);
        assert_eq!(mode(&directory.join("ssh_host_ed25519_key.pub")), 0o644);
    }

    #[test]
    fn the_next_start_finds_the_same_key() {
        let state = TempDir::new().unwrap();
        let first = load_or_create(state.path()).unwrap();
        assert_eq!(load_or_create(state.path()).unwrap().public_key(), first.public_key());
    }

    #[test]
    fn ssh_keygen_reads_the_key_that_was_made() {
        let state = TempDir::new().unwrap();
        let key = load_or_create(state.path()).unwrap();
        let output =
            Command::new("ssh-keygen").arg("-yf").arg(state.path().join(FILE_NAME)).output().unwrap();
        assert!(output.status.success());
        let public = String::from_utf8(output.stdout).unwrap();
        assert_eq!(public.trim(), key.public_key().to_openssh().unwrap());
    }

    #[test]
    fn keys_of_ssh_keygen_are_read_in_each_type_and_format() {
        for arguments in [
            &["-t", "ed25519", "-N", ""][..],
            &["-t", "ecdsa", "-b", "384", "-N", ""],
            &["-t", "rsa", "-b", "2048", "-N", ""],
            &["-t", "rsa", "-b", "2048", "-N", "", "-m", "PEM"],
            &["-t", "ecdsa", "-N", "", "-m", "PKCS8"],
        ] {
            let directory = TempDir::new().unwrap();
            let path = ssh_keygen(&directory, arguments);
            load(&path).unwrap_or_else(|error| panic!("{arguments:?}: {error:?}"));
        }
    }

    #[test]
    fn a_key_with_a_passphrase_is_refused_with_the_way_out() {
        for format in ["RFC4716", "PKCS8", "PEM"] {
            let directory = TempDir::new().unwrap();
            let path = ssh_keygen(&directory, &["-t", "rsa", "-b", "2048", "-N", "secret", "-m", format]);
            let error = load(&path).unwrap_err();
            assert!(matches!(error, HostKeyError::Encrypted { .. }), "{format}: {error:?}");
            assert!(error.to_string().contains("ssh-keygen -p -f"), "{error}");
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = TempDir::new().unwrap();
        let path = ssh_keygen(&directory, &["-t", "ed25519", "-N", ""]);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("mode 0640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_public_key_in_place_of_the_private_one_is_told_apart() {
        let directory = TempDir::new().unwrap();
        let path = ssh_keygen(&directory, &["-t", "ed25519", "-N", ""]);
        let error = load(&path.with_added_extension("pub")).unwrap_err();
        assert!(matches!(error, HostKeyError::Public { .. }), "{error:?}");
    }

    #[test]
    fn what_is_no_key_or_not_there_is_named() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("key");
        let error = load(&path).unwrap_err();
        assert!(matches!(error, HostKeyError::Read { .. }), "{error:?}");
        for text in
            ["", "hello", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"]
        {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let error = load(&path).unwrap_err();
            assert!(matches!(error, HostKeyError::NotAKey { .. }), "{error:?}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }
}
