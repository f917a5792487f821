//! The full-screen view with invented values, to look at by hand:
//! `cargo test -p hithe --lib console::demo -- --ignored --nocapture`. `DEMO=panic` lets it panic after two seconds, `DEMO=task`
//! a task beside it.

#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "nothing but a demonstration")]

use super::*;
use crate::config::ConsoleColor;
use crate::{EndpointStatus, Phase};

fn endpoint(name: &str, url: &str, upstream: &str) -> EndpointStatus {
    EndpointStatus {
        name: name.into(),
        kind: "http",
        upstream: upstream.into(),
        inspect: true,
        urls: vec![url.into()],
        account: Some("ada".into()),
        latency: Some(Duration::from_millis(23)),
        phase: Phase::Online { since: SystemTime::now() },
        unreachable: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "for the eye"]
async fn look() {
    let status = Status {
        server: "tunnel.example.com:2222".into(),
        web: Some("http://127.0.0.1:4040".into()),
        endpoints: vec![
            endpoint("web", "https://brave-otter-7k3q9.tunnel.example.com", "http://localhost:80"),
            endpoint("docs", "https://docs.example.com", "file:///home/b\u{fc}cher/\u{6587}\u{66f8}"),
        ],
    };
    let (status_in, status) = watch::channel(status);
    let (numbers_in, numbers) = watch::channel(Numbers::default());
    let (requests_in, requests) = broadcast::channel(64);
    let story = tokio::spawn(async move {
        let mut turn = interval(Duration::from_millis(300));
        for number in 0_u64.. {
            turn.tick().await;
            let _ = requests_in.send(Line {
                when: SystemTime::now(),
                endpoint: if number % 3 == 0 { "docs" } else { "web" }.into(),
                method: ["GET", "POST", "DELETE"][(number % 3) as usize].into(),
                path: format!("/shop/items/{number}?session=\x1b[31mred"),
                status: [Some(200), Some(302), Some(404), Some(502), None][(number % 5) as usize],
                duration: Duration::from_micros(number * number * 900),
            });
            let _ = numbers_in.send(Numbers {
                total: number,
                open: number % 4,
                rate1: 3.33,
                ..Numbers::default()
            });
            status_in.send_modify(|status| {
                status.endpoints[1].phase = match number % 60 {
                    20..40 => Phase::Waiting {
                        until: SystemTime::now() + Duration::from_millis((40 - number % 60) * 300),
                        why: "connection reset".into(),
                    },
                    _ => Phase::Online { since: SystemTime::now() },
                };
            });
            if number == 7 && std::env::var("DEMO").is_ok_and(|it| it == "task") {
                tokio::spawn(async { panic!("a task") });
            }
        }
    });
    let shown = run(Sources { status, numbers, requests }, Look::of_this_terminal(ConsoleColor::Transparent));
    if std::env::var("DEMO").is_ok_and(|it| it == "panic") {
        tokio::select! {
            _ = shown => {}
            () = tokio::time::sleep(Duration::from_secs(2)) => panic!("as asked"),
        }
        return;
    }
    println!("left: {:?}", shown.await);
    story.abort();
}
