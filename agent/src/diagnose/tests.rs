//! The steps into servers that run in the test.

use hithe_cli_parser::Secret;

use super::*;
use crate::connect::HostKeyPolicy;
use crate::connect::tests::server::{Knows, TestServer, new_key, write_key};

struct Scene {
    folder: tempfile::TempDir,
    server: TestServer,
}

impl Scene {
    async fn with(adjust: impl FnOnce(Knows) -> Knows) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = new_key();
        write_key(folder.path(), "key", &key);
        let knows = Knows { keys: vec![key.public_key().clone()], ..Default::default() };
        Self { folder, server: TestServer::start(adjust(knows)).await }
    }

    fn options(&self) -> ServerOptions {
        ServerOptions {
            address: Some(self.server.address.to_string()),
            identities: vec![self.folder.path().join("key")],
            known_hosts: Some(self.folder.path().join("known_hosts")),
            ssh_config: crate::connect::SshConfigFile::None,
            host_key_policy: Some(HostKeyPolicy::AcceptNew),
            proxy: Some(Secret::new("none".into())),
            ..Default::default()
        }
    }

    async fn run(&self, options: &ServerOptions) -> (String, Report) {
        let mut out = Vec::new();
        let report = diagnose(options, &mut out).await.unwrap();
        (String::from_utf8(out).unwrap(), report)
    }
}

#[tokio::test]
async fn every_step_into_a_good_server_is_ok_and_nothing_stays_behind() {
    let scene = Scene::with(|knows| knows).await;
    let (text, report) = scene.run(&scene.options()).await;
    assert_eq!(report.exit_status, 0, "{text}");
    let names: Vec<_> = report.checks.iter().map(|check| check.name).collect();
    assert_eq!(names, STEPS);
    assert!(text.lines().all(|line| line.starts_with("[ OK ] ")), "{text}");
    assert!(text.contains("SSH-2.0-") && text.contains("ED25519 key SHA256:"), "{text}");
    assert!(text.contains("account ada, by key, from 127.0.0.1"), "{text}");
    assert!(
        scene.server.tried().ends_with(&["forward".into(), "cancel 4321".into()]),
        "{:?}",
        scene.server.tried()
    );
}

#[tokio::test]
async fn a_step_that_fails_has_advice_and_the_rest_is_skipped() {
    let scene = Scene::with(|knows| Knows { keys: Vec::new(), ..knows }).await;
    let (text, report) = scene.run(&scene.options()).await;
    assert_eq!(report.exit_status, exit::LOGIN, "{text}");
    assert!(text.contains("[FAIL] Login "), "{text}");
    assert!(text.contains("Ask the server's operator"), "{text}");
    assert!(text.ends_with("[ -- ] Forward  skipped\n"), "{text}");
}

#[tokio::test]
async fn a_port_where_nothing_listens_fails_at_tcp() {
    let scene = Scene::with(|knows| knows).await;
    let options = ServerOptions { address: Some("127.0.0.1:1".into()), ..scene.options() };
    let (text, report) = scene.run(&options).await;
    assert_eq!(report.exit_status, exit::NETWORK);
    assert!(text.contains("[FAIL] TCP      127.0.0.1:1: nothing listens there"), "{text}");
    assert_eq!(report.checks.iter().filter(|check| check.outcome == Outcome::Skipped).count(), 3, "{text}");
}

#[tokio::test]
async fn a_server_that_grants_no_forward_fails_at_the_last_step() {
    let scene = Scene::with(|knows| Knows { refuses_forwards: true, ..knows }).await;
    let (text, report) = scene.run(&scene.options()).await;
    assert_eq!(report.exit_status, exit::LOGIN);
    assert!(text.contains("[FAIL] Forward "), "{text}");
}

#[tokio::test]
async fn the_same_is_there_as_json() {
    let scene = Scene::with(|knows| knows).await;
    let mut out = Vec::new();
    diagnose_json(&ServerOptions::default(), &mut out).await.unwrap();
    diagnose_json(&scene.options(), &mut Vec::new()).await.unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json["checks"][0]["outcome"], "failed");
    assert_eq!(json["checks"][0]["name"], "Route");
    assert_eq!(json["checks"][1]["outcome"], "skipped");
}
