//! What is offered at a login, and in what order: as ssh does it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use russh::keys::PrivateKey;
use russh::keys::ssh_key::certificate::CertType;

use super::server::{Knows, TestServer, new_key};
use super::{Home, certify, enter, knowing, known_hosts, refused, to};

/// OpenSSH's agent with a key in it.
struct SshAgent(Child);

impl SshAgent {
    fn with(home: &Home, keys: &[&str]) -> Self {
        let socket = home.0.path().join("agent");
        let agent =
            Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let agent = Self(agent);
        let added = || {
            let paths = keys.iter().map(|key| home.ssh().join(key));
            let run = Command::new("ssh-add")
                .args(paths)
                .env("SSH_AUTH_SOCK", &socket)
                .stderr(Stdio::null())
                .status();
            run.is_ok_and(|status| status.success())
        };
        let patience = std::iter::repeat_with(added).take(500);
        assert!(patience.into_iter().any(|done| done), "ssh-add reaches ssh-agent");
        agent
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn keys_of_ssh_agent_are_offered_and_with_identities_only_those_that_files_name() {
    let home = Home::new();
    let (known, other) = (home.key("known"), home.key("other"));
    home.write("named.pub", known.public_key().to_openssh().unwrap());
    let _agent = SshAgent::with(&home, &["other", "known"]);
    fs::remove_file(home.ssh().join("known")).unwrap();
    let socket = home.0.path().join("agent");
    let variables = [("SSH_AUTH_SOCK", socket.to_str().unwrap())];
    let server = TestServer::start(knowing(&[&known])).await;
    home.knows(&server);
    let fingerprint =
        |key: &PrivateKey| format!("v2 ssh-ed25519 {}", known_hosts::fingerprint(key.public_key()));

    enter(&home.route(&to(&server), &variables)).await.unwrap();
    assert_eq!(server.tried()[0], fingerprint(&other));

    home.write("config", "IdentityFile ~/.ssh/named.pub\nIdentitiesOnly yes\n");
    let before = server.tried().len();
    enter(&home.route(&to(&server), &variables)).await.unwrap();
    assert!(!server.tried()[before..].contains(&fingerprint(&other)), "{:?}", server.tried());
}

/// A home with keys `a` and `b`, a certificate beside each, and others elsewhere.
fn home_with_certificates() -> Home {
    let home = Home::new();
    let authority = new_key();
    for name in ["a", "b"] {
        let key = home.key(name);
        let certificate = certify(&authority, &key, CertType::User, "v2");
        home.write(&format!("{name}.pub"), key.public_key().to_openssh().unwrap());
        home.write(&format!("{name}-cert.pub"), certificate.to_openssh().unwrap());
        let certificate = certify(&authority, &key, CertType::User, "other");
        home.write(&format!("other-{name}.pub"), certificate.to_openssh().unwrap());
        let certificate = certify(&authority, &key, CertType::Host, "v2");
        home.write(&format!("host-{name}.pub"), certificate.to_openssh().unwrap());
    }
    home
}

/// What ssh offers, with the same configuration.
async fn offers_of_ssh(home: &Home, server: &TestServer, socket: &str) -> Vec<String> {
    let before = server.tried().len();
    let (config, known_hosts) = (home.ssh().join("config"), home.ssh().join("known_hosts"));
    let (port, user) = (server.address.port().to_string(), "v2@127.0.0.1");
    let mut ssh = tokio::process::Command::new("ssh");
    ssh.arg("-F").arg(config).args(["-p", &port, "-o", "BatchMode=yes", "-o"]);
    ssh.arg(format!("UserKnownHostsFile={}", known_hosts.display())).args([user, "true"]);
    let status = ssh.env("SSH_AUTH_SOCK", socket).stdin(Stdio::null()).stderr(Stdio::null()).status();
    assert_eq!(status.await.unwrap().code(), Some(255));
    server.tried()[before..].to_vec()
}

/// One line for each offer, though ssh may ask about a key before it signs with it.
fn offers(tried: &[String]) -> Vec<String> {
    let mut offers = tried.to_vec();
    offers.dedup();
    offers
}

#[tokio::test]
async fn keys_and_certificates_are_offered_as_ssh_offers_them() {
    let home = home_with_certificates();
    let path = |name: &str| home.ssh().join(name).display().to_string();
    // One that no file names, and before the one that is named.
    home.key("foreign");
    let _agent = SshAgent::with(&home, &["foreign", "b"]);
    let socket = home.0.path().join("agent").display().to_string();
    for (with_agent, text) in [
        (false, "IdentityFile A\nIdentityFile B"),
        (false, "IdentityFile A\nIdentityFile B\nCertificateFile other-b.pub"),
        (false, "IdentityFile A\nIdentityFile B\nCertificateFile other-b.pub\nCertificateFile other-a.pub"),
        (false, "IdentityFile A\nCertificateFile host-a.pub"),
        (true, "IdentityFile A\nIdentityFile B"),
        (true, "IdentityFile A\nIdentityFile B\nCertificateFile other-b.pub"),
        (true, "IdentityFile A\nIdentityFile B.pub\nCertificateFile other-b.pub\nIdentitiesOnly yes"),
    ] {
        let text = text.replace(" A", &format!(" {}", path("a"))).replace(" B", &format!(" {}", path("b")));
        let text = text.replace("CertificateFile ", &format!("CertificateFile {}/", home.ssh().display()));
        home.write("config", &text);
        let server = TestServer::start(Knows { demands_signatures: true, ..Default::default() }).await;
        home.knows(&server);
        let socket = if with_agent { &*socket } else { "" };
        let theirs = offers_of_ssh(&home, &server, socket).await;
        let before = server.tried().len();
        refused(&home.route(&to(&server), &[("SSH_AUTH_SOCK", socket)])).await;
        assert_eq!(theirs.iter().any(|it| it == "certificate id"), !text.contains("host-a"), "{theirs:?}");
        assert_eq!(offers(&server.tried()[before..]), offers(&theirs), "{text}");
    }
}

#[tokio::test]
async fn a_key_that_is_named_is_offered_however_many_others_the_agent_has() {
    let home = Home::new();
    let others = ["o1", "o2", "o3", "o4", "o5", "o6"];
    for name in others {
        home.key(name);
    }
    let key = home.key("named");
    home.write("config", "IdentityFile ~/.ssh/named");
    let _agent = SshAgent::with(&home, &[&others[..], &["named"]].concat());
    let server = TestServer::start(knowing(&[&key])).await;
    home.knows(&server);
    let socket = home.0.path().join("agent").display().to_string();
    enter(&home.route(&to(&server), &[("SSH_AUTH_SOCK", &socket)])).await.unwrap();
    assert_eq!(server.tried().len(), 1, "{:?}", server.tried());
}

#[tokio::test]
async fn a_private_key_that_others_can_read_is_not_used_and_ssh_does_the_same() {
    let home = Home::new();
    let key = home.key("k e y");
    let path = home.ssh().join("k e y");
    home.write("config", format!("IdentityFile '{}'", path.display()));
    let server = TestServer::start(knowing(&[&key])).await;
    home.knows(&server);
    for mode in [0o600, 0o400, 0o640, 0o604, 0o644, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let mut ssh = tokio::process::Command::new("ssh");
        ssh.arg("-F").arg(home.ssh().join("config"));
        ssh.args(["-p", &server.address.port().to_string(), "-o", "BatchMode=yes", "-o"]);
        ssh.arg(format!("UserKnownHostsFile={}", home.ssh().join("known_hosts").display()));
        ssh.args(["v2@127.0.0.1", "true"]).env("SSH_AUTH_SOCK", "").stdin(Stdio::null());
        let theirs = ssh.output().await.unwrap().stderr;
        let is_refused = String::from_utf8_lossy(&theirs).contains("UNPROTECTED PRIVATE KEY FILE");
        assert_eq!(is_refused, mode & 0o077 != 0, "{mode:o}");
        match enter(&home.route(&to(&server), &[])).await {
            Ok(_) => assert!(!is_refused, "{mode:o}"),
            Err(error) => {
                assert!(is_refused, "{mode:o}: {error}");
                let mend = format!("`chmod 600 '{}'`", path.display());
                assert!(error.to_string().contains(&mend), "{error}");
            }
        }
    }
    // The agent's copy of it is good.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let _agent = SshAgent::with(&home, &["k e y"]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let socket = home.0.path().join("agent").display().to_string();
    enter(&home.route(&to(&server), &[("SSH_AUTH_SOCK", &socket)])).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_ssh_config_names_opens_a_server_that_does_not_know_the_key() {
    let home = home_with_certificates();
    let config = "IdentityFile ~/.ssh/a\nCertificateFile ~/.ssh/other-%u.pub\nIdentitiesOnly yes";
    home.write("config", config);
    let server = TestServer::start(Knows { certificates: true, ..Default::default() }).await;
    home.knows(&server);
    enter(&home.route(&to(&server), &[("USER", "a")])).await.unwrap();
    assert_eq!(server.tried().last().map(String::as_str), Some("certificate id"));

    home.write("config", config.replace("other-%u", "other-b"));
    let server = TestServer::start(Knows::default()).await;
    home.knows(&server);
    let error = refused(&home.route(&to(&server), &[])).await.to_string();
    assert!(error.contains("other-b.pub: its private key is in no file"), "{error}");
    home.write("config", config.replace("other-%u", "host-a"));
    let error = refused(&home.route(&to(&server), &[])).await.to_string();
    assert!(error.contains("a certificate of a host"), "{error}");
}
