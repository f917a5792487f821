//! Connections to the upstream: kept, shared, given up.

use super::*;

#[tokio::test]
async fn visitors_share_a_kept_connection() {
    let mut bench = Bench::new();
    let mut first = bench.visitor();
    first.write_all(GET.as_bytes()).await.unwrap();
    let mut upstream = bench.upstream().await;
    answer(&mut upstream, OK).await;
    until(&mut first, "fine").await;

    let mut second = bench.visitor();
    second.write_all(GET.as_bytes()).await.unwrap();
    answer(&mut upstream, OK).await;
    until(&mut second, "fine").await;
    assert!(!bench.was_dialled_again());
}

#[tokio::test]
async fn an_upstream_that_closes_after_each_response_is_dialled_each_time() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    for _ in 0..2 {
        visitor.write_all(GET.as_bytes()).await.unwrap();
        let mut upstream = bench.upstream().await;
        answer(&mut upstream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine").await;
        let response = until(&mut visitor, "fine").await;
        assert!(!response.to_lowercase().contains("connection:"), "{response}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_before_node_would_close_it() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(GET.as_bytes()).await.unwrap();
    let mut upstream = bench.upstream().await;
    answer(&mut upstream, OK).await;
    until(&mut visitor, "fine").await;
    let idle = tokio::time::Instant::now();
    assert_eq!(upstream.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(idle.elapsed().as_secs(), 4);
}

/// The upstream takes the request on a kept connection and closes without a word.
async fn after_a_lost_race(bench: &mut Bench, request: &str) -> DuplexStream {
    let mut visitor = bench.visitor();
    visitor.write_all(GET.as_bytes()).await.unwrap();
    let mut upstream = bench.upstream().await;
    answer(&mut upstream, OK).await;
    until(&mut visitor, "fine").await;
    visitor.write_all(request.as_bytes()).await.unwrap();
    until(&mut upstream, "\r\n\r\n").await;
    drop(upstream);
    visitor
}

#[tokio::test]
async fn a_safe_request_that_met_a_closing_connection_is_sent_once_more() {
    let mut bench = Bench::new();
    let mut visitor =
        after_a_lost_race(&mut bench, "GET /again HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\n\r\n").await;
    let mut fresh = bench.upstream().await;
    let head = answer(&mut fresh, OK).await;
    assert!(head.starts_with("GET /again HTTP/1.1\r\n") && head.contains("x-a: 1"), "{head}");
    until(&mut visitor, "fine").await;
}

#[tokio::test]
async fn a_request_that_may_have_been_served_is_not_sent_again() {
    let mut bench = Bench::new();
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n";
    let mut visitor = after_a_lost_race(&mut bench, post).await;
    let response = until(&mut visitor, "ERR_HITHE_3004").await;
    assert!(response.starts_with("HTTP/1.1 502"), "{response}");
    assert!(!bench.was_dialled_again());
}

#[tokio::test]
async fn a_channel_that_closes_at_once_gives_502_and_an_advice() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(GET.as_bytes()).await.unwrap();
    drop(bench.upstream().await);
    let response = until(&mut visitor, "did you give -R a target").await;
    assert!(response.starts_with("HTTP/1.1 502") && response.contains("hithe-error-code: ERR_HITHE_3004"));
    assert_eq!(bench.log.advice.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_upstream_that_does_not_speak_http_gives_502() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(GET.as_bytes()).await.unwrap();
    let mut upstream = bench.upstream().await;
    answer(&mut upstream, "SSH-2.0-OpenSSH_9.2\r\n").await;
    let response = until(&mut visitor, "ERR_HITHE_3004").await;
    assert!(response.starts_with("HTTP/1.1 502"), "{response}");
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_the_visitors_too() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(GET.as_bytes()).await.unwrap();
    let mut upstream = bench.upstream().await;
    answer(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    drop(upstream);
    let mut rest = String::new();
    visitor.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with("half"), "{rest}");
}

#[tokio::test]
async fn a_connection_that_authenticates_with_ntlm_stays_with_its_visitor() {
    let mut bench = Bench::new();
    let mut ntlm = bench.visitor();
    ntlm.write_all(GET.as_bytes()).await.unwrap();
    let mut tied = bench.upstream().await;
    let challenge =
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM TlRM\r\nContent-Length: 4\r\n\r\nnope";
    answer(&mut tied, challenge).await;
    until(&mut ntlm, "nope").await;

    let mut other = bench.visitor();
    other.write_all(GET.as_bytes()).await.unwrap();
    let mut fresh = bench.upstream().await;
    answer(&mut fresh, OK).await;
    until(&mut other, "fine").await;

    ntlm.write_all(GET.as_bytes()).await.unwrap();
    answer(&mut tied, OK).await;
    until(&mut ntlm, "fine").await;
    drop(ntlm);
    assert_eq!(tied.read(&mut [0; 8]).await.unwrap(), 0, "it ends with its visitor");
}

#[tokio::test]
async fn a_connection_that_authenticates_serves_one_of_the_visitors_behind_a_proxy() {
    let mut bench = Bench::new();
    let proxy = Visitor::new("127.0.0.1:4000".parse().unwrap(), None).as_proxy(true);
    let mut proxy = bench.connect_as(proxy, false);
    let asked_by = |address| {
        format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: {address}\r\n\r\n").into_bytes()
    };
    proxy.write_all(&asked_by("192.0.2.7")).await.unwrap();
    let mut tied = bench.upstream().await;
    let challenge =
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM TlRM\r\nContent-Length: 4\r\n\r\nnope";
    answer(&mut tied, challenge).await;
    until(&mut proxy, "nope").await;

    proxy.write_all(&asked_by("192.0.2.8")).await.unwrap();
    let mut fresh = bench.upstream().await;
    answer(&mut fresh, OK).await;
    until(&mut proxy, "fine").await;

    proxy.write_all(&asked_by("192.0.2.7")).await.unwrap();
    answer(&mut tied, OK).await;
    until(&mut proxy, "fine").await;
}

#[tokio::test]
async fn a_visitor_that_leaves_takes_its_request_with_it() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(GET.as_bytes()).await.unwrap();
    let mut upstream = bench.upstream().await;
    until(&mut upstream, "\r\n\r\n").await;
    drop(visitor);
    assert_eq!(upstream.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_given_30_seconds_and_silence_between_requests_5_minutes() {
    let mut bench = Bench::new();
    let started = tokio::time::Instant::now();
    let mut slow = bench.visitor();
    slow.write_all(b"GET / HT").await.unwrap();
    assert_eq!(slow.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(started.elapsed().as_secs(), 30);

    // A refusal is given at once, and leaves the connection as it was.
    let mut refused = bench.visitor();
    refused.write_all(b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").await.unwrap();
    until(&mut refused, "ERR_HITHE_3200\n").await;
    let started = tokio::time::Instant::now();
    assert_eq!(refused.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(started.elapsed().as_secs(), 300);

    let mut idle = bench.visitor();
    idle.write_all(GET.as_bytes()).await.unwrap();
    let mut upstream = bench.upstream().await;
    answer(&mut upstream, OK).await;
    until(&mut idle, "fine").await;
    let started = tokio::time::Instant::now();
    assert_eq!(idle.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(started.elapsed().as_secs(), 300);
}

#[tokio::test]
async fn a_finished_request_is_told_to_the_publisher() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(b"GET /path?q=1 HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut upstream = bench.upstream().await;
    answer(&mut upstream, OK).await;
    until(&mut visitor, "fine").await;
    // The next request begins only when the first is over.
    visitor.write_all(GET.as_bytes()).await.unwrap();
    answer(&mut upstream, OK).await;
    let records = bench.log.records.lock().unwrap();
    let VisitRecord::Request { visitor, uri, status, sent, .. } = &records[0] else {
        panic!("not a request")
    };
    assert_eq!(visitor.ip().to_string(), "192.0.2.7");
    assert_eq!((uri.to_string().as_str(), status.as_u16(), *sent), ("/path?q=1", 200, 4));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_rested_takes_the_next_request() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(GET.as_bytes()).await.unwrap();
    let mut upstream = bench.upstream().await;
    answer(&mut upstream, OK).await;
    until(&mut visitor, "fine").await;
    for pause in [1, 10, 200] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        let (begin, rest) = GET.split_at(7);
        visitor.write_all(begin.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
        visitor.write_all(rest.as_bytes()).await.unwrap();
        let mut upstream = bench.upstream().await;
        answer(&mut upstream, OK).await;
        until(&mut visitor, "fine").await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_visitor_has_not_taken_outlives_the_rest_of_its_connection() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(GET.as_bytes()).await.unwrap();
    let mut upstream = bench.upstream().await;
    let body = "x".repeat(300_000);
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    answer(&mut upstream, &response).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    let mut got = 0;
    let mut buffer = vec![0; 64 * 1024];
    while got < body.len() {
        let count = visitor.read(&mut buffer).await.unwrap();
        assert!(count > 0, "the response ends after {got} bytes");
        got += count;
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_request_that_came_half_with_the_first_is_not_lost() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    let (begin, rest) = GET.split_at(9);
    visitor.write_all(format!("{GET}{begin}").as_bytes()).await.unwrap();
    let mut upstream = bench.upstream().await;
    answer(&mut upstream, OK).await;
    until(&mut visitor, "fine").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    visitor.write_all(rest.as_bytes()).await.unwrap();
    answer(&mut upstream, OK).await;
    until(&mut visitor, "fine").await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_goes_on_after_its_answer_is_never_taken_for_a_request() {
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor
        .write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 40\r\n\r\n0123456789")
        .await
        .unwrap();
    let mut upstream = bench.upstream().await;
    answer(&mut upstream, OK).await;
    until(&mut visitor, "fine").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let rest = "GET /stolen HTTP/1.1\r\nHost: \r\n";
    assert_eq!(rest.len(), 30, "what is missing of the body");
    visitor.write_all(rest.as_bytes()).await.unwrap();
    until(&mut upstream, rest).await;
    assert!(!bench.was_dialled_again());
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_takes_nothing_lets_little_pile_up_on_the_way() {
    const MOST: usize = 512 << 10;
    let mut bench = Bench::new();
    let mut visitor = bench.visitor();
    visitor.write_all(GET.as_bytes()).await.unwrap();
    let mut upstream = bench.upstream().await;
    answer(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 4194304\r\n\r\n").await;
    let mut sent = 0;
    // Time passes only when nothing else happens.
    while let Ok(written) = timeout(Duration::from_secs(1), upstream.write_all(&[b'x'; 4096])).await {
        written.unwrap();
        sent += 4096;
    }
    assert!(sent < MOST, "{sent} bytes");
    // All of it comes once the visitor reads.
    let send = async { upstream.write_all(&vec![b'x'; (4 << 20) - sent]).await.unwrap() };
    let take = async {
        let mut taken = 0;
        while taken < 4 << 20 {
            taken += visitor.read(&mut [0; 4096]).await.unwrap();
        }
    };
    timeout(Duration::from_secs(20), async { tokio::join!(send, take) }).await.expect("the answer goes on");
}
