//! What is recorded of connections, in whatever pieces their bytes come.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::entry::{Entry, Http, Kind, Upgrade};
use super::queue::NOTES;
use super::testing::{exchange, inspector, visitor};
use super::*;

fn only(inspector: &Inspector) -> Arc<Entry> {
    let all = inspector.store().all();
    assert_eq!(all.len(), 1, "{all:#?}");
    Arc::clone(&all[0])
}

fn https(inspector: &Inspector) -> Vec<(Arc<Entry>, Http)> {
    let mut all = inspector.store().all();
    all.reverse();
    all.into_iter().filter_map(|entry| entry.http().cloned().map(|http| (entry, http))).collect()
}

/// Requests first, then responses, each in pieces of that length.
fn in_pieces(request: &[u8], response: &[u8], length: usize) -> Inspector {
    let inspector = inspector();
    let recording = inspector.tap("web").open(visitor());
    for piece in request.chunks(length) {
        recording.request(&Bytes::copy_from_slice(piece));
    }
    for piece in response.chunks(length) {
        recording.response(&Bytes::copy_from_slice(piece));
    }
    drop(recording);
    inspector.settle();
    inspector
}

#[test]
fn pipelined_requests_have_their_responses_in_whatever_pieces_they_come() {
    let request = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: r\r\n\r\nHEAD /3 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n";
    let response = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.0 404 Not Found\r\n\r\nuntil the end";
    for length in 1..request.len() {
        let inspector = in_pieces(request, response, length);
        let all = https(&inspector);
        let seen: Vec<_> =
            all.iter().map(|(_, http)| (http.target.as_str(), http.status().unwrap())).collect();
        assert_eq!(seen, [("/1", 200), ("/2", 204), ("/3", 200), ("/4", 404)], "{length}");
        let body = |at: usize| all[at].1.response.as_ref().unwrap().message.body().0;
        assert_eq!((body(0), body(2), body(3)), (b"ok".to_vec(), vec![], b"until the end".to_vec()));
        let (body, trailers) = all[1].1.request.body();
        assert_eq!((body.as_slice(), trailers[0].value.as_str()), (&b"abc"[..], "r"));
        assert!(all.iter().all(|(entry, _)| entry.duration.is_some() && !entry.is_cut));
    }
}

#[test]
fn what_was_cut_off_says_so() {
    let inspector =
        in_pieces(b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", 7);
    let entry = only(&inspector);
    assert!(entry.is_cut && entry.duration.is_some());
    let unanswered = in_pieces(b"GET / HTTP/1.1\r\n\r\n", b"", 9);
    assert!(only(&unanswered).is_cut);
}

#[test]
fn an_answer_before_the_whole_request_does_not_confuse_the_next() {
    let inspector = inspector();
    let recording = inspector.tap("web").open(visitor());
    let ask = |bytes: &'static [u8]| recording.request(&Bytes::from_static(bytes));
    let get = |bytes: &'static [u8]| recording.response(&Bytes::from_static(bytes));
    ask(b"POST /1 HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc");
    get(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    ask(b"defGET /2 HTTP/1.1\r\n\r\n");
    get(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    inspector.settle();
    let all = https(&inspector);
    assert_eq!(all[0].1.request.body().0, b"abcdef");
    assert_eq!([all[0].1.status(), all[1].1.status()], [Some(413), Some(200)]);
}

const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn a_websocket_has_its_messages() {
    let request = [UPGRADE, b"\x81\x83\0\0\0\0abc\x88\x80\0\0\0\0"].concat();
    let response =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x02hi\x01\x01a\x80\x01b";
    for length in 1..response.len() {
        let inspector = in_pieces(&request, response, length);
        let entry = only(&inspector);
        let Some(Upgrade::WebSocket(talk)) = entry.http().unwrap().upgrade.as_deref() else {
            panic!("{entry:?}")
        };
        let frames: Vec<_> =
            talk.frames.iter().map(|it| (it.is_request, it.kind, it.payload.as_slice())).collect();
        let mut visitors: Vec<_> = frames.iter().filter(|it| it.0).collect();
        assert_eq!(visitors.pop(), Some(&(true, "close", &b""[..])), "{length}");
        assert_eq!(visitors, [&(true, "text", &b"abc"[..])], "{length}");
        assert!(frames.contains(&(false, "text", b"hi")) && frames.contains(&(false, "text", b"ab")));
        assert!(entry.duration.is_some() && !entry.is_cut);
    }
}

#[test]
fn a_refused_upgrade_goes_on_as_http() {
    let request = [UPGRADE, b"GET /2 HTTP/1.1\r\n\r\n"].concat();
    let response =
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for length in 1..request.len() {
        let all = https(&in_pieces(&request, response, length));
        let seen: Vec<_> = all.iter().map(|(_, http)| (http.target.as_str(), http.status())).collect();
        assert_eq!(seen, [("/ws", Some(400)), ("/2", Some(200))], "{length}");
    }
}

#[test]
fn what_is_no_http_is_a_connection_with_its_first_bytes() {
    let inspector = inspector();
    let recording = inspector.tap("db").open(visitor());
    recording.response(&Bytes::from_static(b"SSH-2.0-x\r\n"));
    recording.request(&Bytes::from_static(b"SSH-2.0-y\r\n"));
    recording.response(&Bytes::from(vec![7; 10_000]));
    drop(recording);
    inspector.settle();
    let entry = only(&inspector);
    let Kind::Connection(flow) = &entry.what else { panic!("{entry:?}") };
    assert_eq!((flow.protocol, flow.request.total, flow.response.total), ("SSH", 11, 10_011));
    assert_eq!((flow.request.first.as_slice(), flow.response.first.len()), (&b"SSH-2.0-y\r\n"[..], 4096));
    assert!(!entry.is_cut && entry.duration.is_some());
}

#[test]
fn http_that_ends_to_be_http_goes_on_as_a_connection() {
    let inspector = in_pieces(
        b"GET / HTTP/1.1\r\n\r\n\x01\x02 what is this\r\n\r\n more",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        1000,
    );
    let all = inspector.store().all();
    assert!(matches!(all[0].what, Kind::Connection(_)) && all[1].http().is_some());
    assert_eq!(all[1].incomplete, Some("no head of an HTTP/1.1 request"));
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one conversation from its beginning to its end")]
async fn http_2_is_taken_apart_as_a_real_client_and_server_speak_it() {
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use hyper::body::Frame;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let inspector = inspector();
    let recording = Arc::new(inspector.tap("grpc").open(visitor()));
    let (client, near) = tokio::io::duplex(64 * 1024);
    let (far, server) = tokio::io::duplex(64 * 1024);
    let (mut from_client, mut to_client) = tokio::io::split(near);
    let (mut from_server, mut to_server) = tokio::io::split(far);
    let up = async {
        let mut buffer = [0; 777];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            recording.request(&Bytes::copy_from_slice(&buffer[..read]));
            to_server.write_all(&buffer[..read]).await.unwrap();
        }
    };
    let down = async {
        let mut buffer = [0; 333];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            recording.response(&Bytes::copy_from_slice(&buffer[..read]));
            to_client.write_all(&buffer[..read]).await.unwrap();
        }
    };
    let service = hyper::service::service_fn(async |request: http::Request<hyper::body::Incoming>| {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("7"));
        let frames = [Ok::<_, std::convert::Infallible>(Frame::data(body)), Ok(Frame::trailers(trailers))];
        let response = http::Response::builder().header("x-path", path);
        Ok::<_, std::convert::Infallible>(
            response.body(StreamBody::new(futures_util::stream::iter(frames))).unwrap(),
        )
    });
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(server), service);
    let asking = async {
        let io = TokioIo::new(client);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        let requests = async {
            for number in 0..3 {
                let request = http::Request::post(format!("http://a.example/pkg.Service/{number}"));
                let request = request
                    .header("x-long", "y".repeat(300))
                    .body(Full::new(Bytes::from(vec![b'z'; 40_000])));
                let response = sender.send_request(request.unwrap()).await.unwrap();
                response.into_body().collect().await.unwrap();
            }
        };
        tokio::select! { () = requests => {}, _ = connection => panic!("the connection ended") }
    };
    // The upstream is nearer than the visitor, and says its settings at once (RFC 9113 §3.4).
    tokio::select! { biased; _ = serving => {}, () = down => {}, () = up => {}, () = asking => {} }
    inspector.settle();
    let all = https(&inspector);
    assert_eq!(all.len(), 3);
    for (number, (entry, http)) in all.iter().enumerate() {
        assert_eq!((http.method.as_str(), http.version), ("POST", "HTTP/2"));
        assert_eq!(http.target, format!("/pkg.Service/{number}"));
        assert_eq!(http.request.header("host").as_deref(), Some("a.example"));
        assert_eq!(http.request.header("x-long").unwrap().len(), 300);
        assert_eq!(http.request.body().0, vec![b'z'; 40_000]);
        let response = &http.response.as_ref().unwrap().message;
        assert_eq!(response.header("x-path"), Some(http.target.to_string()));
        let (body, trailers) = response.body();
        assert_eq!(
            (body.len(), trailers[0].name.as_str(), trailers[0].value.as_str()),
            (40_000, "grpc-status", "7")
        );
        assert!(entry.duration.is_some() && !entry.is_cut && entry.incomplete.is_none());
    }
}

#[test]
fn the_data_path_never_waits_for_a_thread_that_stands_still() {
    let limits = Limits { queue: 100_000, ..Limits::default() };
    let inspector = Inspector::new(limits);
    let recording = inspector.tap("web").open(visitor());
    recording.request(&Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"));
    let other = inspector.tap("web").open(visitor());
    let stopped = inspector.hold();
    let bytes = Bytes::from(vec![b'x'; 10_000]);
    for _ in 0..10_000 {
        recording.response(&bytes);
    }
    let waiting = inspector.queue.as_ref().unwrap().bytes();
    assert!(waiting <= limits.queue, "{waiting}");
    // Its end finds room, but for no bytes of anybody.
    for _ in 0..2 * NOTES {
        drop(inspector.tap("web").open(visitor()));
    }
    other.request(&Bytes::from_static(b"GET /other HTTP/1.1\r\n\r\n"));
    drop((recording, other));
    drop(stopped);
    inspector.settle();
    let all = https(&inspector);
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].0.incomplete.is_some() && all[0].0.duration.is_some(), "{all:?}");
    assert_eq!(inspector.queue.as_ref().unwrap().bytes(), 0);
    // And afterwards all is as before.
    exchange(&inspector, b"GET /again HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let all = https(&inspector);
    assert_eq!(all.last().unwrap().1.status(), Some(200));
}

#[test]
fn the_oldest_entries_go_first_and_the_bound_holds() {
    let limits = Limits { memory: 200_000, message: 30_000, queue: 4 << 20 };
    let inspector = Inspector::new(limits);
    let body = vec![b'b'; 50_000];
    let response =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    for number in 0..50 {
        exchange(&inspector, format!("GET /{number} HTTP/1.1\r\n\r\n").as_bytes(), &response);
        let (_, memory, most) = inspector.store().usage();
        assert!(memory <= most, "{memory}");
    }
    let all = https(&inspector);
    assert!(all.len() >= 3, "{}", all.len());
    assert_eq!(all.last().unwrap().1.target, "/49");
    let message = &all.last().unwrap().1.response.as_ref().unwrap().message;
    assert!(message.is_truncated() && message.raw.len() == 30_000 && message.size > 50_000);
}

#[test]
fn nothing_is_kept_where_nothing_may_be() {
    let inspector = Inspector::new(Limits::of_option(-1));
    let recording = inspector.tap("web").open(visitor());
    recording.request(&Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"));
    assert_eq!(inspector.metrics("web").connections.figures().gauge, 1);
    drop(recording);
    assert_eq!(inspector.metrics("web").connections.figures().gauge, 0);
    assert!(inspector.store().all().is_empty());
    let inspector = testing::inspector();
    inspector.meter("secret").open(visitor()).request(&Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"));
    inspector.settle();
    assert!(inspector.store().all().is_empty());
    assert_eq!(inspector.metrics("secret").connections.figures().count, 1);
    assert_eq!(Limits::of_option(0).memory, 50_000_000);
    assert_eq!(Limits::of_option(7).memory, 7);
}

/// Pieces that look like something, and pieces that do not.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\n",
        UPGRADE,
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
        b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00",
        b"\x81\x85\x01\x02\x03\x04hello",
        http2::PREFACE,
        b"\x00\x00\x03\x01\x05\x00\x00\x00\x01\x82\x86\x84",
        b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88",
        b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x01\x00\x00\x20\x00",
        b"\x00\x00\x05\x00\x09\x00\x00\x00\x01\x02ab\x00\x00",
    ]);
    prop_oneof![4 => known.prop_map(<[u8]>::to_vec), 1 => prop::collection::vec(any::<u8>(), 0..600)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_pieces_neither_panic_nor_pass_the_bound(
        sent in prop::collection::vec((0..4_usize, any::<bool>(), piece(), 1..90_usize), 0..80),
        memory in 2_000..120_000_usize,
    ) {
        let inspector = Inspector::new(Limits { memory, message: 9_000, queue: 64 << 20 });
        let tap = inspector.tap("web");
        let mut recordings: Vec<_> = (0..4).map(|_| tap.open(visitor())).collect();
        for (number, is_request, bytes, length) in sent {
            for part in bytes.chunks(length) {
                let part = Bytes::copy_from_slice(part);
                if is_request { recordings[number].request(&part) } else { recordings[number].response(&part) }
            }
            if bytes.is_empty() {
                recordings[number] = tap.open(visitor());
            }
            inspector.settle();
            let (_, memory, most) = inspector.store().usage();
            prop_assert!(memory <= most, "{} of {}", memory, most);
            let (counted, real) = inspector.store().counted_and_real();
            prop_assert_eq!(counted, real);
        }
        for entry in inspector.store().all() {
            let _ = serde_json::to_string(&show::detail(&entry)).unwrap();
            prop_assert!(entry.start + Duration::from_secs(3600) > entry.start);
        }
        drop(recordings);
        inspector.settle();
        prop_assert!(inspector.store().all().iter().all(|entry| entry.duration.is_some()));
    }
}

/// A body that is passed in pieces of 32 KiB after `head`, slowly enough for the thread to follow.
fn passed_in_bulk(inspector: &Inspector, head: &str, body: usize) -> Recording {
    let recording = inspector.tap("web").open(visitor());
    recording.request(&Bytes::from_static(b"GET /large HTTP/1.1\r\n\r\n"));
    recording.response(&Bytes::from(head.to_owned()));
    let piece = Bytes::from(vec![b'b'; 32 * 1024]);
    let mut left = body;
    while left > 0 {
        let now = piece.slice(..left.min(piece.len()));
        recording.response(&now);
        left -= now.len();
        if left.is_multiple_of(7) {
            inspector.settle();
        }
    }
    recording
}

#[test]
fn of_a_large_body_only_what_is_kept_is_handed_over_and_all_is_counted() {
    const BODY: usize = 5_000_000;
    for head in
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n"), "HTTP/1.1 200 OK\r\n\r\n".to_owned()]
    {
        let inspector = Inspector::new(Limits { message: 100_000, ..Limits::default() });
        let recording = passed_in_bulk(&inspector, &head, BODY);
        let is_closed_by_its_end = !head.contains("Length");
        inspector.settle();
        let entry = only(&inspector);
        // Before the connection ends, where the length says so.
        assert_eq!(entry.duration.is_some(), !is_closed_by_its_end, "{head}");
        if is_closed_by_its_end {
            recording.response_end();
            inspector.settle();
        } else {
            recording.request(&Bytes::from_static(b"GET /next HTTP/1.1\r\n\r\n"));
            recording.response(&Bytes::from_static(b"HTTP/1.1 204 No Content\r\n\r\n"));
            inspector.settle();
            assert_eq!(https(&inspector)[1].1.status(), Some(204));
        }
        let (entry, http) = https(&inspector).remove(0);
        let message = http.response.unwrap().message;
        assert!(entry.duration.is_some() && !entry.is_cut && entry.incomplete.is_none(), "{head}");
        assert_eq!((message.size, message.raw.len()), ((head.len() + BODY) as u64, 100_000));
        assert!(recording.skipped_ever() > (BODY / 2) as u64, "{}", recording.skipped_ever());
    }
}

#[test]
fn of_what_is_no_http_only_the_first_bytes_are_handed_over() {
    let inspector = inspector();
    let recording = inspector.tap("web").open(visitor());
    recording.request(&Bytes::from_static(b"\x16\x03\x01\x02\x00"));
    let piece = Bytes::from(vec![7; 32 * 1024]);
    for _ in 0..100 {
        recording.response(&piece);
        inspector.settle();
    }
    recording.response(&Bytes::from_static(b"end"));
    inspector.settle();
    let Kind::Connection(flow) = only(&inspector).what.clone() else { panic!() };
    assert_eq!((flow.response.total, flow.response.first.len()), (100 * 32 * 1024 + 3, 4096));
    assert!(recording.skipped_ever() > 90 * 32 * 1024);
}
