//! One visitor's slowness is nobody else's: visitors who read little or nothing, upstreams that read nothing.

use std::net::IpAddr;
use std::time::Duration;

use hithe_integration::visitor::Io;
use hithe_integration::{Download, Face, Guest, Scene, eventually, patiently, within};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Far more than the sockets and the memory on the way hold.
const BIG: u64 = 64 << 20;
const MAX_MEMORY_KIB: u64 = 100 << 10;
const SLOW_BYTES_PER_SECOND: usize = 10_000;
const GENEROUS: Duration = Duration::from_secs(2);

/// Many visitors with small requests, half of them on a kept connection.
struct Crowd {
    end: watch::Sender<bool>,
    members: JoinSet<Vec<Duration>>,
}

impl Crowd {
    const SIZE: usize = 32;
    const FEW: usize = 5;

    async fn come(guest: &Guest) -> Self {
        let end = watch::Sender::new(false);
        let mut members = JoinSet::new();
        for member in 0..Self::SIZE {
            members.spawn(visit_again_and_again(guest.clone(), member % 2 == 0, end.subscribe()));
        }
        Self { end, members }
    }

    /// Everybody goes who has asked a few times, with the last answer; none may have failed, nor taken long.
    async fn leave(self) {
        self.end.send_replace(true);
        let mut times: Vec<_> = self.members.join_all().await.into_iter().flatten().collect();
        times.sort();
        let p99 = times.get(times.len() * 99 / 100);
        assert!(p99.is_some_and(|p99| *p99 < GENEROUS), "p99 of {} requests: {p99:?}", times.len());
    }
}

async fn visit_again_and_again(guest: Guest, keeps: bool, end: watch::Receiver<bool>) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut line = guest.connect().await;
    while !*end.borrow() || times.len() < Crowd::FEW {
        let begin = Instant::now();
        if !keeps {
            line = guest.connect().await;
        }
        line.ask().await;
        times.push(begin.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
    times
}

/// Takes little by little until it is told to hurry; then the rest.
async fn take_slowly(mut download: Download, hurry: watch::Receiver<bool>) {
    let mut told = hurry.clone();
    while !*hurry.borrow() {
        let taken = download.next().await.expect("more").expect("a download that is not cut");
        let pause = Duration::from_secs_f64(taken as f64 / SLOW_BYTES_PER_SECOND as f64);
        let _ = timeout(pause, told.wait_for(|hurry| *hurry)).await;
    }
    download.finish().await;
}

async fn slow_visitors_hold_up_nobody(face: Face) {
    let scene = Scene::of(face).await;
    let crowd = Crowd::come(&scene.guest()).await;
    let takes_nothing = scene.guest().download(BIG).await;
    let hurry = watch::Sender::new(false);
    let mut slow = JoinSet::new();
    slow.spawn(take_slowly(scene.guest().download(BIG).await, hurry.subscribe()));

    scene.traffic.given(2 * BIG).await;
    eventually("what nobody takes lies in the spool", || (scene.server.spooled() > BIG).then_some(())).await;
    crowd.leave().await;
    let crowd = Crowd::come(&scene.guest()).await;

    hurry.send_replace(true);
    slow.join_all().await;
    crowd.leave().await;
    drop(takes_nothing);
    eventually("the spool is given back", || (scene.server.spooled() == 0).then_some(())).await;
    let peak = scene.server.peak_rss_kib();
    assert!(peak < MAX_MEMORY_KIB, "{peak} KiB");
}

/// With the agent as publisher, which pauses single visits: nothing of them goes to the disk.
async fn slow_visitors_of_the_agent(face: Face, much: u64) {
    let scene = Scene::by_agent(face).await;
    let crowd = Crowd::come(&scene.guest()).await;
    let takes_nothing = scene.guest().download(much).await;
    let hurry = watch::Sender::new(false);
    let mut slow = JoinSet::new();
    slow.spawn(take_slowly(scene.guest().download(much).await, hurry.subscribe()));
    crowd.leave().await;
    let crowd = Crowd::come(&scene.guest()).await;
    assert_eq!(scene.server.spooled(), 0);
    hurry.send_replace(true);
    slow.join_all().await;
    crowd.leave().await;
    assert_eq!(scene.server.spooled(), 0);
    drop(takes_nothing);
    let peak = scene.server.peak_rss_kib();
    assert!(peak < MAX_MEMORY_KIB, "{peak} KiB");
}

#[tokio::test]
async fn slow_visitors_of_the_agent_hold_up_nobody_over_http() {
    slow_visitors_of_the_agent(Face::Http, BIG).await;
}

#[tokio::test]
async fn slow_visitors_of_the_agent_hold_up_nobody_over_http_2() {
    slow_visitors_of_the_agent(Face::Http2, BIG).await;
}

#[tokio::test]
async fn slow_visitors_of_the_agent_hold_up_nobody_over_tcp() {
    slow_visitors_of_the_agent(Face::Tcp, BIG).await;
}

#[tokio::test]
#[ignore = "takes in two gigabytes"]
async fn two_gigabytes_for_a_slow_visitor_of_the_agent_need_no_disk() {
    slow_visitors_of_the_agent(Face::Https, 2 << 30).await;
}

#[tokio::test]
async fn slow_visitors_hold_up_nobody_over_http() {
    slow_visitors_hold_up_nobody(Face::Http).await;
}

#[tokio::test]
async fn slow_visitors_hold_up_nobody_over_https() {
    slow_visitors_hold_up_nobody(Face::Https).await;
}

#[tokio::test]
async fn slow_visitors_hold_up_nobody_over_http_2() {
    slow_visitors_hold_up_nobody(Face::Http2).await;
}

#[tokio::test]
async fn slow_visitors_hold_up_nobody_over_tcp() {
    slow_visitors_hold_up_nobody(Face::Tcp).await;
}

/// Bytes of which one visit may have half in the spool.
const SMALL_SPOOL: &str = "64MiB";
const TOO_BIG: u64 = 96 << 20;
const FITTING: u64 = 16 << 20;

/// An address of the loopback. The spool's bounds are for each source too.
fn source(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

/// What waits for one visitor is more than a visit may have; its neighbours go on.
async fn over_its_bound(scene: &mut Scene, victim: Download) {
    let crowd = Crowd::come(&scene.guest()).await;
    let neighbour = scene.guest().from(source(3)).download(FITTING).await;
    scene.server.logged("more waits for it than one visit may spool").await;
    crowd.leave().await;
    victim.finish_cut_off().await;
    scene.ssh.wait_for_text("a visit's share of the spool is full").await;
    neighbour.finish().await;
    scene.guest().connect().await.ask().await;
    eventually("the spool is given back", || (scene.server.spooled() == 0).then_some(())).await;
}

async fn a_visit_over_its_bound_is_cut_off_alone(face: Face) {
    let mut scene =
        Scene::with(face, |options| options.arg("--spool-limit").arg(SMALL_SPOOL), |ssh| ssh).await;
    let victim = scene.guest().from(source(2)).download(TOO_BIG).await;
    over_its_bound(&mut scene, victim).await;
}

#[tokio::test]
async fn a_visit_over_its_bound_is_cut_off_alone_over_http() {
    a_visit_over_its_bound_is_cut_off_alone(Face::Http).await;
}

#[tokio::test]
async fn a_visit_over_its_bound_is_cut_off_alone_over_https() {
    a_visit_over_its_bound_is_cut_off_alone(Face::Https).await;
}

#[tokio::test]
async fn a_visit_over_its_bound_is_cut_off_alone_over_http_2() {
    a_visit_over_its_bound_is_cut_off_alone(Face::Http2).await;
}

#[tokio::test]
async fn a_visit_over_its_bound_is_cut_off_alone_over_tcp() {
    a_visit_over_its_bound_is_cut_off_alone(Face::Tcp).await;
}

/// An answer that does not say how long it is must not look complete either.
#[tokio::test]
async fn a_cut_off_answer_of_unknown_length_does_not_look_complete() {
    for face in [Face::Http, Face::Https, Face::Http2] {
        let mut scene =
            Scene::with(face, |options| options.arg("--spool-limit").arg(SMALL_SPOOL), |ssh| ssh).await;
        let victim = scene.guest().from(source(2)).connect().await.download_chunked(TOO_BIG).await;
        over_its_bound(&mut scene, victim).await;
    }
}

/// HTTP/1.0 knows no other end of such an answer than that of the connection.
#[tokio::test]
async fn a_cut_off_answer_without_any_framing_ends_in_a_reset() {
    for face in [Face::Http, Face::Https] {
        let scene =
            Scene::with(face, |options| options.arg("--spool-limit").arg(SMALL_SPOOL), |ssh| ssh).await;
        let request = format!("GET /{TOO_BIG}?chunked HTTP/1.0\r\nHost: app.localhost\r\n\r\n");
        let visitor = scene.server.visitor().from(source(2));
        let mut stream: Box<dyn Io> = match face {
            Face::Http => Box::new(visitor.dial(scene.server.http_address()).await),
            _ => Box::new(visitor.tls("app.localhost", &["http/1.1"]).await),
        };
        stream.write_all(request.as_bytes()).await.unwrap();
        scene.server.logged("more waits for it than one visit may spool").await;
        let read =
            within("the end of the answer", tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
        assert!(read.is_err(), "{face:?}: {read:?} looks complete");
    }
}

async fn an_upload_that_nobody_reads_holds_up_nobody(scene: Scene) {
    let guest = scene.guest();
    let mut uploads = JoinSet::new();
    for _ in 0..2 {
        let guest = guest.clone();
        uploads.spawn(async move { guest.upload_in_vain(4 * BIG).await });
    }
    scene.traffic.stuck(2).await;
    let crowd = Crowd::come(&guest).await;
    guest.download(BIG / 4).await.finish().await;
    guest.upload(BIG / 4).await;
    crowd.leave().await;
    assert!(uploads.try_join_next().is_none(), "an upload that nobody reads has ended");
    uploads.shutdown().await;
    guest.connect().await.ask().await;
    let peak = scene.server.peak_rss_kib();
    assert!(peak < MAX_MEMORY_KIB, "{peak} KiB");
}

#[tokio::test]
async fn an_upload_that_nobody_reads_holds_up_nobody_over_http() {
    an_upload_that_nobody_reads_holds_up_nobody(Scene::of(Face::Http).await).await;
}

#[tokio::test]
async fn an_upload_that_nobody_reads_holds_up_nobody_over_https() {
    an_upload_that_nobody_reads_holds_up_nobody(Scene::of(Face::Https).await).await;
}

#[tokio::test]
async fn an_upload_that_nobody_reads_holds_up_nobody_over_http_2() {
    an_upload_that_nobody_reads_holds_up_nobody(Scene::of(Face::Http2).await).await;
}

#[tokio::test]
async fn an_upload_that_nobody_reads_holds_up_nobody_over_tcp() {
    an_upload_that_nobody_reads_holds_up_nobody(Scene::of(Face::Tcp).await).await;
}

#[tokio::test]
async fn an_upload_that_nobody_reads_behind_the_agent_holds_up_nobody_over_http() {
    an_upload_that_nobody_reads_holds_up_nobody(Scene::by_agent(Face::Http).await).await;
}

#[tokio::test]
async fn an_upload_that_nobody_reads_behind_the_agent_holds_up_nobody_over_tcp() {
    an_upload_that_nobody_reads_holds_up_nobody(Scene::by_agent(Face::Tcp).await).await;
}

/// Neither side of the connection to the publisher may stop reading because it writes.
async fn uploads_and_downloads_at_once_come_to_their_ends(scene: Scene) {
    let mut visits = JoinSet::new();
    for _ in 0..16 {
        let (down, up) = (scene.guest(), scene.guest());
        visits.spawn(async move { down.download(BIG / 8).await.finish().await });
        visits.spawn(async move { up.upload(BIG / 8).await });
    }
    visits.join_all().await;
}

#[tokio::test]
async fn uploads_and_downloads_at_once_come_to_their_ends_with_ssh() {
    uploads_and_downloads_at_once_come_to_their_ends(Scene::of(Face::Tcp).await).await;
}

#[tokio::test]
async fn uploads_and_downloads_at_once_come_to_their_ends_with_the_agent() {
    uploads_and_downloads_at_once_come_to_their_ends(Scene::by_agent(Face::Tcp).await).await;
}

/// The clock of a stream of HTTP/2 strikes once a minute, so it may take two.
const STALLED_BY: Duration = Duration::from_secs(130);

async fn a_visitor_that_takes_nothing_is_cut_off_alone(face: Face) {
    let mut scene = Scene::of(face).await;
    let mut line = scene.guest().connect().await;
    line.ask().await;
    let beside = line.beside();
    let stuck = line.download(BIG / 2).await;
    let crowd = Crowd::come(&scene.guest()).await;
    let cut = || scene.server.log().lines().any(|line| line.contains(STALLED)).then_some(());
    patiently("the server gives up the visitor that takes nothing", STALLED_BY, cut).await;
    crowd.leave().await;
    scene.ssh.wait_for_text(STALLED).await;
    stuck.finish_cut_off().await;
    let log = scene.server.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains(STALLED)).collect();
    assert!(
        matches!(told[..], [line] if line.contains("visitor=127.0.0.1") && line.contains(&scene.url())),
        "{told:?}"
    );
    if let Some(mut beside) = beside {
        beside.ask().await;
    }
    eventually("the spool is given back", || (scene.server.spooled() == 0).then_some(())).await;
}

const STALLED: &str = "the visitor took nothing for a minute";

#[tokio::test]
#[ignore = "takes the minute that it is about"]
async fn a_visitor_that_takes_nothing_is_cut_off_alone_over_http() {
    a_visitor_that_takes_nothing_is_cut_off_alone(Face::Http).await;
}

#[tokio::test]
#[ignore = "takes the minute that it is about"]
async fn a_visitor_that_takes_nothing_is_cut_off_alone_over_https() {
    a_visitor_that_takes_nothing_is_cut_off_alone(Face::Https).await;
}

#[tokio::test]
#[ignore = "takes up to two minutes"]
async fn a_visitor_that_takes_nothing_is_cut_off_alone_over_http_2() {
    a_visitor_that_takes_nothing_is_cut_off_alone(Face::Http2).await;
}

#[tokio::test]
#[ignore = "takes the minute that it is about"]
async fn a_visitor_that_takes_nothing_is_cut_off_alone_over_tcp() {
    a_visitor_that_takes_nothing_is_cut_off_alone(Face::Tcp).await;
}
