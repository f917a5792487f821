//! Lists of revoked keys, as `ssh-keygen -k` and people write them.

use std::fs;

use hithe_keys::{AuthorizedKeys, CertRefused, Revocations};

use crate::keygen::{Keygen, login};

/// A list made from this specification; and whether ssh-keygen itself finds `ada` and her certificate in it.
fn list(keys: &Keygen, specification: &str) -> Revocations {
    keys.write("spec", specification);
    keys.run(&["-k", "-f", "krl", "-s", "ca.pub", "-z", "1", "spec"]);
    loaded(keys, "krl")
}

fn loaded(keys: &Keygen, name: &str) -> Revocations {
    match Revocations::load(&keys.path(name)) {
        (list, None) => list,
        (_, Some(error)) => panic!("{error}"),
    }
}

/// Whether OpenSSH says that the list `krl` revokes this file.
fn openssh_finds(keys: &Keygen, file: &str) -> bool {
    let asked = std::process::Command::new("ssh-keygen")
        .args(["-Q", "-f"])
        .args([keys.path("krl"), keys.path(file)])
        .output()
        .unwrap();
    String::from_utf8_lossy(&asked.stdout).contains("REVOKED")
}

#[test]
fn each_kind_of_entry_revokes_what_openssh_revokes_by_it() {
    let keys = Keygen::new();
    keys.key("bob", "ed25519");
    let certificate = keys.certificate(&["-n", "ada", "-z", "1042"]);
    let (ada, bob, ca) = (keys.line("ada"), keys.line("bob"), keys.line("ca"));
    let hash = keys.public("ada").fingerprint(russh::keys::HashAlg::Sha256);
    for (specification, key, cert) in [
        (format!("key: {ada}\n"), true, true),
        (format!("sha1: {ada}\n"), true, true),
        (format!("sha256: {ada}\n"), true, true),
        (format!("hash: {hash}\n"), true, true),
        (format!("key: {ca}\n"), false, true),
        (format!("sha1: {ca}\n"), false, true),
        (format!("key: {bob}\nsha1: {bob}\nsha256: {bob}\n"), false, false),
        ("serial: 1042\n".to_owned(), false, true),
        ("serial: 1041\nserial: 1043\n".to_owned(), false, false),
        ("serial: 1000-1042\n".to_owned(), false, true),
        ("serial: 1043-2000\n".to_owned(), false, false),
        ("serial: 1-18446744073709551615\n".to_owned(), false, true),
        // Every other serial in a row: ssh-keygen writes a bitmap.
        ((900..1100).step_by(2).map(|serial| format!("serial: {serial}\n")).collect(), false, true),
        ((901..1100).step_by(2).map(|serial| format!("serial: {serial}\n")).collect(), false, false),
        ("id: an id\n".to_owned(), false, true),
        ("id: another id\n".to_owned(), false, false),
    ] {
        let list = list(&keys, &specification);
        let ours = (list.revokes_key(&keys.public("ada")), list.revokes_certificate(&certificate));
        assert_eq!(ours, (key, cert), "{specification}");
        let theirs = (openssh_finds(&keys, "ada.pub"), openssh_finds(&keys, "ada-cert.pub"));
        assert_eq!(theirs, (key, cert), "{specification}");
    }
}

#[test]
fn serials_of_other_authorities_and_serial_zero_are_not_revoked() {
    let keys = Keygen::new();
    keys.key("other", "ed25519");
    let list = list(&keys, "serial: 1-100\nid: someone\n");
    let theirs = keys.certificate_by("other", &["-n", "ada", "-z", "7"]);
    assert!(!list.revokes_certificate(&theirs));
    assert!(!list.revokes_certificate(&keys.certificate(&["-n", "ada"])));
    assert!(list.revokes_certificate(&keys.certificate(&["-n", "ada", "-z", "7"])));
}

#[test]
fn a_list_without_an_authority_revokes_key_ids_of_all() {
    let keys = Keygen::new();
    keys.write("spec", "id: an id\n");
    keys.run(&["-k", "-f", "krl", "-s", "none", "spec"]);
    assert!(loaded(&keys, "krl").revokes_certificate(&keys.certificate(&["-n", "ada"])));
}

#[test]
fn a_revoked_certificate_does_not_get_in() {
    let keys = Keygen::new();
    let path = keys.write("list", format!("cert-authority {}", keys.line("ca")));
    let authorities = AuthorizedKeys::load(&path).unwrap().0.authorities().clone();
    let list = list(&keys, "serial: 7\n");
    let answer =
        |serial| authorities.check(&keys.certificate(&["-n", "ada", "-z", serial]), login("v2"), &list);
    assert_eq!(answer("7"), Err(CertRefused::Revoked));
    assert!(answer("8").is_ok());
}

#[test]
fn a_plain_list_revokes_its_keys_and_what_they_signed() {
    let keys = Keygen::new();
    keys.key("bob", "ed25519");
    let certificate = keys.certificate(&["-n", "ada"]);
    keys.write("plain", format!("# gone\n\n{}\n", keys.line("ca")));
    let list = loaded(&keys, "plain");
    assert!(list.revokes_certificate(&certificate) && !list.revokes_key(&keys.public("ada")));
    // A certificate in the list stands for its key.
    fs::copy(keys.path("ada-cert.pub"), keys.path("plain")).unwrap();
    let list = loaded(&keys, "plain");
    assert!(list.revokes_key(&keys.public("ada")) && !list.revokes_key(&keys.public("bob")));
    assert!(!Revocations::none().revokes_key(&keys.public("ada")));
}

#[test]
fn a_list_that_cannot_be_read_revokes_everything() {
    let keys = Keygen::new();
    let certificate = keys.certificate(&["-n", "ada"]);
    list(&keys, "serial: 7\nid: x\n");
    let whole = fs::read(keys.path("krl")).unwrap();
    keys.write("cut", &whole[..whole.len() - 1]);
    keys.write("odd", "no key at all\n");
    keys.write("options", format!("no-pty {}\n", keys.line("ca")));
    for name in ["nowhere", "cut", "odd", "options"] {
        let (list, error) = Revocations::load(&keys.path(name));
        let told = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(told.contains(name), "{name}: {told}");
        assert!(list.revokes_key(&keys.public("ada")) && list.revokes_certificate(&certificate), "{name}");
    }
}
