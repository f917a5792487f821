//! HTTP/2 connections to the upstream: shared up to what it takes, replaced when they end, and no request twice.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use hithe_integration::origin::text;
use hithe_integration::{Origin, TestServer, within};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Semaphore;

const URL: &str = "https://app.localhost/";
const COMMAND: &str = "http --upstream-protocol http2";

async fn published(origin: &Origin, command: &str) -> (TestServer, hithe_integration::Child) {
    let server = TestServer::start().await;
    let ssh = server.ssh().forward_to("app:443", origin).command(command).publish().await;
    (server, ssh)
}

/// Takes so many requests at a time on a connection, and answers when it is let.
async fn holding(streams: u32, let_go: Arc<Semaphore>) -> Origin {
    Origin::serving(move |stream, counters| {
        let let_go = Arc::clone(&let_go);
        async move {
            let service = hyper::service::service_fn(move |_| {
                counters.request();
                let let_go = Arc::clone(&let_go);
                async move {
                    let _ = let_go.acquire().await;
                    Ok::<_, Infallible>(text("held"))
                }
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(streams)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await
}

#[tokio::test]
async fn requests_that_last_do_not_keep_others_waiting_where_a_connection_takes_few() {
    let let_go = Arc::new(Semaphore::new(0));
    let origin = holding(5, Arc::clone(&let_go)).await;
    let (server, _ssh) = published(&origin, COMMAND).await;
    let visits = join_all((0..23).map(|number| {
        let server = &server;
        async move {
            let visitor = if number % 2 == 0 { server.visitor() } else { server.visitor().http2() };
            visitor.post(&format!("{URL}{number}"), vec![7; 1000 * number]).await.status()
        }
    }));
    let all_there = async {
        while origin.requests() < 23 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let_go.add_permits(1000);
    };
    let (statuses, ()) = tokio::join!(visits, within("all requests", all_there));
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(origin.connections(), 5, "as many as 23 requests need, five at a time");
}

/// Speaks HTTP/2 by hand: each connection takes one request, and goes away with the others unanswered.
async fn going_away(bodies: Arc<AtomicUsize>) -> Origin {
    Origin::serving(move |stream, counters| {
        let bodies = Arc::clone(&bodies);
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            let mut taken = 0;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                taken += 1;
                if taken > 2 {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                    connection.graceful_shutdown();
                    continue;
                }
                counters.request();
                let bodies = Arc::clone(&bodies);
                #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    let mut length = 0;
                    while let Some(Ok(data)) = body.data().await {
                        length += data.len();
                        let _ = body.flow_control().release_capacity(data.len());
                    }
                    bodies.fetch_add(length, Ordering::SeqCst);
                    if let Ok(mut answer) = respond.send_response(http::Response::new(()), false) {
                        let _ = answer.send_data(Bytes::from(length.to_string()), true);
                    }
                });
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_request_that_was_refused_unread_is_sent_again_whole_and_once() {
    let bodies = Arc::new(AtomicUsize::new(0));
    let origin = going_away(Arc::clone(&bodies)).await;
    let (server, _ssh) = published(&origin, COMMAND).await;
    for round in 0..4 {
        for number in 0..3 {
            let body = vec![7; 1000 * number + 1];
            let reply = server.visitor().post(URL, body).await;
            assert_eq!((reply.status(), reply.text()), (200, &*(1000 * number + 1).to_string()), "{round}");
        }
    }
    assert_eq!((origin.requests(), bodies.load(Ordering::SeqCst)), (12, 4 * 3003));
}

#[tokio::test]
async fn an_upstream_that_refuses_everything_is_not_asked_for_ever() {
    let origin = Origin::serving(|stream, counters| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            counters.request();
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
    })
    .await;
    let (server, _ssh) = published(&origin, COMMAND).await;
    for _ in 0..3 {
        let reply = within("an answer", server.visitor().get(URL)).await;
        assert_eq!((reply.status(), reply.code()), (502, Some("ERR_HITHE_3004")));
    }
    assert!(origin.requests() <= 9 && origin.connections() <= 3, "{origin:?}");
}

#[tokio::test]
async fn requests_of_a_connection_that_breaks_open_no_connection_each() {
    let healthy = Arc::new(AtomicBool::new(false));
    let origin = {
        let healthy = Arc::clone(&healthy);
        Origin::serving(move |stream, counters| {
            let healthy = Arc::clone(&healthy);
            async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                let mut unanswered = Vec::new();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    counters.request();
                    if healthy.load(Ordering::SeqCst) {
                        let _ = respond.send_response(http::Response::new(()), true);
                        continue;
                    }
                    unanswered.push(respond);
                    if unanswered.len() == 20 {
                        healthy.store(true, Ordering::SeqCst);
                        return;
                    }
                }
            }
        })
        .await
    };
    let (server, _ssh) = published(&origin, COMMAND).await;
    let visits = (0..20).map(|_| async { server.visitor().get(URL).await.status() });
    let statuses = within("all answers", join_all(visits)).await;
    // The first went over a connection that was new: it may be what broke it.
    assert!(statuses.iter().filter(|status| **status == 200).count() >= 19, "{statuses:?}");
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn what_is_no_http2_is_told_as_such() {
    let plain = Origin::replying("hello").await;
    let closing = Origin::closing_at_once().await;
    for origin in [plain, closing] {
        let (server, _ssh) = published(&origin, COMMAND).await;
        let reply = server.visitor().get(URL).await;
        assert_eq!((reply.status(), reply.code()), (502, Some("ERR_HITHE_3004")));
        assert!(reply.text().contains("leave --upstream-protocol http2 out"), "{}", reply.text());
    }
}
