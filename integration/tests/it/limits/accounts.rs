//! How much one account may have, by default and by what is said of it alone.

use std::time::Duration;

use hithe_integration::{Origin, TestServer, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::{refusals, server_of_ada};

async fn change(server: &TestServer, limits: &str) {
    let changed = server.ssh().command(&format!("accounts change ada {limits}")).run().await;
    assert_eq!(changed.code, Some(0), "{}", changed.output());
}

#[tokio::test]
async fn an_account_has_so_many_visits_at_once() {
    let server = server_of_ada(&["--max-visits", "2"]).await;
    let (echo, page) = (Origin::tcp_echo().await, Origin::replying("hello").await);
    let mut tcp = server.publish(&echo, "tcp").await;
    let mut web = server.ssh().forward_to("app:443", &page).command("http").publish().await;
    let port = tcp.forwarding().await.remove(0).port().unwrap();
    let visitor = server.visitor();
    let visit = async || {
        let mut visit = visitor.tcp(port).await;
        visit.write_all(b"x").await.unwrap();
        let mut heard = [0];
        within("an answer or an end", visit.read(&mut heard)).await.map(|count| (visit, count == 1))
    };
    let held = [visit().await.unwrap(), visit().await.unwrap()];
    assert!(held.iter().all(|(_, answered)| *answered));
    assert!(visit().await.is_ok_and(|(_, answered)| !answered), "the third is closed without a byte");
    let refused = visitor.get("https://app.localhost/").await;
    assert_eq!((refused.status(), refused.code()), (503, Some("ERR_HITHE_734")));
    for told in [&mut tcp, &mut web] {
        told.wait_for_text("ERR_HITHE_734").await;
    }
    assert_eq!(refusals(&server, "ERR_HITHE_734").await, 2);
    change(&server, "--max-visits 3").await;
    assert_eq!(visitor.get("https://app.localhost/").await.status(), 200);
    change(&server, "--max-visits default").await;
    drop(held);
    within("room", async { while visitor.get("https://app.localhost/").await.status() != 200 {} }).await;
}

#[tokio::test]
async fn the_bytes_of_a_month_are_counted_and_outlive_the_server() {
    let mut server = server_of_ada(&[]).await;
    let origin = Origin::sized(100_000).await;
    change(&server, "--max-monthly 150kB").await;
    let mut tunnel = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let visitor = server.visitor();
    for _ in 0..2 {
        assert_eq!(visitor.get("https://app.localhost/").await.body().len(), 100_000);
    }
    let refused = visitor.get("https://app.localhost/").await;
    assert_eq!((refused.status(), refused.code()), (503, Some("ERR_HITHE_725")));
    tunnel.wait_for_text("ERR_HITHE_725").await;
    server.sigterm();
    server.wait().await;
    server.restart().await;
    let _tunnel = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let visitor = server.visitor();
    assert_eq!(visitor.get("https://app.localhost/").await.code(), Some("ERR_HITHE_725"));
    let who = server.ssh().command("whoami --json").run().await.stdout;
    let who: serde_json::Value = serde_json::from_str(&who).unwrap();
    let (limit, moved) = (&who["limits"]["monthly"], who["moved_this_month"].as_u64().unwrap());
    assert_eq!(limit, 150_000);
    assert!((200_000..210_000).contains(&moved), "{moved}");
    change(&server, "--max-monthly none").await;
    assert_eq!(visitor.get("https://app.localhost/").await.status(), 200);
}

#[tokio::test]
async fn an_account_that_is_ahead_of_its_rate_is_slowed_and_not_cut() {
    let server = server_of_ada(&["--max-rate", "1MB"]).await;
    let (down, up) = (Origin::sized(3_000_000).await, Origin::digesting().await);
    let _down = server.ssh().forward_to("down:443", &down).command("http").publish().await;
    let _up = server.ssh().forward_to("up:443", &up).command("http").publish().await;
    let visitor = server.visitor();
    let began = Instant::now();
    assert_eq!(visitor.get("https://down.localhost/").await.body().len(), 3_000_000);
    // A second's worth goes at once.
    assert!(began.elapsed() > Duration::from_millis(1500), "{:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(visitor.post("https://up.localhost/", vec![7; 2_000_000]).await.status(), 200);
    assert!(began.elapsed() > Duration::from_millis(1500), "{:?}", began.elapsed());
    change(&server, "--max-rate none").await;
    let began = Instant::now();
    visitor.get("https://down.localhost/").await;
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_account_publishes_from_so_many_sessions() {
    let server = server_of_ada(&["--max-sessions", "1"]).await;
    let origin = Origin::replying("hello").await;
    let first = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let refused = server.ssh().forward_to("other:443", &origin).command("http").run().await;
    assert!(refused.stdout.contains("ERR_HITHE_108"), "{}", refused.output());
    assert!(refused.stdout.contains("sessions kick"), "{}", refused.output());
    assert_eq!(server.ssh().command("sessions").run().await.code, Some(0));
    // One that does not answer any more gives way.
    first.stop();
    let _second = server.ssh().forward_to("other:443", &origin).command("http").publish().await;
    assert_eq!(server.visitor().get("https://other.localhost/").await.text(), "hello");
    first.cont();
}

#[tokio::test]
async fn an_account_has_so_many_names_and_ports() {
    let server = server_of_ada(&["--max-endpoints", "2", "--max-ports", "0"]).await;
    let origin = Origin::replying("hello").await;
    let tcp = server.ssh().forward_to("0", &origin).command("tcp").run().await;
    assert!(tcp.stdout.contains("ERR_HITHE_1136"), "{}", tcp.output());
    let mut tunnels = Vec::new();
    for bind in ["0", "app:443"] {
        tunnels.push(server.ssh().forward_to(bind, &origin).command("http").publish().await);
    }
    let refused = server.ssh().forward_to("third:443", &origin).command("http").run().await;
    assert!(refused.stdout.contains("ERR_HITHE_324"), "{}", refused.output());
    let refused = server.ssh().forward_to("0", &origin).command("http").run().await;
    assert!(refused.stdout.contains("ERR_HITHE_324"), "{}", refused.output());
    assert_eq!(refusals(&server, "ERR_HITHE_324").await, 2);
    change(&server, "--max-endpoints 4 --max-ports 1").await;
    let _third = server.ssh().forward_to("third:443", &origin).command("http").publish().await;
    let _tcp = server.publish(&origin, "tcp").await;
    let accounts = server.ssh().command("accounts list --json").run().await.stdout;
    let accounts: serde_json::Value = serde_json::from_str(&accounts).unwrap();
    assert_eq!(accounts[0]["limits"], serde_json::json!({"max_endpoints": "4", "max_ports": "1"}));
}

#[tokio::test]
async fn who_comes_back_to_its_own_name_needs_no_second_place() {
    let server = server_of_ada(&["--max-endpoints", "1", "--max-sessions", "1"]).await;
    let origin = Origin::replying("hello").await;
    let first = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    first.stop();
    let _second = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "hello");
    first.cont();
}
