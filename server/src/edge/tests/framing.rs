//! Bodies, trailers, versions and upgrades as they pass.

use std::convert::Infallible;

use ::http::{Method, Request};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper_util::rt::TokioIo;

use super::*;
use crate::visit::STALLED;

#[tokio::test]
async fn a_chunked_body_and_its_trailers_pass_both_ways() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor
        .write_all(
            b"POST / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nTrailer: hithe-mtls-subject-cn, x-sum\r\n\
              Transfer-Encoding: chunked\r\n\r\n\
              5\r\nhello\r\n0\r\nhithe-mtls-subject-cn: root\r\nx-sum: 1\r\nx-other: 2\r\n\r\n",
        )
        .await
        .unwrap();
    let mut upstream = bench.upstream().await;
    let request = until(&mut upstream, "x-sum: 1\r\n\r\n").await;
    assert!(
        request.contains("te: trailers\r\n") && request.contains("transfer-encoding: chunked\r\n"),
        "{request}"
    );
    assert!(request.contains("5\r\nhello\r\n0\r\n"), "{request}");
    assert!(
        !request.contains("root"),
        "what only we know is no more said in trailers than in headers: {request}"
    );
    upstream
        .write_all(
            b"HTTP/1.1 200 OK\r\nTrailer: x-sum, hithe-error-code\r\nTransfer-Encoding: chunked\r\n\r\n\
              2\r\nok\r\n0\r\nx-sum: 3\r\nhithe-error-code: ERR_HITHE_1\r\n\r\n",
        )
        .await
        .unwrap();
    let response = until(&mut visitor, "x-sum: 3\r\n\r\n").await;
    assert!(!response.contains("ERR_HITHE"), "{response}");
}

#[tokio::test]
async fn an_upload_streams_before_it_is_whole() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    let head = b"PUT / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n";
    visitor.write_all(head).await.unwrap();
    until(&mut visitor, "HTTP/1.1 100 Continue\r\n\r\n").await;
    visitor.write_all(b"half").await.unwrap();
    let mut upstream = bench.upstream().await;
    let request = until(&mut upstream, "half").await;
    assert!(!request.to_lowercase().contains("expect"), "{request}");
    visitor.write_all(b"rest").await.unwrap();
    until(&mut upstream, "rest").await;
    upstream.write_all(OK.as_bytes()).await.unwrap();
    until(&mut visitor, "fine").await;
}

#[tokio::test]
async fn the_body_of_a_get_is_framed_for_the_upstream() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    let get = b"GET / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    visitor.write_all(get).await.unwrap();
    let request = until(&mut bench.upstream().await, "3\r\nabc\r\n0\r\n\r\n").await;
    assert!(request.contains("transfer-encoding: chunked\r\n"), "{request}");
}

#[tokio::test]
async fn two_lengths_reach_the_upstream_as_one() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    let smuggled =
        b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n\
        0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    visitor.write_all(smuggled).await.unwrap();
    let mut upstream = bench.upstream().await;
    let request = until(&mut upstream, "0\r\n\r\n").await;
    assert!(!request.contains("content-length") && !request.contains("smuggled"), "{request}");
    upstream.write_all(OK.as_bytes()).await.unwrap();
    let mut response = String::new();
    visitor.read_to_string(&mut response).await.unwrap();
    assert!(response.ends_with("fine"), "the connection ends after a request with two lengths: {response}");
}

#[tokio::test]
async fn oddities_that_upstreams_read_differently_are_refused() {
    let bench = Bench::new();
    for head in [
        "GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: +1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding : chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\n folded: 1\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let mut visitor = bench.visitor();
        visitor.write_all(head.as_bytes()).await.unwrap();
        let response = until(&mut visitor, "\r\n\r\n").await;
        assert!(
            response.starts_with("HTTP/1.1 400") || response.starts_with("HTTP/1.0 400"),
            "{head:?}: {response}"
        );
    }
}

#[tokio::test]
async fn a_visitor_of_http_1_0_is_served() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut upstream = bench.upstream().await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n";
    let head = answer(&mut upstream, chunked).await;
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
    let mut response = String::new();
    visitor.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.0 200") && response.ends_with("\r\n\r\nfine"), "{response}");
}

#[tokio::test]
async fn headers_tell_the_upstream_where_a_request_comes_from() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n").await.unwrap();
    let head = answer(&mut bench.upstream().await, OK).await;
    for line in
        ["x-forwarded-for: 192.0.2.7\r\n", "x-forwarded-proto: http\r\n", "x-forwarded-host: a.test\r\n"]
    {
        assert!(head.contains(line), "{head}");
    }
}

#[tokio::test]
async fn a_head_keeps_the_length_of_the_body_it_does_not_have() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(b"HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut upstream = bench.upstream().await;
    answer(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await;
    assert!(until(&mut visitor, "\r\n\r\n").await.contains("content-length: 4\r\n"));
    visitor.write_all(b"HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    answer(&mut upstream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let response = until(&mut visitor, "\r\n\r\n").await;
    assert!(!response.contains("content-length"), "{response}");
}

const WEBSOCKET: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";

#[tokio::test]
async fn a_websocket_passes_both_ways_and_each_side_can_end_first() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(WEBSOCKET).await.unwrap();
    let mut upstream = bench.upstream().await;
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello";
    let head = answer(&mut upstream, switching).await;
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
    let response = until(&mut visitor, "\r\n\r\nhello").await;
    assert!(
        response.starts_with("HTTP/1.1 101") && response.contains("upgrade: websocket\r\n"),
        "{response}"
    );
    visitor.write_all(b"ping").await.unwrap();
    until(&mut upstream, "ping").await;
    visitor.shutdown().await.unwrap();
    assert_eq!(upstream.read(&mut [0; 8]).await.unwrap(), 0);
    upstream.write_all(b"pong").await.unwrap();
    drop(upstream);
    let mut rest = String::new();
    visitor.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "pong");
}

#[tokio::test]
async fn an_upgrade_that_the_upstream_declines_is_an_ordinary_response() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(WEBSOCKET).await.unwrap();
    let mut upstream = bench.upstream().await;
    answer(&mut upstream, OK).await;
    until(&mut visitor, "fine").await;
    visitor.write_all(GET.as_bytes()).await.unwrap();
    answer(&mut upstream, OK).await;
}

#[tokio::test]
async fn an_upgrade_to_http2_is_not_carried_past_the_modules() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    let h2c = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n";
    visitor.write_all(h2c).await.unwrap();
    let mut upstream = bench.upstream().await;
    let head = answer(
        &mut upstream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    )
    .await;
    assert!(!head.contains("h2c") && !head.contains("http2-settings"), "{head}");
    assert!(until(&mut visitor, "ERR_HITHE_3004").await.starts_with("HTTP/1.1 502"));
}

#[derive(Clone)]
struct Spawner(DrainWatch);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// A visitor on HTTP/2.
async fn http2_visitor<B>(bench: &Bench) -> hyper::client::conn::http2::SendRequest<B>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (near, far) = duplex(64 * 1024);
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let visitor = Visitor::new("192.0.2.7:4000".parse().unwrap(), None);
    let edge = Arc::clone(&bench.edge);
    let activity = Activity::new(permit, edge.site.visitors.admit(visitor.ip()).unwrap());
    bench.edge.visits.spawn(async move { http2(&edge, far, visitor, Secured::default(), activity).await });
    let spawner = Spawner(bench.edge.visits.clone());
    let (sender, connection) =
        hyper::client::conn::http2::handshake(spawner, TokioIo::new(near)).await.unwrap();
    bench.edge.visits.spawn(async move { drop(connection.await) });
    sender
}

fn http2_bench() -> Bench {
    let bench = Bench::bare();
    bench.publish("a.test", Protocol::Https, "https://a.test", ModuleChain::default());
    bench
}

#[tokio::test]
async fn http2_reaches_an_http1_upstream() {
    let mut bench = http2_bench();
    let mut visitor = http2_visitor::<Empty<Bytes>>(&bench).await;
    let request = Request::post("https://a.test/x").header("cookie", "a=1").header("cookie", "b=2");
    let response = visitor.send_request(request.body(Empty::new()).unwrap());
    let upstream = async {
        let mut upstream = bench.upstream().await;
        answer(
            &mut upstream,
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
        )
        .await
    };
    let (response, head) = tokio::join!(response, upstream);
    assert!(head.starts_with("POST /x HTTP/1.1\r\n"), "{head}");
    for line in
        ["host: a.test\r\n", "cookie: a=1; b=2\r\n", "content-length: 0\r\n", "x-forwarded-proto: https\r\n"]
    {
        assert!(head.contains(line), "no {line:?} in {head}");
    }
    let response = response.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.collect().await.unwrap().to_bytes(), "fine");
}

#[tokio::test]
async fn an_upload_over_http2_of_unknown_length_is_chunked_for_the_upstream() {
    let mut bench = http2_bench();
    let frames = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"abc")))]);
    let mut visitor = http2_visitor(&bench).await;
    let request = Request::builder().method(Method::PUT).uri("https://a.test/");
    let response = visitor.send_request(request.body(StreamBody::new(frames)).unwrap());
    let upstream = async {
        let mut upstream = bench.upstream().await;
        let request = until(&mut upstream, "3\r\nabc\r\n0\r\n\r\n").await;
        upstream.write_all(OK.as_bytes()).await.unwrap();
        request
    };
    let (response, request) = tokio::join!(response, upstream);
    assert!(request.contains("transfer-encoding: chunked\r\n"), "{request}");
    assert_eq!(response.unwrap().status(), 200);
}

#[tokio::test]
async fn http2_with_another_host_than_its_authority_gives_400() {
    let bench = http2_bench();
    let mut visitor = http2_visitor::<Full<Bytes>>(&bench).await;
    let request = Request::get("https://a.test/").header("host", "b.test");
    let response = visitor.send_request(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 400);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_visitor_takes_nothing_is_reset_alone() {
    let mut bench = http2_bench();
    let mut visitor = http2_visitor::<Empty<Bytes>>(&bench).await;
    let get = || Request::get("https://a.test/").body(Empty::new()).unwrap();
    let stalled = visitor.send_request(get());
    let mut upstream = bench.upstream().await;
    until(&mut upstream, "\r\n\r\n").await;
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n").await.unwrap();
    let response = stalled.await.unwrap();
    // More than all windows and buffers: the rest waits for a visitor that does not read.
    let lost = async { while upstream.write_all(&[b'x'; 65536]).await.is_ok() {} };
    timeout(Duration::from_secs(121), lost).await.expect("the upstream is still held");
    drop(response);
    let told = bench.log.records.lock().unwrap().pop();
    assert!(matches!(told, Some(VisitRecord::Request { fault: Some(STALLED), .. })), "{told:?}");

    let (response, _) =
        tokio::join!(visitor.send_request(get()), async { answer(&mut bench.upstream().await, OK).await });
    assert_eq!(response.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_waits_for_its_upstream_is_not_stalled() {
    let mut bench = http2_bench();
    let mut visitor = http2_visitor::<Empty<Bytes>>(&bench).await;
    let request = visitor.send_request(Request::get("https://a.test/").body(Empty::new()).unwrap());
    let mut upstream = bench.upstream().await;
    answer(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
    let body = request.await.unwrap().into_body();
    let late = async {
        tokio::time::sleep(Duration::from_secs(4000)).await;
        upstream.write_all(b" late").await.unwrap();
    };
    let (body, ()) = tokio::join!(body.collect(), late);
    assert_eq!(body.unwrap().to_bytes(), "half late");
}

#[tokio::test(start_paused = true)]
async fn half_a_head_over_http2_is_given_up_when_no_ping_is_answered() {
    let bench = http2_bench();
    let (mut near, far) = duplex(64 * 1024);
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let visitor = Visitor::new("192.0.2.7:4000".parse().unwrap(), None);
    let edge = Arc::clone(&bench.edge);
    let activity = Activity::new(permit, edge.site.visitors.admit(visitor.ip()).unwrap());
    bench.edge.visits.spawn(async move { http2(&edge, far, visitor, Secured::default(), activity).await });
    near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    near.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    // `:method: GET`, and no END_HEADERS.
    near.write_all(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]).await.unwrap();
    let started = tokio::time::Instant::now();
    let trickle = async {
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            // A continuation with nothing in it: neither an end nor an answer to a ping.
            if near.write_all(&[0, 0, 0, 9, 0, 0, 0, 0, 1]).await.is_err() {
                return;
            }
        }
    };
    timeout(Duration::from_secs(400), trickle).await.expect("the connection is still open");
    assert!(started.elapsed() <= Duration::from_secs(100), "{:?}", started.elapsed());
}
