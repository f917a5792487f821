//! Plain HTTP through a tunnel of stock ssh.

use std::time::Duration;

use hithe_integration::{Origin, TestServer};

async fn published(origin: &Origin) -> (TestServer, hithe_integration::Child) {
    let server = TestServer::start().await;
    let ssh = server.ssh().forward_to("app:80", origin).command("http").publish().await;
    (server, ssh)
}

const URL: &str = "http://app.localhost/";

#[tokio::test]
async fn http_1_0_and_1_1_visitors_are_served() {
    let origin = Origin::replying("hello").await;
    let (server, _ssh) = published(&origin).await;
    for version in ["1.0", "1.1"] {
        let request = format!("GET / HTTP/{version}\r\nHost: app.localhost\r\nConnection: close\r\n\r\n");
        let answer = server.visitor().raw(request).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains(" 200 OK") && answer.ends_with("hello"), "{answer}");
    }
}

#[tokio::test]
async fn upstream_connections_are_kept_and_shared_by_all_visitors() {
    let origin = Origin::replying("hello").await;
    let (server, _ssh) = published(&origin).await;
    for _ in 0..5 {
        assert_eq!(server.visitor().get(URL).await.text(), "hello");
    }
    assert_eq!((origin.requests(), origin.connections()), (5, 1));
}

#[tokio::test]
async fn an_upstream_that_closes_idle_connections_without_a_word_loses_no_request() {
    let origin = Origin::http().closing_when_idle(Duration::from_millis(20)).replying("hello").await;
    let (server, _ssh) = published(&origin).await;
    for _ in 0..20 {
        assert_eq!(server.visitor().get(URL).await.status(), 200);
    }
}

#[tokio::test]
async fn events_come_one_by_one() {
    let (origin, feed) = Origin::fed().await;
    let (server, _ssh) = published(&origin).await;
    assert!(feed.send("data: first\n\n").await);
    let mut stream = server.visitor().open(URL).await;
    assert_eq!(stream.next_text().await, "data: first\n\n");
    assert!(feed.send("data: second\n\n").await);
    assert_eq!(stream.next_text().await, "data: second\n\n");
}

#[tokio::test]
async fn bodies_arrive_whole_in_both_directions() {
    let (big, digest) = (Origin::sized(8 << 20).await, Origin::digesting().await);
    let server = TestServer::start().await;
    let ssh = server.ssh().forward_to("big:80", &big).forward_to("digest:80", &digest);
    let _ssh = ssh.command("http").publish().await;
    assert_eq!(server.visitor().get("http://big.localhost/").await.body().len(), 8 << 20);
    let (here, there) = (Origin::digesting().await, vec![7; 5 << 20]);
    let expected = {
        let address = here.address();
        let direct = hithe_integration::Visitor::of(address, address);
        direct.post("http://direct.localhost/", there.clone()).await
    };
    let through = server.visitor().post("http://digest.localhost/", there).await;
    assert_eq!(through.text(), expected.text());
}

#[tokio::test]
async fn trailers_pass() {
    let origin = Origin::with_trailers("hello").await;
    let (server, _ssh) = published(&origin).await;
    let reply = server.visitor().header("te", "trailers").get(URL).await;
    assert_eq!(reply.text(), "hello");
    assert!(!reply.trailers().is_empty(), "{reply:?}");
}

#[tokio::test]
async fn the_upstream_learns_who_asked_and_a_visitor_cannot_pretend() {
    let origin = Origin::echoing_requests().await;
    let (server, _ssh) = published(&origin).await;
    let visitor = server.visitor().header("x-forwarded-for", "6.6.6.6").header("forwarded", "for=6.6.6.6");
    let reply = visitor
        .header("x-real-ip", "6.6.6.6")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .get(URL)
        .await;
    assert_eq!(reply.seen_header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(reply.seen_header("x-forwarded-proto").as_deref(), Some("http"));
    assert!(reply.seen_header("x-forwarded-host").unwrap().starts_with("app.localhost"));
    assert!(reply.seen_header("host").unwrap().starts_with("app.localhost"));
    for gone in ["forwarded", "x-real-ip", "x-hop"] {
        assert_eq!(reply.seen_header(gone), None, "{gone}");
    }
}

#[tokio::test]
async fn nothing_listening_is_a_502_within_a_second_that_says_so() {
    let origin = Origin::absent().await;
    let (server, _ssh) = published(&origin).await;
    let asked = std::time::SystemTime::now();
    let reply = server.visitor().get(URL).await;
    assert!(asked.elapsed().unwrap() < Duration::from_secs(1));
    assert_eq!((reply.status(), reply.code()), (502, Some("ERR_HITHE_8012")));
}

#[tokio::test]
async fn an_unknown_name_is_a_404_as_a_page_for_browsers_and_as_text_for_the_rest() {
    let server = TestServer::start().await;
    let text = server.visitor().get("http://nobody.localhost/").await;
    assert_eq!((text.status(), text.code()), (404, Some("ERR_HITHE_3200")));
    assert!(text.header("content-type").unwrap().starts_with("text/plain"));
    let page = server.visitor().header("accept", "text/html,*/*;q=0.8").get("http://nobody.localhost/").await;
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.text().contains("ERR_HITHE_3200"));
}

#[tokio::test]
async fn an_upstream_cannot_speak_with_our_error_code() {
    let origin = Origin::scripted(
        "HTTP/1.1 200 OK\r\nhithe-error-code: ERR_HITHE_3200\r\ncontent-length: 2\r\n\r\nok",
    );
    let origin = origin.await;
    let (server, _ssh) = published(&origin).await;
    let reply = server.visitor().get(URL).await;
    assert_eq!((reply.status(), reply.code(), reply.text()), (200, None, "ok"));
}

#[tokio::test]
async fn an_upstream_that_speaks_no_http_or_hangs_up_is_a_502() {
    for origin in [Origin::scripted("SMTP ready\r\n").await, Origin::closing_at_once().await] {
        let (server, _ssh) = published(&origin).await;
        let reply = server.visitor().get(URL).await;
        assert_eq!((reply.status(), reply.code()), (502, Some("ERR_HITHE_3004")));
    }
}

#[tokio::test]
async fn a_visitor_that_expects_100_gets_it_only_past_the_modules() {
    let origin = Origin::digesting().await;
    let server = TestServer::start().await;
    let command = "http --basic-auth ada:correct-horse";
    let _ssh = server.ssh().forward_to("app:80", &origin).command(command).publish().await;
    let refused = "POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\
                   Connection: close\r\n\r\n";
    let answer = String::from_utf8_lossy(&server.visitor().raw(refused).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let url = "http://app.localhost/";
    let curl = ["-s", "-u", "ada:correct-horse", "-H", "Expect: 100-continue", "-d", "abc", "-v", url];
    let curl = server.visitor().curl(curl).await;
    assert!(curl.stderr.contains("100 Continue") && curl.stderr.contains("200 OK"), "{}", curl.stderr);
}

#[tokio::test]
async fn what_visitors_send_reaches_no_terminal_and_no_log_raw() {
    let origin = Origin::replying("hello").await;
    let server = TestServer::with(|options| options.arg("--log-level").arg("debug")).await;
    let mut ssh = server.ssh().forward_to("app:80", &origin).command("http").publish().await;
    server
        .visitor()
        .raw(b"GET /\xc2\x9b\x1b]0;x HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n")
        .await;
    server
        .visitor()
        .raw("GET /%1b HTTP/1.1\r\nHost: a\u{1b}[2J.localhost\r\nConnection: close\r\n\r\n")
        .await;
    server.visitor().get("http://app.localhost/after").await;
    ssh.wait_for_text("/after").await;
    let said = ssh.stdout() + &server.log();
    assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_never_passed_on() {
    let origin = Origin::echoing_requests().await;
    let (server, _ssh) = published(&origin).await;
    let host = "Host: app.localhost\r\nConnection: close\r\n";
    for request in [
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: +3\r\n\r\nabc"),
        format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip, identity\r\n\r\nabc"),
        format!("GET / HTTP/1.1\r\n{host}Host: other.localhost\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}X: a\r\n b\r\n\r\n"),
        format!("GET http://other.localhost/ HTTP/1.1\r\n{host}\r\n"),
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
        format!("CONNECT app.localhost:80 HTTP/1.1\r\n{host}\r\n"),
    ] {
        let answer = String::from_utf8_lossy(&server.visitor().raw(&request).await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 4"), "{request:?} got {answer:?}");
    }
    let both =
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    let answer = String::from_utf8_lossy(&server.visitor().raw(&both).await).into_owned();
    assert!(!answer.contains("\"content-length\":\"3\""), "{answer}");
}
