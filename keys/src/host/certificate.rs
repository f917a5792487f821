//! The certificate of a host key, which spares clients that trust its authority the question about the key.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, PrivateKey};

/// Bytes of a certificate's file.
const MAX_FILE: u64 = 64 * 1024;

/// A certificate that belongs to its key, and what clients will not like about it.
#[derive(Clone, Debug)]
pub struct HostCertificate {
    pub path: PathBuf,
    pub certificate: Certificate,
    /// A client that trusts no certificate falls back to asking about the key, so these are no errors.
    pub warnings: Vec<String>,
}

/// Why a certificate beside a host key cannot be shown. Each says what the operator has to do.
#[derive(Debug, thiserror::Error)]
pub enum HostCertificateError {
    #[error("cannot read the host certificate {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{path} is not a certificate: make one with ssh-keygen -s CA -h -I ID -n HOST on the host key's .pub"
    )]
    NotACertificate { path: PathBuf },
    #[error("{path} is a certificate of a user: make one of a host with ssh-keygen -s CA -h")]
    NotOfHost { path: PathBuf },
    #[error(
        "{path} is a certificate of another key than the host key beside it: sign that key, or remove the file"
    )]
    OtherKey { path: PathBuf },
}

/// The certificate in `<key>-cert.pub`, where `ssh-keygen -s` writes it, if there is that file.
pub fn certificate(
    key_path: &Path,
    key: &PrivateKey,
    now: SystemTime,
) -> Result<Option<HostCertificate>, HostCertificateError> {
    let mut name = key_path.as_os_str().to_owned();
    name.push("-cert.pub");
    let path = PathBuf::from(name);
    let Some(text) = read(&path)? else { return Ok(None) };
    let Ok(certificate) = Certificate::from_openssh(text.trim()) else {
        return Err(HostCertificateError::NotACertificate { path });
    };
    if certificate.cert_type() != CertType::Host {
        return Err(HostCertificateError::NotOfHost { path });
    }
    if certificate.public_key() != key.public_key().key_data() {
        return Err(HostCertificateError::OtherKey { path });
    }
    let warnings = warnings(&path, &certificate, now);
    Ok(Some(HostCertificate { path, certificate, warnings }))
}

fn read(path: &Path) -> Result<Option<String>, HostCertificateError> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_FILE => {
            Err(HostCertificateError::NotACertificate { path: path.to_owned() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => match fs::read(path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(source) => Err(HostCertificateError::Read { path: path.to_owned(), source }),
        },
    }
}

fn warnings(path: &Path, certificate: &Certificate, now: SystemTime) -> Vec<String> {
    let path = path.display();
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let algorithm = certificate.signature().algorithm();
    let weak = matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa);
    [
        (seconds < certificate.valid_after(), "is not valid yet"),
        (seconds >= certificate.valid_before(), "has expired"),
        (
            certificate.valid_principals().is_empty(),
            "names no host, which clients refuse: give ssh-keygen -n HOST",
        ),
        (!certificate.critical_options().is_empty(), "has critical options, which clients refuse"),
        (weak, "is signed with SHA-1, which clients refuse"),
        (certificate.verify_signature().is_err(), "has a wrong signature"),
    ]
    .into_iter()
    .filter(|(applies, _)| *applies)
    .map(|(_, text)| format!("the host certificate {path} {text}"))
    .collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;
    use crate::host;

    /// A host key, an authority, and a certificate made with these arguments.
    fn certified(arguments: &[&str]) -> (TempDir, PathBuf) {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        for key in ["ca", "host"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(at(key))
                .status();
            assert!(made.unwrap().success());
        }
        let signed = Command::new("ssh-keygen")
            .args(["-q", "-I", "id", "-s"])
            .arg(at("ca"))
            .args(arguments)
            .arg(at("host.pub"))
            .status();
        assert!(signed.unwrap().success());
        let path = at("host");
        (directory, path)
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn read_beside(path: &Path) -> Result<Option<HostCertificate>, HostCertificateError> {
        certificate(path, &host::load(path).unwrap(), now())
    }

    #[test]
    fn a_certificate_beside_its_key_is_found() {
        let (_directory, path) = certified(&["-h", "-n", "tunnel.example.com"]);
        let found = read_beside(&path).unwrap().unwrap();
        assert_eq!(found.certificate.valid_principals(), ["tunnel.example.com"]);
        assert_eq!(found.warnings, [""; 0]);
    }

    #[test]
    fn a_key_needs_no_certificate() {
        let (directory, path) = certified(&["-h", "-n", "a"]);
        fs::remove_file(directory.path().join("host-cert.pub")).unwrap();
        assert!(read_beside(&path).unwrap().is_none());
    }

    #[test]
    fn what_clients_will_not_like_is_told() {
        for (arguments, told) in [
            (&["-h"][..], "names no host"),
            (&["-h", "-n", "a", "-V", "20200101:20200102"], "has expired"),
            (&["-h", "-n", "a", "-V", "20900101:20900102"], "not valid yet"),
        ] {
            let (_directory, path) = certified(arguments);
            let found = read_beside(&path).unwrap().unwrap();
            assert_eq!(found.warnings.len(), 1, "{arguments:?}");
            assert!(found.warnings[0].contains(told), "{:?}", found.warnings);
        }
    }

    #[test]
    fn a_certificate_that_is_not_this_keys_is_refused() {
        let (directory, path) = certified(&["-n", "ada"]);
        assert!(matches!(read_beside(&path), Err(HostCertificateError::NotOfHost { .. })));
        let beside = directory.path().join("host-cert.pub");
        fs::write(&beside, "not a certificate").unwrap();
        assert!(matches!(read_beside(&path), Err(HostCertificateError::NotACertificate { .. })));
        let (other, _) = certified(&["-h", "-n", "a"]);
        fs::copy(other.path().join("host-cert.pub"), &beside).unwrap();
        assert!(matches!(read_beside(&path), Err(HostCertificateError::OtherKey { .. })));
    }
}
