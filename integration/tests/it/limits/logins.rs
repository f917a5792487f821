//! Connections that have not logged in: how many, for how long, and what becomes of those that never do.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hithe_integration::{ProtocolClient, TestServer, within};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{log_in, refusals, server_of_ada};

/// What nobody comes from, so that this machine is not exempt.
const NOBODY: &str = "192.0.2.0/24";
const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

#[tokio::test]
async fn this_machine_is_not_punished_by_default() {
    let server = TestServer::with(|options| options.arg("--penalties").arg("authfail:10m")).await;
    let stranger = server.another_key("stranger", "ed25519");
    for _ in 0..3 {
        let refused = server.ssh().key(&stranger).command("whoami").run().await;
        assert!(refused.stderr.contains("Permission denied"), "{}", refused.output());
    }
}

#[tokio::test]
async fn who_fails_again_and_again_is_told_to_wait_and_nobody_else_is() {
    let server = TestServer::with(|options| {
        options.arg("--penalty-exempt").arg(NOBODY).arg("--penalties").arg("authfail:20s")
    })
    .await;
    let strangers = server.another_key("stranger", "ed25519");
    let from = |source: &str| server.ssh().option(&format!("BindAddress={source}")).command("whoami");
    let refused = from("127.0.0.2").key(&strangers).run().await;
    assert!(refused.stderr.contains("Permission denied"), "{}", refused.output());
    let turned_away = from("127.0.0.2").run().await;
    assert!(turned_away.stderr.contains("ERR_HITHE_1132"), "{}", turned_away.output());
    assert!(turned_away.stderr.contains("try again in"), "{}", turned_away.output());
    assert_eq!(from("127.0.0.1").run().await.code, Some(0));
}

#[tokio::test]
async fn a_penalty_ends() {
    let server = TestServer::with(|options| {
        options.arg("--penalty-exempt").arg(NOBODY).arg("--penalties").arg("authfail:2s,min:1s")
    })
    .await;
    let stranger = server.another_key("stranger", "ed25519");
    server.ssh().key(stranger).command("whoami").run().await;
    assert!(server.ssh().command("whoami").run().await.stderr.contains("ERR_HITHE_1132"));
    assert!(log_in(|| server.ssh().command("whoami")).await.contains("Account"));
}

#[tokio::test]
async fn a_client_with_several_keys_of_which_one_is_right_is_never_punished() {
    let server = TestServer::with(|options| {
        options.arg("--penalty-exempt").arg(NOBODY).arg("--penalties").arg("authfail:10m,noauth:10m")
    })
    .await;
    let wrong = ["a", "b", "c", "d"].map(|name| server.another_key(name, "ed25519"));
    for _ in 0..4 {
        let mut ssh = server.ssh().key(&wrong[0]);
        for key in wrong.iter().skip(1).chain([&server.user_key()]) {
            ssh = ssh.flag("-i").flag(key);
        }
        let done = ssh.command("whoami").run().await;
        assert_eq!(done.code, Some(0), "{}", done.output());
    }
}

#[tokio::test]
async fn who_does_not_log_in_in_time_is_counted() {
    let server = server_of_ada(&["--login-grace", "2s", "--penalty-exempt", NOBODY]).await;
    let mut silent = TcpStream::connect(server.ssh_address()).await.unwrap();
    within("the end of the grace", silent.read_to_end(&mut Vec::new())).await.unwrap();
    within("the count", async { while refusals(&server, "ERR_HITHE_1135").await != 1 {} }).await;
}

#[tokio::test]
async fn one_network_cannot_take_all_places_before_the_login() {
    let server = server_of_ada(&["--max-logins-per-source", "2"]).await;
    let connect = async || {
        let mut stream = TcpStream::connect(server.ssh_address()).await.unwrap();
        let mut version = [0; 8];
        within("the version line", stream.read_exact(&mut version)).await.unwrap();
        stream
    };
    let held = [connect().await, connect().await];
    let turned_away = server.ssh().command("whoami").run().await;
    assert!(turned_away.stderr.contains("ERR_HITHE_1134"), "{}", turned_away.output());
    let elsewhere = server.ssh().option("BindAddress=127.0.0.2").command("whoami").run().await;
    assert_eq!(elsewhere.code, Some(0), "{}", elsewhere.output());
    drop(held);
    log_in(|| server.ssh().command("whoami")).await;
    assert!(refusals(&server, "ERR_HITHE_1134").await >= 1);
}

/// Tries to log in with a wrong key; says how far it came.
async fn attack(server: &TestServer, key: &std::path::Path) -> bool {
    match ProtocolClient::connect_from(ATTACKER, server.ssh_address()).await {
        Ok(mut client) => client.try_key("v2", key).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_wrong_logins_a_second_leave_right_ones_working() {
    let words = ["--penalty-exempt", NOBODY, "--log-level", "warn"];
    let server = Arc::new(server_of_ada(&words).await);
    let stranger = server.another_key("stranger", "ed25519");
    let (tried, failed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let flood = {
        let (server, tried, failed) = (Arc::clone(&server), Arc::clone(&tried), Arc::clone(&failed));
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(1));
            let mut attacks = tokio::task::JoinSet::new();
            loop {
                ticks.tick().await;
                while attacks.len() > 200 {
                    attacks.join_next().await;
                }
                let (server, key) = (Arc::clone(&server), stranger.clone());
                let (tried, failed) = (Arc::clone(&tried), Arc::clone(&failed));
                attacks.spawn(async move {
                    if attack(&server, &key).await {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    tried.fetch_add(1, Ordering::Relaxed);
                });
            }
        })
    };
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut right = 0;
    while right < 20 || tried.load(Ordering::Relaxed) < 1000 {
        let login = Instant::now();
        let mut client = ProtocolClient::connect(server.ssh_address()).await;
        assert!(client.try_key("v2", &server.user_key()).await.unwrap());
        slowest = slowest.max(login.elapsed());
        right += 1;
    }
    flood.abort();
    let (tried, failed) = (tried.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
    assert!(failed < 100, "{failed} of {tried} came as far as a login in {:?}", began.elapsed());
    assert!(slowest < Duration::from_secs(15), "the slowest right login took {slowest:?}");
    assert!(refusals(&server, "ERR_HITHE_1132").await > 500);
}
