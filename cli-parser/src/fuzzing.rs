//! What the fuzzers in `fuzz/` call, and what the tests call with their corpora: each takes any bytes, and panics where
//! a promise is broken.

#![expect(clippy::expect_used, reason = "a broken promise fails the fuzzer or the test")]

use crate::{Bind, HostName, HostPattern, Parsed, Pem, Template, UserName, parse};

/// An exec line, as words and as a command: what is understood is given back by the line that it writes.
pub fn command(data: &[u8]) {
    let line = String::from_utf8_lossy(data);
    let _ = UserName::parse(&line);
    match parse(&line) {
        Ok(Parsed::Publish(command)) => {
            let written = command.to_string();
            assert_eq!(
                parse(&written).as_ref(),
                Ok(&Parsed::Publish(command)),
                "{line:?} was written as {written:?}"
            );
        }
        Ok(Parsed::Admin(_) | Parsed::Help(_)) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A value with variables: what is read is written again.
pub fn template(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(template) = text.parse::<Template>() {
        assert_eq!(template.as_str(), text);
        let again: Template = template.to_string().parse().expect("what was written is read");
        assert_eq!(again, template);
    }
}

/// What stands in `-R` or in a Host header: a name parses to itself.
pub fn host_name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(name) = HostName::parse(&text) {
        assert_eq!(HostName::parse(name.as_str()).as_ref(), Ok(&name));
    }
    let _ = HostName::from_authority(&text);
    let _ = HostPattern::parse(&text);
    if let Ok(domain) = HostName::parse("tunnel.example.com") {
        let _ = Bind { address: text.into_owned(), port: 443 }.requested_name(&domain);
    }
}

/// Certificates and keys in a command line.
pub fn pem(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(pem) = text.parse::<Pem>() {
        let written = String::from(pem.clone());
        assert_eq!(written.parse::<Pem>().as_ref(), Ok(&pem));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
        replay("command", super::command);
        replay("template", super::template);
        replay("host_name", super::host_name);
        replay("pem", super::pem);
    }
}
