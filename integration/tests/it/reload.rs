//! SIGHUP: a running server follows its files as far as it can, and says where it cannot.

use std::path::PathBuf;

use hithe_integration::server::Options;
use hithe_integration::{Origin, TestServer, eventually};

/// A server with this configuration file.
async fn with_file(text: &str) -> (TestServer, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hithed.toml");
    std::fs::write(&file, text).unwrap();
    let configured = |options: Options| options.arg("--config").arg(&file);
    (TestServer::with(configured).await, file, folder)
}

async fn reloaded(server: &TestServer, times: usize) {
    server.sighup();
    eventually("the configuration is read again", || {
        (server.log().matches("configuration read again").count() == times).then_some(())
    })
    .await;
}

#[tokio::test]
async fn sighup_takes_over_what_can_change() {
    let (server, file, _folder) = with_file("reserved-labels = \"shop\"\n").await;
    let origin = Origin::echoing_requests().await;
    let publish = |name: &'static str| server.ssh().forward_to(name, &origin).command("http");
    let refused = publish("shop:80").run().await;
    assert!(refused.output().contains("ERR_HITHE_320"), "{}", refused.output());
    let _www = publish("www:80").publish().await;

    let text = "reserved-labels = \"www\"\nallow-domain = \"custom.test\"\ntrusted-proxies = \"127.0.0.0/8\"\n\
                log-level = \"debug\"\n";
    std::fs::write(&file, text).unwrap();
    reloaded(&server, 1).await;
    let line = server.logged("configuration read again").await;
    for option in ["reserved-labels", "allow-domain", "trusted-proxies", "log-level"] {
        assert!(line.contains(option), "{line}");
    }
    let shop = publish("shop:80").publish().await;
    let _custom = publish("custom.test:80").publish().await;
    // What was live stays so.
    let visitor = server.visitor().header("x-forwarded-for", "192.0.2.1");
    let reply = visitor.get("http://www.localhost/").await;
    assert_eq!(reply.seen_header("x-forwarded-for").as_deref(), Some("192.0.2.1, 127.0.0.1"));
    drop(shop);
    server.logged("DEBUG the connection of a publisher ended").await;
}

#[tokio::test]
async fn a_file_that_is_wrong_changes_nothing() {
    let (server, file, _folder) = with_file("reserved-labels = \"shop\"\n").await;
    let origin = Origin::replying("hello").await;
    std::fs::write(&file, "reserved-labels = \"www\"\ngrace = \"soon\"\nopen = true\n").unwrap();
    server.sighup();
    let told = server.logged("hithed.toml:2:9").await;
    assert!(told.contains("the configuration is wrong"), "{told}");
    server.logged("--open lets any key publish").await;
    server.logged("keeping the whole configuration of before").await;
    let refused = server.ssh().forward_to("shop:80", &origin).command("http").run().await;
    assert!(refused.output().contains("ERR_HITHE_320"), "{}", refused.output());
    let _www = server.ssh().forward_to("www:80", &origin).command("http").publish().await;

    std::fs::write(&file, "reserved-labels = \"www\"\n").unwrap();
    reloaded(&server, 1).await;
    let _shop = server.ssh().forward_to("shop:80", &origin).command("http").publish().await;
}

#[tokio::test]
async fn an_option_that_needs_a_restart_is_named_and_stays() {
    let (server, file, _folder) = with_file("workers = 2\n").await;
    let text = "workers = 3\npublic-http-port = 80\nssh-listen = \"127.0.0.1:1\"\ngrace = \"7s\"\n";
    std::fs::write(&file, text).unwrap();
    for times in 1..=2 {
        reloaded(&server, times).await;
    }
    // The flag of the test counts more than the file: nothing has changed there.
    let log = server.log();
    assert!(!log.contains("--ssh-listen has changed"), "{log}");
    for option in ["workers", "public-http-port"] {
        assert_eq!(
            log.matches(&format!("--{option} has changed, which needs a restart")).count(),
            2,
            "{log}"
        );
    }
    assert!(log.contains("changed=\"grace\""), "{log}");
}

#[tokio::test]
async fn sighup_reads_keys_and_certificates_at_once() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let (gone, come) = (server.user_key(), server.another_key("another", "ed25519"));
    let mut ssh = server.ssh().forward_to("app:80", &origin).command("http").publish().await;
    std::fs::write(server.authorized_keys(), TestServer::public_half(&come) + "\n").unwrap();
    reloaded(&server, 1).await;
    ssh.wait().await;
    let refused = server.ssh().key(&gone).forward_to("0", &origin).command("http").run().await;
    assert_ne!(refused.code, Some(0));
    let _ssh = server.ssh().key(&come).forward_to("0", &origin).command("http").publish().await;
    // An unreadable file keeps those of before.
    std::fs::remove_file(server.authorized_keys()).unwrap();
    server.sighup();
    server.logged("keeping the keys and accounts of before").await;
    let _ssh = server.ssh().key(&come).forward_to("0", &origin).command("http").publish().await;
}
