//! Under systemd: what it is told, the sockets that it passes and keeps, and the units that go with the server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use hithe_integration::systemd::{KeptSockets, Manager, SocketActivation};
use hithe_integration::{Origin, TestServer, eventually, program, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn systemd_hears_of_start_reload_life_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::listen(folder.path());
    let supervised = |options: hithe_integration::server::Options| {
        options.env("NOTIFY_SOCKET", manager.path()).env("WATCHDOG_USEC", "300000")
    };
    let mut server = TestServer::with(supervised).await;
    manager.hears("READY=1").await;
    for _ in 0..3 {
        manager.hears("WATCHDOG=1").await;
    }
    let origin = Origin::replying("hello").await;
    let ssh = server.ssh().forward_to("app:443", &origin).forward_to("app:80", &origin).command("http");
    let _ssh = ssh.publish().await;
    manager.hears("STATUS=Serving 1 sessions, 2 endpoints").await;

    server.sighup();
    let reloading = manager.hears("RELOADING=1").await;
    assert!(reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading:?}");
    manager.hears("READY=1").await;
    server.sigterm();
    manager.hears("STOPPING=1").await;
    assert!(server.wait().await.success());
}

#[tokio::test]
async fn the_watchdog_is_told_while_visits_are_finished() {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::listen(folder.path());
    let (origin, feed) = Origin::fed().await;
    let supervised = |options: hithe_integration::server::Options| {
        options.env("NOTIFY_SOCKET", manager.path()).env("WATCHDOG_USEC", "300000")
    };
    let mut server = TestServer::with(supervised).await;
    let _ssh = server.ssh().forward_to("app:80", &origin).command("http").publish().await;
    assert!(feed.send("first").await);
    let mut stream = server.visitor().open("http://app.localhost/").await;
    stream.next_text().await;
    server.sigterm();
    manager.hears("STOPPING=1").await;
    for _ in 0..5 {
        manager.hears("WATCHDOG=1").await;
    }
    drop(feed);
    while stream.next().await.is_some() {}
    drop(stream);
    assert!(server.wait().await.success());
}

#[tokio::test]
async fn sockets_that_systemd_passes_are_served_by_their_names() {
    let activation = SocketActivation::named("https:ssh:http");
    let launched = TestServer::with(|options| options.launched_by(activation.launcher()));
    let (server, ()) = tokio::join!(launched, activation.wake());
    assert_eq!(server.https_address(), activation.address(0));
    assert_eq!(server.ssh_address(), activation.address(1));
    assert_eq!(server.http_address(), activation.address(2));
    let origin = Origin::replying("hello").await;
    let ssh = server.ssh().forward_to("app:443", &origin).forward_to("app:80", &origin).command("http");
    let _ssh = ssh.publish().await;
    for scheme in ["http", "https"] {
        let reply = server.visitor().get(&format!("{scheme}://app.localhost/")).await;
        assert_eq!((reply.status(), reply.text()), (200, "hello"));
    }
}

#[tokio::test]
async fn a_socket_whose_purpose_is_not_known_is_named() {
    let activation = SocketActivation::named("ssh:web:https");
    let refusing = TestServer::refusing(|options| options.launched_by(activation.launcher()));
    let (output, ()) = tokio::join!(refusing, activation.wake());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("\"web\"") && said.contains("FileDescriptorName="), "{said}");
}

/// Connects, asks, and reads to the end, again and again; counts what was answered and by whom.
async fn visit_all_the_time(
    server: std::net::SocketAddr,
    stop: Arc<AtomicBool>,
    [ours, others]: [Arc<AtomicUsize>; 2],
) {
    while !stop.load(Ordering::SeqCst) {
        let mut stream = TcpStream::connect(server).await.expect("no visitor is refused");
        let request = b"GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer)).await.expect("no visitor is cut");
        let count = if answer.ends_with("hello") { &ours } else { &others };
        assert!(answer.ends_with("hello") || answer.contains("ERR_HITHE_"), "{answer:?}");
        count.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_restart_with_kept_sockets_refuses_no_visitor_and_publishers_are_back_under_their_names() {
    let sockets = KeptSockets::listen();
    let mut server = TestServer::with(|options| options.launched_by(sockets.launcher())).await;
    let origin = Origin::replying("hello").await;
    let ssh = server.ssh().forward_to("app:80", &origin).command("http").again_and_again();
    let _ssh = ssh.publish().await;
    let (stop, counts) = (Arc::new(AtomicBool::new(false)), [(); 2].map(|()| Arc::new(AtomicUsize::new(0))));
    let address = server.http_address();
    let visitors = join_all((0..8).map(|_| visit_all_the_time(address, Arc::clone(&stop), counts.clone())));
    let served = async |more: usize| {
        let [ours, _] = &counts;
        let begun = ours.load(Ordering::SeqCst);
        let enough = || (ours.load(Ordering::SeqCst) >= begun + more).then_some(());
        eventually("the name is served", enough).await;
    };
    let restarts = async {
        for _ in 0..3 {
            served(20).await;
            server.restart_in_order().await;
        }
        served(20).await;
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(visitors, restarts);
}

fn units() -> PathBuf {
    program::repository().join("docs/systemd")
}

/// The units with the program that was built in place of the installed one.
fn installed(folder: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(units()).unwrap().map(|entry| entry.unwrap().path());
    all.map(|unit| {
        let text = std::fs::read_to_string(&unit).unwrap();
        let built = program::hithed().to_str().unwrap();
        let copy = folder.join(unit.file_name().unwrap());
        std::fs::write(&copy, text.replace("/usr/local/bin/hithed", built)).unwrap();
        copy
    })
    .collect()
}

#[test]
fn the_units_are_right_and_leave_the_server_little_to_misuse() {
    let folder = tempfile::tempdir().unwrap();
    let units = installed(folder.path());
    assert_eq!(units.len(), 4);
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        let output =
            command.args(arguments).args(&units).env("SYSTEMD_LOG_LEVEL", "warning").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said.into_owned())
    };
    let (fine, said) = analyze(&["verify", "--man=no"]);
    let about_ours = said.lines().filter(|line| line.contains("hithed")).collect::<Vec<_>>();
    assert!(fine && about_ours.is_empty(), "{said}");
    let service = folder.path().join("hithed.service");
    let judged = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=15", "--no-pager"])
        .arg(service)
        .output()
        .unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}
