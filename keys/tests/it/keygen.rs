//! Keys, certificates and revocation lists from the real `ssh-keygen`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hithe_keys::Login;
use russh::keys::{Certificate, PublicKey};
use tempfile::TempDir;

/// A folder with keys in it.
pub(crate) struct Keygen(TempDir);

impl Keygen {
    /// With an authority `ca` and a key `ada`.
    pub(crate) fn new() -> Self {
        let folder = Self(TempDir::new().unwrap());
        folder.key("ca", "ed25519");
        folder.key("ada", "ed25519");
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    pub(crate) fn key(&self, name: &str, kind: &str) {
        self.run(&["-t", kind, "-N", "", "-C", name, "-f", name]);
    }

    /// The line of a public key.
    pub(crate) fn line(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap().trim().to_owned()
    }

    pub(crate) fn public(&self, name: &str) -> PublicKey {
        PublicKey::from_openssh(&self.line(name)).unwrap()
    }

    /// Signs `ada` with these arguments; the certificate is in `ada-cert.pub` too.
    pub(crate) fn certificate(&self, arguments: &[&str]) -> Certificate {
        self.certificate_by("ca", arguments)
    }

    pub(crate) fn certificate_by(&self, authority: &str, arguments: &[&str]) -> Certificate {
        self.run(&[&["-s", authority, "-I", "an id"], arguments, &["ada.pub"]].concat());
        read_certificate(&self.path("ada-cert.pub"))
    }

    pub(crate) fn run(&self, arguments: &[&str]) {
        let mut command = Command::new("ssh-keygen");
        let made =
            command.arg("-q").args(arguments).current_dir(self.0.path()).env("TZ", "UTC").output().unwrap();
        let told = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "ssh-keygen {arguments:?}: {told}");
    }
}

pub(crate) fn read_certificate(path: &Path) -> Certificate {
    Certificate::from_openssh(fs::read_to_string(path).unwrap().trim()).unwrap()
}

/// 2023-11-14 22:13:20 UTC.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

pub(crate) fn login(user: &str) -> Login<'_> {
    Login { user, peer: "192.0.2.7".parse().unwrap(), now: now() }
}
