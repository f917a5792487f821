//! Publishers that come back: the same name and port at once, and visitors that do not notice.

use std::time::Duration;

use futures_util::future::join_all;
use hithe_integration::{Child, Forwarding, Origin, Relay, TestServer, eventually, within};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

const URL: &str = "https://app.localhost/";

/// Instead of a second, where other tests want the processor too.
const AMONG_OTHERS: Duration = Duration::from_secs(3);

/// How a publisher is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Killed,
    NetworkCut,
    Stopped,
}

/// Publishes, loses the publisher and publishes again, so many times. Gives the longest time from the start of the new
/// ssh to its names being public, less what a fresh publisher takes.
async fn lose(loss: Loss, times: usize, bound: Duration) {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let publish = async |relay: &Relay| -> (Child, Vec<Forwarding>, Duration) {
        let started = Instant::now();
        let ssh = server.ssh().through(relay).forward_to("app:443", &origin).forward_to("0", &origin);
        let mut web = ssh.command("http").publish().await;
        let forwardings = web.forwardings(2).await;
        (web, forwardings, started.elapsed())
    };
    let port = server.tcp_ports().start().to_string();
    let mut relay = Relay::to(server.ssh_address()).await;
    let (mut web, first, fresh) = publish(&relay).await;
    let mut tcp = server.ssh().through(&relay).forward_to(&port, &origin).command("tcp").publish().await;
    let mut lost = Vec::new();
    for round in 0..times {
        match loss {
            Loss::Killed => {
                web.kill().await;
                tcp.kill().await;
            }
            Loss::NetworkCut => relay.cut(),
            Loss::Stopped => {
                web.stop();
                tcp.stop();
            }
        }
        lost.push((web, tcp, relay));
        relay = Relay::to(server.ssh_address()).await;
        let (again, forwardings, took) = publish(&relay).await;
        assert_eq!(forwardings, first, "{loss:?}, round {round}");
        assert!(took < fresh + bound, "{loss:?}, round {round}: {took:?}, fresh {fresh:?}");
        web = again;
        tcp = server.ssh().through(&relay).forward_to(&port, &origin).command("tcp").publish().await;
        assert_eq!(server.visitor().get(URL).await.text(), "hello");
        if lost.len() > 5 {
            // Those that still run need memory, and prove nothing more.
            lost.remove(0);
        }
    }
}

#[tokio::test]
async fn a_killed_publisher_has_its_names_and_ports_back_at_once() {
    lose(Loss::Killed, 10, AMONG_OTHERS).await;
}

#[tokio::test]
async fn a_publisher_whose_network_was_cut_has_its_names_and_ports_back_at_once() {
    lose(Loss::NetworkCut, 5, AMONG_OTHERS).await;
}

#[tokio::test]
async fn a_publisher_whose_laptop_slept_has_its_names_and_ports_back_at_once() {
    lose(Loss::Stopped, 5, AMONG_OTHERS).await;
}

#[tokio::test]
#[ignore = "three times a hundred publishers: some minutes"]
async fn a_hundred_of_a_hundred_come_back_however_they_were_lost() {
    for loss in [Loss::Killed, Loss::NetworkCut, Loss::Stopped] {
        lose(loss, 100, Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn requests_wait_for_a_publisher_that_was_cut_off() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let publish =
        || server.ssh().forward_to("app:443", &origin).command("http --schemes http,https").publish();
    let mut ssh = publish().await;
    let mut kept = server.visitor().connection(URL).await;
    assert_eq!(kept.get(URL).await.text(), "hello");
    ssh.kill().await;
    let visitor = server.visitor();
    let http2 = server.visitor().http2();
    let visits = async {
        let fresh = join_all((0..20).map(|_| visitor.post(URL, vec![7; 100_000])));
        let (fresh, multiplexed, plain, kept) =
            tokio::join!(fresh, http2.get(URL), visitor.get("http://app.localhost/"), kept.get(URL));
        fresh.into_iter().chain([multiplexed, plain, kept]).map(|reply| reply.status()).collect::<Vec<_>>()
    };
    let (statuses, _again) = tokio::join!(within("the visits", visits), publish());
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

#[tokio::test]
async fn visitors_that_come_all_the_time_do_not_notice_a_publisher_that_is_killed() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let publish = || server.ssh().forward_to("app:443", &origin).command("http").publish();
    let mut ssh = publish().await;
    let over = std::sync::atomic::AtomicBool::new(false);
    let visits = join_all((0..8).map(|_| async {
        let mut count = 0;
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            let reply = server.visitor().get(URL).await;
            assert_eq!((reply.status(), reply.code()), (200, None), "after {count}: {}", reply.text());
            count += 1;
        }
        count
    }));
    let losses = async {
        for _ in 0..5 {
            let before = origin.requests();
            eventually("visits come through", || (origin.requests() > before + 50).then_some(())).await;
            ssh.kill().await;
            ssh = publish().await;
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (counts, ()) = tokio::join!(visits, losses);
    assert!(counts.iter().sum::<usize>() > 250);
}

async fn echoed(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    stream.write_all(b"echo").await.unwrap();
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"echo");
}

#[tokio::test]
async fn connections_to_a_port_wait_for_a_publisher_that_was_cut_off() {
    let server = TestServer::start().await;
    let origin = Origin::tcp_echo().await;
    let publish = || server.ssh().forward_to("0", &origin).command("tcp").publish();
    let mut ssh = publish().await;
    let port = ssh.forwarding().await.remove(0).port().unwrap();
    ssh.kill().await;
    let visit = async {
        echoed(server.visitor().tcp(port).await).await;
    };
    tokio::join!(within("the visit", visit), publish());
}

#[tokio::test]
async fn tls_visitors_wait_for_a_publisher_that_was_cut_off() {
    let server = TestServer::start().await;
    let origin = Origin::tls_echo("app.localhost").await;
    let publish = || server.ssh().forward_to("app:443", &origin).command("tls").publish();
    publish().await.kill().await;
    let visit = async {
        echoed(server.visitor().insecure().tls("app.localhost", &[]).await).await;
    };
    tokio::join!(within("the visit", visit), publish());
}

#[tokio::test]
async fn nobody_waits_for_a_publisher_that_left_in_order() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    for way in ["interrupt", "terminate", "cancel", "kick"] {
        let control = server.folder().join(way);
        let ssh = server.ssh().as_master(&control).forward_to("app:443", &origin).command("http");
        let mut ssh = ssh.publish().await;
        match way {
            "interrupt" => ssh.interrupt().await,
            "terminate" => ssh.terminate(),
            "cancel" => {
                let cancel = server.ssh().sharing(&control).control("cancel");
                assert_eq!(cancel.forward_to("app:443", &origin).run().await.code, Some(0));
            }
            _ => {
                server.ssh().command(&format!("sessions kick {}", account(&server).await)).run().await;
            }
        }
        let gone = async {
            let started = Instant::now();
            let reply = server.visitor().get_until_offline(URL).await;
            (reply, started.elapsed())
        };
        let (code, took) = within("the name is offline", gone).await;
        assert_eq!(code.as_deref(), Some("ERR_HITHE_3200"), "{way}");
        assert!(took < Duration::from_secs(3), "{way}: {took:?}, as if it were waited for");
    }
}

async fn account(server: &TestServer) -> String {
    let who = server.ssh().command("whoami --json").run().await.stdout;
    let who: serde_json::Value = serde_json::from_str(&who).unwrap();
    who.get("account").and_then(|it| it.as_str()).unwrap().to_owned()
}

#[tokio::test]
async fn waiting_for_a_publisher_has_an_end() {
    let server = TestServer::with(|options| options.arg("--hold").arg("1s")).await;
    let origin = Origin::replying("hello").await;
    server.ssh().forward_to("app:443", &origin).command("http").publish().await.kill().await;
    let reply = within("the answer", server.visitor().get(URL)).await;
    assert_eq!((reply.status(), reply.code()), (404, Some("ERR_HITHE_3200")));
}

#[tokio::test]
async fn a_newer_session_takes_over_and_running_visits_are_finished() {
    let server = TestServer::start().await;
    let (old, feed) = Origin::fed().await;
    let new = Origin::replying("new").await;
    let mut first = server.ssh().forward_to("app:443", &old).command("http").publish().await;
    let mut download = server.visitor().open(URL).await;
    assert!(feed.send("one ").await);
    assert_eq!(download.next_text().await, "one ");
    let _second = server.ssh().forward_to("app:443", &new).command("http").publish().await;
    first.wait_for_text("Taken over").await;
    assert_eq!(server.visitor().get(URL).await.text(), "new");
    assert!(first.is_running());
    assert!(feed.send("two").await);
    assert_eq!(download.next_text().await, "two");
    drop(feed);
    download.rest().await.unwrap();
    assert_eq!(first.wait().await.code(), Some(255));
    assert!(first.output().contains("ERR_HITHE_1137"), "{}", first.output());
    assert_eq!(server.visitor().get(URL).await.text(), "new");
}

#[tokio::test]
async fn a_takeover_leaves_the_other_endpoints_of_the_session_alone() {
    let server = TestServer::start().await;
    let (old, new) = (Origin::replying("old").await, Origin::replying("new").await);
    let both = server.ssh().forward_to("app:443", &old).forward_to("other:443", &old);
    let mut first = both.command("http").publish().await;
    let _second = server.ssh().forward_to("app:443", &new).command("http").publish().await;
    first.wait_for_text("Taken over").await;
    assert_eq!(server.visitor().get(URL).await.text(), "new");
    assert_eq!(server.visitor().get("https://other.localhost/").await.text(), "old");
    assert!(first.is_running());
}

#[tokio::test]
async fn a_takeover_of_idle_endpoints_leaves_the_running_visits_of_others_alone() {
    let server = TestServer::start().await;
    let (old, feed) = Origin::fed().await;
    let new = Origin::replying("new").await;
    // All of a session's forwards have the same number.
    let publish = |origin| {
        let ssh = server.ssh().forward_to("idle:443", origin).forward_to("app:443", origin);
        ssh.forward_to("more:443", origin).command("http").publish()
    };
    let mut first = publish(&old).await;
    let mut download = server.visitor().open(URL).await;
    assert!(feed.send("one ").await);
    assert_eq!(download.next_text().await, "one ");
    let _second = publish(&new).await;
    for name in ["idle", "app", "more"] {
        first.wait_for_text(&format!("Taken over  https://{name}.")).await;
    }
    assert_eq!(server.visitor().get(URL).await.text(), "new");
    assert!(feed.send("two").await);
    assert_eq!(download.next_text().await, "two");
    drop(feed);
    download.rest().await.unwrap();
    assert_eq!(first.wait().await.code(), Some(255));
}

#[tokio::test]
async fn two_sessions_that_fight_for_a_name_are_stopped() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut sessions = Vec::new();
    let refused = within("a refusal", async {
        loop {
            let mut ssh = server.ssh().forward_to("app:443", &origin).command("http").spawn();
            let line =
                ssh.wait_for_line(|line| line.starts_with("Forwarding") || line.contains("ERR_")).await;
            if line.contains("ERR_") {
                return ssh;
            }
            sessions.push(ssh);
            assert!(sessions.len() < 30, "nobody is stopped");
            // Whether the last one lives is known when it had time to say so.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let refused = refused.await;
    assert!(refused.output().contains("--pooling-enabled"), "{}", refused.output());
    assert_eq!(server.visitor().get(URL).await.text(), "hello");
}

#[tokio::test]
async fn sessions_that_share_a_name_share_its_visits() {
    let server = TestServer::start().await;
    let origins = [Origin::replying("one").await, Origin::replying("two").await];
    let publish =
        |origin| server.ssh().forward_to("app:443", origin).command("http --pooling-enabled").publish();
    let (mut one, _two) = tokio::join!(publish(&origins[0]), publish(&origins[1]));
    for _ in 0..20 {
        assert_eq!(server.visitor().get(URL).await.status(), 200);
    }
    assert_eq!((origins[0].requests(), origins[1].requests()), (10, 10));
    let names = server.ssh().command("names").run().await.stdout;
    assert!(names.contains("2 members"), "{names}");
    one.kill().await;
    for _ in 0..20 {
        assert_eq!(server.visitor().get(URL).await.text(), "two");
    }
}

#[tokio::test]
async fn a_member_of_a_pool_that_cannot_be_reached_costs_no_visit() {
    let server = TestServer::start().await;
    let (here, absent) = (Origin::replying("hello").await, Origin::absent().await);
    let publish =
        |origin| server.ssh().forward_to("app:443", origin).command("http --pooling-enabled").publish();
    let (_one, _two) = tokio::join!(publish(&here), publish(&absent));
    for number in 0..30 {
        let reply = server.visitor().post(URL, vec![7; 1000 * number]).await;
        assert_eq!((reply.status(), reply.text()), (200, "hello"), "{number}");
    }
    let names = server.ssh().command("names").run().await.stdout;
    assert!(names.contains("1 of 2 members not reached"), "{names}");
}

#[tokio::test]
async fn a_pool_of_tcp_ports_shares_connections() {
    let server = TestServer::start().await;
    let origins = [Origin::greeting("one\n").await, Origin::greeting("two\n").await];
    let port = server.tcp_ports().start().to_string();
    let publish = |origin| server.ssh().forward_to(&port, origin).command("tcp --pooling-enabled").publish();
    let (_one, _two) = tokio::join!(publish(&origins[0]), publish(&origins[1]));
    let mut heard = Vec::new();
    for _ in 0..10 {
        let mut greeting = [0; 4];
        server.visitor().tcp(port.parse().unwrap()).await.read_exact(&mut greeting).await.unwrap();
        heard.push(greeting);
    }
    assert_eq!(heard.iter().filter(|it| *it == b"one\n").count(), 5);
}

#[tokio::test]
async fn who_would_share_with_other_rules_is_refused() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let guarded = "http --pooling-enabled --basic-auth ada:correct-horse";
    let _one = server.ssh().forward_to("app:443", &origin).command(guarded).publish().await;
    let refused = server.ssh().forward_to("app:443", &origin).command("http --pooling-enabled").run().await;
    assert!(refused.stdout.contains("ERR_HITHE_6030"), "{}", refused.output());
    assert_eq!(server.visitor().get(URL).await.status(), 401);
}

#[tokio::test]
async fn a_request_that_may_not_be_sent_twice_is_told_that_its_publisher_left() {
    let server = TestServer::start().await;
    let origin = Origin::silent().await;
    let mut ssh = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let visitor = server.visitor();
    let order = visitor.post(URL, "an order");
    let leave = async {
        eventually("the order has come", || (origin.connections() > 0).then_some(())).await;
        ssh.kill().await;
    };
    let (reply, ()) = tokio::join!(order, leave);
    assert_eq!((reply.status(), reply.code()), (502, Some("ERR_HITHE_3004")));
    let text = reply.text();
    assert!(text.contains("The publisher disconnected"), "{text}");
}
