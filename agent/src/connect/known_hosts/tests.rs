//! Lines of known_hosts, and what they say of keys.

use super::*;
use crate::connect::tests::server::new_key;

fn keys(text: &str) -> HostKeys {
    let mut keys = HostKeys::default();
    keys.add(Path::new("known_hosts"), text);
    keys
}

fn line(key: &PublicKey) -> String {
    PublicKey::from(key.key_data().clone()).to_openssh().unwrap()
}

fn new_public_key() -> PublicKey {
    new_key().public_key().clone()
}

#[test]
fn a_key_is_known_under_the_names_and_ports_of_its_line() {
    let key = new_public_key();
    let known =
        keys(&format!("\n# a comment\nhost,*.Example.com,!bad.example.com,[deep]:2222\t{}\n", line(&key)));
    for (host, port) in [("host", 22), ("HOST", 22), ("a.example.com", 22), ("deep", 2222), ("host", 2222)] {
        assert_eq!(known.check(host, port, &key), Verdict::Known, "{host}:{port}");
    }
    for (host, port) in [("bad.example.com", 22), ("deep", 22), ("deep", 2223), ("example.com", 22)] {
        assert!(matches!(known.check(host, port, &key), Verdict::Unknown { .. }), "{host}:{port}");
    }
}

#[test]
fn a_hashed_line_of_ssh_keygen_is_found() {
    // ssh-keygen -H makes such lines: HMAC-SHA1 of the name with the salt.
    let key = new_public_key();
    let hashed = format!("{} {}\n", hash("[tunnel.example.com]:2222").unwrap(), line(&key));
    assert_eq!(keys(&hashed).check("tunnel.example.com", 2222, &key), Verdict::Known);
    assert!(matches!(keys(&hashed).check("tunnel.example.com", 22, &key), Verdict::Unknown { .. }));
    let published = "|1|O33ESRMWPVkMYIwJ1Uw+n877jTo=|nuuC5vEqXlEZ/8BXQR7m619W6Ak= ssh-ed25519 \
                     AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";
    assert!(matches!(keys(published).check("example.com", 22, &key), Verdict::Changed { .. }));
}

#[test]
fn another_key_of_the_same_kind_has_changed_unless_one_of_several_lines_has_it() {
    let (old, new) = (new_public_key(), new_public_key());
    let changed = keys(&format!("other x\n# x\nhost {}\n", line(&old))).check("host", 22, &new);
    assert_eq!(changed, changed_from(3));
    let both = keys(&format!("host {}\nhost {}\n", line(&old), line(&new)));
    assert_eq!(both.check("host", 22, &new), Verdict::Known);
}

#[test]
fn a_key_of_another_kind_has_changed_too() {
    let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBA+4KObt4tr5NrpYqXKfRfZB\
                 yuZUEmyRfEjoMX5/71EZX2GN8Y7gSr+pQRGX5nrCtYJQZ6QmDJ8CIWNpVCPxtxM=";
    let known = keys(&format!("host {ecdsa}\n"));
    assert_eq!(known.lines.len(), 1);
    assert_eq!(known.check("host", 22, &new_public_key()), changed_from(1));
    // The line of the same kind says more.
    let known = keys(&format!("host {ecdsa}\nhost {}\n", line(&new_public_key())));
    assert_eq!(known.check("host", 22, &new_public_key()), changed_from(2));
}

fn changed_from(line: usize) -> Verdict {
    Verdict::Changed { other: HostKeyPlace::Line { file: "known_hosts".into(), line } }
}

#[test]
fn a_line_without_the_port_vouches_for_other_ports_and_accuses_none() {
    let (key, other) = (new_public_key(), new_public_key());
    let known = keys(&format!("host {}\n@cert-authority *.example.com {}\n", line(&key), line(&other)));
    assert_eq!(known.check("host", 2222, &key), Verdict::Known);
    assert!(matches!(known.check("host", 2222, &other), Verdict::Unknown { .. }));
    assert!(known.has_authority("a.example.com", 2222));
    let exact = keys(&format!("host {}\n[host]:2222 {}\n", line(&key), line(&other)));
    assert_eq!(exact.check("host", 2222, &key), changed_from(2));
    let revoked = keys(&format!("@revoked host {}\n", line(&key)));
    assert!(matches!(revoked.check("host", 2222, &key), Verdict::Revoked { .. }));
}

#[test]
fn any_blanks_stand_between_the_fields_of_a_line() {
    let (old, revoked) = (new_public_key(), new_public_key());
    let text = format!("  host \t {}\n@revoked\t  *   {}\n", line(&old), line(&revoked).replace(' ', "\t\t"));
    let known = keys(&text);
    assert_eq!(known.check("host", 22, &old), Verdict::Known);
    assert_eq!(known.check("host", 22, &revoked), Verdict::Revoked { file: "known_hosts".into(), line: 2 });
    assert!(known.warnings.is_empty());
}

#[test]
fn a_marked_line_that_cannot_be_read_is_told() {
    let known = keys("@revoked *\nhost odd\n");
    assert_eq!(known.warnings.len(), 1, "{:?}", known.warnings);
    assert!(known.warnings.iter().all(|it| it.starts_with("line 1 of known_hosts is not used")));
}

#[test]
fn a_revoked_key_is_refused_even_where_it_is_known() {
    let key = new_public_key();
    let known = keys(&format!("host {}\n@revoked * {}\n", line(&key), line(&key)));
    assert_eq!(known.check("host", 22, &key), Verdict::Revoked { file: "known_hosts".into(), line: 2 });
}

#[test]
fn an_authoritys_own_key_is_no_host_key() {
    let key = new_public_key();
    let known = keys(&format!("@cert-authority host {}\n", line(&key)));
    assert!(matches!(known.check("host", 22, &key), Verdict::Unknown { .. }));
    assert!(known.has_authority("host", 22) && !known.has_authority("other", 22));
}

#[test]
fn learned_keys_are_added_at_the_end_and_nothing_else_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".ssh").join("known_hosts");
    let (one, two) = (new_public_key(), new_public_key());
    learn(&file, "host", 22, &one, false).unwrap();
    learn(&file, "host", 22, &one, false).unwrap();
    fs::write(&file, fs::read_to_string(&file).unwrap().trim_end()).unwrap();
    learn(&file, "secret.example.com", 2222, &two, true).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.starts_with("host ssh-ed25519 ") && !text.contains("secret"), "{text}");
    assert_eq!(HostKeys::read([&file]).check("secret.example.com", 2222, &two), Verdict::Known);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    }
}

#[test]
fn agents_that_learn_at_the_same_time_do_not_harm_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    fs::write(&file, "no newline").unwrap();
    let keys: Vec<_> = (0..8).map(|_| new_public_key()).collect();
    std::thread::scope(|scope| {
        for (number, key) in keys.iter().enumerate() {
            let file = &file;
            scope.spawn(move || learn(file, &format!("host{number}"), 22, key, false).unwrap());
        }
    });
    let known = HostKeys::read([&file]);
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(known.check(&format!("host{number}"), 22, key), Verdict::Known);
    }
}

#[cfg(unix)]
#[test]
fn dev_null_stays_what_it_is() {
    let null = PathBuf::from("/dev/null");
    learn(&null, "host", 22, &new_public_key(), false).unwrap();
    assert!(HostKeys::read([&null]).warnings.is_empty());
    assert!(!fs::metadata(null).unwrap().is_file());
}

#[test]
fn wildcards_match_as_ssh_matches_them() {
    for (pattern, text, hit) in [
        ("*", "", true),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*.b.*", "a.b.c.b.d", true),
        ("a*b*c", "aXbYd", false),
    ] {
        assert_eq!(is_one_of(text, [pattern].into_iter()), hit, "{pattern} {text}");
    }
    assert!(!is_one_of(&"a".repeat(49), [&*"*a".repeat(50)].into_iter()));
}
