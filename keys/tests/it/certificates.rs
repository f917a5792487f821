//! Certificates of users, as `ssh-keygen -s` makes them.

use std::time::Duration;

use hithe_keys::{
    Account, AuthorizedKeys, CertAuthorities, CertGrant, CertRefused, Login, Refused, Revocations,
};
use russh::keys::Certificate;

use crate::keygen::{Keygen, login, now};

/// Trusts what the line says of the key `ca`.
fn trusting(keys: &Keygen, options: &str) -> CertAuthorities {
    let path = keys.write("authorized_keys", format!("{options} {}\n", keys.line("ca")));
    let (keys, complaints) = AuthorizedKeys::load(&path).unwrap();
    assert_eq!(complaints, []);
    keys.authorities().clone()
}

fn check(options: &str, arguments: &[&str]) -> Result<CertGrant, CertRefused> {
    let keys = Keygen::new();
    let certificate = keys.certificate(arguments);
    trusting(&keys, options).check(&certificate, login("v2"), &Revocations::none())
}

fn granted(options: &str, arguments: &[&str]) -> CertGrant {
    check(options, arguments).unwrap_or_else(|error| panic!("{options} {arguments:?}: {error}"))
}

fn refused(options: &str, arguments: &[&str]) -> CertRefused {
    match check(options, arguments) {
        Err(error) => error,
        Ok(granted) => panic!("{options} {arguments:?}: {granted:?}"),
    }
}

#[test]
fn a_certificate_of_a_trusted_authority_gets_in_as_its_principal() {
    let grant = granted("cert-authority", &["-n", "ada", "-z", "7"]);
    assert_eq!(grant.account.to_string(), "ada");
    assert_eq!((grant.key_id.as_str(), grant.serial, grant.comment.as_str()), ("an id", 7, "ca"));
    assert!(grant.restrictions.is_none(), "{:?}", grant.restrictions);
    assert!(
        grant.restrictions.may_listen("app", 443) && grant.restrictions.pty && grant.may_publish("any.test")
    );
}

#[test]
fn a_file_of_trusted_authorities_trusts_their_keys() {
    let keys = Keygen::new();
    let path = keys.write("cas", format!("# ours\n{}\nno-pty {}\n", keys.line("ca"), keys.line("ada")));
    let (authorities, complaints) = CertAuthorities::load(&path).unwrap();
    assert_eq!((authorities.len(), complaints.len()), (1, 1));
    let certificate = keys.certificate(&["-n", "ada"]);
    assert!(authorities.check(&certificate, login("v2"), &Revocations::none()).is_ok());
}

#[test]
fn an_authority_that_is_not_trusted_lets_nobody_in() {
    let keys = Keygen::new();
    keys.key("other", "ed25519");
    let certificate = keys.certificate_by("other", &["-n", "ada"]);
    let answer = trusting(&keys, "cert-authority").check(&certificate, login("v2"), &Revocations::none());
    assert!(matches!(answer, Err(CertRefused::UnknownAuthority(_))), "{answer:?}");
    // Nor is a key trusted to sign because it may log in.
    let path = keys.write("plain", keys.line("other"));
    let (plain, _) = AuthorizedKeys::load(&path).unwrap();
    let answer = plain.authorities().check(&certificate, login("v2"), &Revocations::none());
    assert!(matches!(answer, Err(CertRefused::UnknownAuthority(_))), "{answer:?}");
}

#[test]
fn certificates_of_each_type_of_authority_are_understood() {
    for kind in ["ecdsa", "rsa", "ed25519"] {
        let keys = Keygen::new();
        keys.key("signer", kind);
        let path = keys.write("list", format!("cert-authority {}", keys.line("signer")));
        let certificate = keys.certificate_by("signer", &["-n", "ada"]);
        let (list, _) = AuthorizedKeys::load(&path).unwrap();
        let answer = list.authorities().check(&certificate, login("v2"), &Revocations::none());
        assert!(answer.is_ok(), "{kind}: {answer:?}");
    }
}

#[test]
fn a_signature_with_sha1_is_refused() {
    let keys = Keygen::new();
    keys.key("rsa", "rsa");
    let path = keys.write("list", format!("cert-authority {}", keys.line("rsa")));
    let (list, _) = AuthorizedKeys::load(&path).unwrap();
    let certificate = keys.certificate_by("rsa", &["-t", "ssh-rsa", "-n", "ada"]);
    let answer = list.authorities().check(&certificate, login("v2"), &Revocations::none());
    assert_eq!(answer, Err(CertRefused::WeakSignature("ssh-rsa".to_owned())));
}

#[test]
fn a_changed_certificate_has_a_wrong_signature() {
    let keys = Keygen::new();
    let mut bytes = keys.certificate(&["-n", "ada"]).to_bytes().unwrap();
    let at = bytes.windows(3).position(|it| it == b"ada").unwrap();
    bytes[at] = b'b';
    let forged = Certificate::from_bytes(&bytes).unwrap();
    assert_eq!(forged.valid_principals(), ["bda"]);
    let answer = trusting(&keys, "cert-authority").check(&forged, login("v2"), &Revocations::none());
    assert_eq!(answer, Err(CertRefused::Signature));
}

#[test]
fn a_certificate_of_a_host_is_refused() {
    assert_eq!(refused("cert-authority", &["-h", "-n", "ada"]), CertRefused::NotUser);
}

#[test]
fn a_certificate_is_good_from_its_first_second_and_before_its_end() {
    let keys = Keygen::new();
    let certificate = keys.certificate(&["-n", "ada", "-V", "20231114221320Z:20231114221420Z"]);
    let authorities = trusting(&keys, "cert-authority");
    let at = |seconds: i64| {
        let offset = Duration::from_secs(seconds.unsigned_abs());
        let now = if seconds < 0 { now() - offset } else { now() + offset };
        let login = Login { now, ..login("v2") };
        authorities.check(&certificate, login, &Revocations::none()).map(|it| it.restrictions.expiry)
    };
    assert_eq!(at(-1), Err(CertRefused::NotYetValid));
    assert_eq!(at(0), Ok(Some(now() + Duration::from_secs(59))));
    assert!(at(59).is_ok());
    assert_eq!(at(60), Err(CertRefused::Expired));
}

#[test]
fn the_earlier_end_of_line_and_certificate_counts() {
    for (line, certificate) in [("20240601Z", "20240101Z"), ("20240101Z", "20240601Z")] {
        let options = format!("cert-authority,expiry-time=\"{line}\"");
        let grant = granted(&options, &["-n", "ada", "-V", &format!("20200101Z:{certificate}")]);
        let days = grant.restrictions.expiry.unwrap().duration_since(now()).unwrap().as_secs() / 86_400;
        assert_eq!(days, 47, "until the end of 2023: {line} {certificate}");
    }
}

#[test]
fn a_certificate_without_principals_is_refused() {
    assert_eq!(refused("cert-authority", &[]), CertRefused::NoPrincipal);
    assert_eq!(refused("cert-authority,account=\"ada\"", &[]), CertRefused::NoPrincipal);
    assert_eq!(refused("cert-authority", &["-n", "*"]), CertRefused::NoPrincipal);
}

#[test]
fn principals_with_dots_are_names_and_limit_what_is_published() {
    let grant = granted("cert-authority", &["-n", "*.ada.example.com,ada,shop.example.com,bob"]);
    assert_eq!(grant.account.to_string(), "ada");
    assert!(grant.may_publish("x.ada.example.com") && grant.may_publish("shop.example.com"));
    assert!(!grant.may_publish("ada.example.com") && !grant.may_publish("*.example.com"));
    assert!(grant.may_publish("*.ada.example.com"));

    let nameless = granted("cert-authority", &["-n", "*.ada.example.com"]);
    assert_eq!(nameless.account, Account::Key(nameless.fingerprint));
}

#[test]
fn a_user_name_picks_among_the_accounts_of_the_certificate_and_no_other() {
    let keys = Keygen::new();
    let certificate = keys.certificate(&["-n", "ada,bob,x.example.com"]);
    let account = |options: &str, user| {
        let granted = trusting(&keys, options).check(&certificate, login(user), &Revocations::none());
        granted.unwrap().account.to_string()
    };
    for (user, wanted) in [("v2", "ada"), ("bob", "bob"), ("x.example.com", "ada"), ("root", "ada")] {
        assert_eq!(account("cert-authority", user), wanted, "{user}");
    }
    assert_eq!(account("cert-authority,principals=\"bob\"", "ada"), "bob");
    assert_eq!(account("cert-authority,account=\"team\",principals=\"bob\"", "ada"), "team");
}

#[test]
fn an_authority_with_principals_vouches_for_those_alone() {
    let options = "cert-authority,principals=\"ada,*.bob.example.com\"";
    assert!(matches!(refused(options, &["-n", "bob"]), CertRefused::Principal { .. }));
    assert!(matches!(refused(options, &["-n", "x.bob.example.com"]), CertRefused::Principal { .. }));
    let grant = granted(options, &["-n", "ada,shop.example.com"]);
    assert!(grant.may_publish("shop.example.com") && !grant.may_publish("other.example.com"));
}

#[test]
fn the_source_address_of_a_certificate_counts() {
    assert!(check("cert-authority", &["-n", "ada", "-O", "source-address=192.0.2.0/24"]).is_ok());
    let elsewhere = refused("cert-authority", &["-n", "ada", "-O", "source-address=10.0.0.0/8,::1"]);
    assert_eq!(elsewhere, CertRefused::SourceAddress(login("v2").peer));
}

#[test]
fn what_the_line_restricts_stays_restricted() {
    let line = "cert-authority,from=\"10.0.0.0/8\"";
    assert!(matches!(refused(line, &["-n", "ada"]), CertRefused::Line(Refused::Address { .. })));
    let line = "cert-authority,expiry-time=\"20200101Z\"";
    assert!(matches!(refused(line, &["-n", "ada"]), CertRefused::Line(Refused::Expired { .. })));
    let grant = granted("cert-authority,no-pty,permitlisten=\"443\"", &["-n", "ada"]);
    assert!(grant.restrictions.may_listen("app", 443) && !grant.restrictions.may_listen("app", 80));
    assert!(!grant.restrictions.pty);
    assert!(!granted("cert-authority,restrict", &["-n", "ada"]).restrictions.forwarding);
}

#[test]
fn what_the_certificate_does_not_permit_is_forbidden() {
    for (options, forwarding, pty) in [
        (&["-O", "no-port-forwarding"][..], false, true),
        (&["-O", "no-pty"], true, false),
        (&["-O", "clear"], false, false),
        (&["-O", "clear", "-O", "permit-port-forwarding"], true, false),
        (&["-O", "extension:x@example.com=whatever"], true, true),
    ] {
        let grant = granted("cert-authority", &[&["-n", "ada"], options].concat());
        assert_eq!((grant.restrictions.forwarding, grant.restrictions.pty), (forwarding, pty), "{options:?}");
    }
}

#[test]
fn a_forced_command_counts_and_contradicts_no_other() {
    let forced = ["-n", "ada", "-O", "force-command=http --spa"];
    assert_eq!(granted("cert-authority", &forced).restrictions.command.as_deref(), Some("http --spa"));
    let same = granted("cert-authority,command=\"http --spa\"", &forced);
    assert_eq!(same.restrictions.command.as_deref(), Some("http --spa"));
    assert!(matches!(refused("cert-authority,command=\"tcp\"", &forced), CertRefused::Command { .. }));
    let line = granted("cert-authority,command=\"tcp\"", &["-n", "ada"]);
    assert_eq!(line.restrictions.command.as_deref(), Some("tcp"));
}

#[test]
fn a_critical_option_that_is_not_understood_is_refused() {
    for option in ["critical:x@example.com=y", "critical:permit-pty", "verify-required"] {
        let answer = refused("cert-authority", &["-n", "ada", "-O", option]);
        assert!(matches!(answer, CertRefused::CriticalOption(_)), "{option}: {answer:?}");
    }
    for (option, malformed) in [
        ("critical:source-address=somewhere", "source-address"),
        ("critical:force-command", "force-command"),
        ("extension:permit-pty=maybe", "permit-pty"),
    ] {
        let answer = refused("cert-authority", &["-n", "ada", "-O", "clear", "-O", option]);
        assert_eq!(answer, CertRefused::Malformed(malformed), "{option}");
    }
}

#[test]
fn a_second_line_of_an_authority_is_tried_when_the_first_refuses() {
    let keys = Keygen::new();
    let ca = keys.line("ca");
    let list =
        format!("cert-authority,principals=\"bob\" {ca}\ncert-authority,from=\"192.0.2.7\" {ca} second\n");
    let (list, _) = AuthorizedKeys::load(&keys.write("list", list)).unwrap();
    let certificate = keys.certificate(&["-n", "ada"]);
    let grant = list.authorities().check(&certificate, login("v2"), &Revocations::none()).unwrap();
    assert_eq!((grant.at.line, grant.comment.as_str()), (2, "ca second"));
}
