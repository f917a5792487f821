//! `hithed check`: says everything that is wrong with a configuration, without changing or starting anything.

use std::io::{self, Write};

use hithe_keys::{AuthorizedKeys, CertAuthorities, Complaint, Revocations, Severity, host};

use crate::certs;
use crate::config::{Config, KeyFiles, KeyPolicy, Options, Problem, layered};
use crate::modules::check_client_cas;

/// Prints all problems, or a summary; true when there is none.
pub fn check(options: Options, out: &mut dyn Write) -> bool {
    let (outcome, mut problems) = match layered(options) {
        Ok((options, problems)) => {
            let in_files = problems_of_files(&options);
            (Config::try_from(options), [problems, in_files].concat())
        }
        Err(error) => (Err(error), vec![]),
    };
    let config = match outcome {
        Ok(config) => Some(config),
        Err(error) => {
            problems.extend(error.into_problems());
            None
        }
    };
    let written = match config {
        Some(config) if problems.is_empty() => summarize(&config, out),
        _ => list(&problems, out),
    };
    written.is_ok() && problems.is_empty()
}

/// Looks into every file that the options name.
fn problems_of_files(options: &Options) -> Vec<Problem> {
    let mut problems = Vec::new();
    for path in &options.host_key {
        problems.extend(host::load(path).err().map(|it| Problem::of(&it)));
    }
    if let Some(path) = &options.authorized_keys {
        match AuthorizedKeys::load(path) {
            Ok((_, complaints)) => problems.extend(unused(&complaints)),
            Err(error) => problems.push(Problem::of(&error)),
        }
    }
    if let Some(path) = &options.trusted_user_ca {
        match CertAuthorities::load(path) {
            Ok((_, complaints)) => problems.extend(unused(&complaints)),
            Err(error) => problems.push(Problem::of(&error)),
        }
    }
    if let Some(path) = &options.revoked_keys {
        problems.extend(Revocations::load(path).1.map(|error| Problem::of(&error)));
    }
    if let Some(path) = &options.certificates {
        problems.extend(certs::check_directory(path).into_iter().map(Problem::new));
    }
    if let Some(path) = &options.client_cas {
        problems.extend(check_client_cas(path).into_iter().map(Problem::new));
    }
    problems
}

/// Lines that admit nobody.
fn unused(complaints: &[Complaint]) -> impl Iterator<Item = Problem> {
    let errors = complaints.iter().filter(|it| it.severity == Severity::Error);
    errors.map(|it| Problem::new(it.to_string()))
}

fn list(problems: &[Problem], out: &mut dyn Write) -> io::Result<()> {
    for problem in problems {
        writeln!(out, "{problem}")?;
    }
    match problems.len() {
        1 => writeln!(out, "1 problem"),
        many => writeln!(out, "{many} problems"),
    }
}

fn summarize(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "configuration is fine")?;
    let lines = |out: &mut dyn Write, name: &str, value: String| writeln!(out, "  {name:<13} {value}");
    lines(out, "domain", config.domain.to_string())?;
    lines(out, "state", config.state_dir.display().to_string())?;
    for (name, list) in
        [("ssh", &config.listen.ssh), ("http", &config.listen.http), ("https", &config.listen.https)]
    {
        lines(out, name, list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))?;
    }
    let (first, last) = (config.tcp_ports.start(), config.tcp_ports.end());
    lines(out, "tcp", format!("ports {first}-{last} on {}", config.tcp_listen_address.ip))?;
    lines(out, "publishers", publishers(&config.keys))?;
    lines(
        out,
        "certificates",
        match &config.certificates {
            Some(path) => format!("from {}", path.display()),
            None => "from the server's own authority in the state directory".to_owned(),
        },
    )
}

fn publishers(keys: &KeyPolicy) -> String {
    match keys {
        KeyPolicy::Open => "ANY KEY (--open)".to_owned(),
        KeyPolicy::Known(KeyFiles { keys: None, .. }) => {
            "those of the database in the state directory".to_owned()
        }
        KeyPolicy::Known(KeyFiles { keys: Some(path), .. }) => {
            let count = AuthorizedKeys::load(path).map_or(0, |(keys, _)| keys.len());
            format!("{count} authorized in {}", path.display())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn checked(options: Options) -> (bool, String) {
        let mut out = Vec::new();
        let fine = check(options, &mut out);
        (fine, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_good_configuration_is_summarized() {
        let (fine, told) = checked(Options { open: Some(true), ..Options::default() });
        assert!(fine && told.starts_with("configuration is fine\n"), "{told}");
        assert!(told.contains("ANY KEY"), "{told}");
    }

    #[test]
    fn problems_of_all_kinds_are_told_together() {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("hithed.toml"), "log-level = \"loud\"\n").unwrap();
        fs::write(at("keys"), "frob ssh-ed25519 AAAA\n").unwrap();
        fs::create_dir_all(at("certificates/empty")).unwrap();
        let (fine, told) = checked(Options {
            config: Some(at("hithed.toml")),
            host_key: vec![at("no-such-key")],
            authorized_keys: Some(at("keys")),
            certificates: Some(at("certificates")),
            client_cas: Some(at("no-such-authorities")),
            allow_domain: vec!["app.localhost".parse().unwrap()],
            ..Options::default()
        });
        assert!(!fine);
        for part in [
            "hithed.toml:1:13",
            "no-such-key",
            "keys:1: has the unknown option",
            "fullchain.pem",
            "no-such-authorities",
            "app.localhost",
        ] {
            assert!(told.contains(part), "{part} is missing in {told}");
        }
        assert!(told.ends_with("6 problems\n"), "{told}");
    }

    #[test]
    fn a_check_leaves_no_trace() {
        let directory = TempDir::new().unwrap();
        let state = directory.path().join("state");
        checked(Options { open: Some(true), state_dir: Some(state.clone()), ..Options::default() });
        assert!(!state.exists());
    }
}
