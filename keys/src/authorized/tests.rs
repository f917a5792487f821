//! Tests of files of keys.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;

use super::*;
use crate::Severity;

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
    let types = [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "2048")];
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

fn admitted(keys: &AuthorizedKeys, key: &str, peer: &str, seconds: u64) -> Result<usize, Refused> {
    let now = UNIX_EPOCH + Duration::from_secs(seconds);
    let key = PublicKey::from_openssh(key).unwrap();
    let login = Login { user: "v2", peer: peer.parse().unwrap(), now };
    keys.admit(&key, login, &Revocations::none()).map(|grant| grant.at.line)
}

#[test]
fn a_revoked_key_is_refused() {
    let (keys, _) = load(ED25519);
    let login = Login { user: "v2", peer: "10.0.0.1".parse().unwrap(), now: UNIX_EPOCH };
    let key = PublicKey::from_openssh(ED25519).unwrap();
    assert!(keys.admit(&key, login, &Revocations::none()).is_ok());
    assert_eq!(keys.admit(&key, login, &Revocations::everything()), Err(Refused::Revoked));
}

#[test]
fn an_option_that_is_not_understood_makes_its_line_unusable() {
    for options in ["frob", "no-pty,frob", r#"command="echo \" ssh-ed25519 hi",frob"#, "verify-required"] {
        let (keys, complaints) = load(format!("{options} {ED25519} ada\n"));
        assert!(keys.is_empty() && complaints.len() == 1, "{options}: {complaints:?}");
    }
}

#[test]
fn the_first_line_that_admits_a_key_counts() {
    let (keys, complaints) = load(format!(
        "frob {ED25519}\nfrom=\"10.0.0.0/8\" {ED25519} a\nexpiry-time=\"20200101Z\" {ED25519} b\nno-pty {ED25519} c\n{ED25519} d\n"
    ));
    assert_eq!(complaints.len(), 1);
    assert_eq!(admitted(&keys, ED25519, "10.0.0.1", 0), Ok(2));
    assert_eq!(admitted(&keys, ED25519, "192.0.2.1", 0), Ok(3));
    assert_eq!(admitted(&keys, ED25519, "192.0.2.1", 1_700_000_000), Ok(4));
    assert_eq!(admitted(&keys, OTHER, "10.0.0.1", 0), Err(Refused::Unknown));
}

#[test]
fn a_refusal_names_its_line() {
    let (keys, _) = load(format!("\nfrom=\"10.0.0.0/8\" {ED25519}\nexpiry-time=\"20200101Z\" {OTHER}\n"));
    let refused = |key| admitted(&keys, key, "192.0.2.1", 1_700_000_000).unwrap_err();
    assert!(matches!(refused(ED25519), Refused::Address { at, .. } if at.line == 2));
    assert!(refused(OTHER).to_string().ends_with("keys:3 has expired"), "{}", refused(OTHER));
}

#[test]
fn a_line_says_whose_account_it_is_or_it_is_the_keys_own() {
    let (keys, _) = load(format!("account=\"ada\" {ED25519}\n{OTHER}\n"));
    let account = |key: &str| keys.get(&PublicKey::from_openssh(key).unwrap()).unwrap().account.to_string();
    assert_eq!(account(ED25519), "ada");
    assert!(account(OTHER).starts_with("SHA256:"), "{}", account(OTHER));
}

#[test]
fn an_authority_does_not_log_in_itself() {
    let (keys, complaints) = load(format!("cert-authority {ED25519} ca\n"));
    assert_eq!(complaints, [""; 0]);
    assert_eq!(admitted(&keys, ED25519, "10.0.0.1", 0), Err(Refused::Unknown));
    assert_eq!((keys.len(), keys.authorities().len(), keys.is_empty()), (0, 1, false));
}

#[test]
fn what_has_no_effect_is_a_warning_and_the_line_is_used() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("keys");
    fs::write(&path, format!("environment=\"A=b\" {ED25519}\nfrob {OTHER}\n")).unwrap();
    let (keys, complaints) = AuthorizedKeys::load(&path).unwrap();
    let severities: Vec<_> = complaints.iter().map(|it| (it.line, it.severity)).collect();
    assert_eq!(severities, [(1, Severity::Warning), (2, Severity::Error)]);
    assert_eq!(keys.len(), 1);
}

#[test]
fn a_short_rsa_key_is_refused() {
    // 512 bits: an exponent and a modulus that need not be one.
    let mut blob = b"\0\0\0\x07ssh-rsa\0\0\0\x03\x01\0\x01\0\0\0\x40\x7f".to_vec();
    blob.extend([0xff; 63]);
    let key = PublicKey::from_bytes(&blob).unwrap().to_openssh().unwrap();
    let (keys, complaints) = load(key);
    assert!(keys.is_empty() && complaints[0].contains("bits is not secure"), "{complaints:?}");
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
