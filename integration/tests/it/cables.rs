//! Publishers whose cable is pulled: neither end hears of it, as with `Relay`, and here not even the kernel does.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use hithe_integration::payload::payload;
use hithe_integration::{
    Child, Door, Forwarding, Host, OpenSsh, Origin, Site, TestServer, patiently, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

const URL: &str = "https://app.localhost/";
/// Instead of a second, where other tests want the processor too.
const AMONG_OTHERS: Duration = Duration::from_secs(3);
/// The server says so of itself: three keepalives of 5 s.
const NOTICED: Duration = Duration::from_secs(15);
/// For the machine, and for us to look.
const AND_SEEN: Duration = Duration::from_secs(1);

/// A server in a network of its own, and an upstream that each publisher there reaches.
struct Network {
    server: TestServer,
    origin: Origin,
    socket: PathBuf,
    _door: Door,
}

impl Network {
    async fn of(origin: Origin) -> Self {
        let options = |options: hithe_integration::server::Options| {
            options.ssh_listen("0.0.0.0:0").arg("--health-listen").arg("127.0.0.1:0")
        };
        let server = TestServer::with(options).await;
        let socket = server.folder().join("upstream");
        let _door = Door::to(&origin, &socket);
        Self { server, origin, socket, _door }
    }

    fn ssh(&self, host: &Host, bind: &str, command: &str) -> OpenSsh {
        let address = (host.site_address(), self.server.ssh_address().port()).into();
        let ssh = OpenSsh::to(address, self.server.user_key()).launched_by(host.launcher());
        ssh.forward(format!("{bind}:{}", self.socket.display())).command(command)
    }

    /// One ssh with a name, one with a port that is given at random, what they have, and how long each of them took.
    async fn publish(&self, host: &Host) -> ([Child; 2], [Vec<Forwarding>; 2], [Duration; 2]) {
        let began = Instant::now();
        let mut web = self.ssh(host, "app:443", "http").publish().await;
        let name_took = began.elapsed();
        let mut tcp = self.ssh(host, "0", "tcp").publish().await;
        let took = [name_took, began.elapsed() - name_took];
        let forwardings = [web.forwarding().await, tcp.forwarding().await];
        ([web, tcp], forwardings, took)
    }

    fn sessions(&self) -> u64 {
        let (_, said) = self.server.health(&["--ready"]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        said.get("sessions").and_then(serde_json::Value::as_u64).unwrap()
    }
}

/// How much later than a fresh one each of two publishers may be public.
fn in_time(took: [Duration; 2], fresh: [Duration; 2], bound: Duration) -> bool {
    took.iter().zip(fresh).all(|(took, fresh)| *took < fresh + bound)
}

/// The same key comes back over another cable, so many times.
async fn come_back(times: usize, bound: Duration) {
    let Some(mut site) = Site::enter().await else { return };
    let network = Network::of(Origin::replying("hello").await).await;
    let mut host = site.host().await;
    let (mut lost, first, fresh) = network.publish(&host).await;
    let mut longest = [Duration::ZERO; 2];
    for round in 0..times {
        // Asked before the cable is pulled, while it is, and after.
        let over = AtomicBool::new(false);
        let visits = join_all((0..4).map(|_| async {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                let reply = network.server.visitor().get(URL).await;
                assert_eq!((reply.status(), reply.text()), (200, "hello"), "round {round}, after {count}");
                count += 1;
            }
            count
        }));
        let elsewhere = site.host().await;
        let back = async {
            let before = network.origin.requests();
            patiently("visits", NOTICED, || (network.origin.requests() > before + 10).then_some(())).await;
            host.pull_cable();
            let back = network.publish(&elsewhere).await;
            let before = network.origin.requests();
            patiently("visits", NOTICED, || (network.origin.requests() > before + 10).then_some(())).await;
            over.store(true, Ordering::Relaxed);
            back
        };
        let (counts, (publishers, forwardings, took)) = tokio::join!(visits, back);
        assert_eq!(forwardings, first, "round {round}");
        assert!(in_time(took, fresh, bound), "round {round}: {took:?}, fresh {fresh:?}");
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        longest.iter_mut().zip(took).for_each(|(longest, took)| *longest = took.max(*longest));
        lost = publishers;
        host = elsewhere;
    }
    drop(lost);
    tell(&format!("fresh {fresh:?}, longest of {times} that came back {longest:?}"));
}

#[tokio::test]
async fn a_publisher_whose_cable_was_pulled_has_its_name_and_port_back_from_elsewhere() {
    come_back(3, AMONG_OTHERS).await;
}

#[tokio::test]
#[ignore = "a hundred publishers: a minute, and it wants the machine for itself"]
async fn a_hundred_of_a_hundred_come_back_from_elsewhere() {
    come_back(100, Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_cable_that_is_put_back_at_once_costs_no_visit_and_no_session() {
    let Some(mut site) = Site::enter().await else { return };
    let network = Network::of(Origin::replying("hello").await).await;
    let host = site.host().await;
    let (mut publishers, _, _) = network.publish(&host).await;
    host.pull_cable();
    let visitor = network.server.visitor();
    let visits = join_all((0..10).map(|_| visitor.get(URL)));
    let put_back = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        host.plug_in();
    };
    let (replies, ()) = tokio::join!(within("the visits", visits), put_back);
    assert!(replies.iter().all(|reply| reply.status() == 200), "{replies:?}");
    assert_eq!(network.sessions(), 2);
    assert!(publishers.iter_mut().all(Child::is_running));
}

#[tokio::test]
async fn a_publisher_whose_cable_is_put_back_too_late_comes_back_under_its_name_and_port() {
    let Some(mut site) = Site::enter().await else { return };
    let network = Network::of(Origin::replying("hello").await).await;
    let host = site.host().await;
    let (mut publishers, first, fresh) = network.publish(&host).await;
    host.pull_cable();
    patiently("no sessions", NOTICED + AND_SEEN, || (network.sessions() == 0).then_some(())).await;
    host.plug_in();
    let (_back, forwardings, took) = network.publish(&host).await;
    assert_eq!(forwardings, first);
    assert!(in_time(took, fresh, AMONG_OTHERS), "{took:?}, fresh {fresh:?}");
    assert_eq!(network.server.visitor().get(URL).await.text(), "hello");
    for ssh in &mut publishers {
        // The end of the connection is sent again until it arrives.
        assert_eq!(ssh.wait().await.code(), Some(255));
    }
}

/// The figures, for who runs this with `--nocapture`.
fn tell(line: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{line}\n"));
}

/// What visitors do when the cable is pulled.
#[derive(Clone, Copy, Debug)]
enum Visits {
    None,
    Requests,
    Uploads,
}

/// More than can be sent before the cable is pulled, and while it is found out.
const MUCH: u64 = 100 << 30;

async fn noticed(visits: Visits) {
    let Some(mut site) = Site::enter().await else { return };
    let (origin, _) = Origin::tcp_payload().await;
    let network = Network::of(origin).await;
    let host = site.host().await;
    let mut ssh = network.ssh(&host, "0", "tcp").publish().await;
    let port = ssh.forwarding().await.remove(0).port().unwrap();
    let address = (network.server.http_address().ip(), port).into();
    let visitor = network.server.visitor();
    let come = async {
        loop {
            match visits {
                Visits::None => std::future::pending().await,
                Visits::Requests => {
                    let Ok(mut visit) = visitor.try_dial(address).await else { continue };
                    let _ = visit.write_all(b"GET 10\n").await;
                    let _ = tokio::time::timeout(Duration::from_millis(50), visit.read_u8()).await;
                }
                Visits::Uploads => {
                    let upload = async || {
                        let Ok(mut visit) = visitor.try_dial(address).await else { return };
                        let _ = visit.write_all(format!("POST {MUCH}\n").as_bytes()).await;
                        for piece in payload(0, MUCH) {
                            if visit.write_all(&piece).await.is_err() {
                                return;
                            }
                        }
                    };
                    join_all((0..16).map(|_| upload())).await;
                }
            }
        }
    };
    let gone = async {
        if !matches!(visits, Visits::None) {
            patiently("visits", NOTICED, || (network.origin.connections() > 5).then_some(())).await;
        }
        host.pull_cable();
        let began = Instant::now();
        patiently("no session", NOTICED + AND_SEEN, || (network.sessions() == 0).then_some(())).await;
        began.elapsed()
    };
    tokio::select! {
        took = gone => tell(&format!("{visits:?}: noticed after {took:?}")),
        () = come => {}
    }
}

#[tokio::test]
async fn a_client_whose_cable_is_pulled_while_nobody_visits_is_noticed() {
    noticed(Visits::None).await;
}

#[tokio::test]
async fn a_client_whose_cable_is_pulled_while_visitors_come_is_noticed() {
    noticed(Visits::Requests).await;
}

#[tokio::test]
async fn a_client_whose_cable_is_pulled_during_uploads_is_noticed() {
    noticed(Visits::Uploads).await;
}
