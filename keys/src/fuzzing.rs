//! What the fuzzers in `fuzz/` call, and what the tests call with their corpora: each takes any bytes, and panics where
//! a promise is broken.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use jiff::tz::TimeZone;
use russh::keys::{Certificate, PublicKey};

use crate::krl::Krl;
use crate::{AuthorizedKeys, CertAuthorities, Login, Restrictions, Revocations};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// A file of keys: each line is a key, an authority, nothing, or complained about; none is admitted past its end.
pub fn authorized(data: &[u8]) {
    let mut keys = AuthorizedKeys::default();
    let mut complaints = Vec::new();
    keys.add(data, Path::new("keys"), &TimeZone::UTC, &mut complaints);
    for complaint in &complaints {
        let printable = complaint.text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        assert!(printable, "a complaint is one printable line: {complaint}");
    }
    for grant in keys.every_grant() {
        let limits = &grant.restrictions;
        let late = limits.expiry.map(|expiry| grant.admits(PEER, expiry + Duration::from_secs(1)));
        assert!(late.is_none_or(|it| it.is_err()), "nobody gets in when the time is over: {grant:?}");
        let _ = (limits.may_listen("a.example.com", 443), limits.may_open("localhost", 80));
        assert!(limits.forwarding || !limits.may_listen("localhost", 0));
    }
}

/// A certificate, in binary or as text: whatever it says, an authority that forbids everything permits nothing.
pub fn certificate(data: &[u8]) {
    let text = || Certificate::from_openssh(std::str::from_utf8(data).ok()?).ok();
    let Some(certificate) = Certificate::from_bytes(data).ok().or_else(text) else { return };
    let now = UNIX_EPOCH + Duration::from_secs(certificate.valid_after().min(1 << 40));
    let login = Login { user: "ada", peer: PEER, now };
    let strict = Restrictions { forwarding: false, pty: false, ..Restrictions::default() };
    let authority = PublicKey::from(certificate.signature_key().clone());
    let authorities = CertAuthorities::trusting(&authority, strict);
    if let Ok(granted) = authorities.judge(&certificate, login, &Revocations::none()) {
        assert!(!granted.restrictions.forwarding && !granted.restrictions.pty, "{granted:?}");
        assert!(!certificate.valid_principals().is_empty());
        assert!(granted.restrictions.expiry.is_none_or(|expiry| expiry >= now));
    }
    let refused = authorities.judge(&certificate, login, &Revocations::everything());
    assert!(refused.is_err(), "an unreadable list revokes every certificate");
}

/// A key revocation list: read to its end or not at all.
pub fn krl(data: &[u8]) {
    let Ok(list) = Krl::parse(data) else { return };
    let longer = [data, b"\x09"].concat();
    assert!(Krl::parse(&longer).is_err(), "a byte too much is not passed over");
    if let Ok(certificate) = Certificate::from_bytes(include_bytes!("../fuzz/corpus/certificate/names")) {
        let _ = list.revokes_certificate(&certificate);
        let _ = list.revokes_key(&PublicKey::from(certificate.public_key().clone()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    fn replay(target: &str, run: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let files =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for file in files {
            run(&std::fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{target} has a corpus");
    }

    #[test]
    fn what_fuzzers_have_found_stays_mended() {
        replay("authorized", authorized);
        replay("certificate", certificate);
        replay("krl", krl);
    }

    proptest! {
        #[test]
        fn no_line_makes_a_panic(options in "[ -~é\\t]{0,40}", more: Vec<u8>) {
            authorized(format!("{options} {KEY} comment").as_bytes());
            authorized(&more);
        }

        #[test]
        fn no_bytes_make_a_certificate_panic(data: Vec<u8>) {
            certificate(&data);
        }
    }
}
