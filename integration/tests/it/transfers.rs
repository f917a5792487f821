//! Much data, and many connections: whole in both directions, whatever the client's terminal, its keys or the
//! upstream do meanwhile, and without a trace afterwards.

use std::time::Duration;

use hithe_integration::{Child, Face, OpenSsh, Origin, Scene, TestServer, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

const MUCH: u64 = 16 << 20;

/// Four downloads and four uploads at a time, each whole and as it was sent.
async fn eight_transfers(scene: &Scene, length: u64) {
    let mut transfers = JoinSet::new();
    for _ in 0..4 {
        let (taker, giver) = (scene.guest(), scene.guest());
        transfers.spawn(async move { taker.download(length).await.finish().await });
        transfers.spawn(async move { giver.upload(length).await });
    }
    transfers.join_all().await;
}

async fn the_clients_rekeys_harm_no_transfer(face: Face) {
    let flags = |ssh: OpenSsh| ssh.flag("-v").option("RekeyLimit=4M");
    let scene = Scene::with(face, |options| options, flags).await;
    eight_transfers(&scene, MUCH).await;
    let rekeys = scene.ssh.stderr().matches("SSH2_MSG_NEWKEYS received").count();
    assert!(rekeys > 10, "only {rekeys} key exchanges");
}

#[tokio::test]
async fn the_clients_rekeys_harm_no_transfer_over_http() {
    the_clients_rekeys_harm_no_transfer(Face::Http).await;
}

#[tokio::test]
async fn the_clients_rekeys_harm_no_transfer_over_http_2() {
    the_clients_rekeys_harm_no_transfer(Face::Http2).await;
}

#[tokio::test]
async fn the_clients_rekeys_harm_no_transfer_over_tcp() {
    the_clients_rekeys_harm_no_transfer(Face::Tcp).await;
}

/// More lines than pipes, ssh's window and the console's queue hold, while data passes both ways.
async fn lines_and_data(scene: &Scene) {
    let mut visitors = JoinSet::new();
    for _ in 0..4 {
        let visitor = scene.server.visitor();
        visitors.spawn(async move {
            let url = format!("http://app.localhost/0?{}", "x".repeat(180));
            let mut connection = visitor.connection(&url).await;
            for _ in 0..3_000 {
                assert_eq!(connection.get(&url).await.status(), 200);
            }
        });
    }
    eight_transfers(scene, MUCH / 2).await;
    visitors.join_all().await;
    eight_transfers(scene, MUCH / 8).await;
}

/// As if the process that reads it were stopped.
#[tokio::test]
async fn a_pipe_that_nobody_reads_holds_up_no_data() {
    let mut scene = Scene::of(Face::Http).await;
    scene.ssh.stop_reading();
    lines_and_data(&scene).await;
    scene.ssh.read_on();
    scene.ssh.wait_for_text("lines not shown").await;
}

/// `ssh … | cat`, and somebody stops the cat: ssh then waits in a write to a pipe that is full.
#[tokio::test]
async fn a_stopped_reader_of_the_clients_output_holds_up_no_data() {
    let mut scene = Scene::with(Face::Http, |options| options, OpenSsh::pipeline).await;
    scene.ssh.stop_reader();
    lines_and_data(&scene).await;
    scene.ssh.cont_reader();
    scene.ssh.wait_for_text("lines not shown").await;
}

const CTRL_S: &[u8] = b"\x13";
const CTRL_Q: &[u8] = b"\x11";

#[tokio::test]
async fn a_terminal_stopped_by_ctrl_s_holds_up_no_data() {
    let mut scene = Scene::with(Face::Http, |options| options, OpenSsh::terminal).await;
    scene.ssh.type_in(CTRL_S).await;
    lines_and_data(&scene).await;
    scene.ssh.type_in(CTRL_Q).await;
    scene.ssh.wait_for_text("lines not shown").await;
}

/// With `-t` the terminal is raw, and Ctrl-S is a byte for the server.
#[tokio::test]
async fn ctrl_s_on_a_terminal_of_the_session_holds_up_no_data() {
    let mut scene = Scene::with(Face::Http, |options| options, |ssh| ssh.terminal().flag("-t")).await;
    scene.ssh.type_in(CTRL_S).await;
    lines_and_data(&scene).await;
    scene.ssh.type_in(CTRL_Q).await;
    eight_transfers(&scene, MUCH / 8).await;
}

/// What a server that has done nothing for a while holds.
async fn settled(server: &TestServer, files: usize) {
    eventually("the server closes what it no longer needs", || (server.open_files() <= files).then_some(()))
        .await;
}

const ROUNDS: u64 = 50;
/// Less than any clock of the server that could end an upload, whose shortest are the two seconds for a client to close
/// its channel: what ends it so soon is the reset. Some ten milliseconds is what it takes.
const AT_ONCE: Duration = Duration::from_secs(1);
/// What the memory manager may keep.
const SLACK_KIB: u64 = 4 << 10;

async fn uploads_to_an_upstream_that_resets_end(command: &str, bind: &str) -> (TestServer, Child) {
    let server = TestServer::start().await;
    let origin = Origin::resetting().await;
    let mut ssh = server.ssh().forward_to(bind, &origin).command(command).publish().await;
    let forwarding = ssh.forwarding().await.remove(0);
    let upload = async || match forwarding.port().filter(|_| command == "tcp") {
        Some(port) => {
            let mut stream = server.visitor().tcp(port).await;
            while stream.write_all(&[7; 65536]).await.is_ok() {}
        }
        None => {
            let mut connection = server.visitor().connection(&forwarding.url).await;
            if let Ok(reply) = connection.post_streamed(&forwarding.url, 1 << 30).await {
                assert_eq!(reply.status(), 502);
            }
        }
    };
    let mut before = (0, 0);
    let mut late = 0;
    for round in 0..ROUNDS {
        let begin = Instant::now();
        within("the end of an upload", upload()).await;
        late += u64::from(begin.elapsed() > AT_ONCE);
        if round == ROUNDS / 5 {
            before = (server.open_files(), server.rss_kib());
        }
    }
    // A clock would make all of them late, a busy machine one or two.
    assert!(late < ROUNDS / 10, "{late} of {ROUNDS} uploads went on for more than {AT_ONCE:?}");
    let (files, memory) = before;
    settled(&server, files).await;
    let after = server.rss_kib();
    assert!(after < memory + SLACK_KIB, "{memory} KiB became {after} KiB");
    assert_eq!(origin.open_connections(), 0);
    (server, ssh)
}

#[tokio::test]
async fn uploads_to_an_upstream_that_resets_end_over_http() {
    uploads_to_an_upstream_that_resets_end("http", "app:80").await;
}

#[tokio::test]
async fn uploads_to_an_upstream_that_resets_end_over_tcp() {
    uploads_to_an_upstream_that_resets_end("tcp", "0").await;
}

#[tokio::test]
async fn connections_that_were_closed_leave_no_memory_behind() {
    let scene = Scene::of(Face::Tcp).await;
    let (files, mut settled_kib) = (scene.server.open_files(), 0);
    for round in 0..20 {
        if round == 5 {
            settled(&scene.server, files).await;
            settled_kib = scene.server.rss_kib();
        }
        let mut visitors = JoinSet::new();
        for _ in 0..10 {
            let (visitor, port) = (scene.server.visitor(), scene.port());
            visitors.spawn(async move {
                for _ in 0..10 {
                    let mut stream = visitor.tcp(port).await;
                    stream.write_all(b"GET 1000\n").await.unwrap();
                    stream.shutdown().await.unwrap();
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).await.unwrap();
                    assert_eq!(answer.len(), 1000);
                }
            });
        }
        visitors.join_all().await;
    }
    settled(&scene.server, files).await;
    let after = scene.server.rss_kib();
    assert!(after < settled_kib + SLACK_KIB / 4, "{settled_kib} KiB became {after} KiB");
}
