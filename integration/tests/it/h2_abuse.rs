//! HTTP/2 by hand: requests that no client should write, and floods. Nothing reaches an upstream but well-formed
//! requests for its own name, and no visitor pays for another's.

use std::time::Duration;

use hithe_integration::visitor::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    block, frame, literal,
};
use hithe_integration::{Child, Origin, TestServer, Visitor, eventually, within};
use tokio::time::timeout;

use crate::smuggling::Recorder;

const NAME: &str = "app.localhost";

/// Makes the server write its status lines without a memory (RFC 7541 §4.2).
const NO_TABLE: &[(u16, u32)] = &[(1, 0)];

async fn stage() -> (TestServer, Recorder, Origin, Child) {
    let (server, recorder) = (TestServer::start().await, Recorder::default());
    let origin = recorder.origin().await;
    let ssh = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    (server, recorder, origin, ssh)
}

type Field = (&'static [u8], &'static [u8]);

/// A request as it should be, with these fields in place of those of the same name, and the rest behind.
fn with(changes: &[Field]) -> Vec<Field> {
    let mut fields: Vec<Field> = vec![
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", NAME.as_bytes()),
        (b":path", b"/x"),
    ];
    for change in changes {
        match fields.iter_mut().find(|(name, _)| *name == change.0) {
            Some(field) => *field = *change,
            None => fields.push(*change),
        }
    }
    fields
}

/// A request without the fields of this name.
fn without(name: &[u8]) -> Vec<Field> {
    with(&[]).into_iter().filter(|field| field.0 != name).collect()
}

/// A request as it should be, and these fields before or behind it.
fn beside(before: &[Field], behind: &[Field]) -> Vec<Field> {
    [before, &with(&[]), behind].concat()
}

/// Pseudo-headers that must reach no upstream (RFC 9113 §8.3).
fn malformed_targets() -> Vec<Vec<Field>> {
    let mut requests = vec![
        without(b":method"),
        without(b":scheme"),
        without(b":authority"),
        without(b":path"),
        beside(&[], &[(b":protocol", b"websocket")]),
        beside(&[], &[(b":foo", b"bar")]),
        beside(&[], &[(b":status", b"200")]),
        beside(&[], &[(b":", b"")]),
        beside(&[(b"x-first", b"1")], &[]),
        beside(&[], &[(b"host", b"other.localhost")]),
        beside(&[], &[(b"host", NAME.as_bytes()), (b"host", b"other.localhost")]),
    ];
    requests.extend(with(&[]).into_iter().map(|field| beside(&[], &[field])));
    requests.extend(with(&[]).into_iter().map(|field| beside(&[], &[(b"x", b"1"), field])));
    let paths: [&[u8]; 11] = [
        b"",
        b"x",
        b"*",
        b"/a b",
        b"/\0",
        b"/\t",
        b"http://other.localhost/",
        b"other.localhost:443",
        b"/ HTTP/1.1\r\nHost: other.localhost\r\n\r\nGET /",
        b"/\nx: y",
        b"@other.localhost/",
    ];
    requests.extend(paths.map(|path| with(&[(b":path", path)])));
    let methods: [&[u8]; 7] =
        [b"", b"GE T", b"GET /evil HTTP/1.1\r\nx:", b"GET\n", b"G\0T", b"CONNECT", b"G:T"];
    requests.extend(methods.map(|method| with(&[(b":method", method)])));
    let authorities: [&[u8]; 10] = [
        b"",
        b"x@app.localhost",
        b"app.localhost/evil",
        b"app.localhost\r\nx: y",
        b"app.localhost other.localhost",
        b"app.localhost, other.localhost",
        b"app.localhost:8o",
        b"app.localhost\0",
        b"app.localhost#",
        b"other.localhost",
    ];
    requests.extend(authorities.map(|authority| with(&[(b":authority", authority)])));
    let schemes: [&[u8]; 5] = [b"", b"ht tp", b"https\r\nx: y", b"ftp", b"javascript"];
    requests.extend(schemes.map(|scheme| with(&[(b":scheme", scheme)])));
    requests
}

/// Headers that must reach no upstream (RFC 9113 §8.1.1 and §8.2).
fn malformed_fields() -> Vec<Vec<Field>> {
    let mut requests = Vec::new();
    let names: [&[u8]; 9] =
        [b"X-Upper", b"", b"a b", b"a:b", b"a\0", b"a\r\nb", b"a\nb", b"a: b\r\nhost", b"\xc3\xa4"];
    requests.extend(names.map(|name| beside(&[], &[(name, b"1")])));
    let values: [&[u8]; 5] = [b"a\0b", b"a\r\nx: y", b"a\nb", b"a\rb", b"a\r\n\r\nGET / HTTP/1.1\r\n\r\n"];
    requests.extend(values.map(|value| beside(&[], &[(b"x", value)])));
    let of_connections: [Field; 8] = [
        (b"connection", b"close"),
        (b"connection", b"x-hop"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"transfer-encoding", b"identity"),
        (b"upgrade", b"websocket"),
        (b"te", b"gzip"),
    ];
    requests.extend(of_connections.map(|field| beside(&[], &[field])));
    let lengths: [&[Field]; 7] = [
        &[(b"content-length", b"2")],
        &[(b"content-length", b"4")],
        &[(b"content-length", b"+3")],
        &[(b"content-length", b"")],
        &[(b"content-length", b"3, 4")],
        &[(b"content-length", b"3"), (b"content-length", b"4")],
        &[(b"content-length", b"99999999999999999999")],
    ];
    requests.extend(lengths.map(|lengths| beside(&[], lengths)));
    requests
}

/// Odd, and yet one thing only for whoever reads it as HTTP/1.1.
fn odd() -> Vec<Vec<Field>> {
    vec![
        with(&[]),
        beside(&[], &[(b"host", NAME.as_bytes())]),
        with(&[(b":path", b"//other.localhost/")]),
        with(&[(b":path", b"/?x=http://other.localhost/")]),
        with(&[(b":authority", b"APP.localhost")]),
        with(&[(b":scheme", b"http")]),
        with(&[(b":method", b"BREW")]),
        beside(&[], &[(b"te", b"trailers")]),
        beside(&[], &[(b"content-length", b"3")]),
        beside(&[], &[(b"cookie", b"a=1"), (b"cookie", b"b=2")]),
        beside(&[], &[(b"x", b" padded ")]),
        beside(&[], &[(b"x", b"\xff\xfe")]),
        beside(&[], &[(b"expect", b"100-continue")]),
        beside(&[], &[(b"http2-settings", b"AAMAAABkAAQAAP__")]),
    ]
}

fn shown(fields: &[Field]) -> String {
    let field = |(name, value): &Field| format!("{}={}", name.escape_ascii(), value.escape_ascii());
    fields.iter().map(field).collect::<Vec<_>>().join(" ")
}

/// Sends a request with a body of three bytes, and gives the status of its answer.
async fn ask(visitor: &Visitor, fields: &[Field]) -> Option<u16> {
    let mut frames = visitor.frames(NAME, NO_TABLE).await;
    let head = frame(HEADERS, END_HEADERS, 1, &block(fields.iter().copied()));
    let request = [head, frame(DATA, END_STREAM, 1, b"abc")].concat();
    // The server may have closed by then.
    let _ = frames.write(&request).await;
    frames.outcome(1).await
}

/// Whether the upstream got one request, which can be read in one way only.
fn is_one_request(seen: &str) -> bool {
    let Some((head, body)) = seen.split_once("\r\n\r\n") else { return false };
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let fields: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    let of =
        |name: &str| fields.iter().filter(|field| field.0 == name).map(|field| field.1).collect::<Vec<_>>();
    let framed = match (&of("content-length")[..], &of("transfer-encoding")[..]) {
        (["3"], []) => body == "abc",
        ([], ["chunked"]) => body == "3\r\nabc\r\n0\r\n\r\n",
        _ => false,
    };
    framed
        && line.split(' ').count() == 3
        && line.ends_with(" http/1.1")
        && head.lines().count() == fields.len() + 1
        && of("host") == [NAME]
        && ["connection", "upgrade", "keep-alive"]
            .iter()
            .all(|name| of(name).iter().all(|value| *value == "te"))
}

#[tokio::test]
async fn malformed_requests_of_http_2_reach_no_upstream() {
    let (server, recorder, _origin, _ssh) = stage().await;
    for fields in [malformed_targets(), malformed_fields()].concat() {
        let status = ask(&server.visitor(), &fields).await;
        let seen = recorder.take();
        assert!(
            status.is_none_or(|status| (400..500).contains(&status)),
            "{} got {status:?}",
            shown(&fields)
        );
        // Of a body that is not as long as its head said, the head and what came may have been passed on.
        let unfinished = seen.contains("content-length: ") && !seen.ends_with("abc");
        assert!(seen.is_empty() || unfinished, "{} reached the upstream as {seen:?}", shown(&fields));
    }
}

#[tokio::test]
async fn odd_requests_of_http_2_are_passed_on_as_one_request() {
    let (server, recorder, _origin, _ssh) = stage().await;
    for fields in odd() {
        let status = ask(&server.visitor(), &fields).await;
        assert_eq!(status, Some(200), "{}", shown(&fields));
        let mut seen = String::new();
        // The upstream answers before it has read all.
        eventually(&format!("{} is passed on as one request", shown(&fields)), || {
            seen += &recorder.take();
            is_one_request(&seen).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn trailers_of_http_2_frame_nothing() {
    let (server, recorder, _origin, _ssh) = stage().await;
    let trailers: [Field; 5] = [
        (b"content-length", b"9"),
        (b"transfer-encoding", b"chunked"),
        (b"host", b"other.localhost"),
        (b":path", b"/other"),
        (b"x", b"a\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
    ];
    for trailer in trailers {
        let mut frames = server.visitor().frames(NAME, NO_TABLE).await;
        let request = [
            frame(HEADERS, END_HEADERS, 1, &block(beside(&[], &[(b"te", b"trailers"), (b"trailer", b"x")]))),
            frame(DATA, 0, 1, b"abc"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &block([trailer])),
        ];
        let _ = frames.write(&request.concat()).await;
        frames.outcome(1).await;
        let seen = recorder.take();
        assert!(
            !seen.contains("smuggled") && !seen.contains("other"),
            "{} was passed on as {seen:?}",
            shown(&[trailer])
        );
        assert!(seen.matches("\nhost: ").count() <= 1, "{} was passed on as {seen:?}", shown(&[trailer]));
        let (_, body) = seen.split_once("\r\n\r\n").unwrap_or_default();
        assert!(!body.contains("length") && !body.contains("encoding"), "{seen:?}");
    }
}

/// Other visitors' requests, one after the other, while `attack` lasts. Each is answered.
async fn beside_others<T>(server: &TestServer, attack: impl Future<Output = T>) -> T {
    let others = async {
        loop {
            let reply = server.visitor().http2().get("https://other.localhost/").await;
            assert_eq!((reply.status(), reply.text()), (200, "here"));
        }
    };
    tokio::select! {
        result = attack => result,
        () = others => unreachable!("they never end"),
    }
}

/// Two endpoints of one publisher: `app` is attacked, `other` is not.
async fn flood_stage() -> (TestServer, [Origin; 2], [Child; 2]) {
    let server = TestServer::start().await;
    let app = Origin::sized(64 << 20).await;
    let other = Origin::replying("here").await;
    let first = server.ssh().forward_to("app:443", &app).command("http").publish().await;
    let second = server.ssh().forward_to("other:443", &other).command("http").publish().await;
    (server, [app, other], [first, second])
}

/// What a server may spend on one hostile connection, in KiB, in a debug build.
const BOUND: u64 = 128 * 1024;

/// Sends `piece` again and again until the server ends the connection, or takes nothing more.
async fn flood(frames: &mut Frames, times: usize, piece: impl Fn(u32) -> Vec<u8>) -> End {
    for number in 0..times {
        let piece = piece(u32::try_from(number).expect("a small number"));
        match timeout(Duration::from_secs(3), frames.write(&piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Closed,
            Err(_) => return End::HeldBack,
        }
    }
    End::Taken
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    HeldBack,
    Taken,
}

/// Runs a flood beside other visitors, and says how it ended.
async fn withstand(
    settings: &[(u16, u32)],
    begin: &[u8],
    times: usize,
    piece: impl Fn(u32) -> Vec<u8>,
) -> End {
    let (server, _origins, _ssh) = flood_stage().await;
    let before = server.rss_kib();
    let mut frames = server.visitor().frames(NAME, settings).await;
    let end = beside_others(&server, async {
        let _ = frames.write(begin).await;
        flood(&mut frames, times, piece).await
    })
    .await;
    let grown = server.peak_rss_kib().saturating_sub(before);
    assert!(grown < BOUND, "{grown} KiB for one connection, which was {end:?}");
    // The attacker's connection may stay; the next visitor is answered all the same.
    let reply = server.visitor().http2().get("https://other.localhost/").await;
    assert_eq!(reply.status(), 200);
    end
}

fn get(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(with(&[(b":method", b"GET")])))
}

/// The streams of a client are odd.
fn nth(number: u32) -> u32 {
    number * 2 + 1
}

#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let begin = frame(HEADERS, 0, 1, &block(with(&[])));
    for payload in [vec![], block([("x", "y")]), block([("x", "y".repeat(16_000))])] {
        let end = withstand(&[], &begin, 50_000, |_| frame(CONTINUATION, 0, 1, &payload)).await;
        assert_eq!(end, End::Closed, "with {} bytes each", payload.len());
    }
}

#[tokio::test]
async fn a_bomb_of_headers_is_not_unpacked() {
    // Put into the table once, and then meant again 16,000 times for a byte each: 64 MB of headers in each request.
    let mut first = block(with(&[(b":method", b"GET")]));
    first.push(0x40);
    literal(b"x", &mut first);
    literal(&[b'y'; 4000], &mut first);
    let begin = frame(HEADERS, END_HEADERS | END_STREAM, 1, &first);
    let bomb = [block(with(&[(b":method", b"GET")])), vec![0xbe; 16_000]].concat();
    let piece = |number| frame(HEADERS, END_HEADERS | END_STREAM, nth(number + 1), &bomb);
    assert_ne!(withstand(&[], &begin, 1000, piece).await, End::HeldBack);
}

#[tokio::test]
async fn large_heads_in_few_bytes_do_not_pile_up() {
    let mut first = block(with(&[(b":method", b"GET")]));
    first.push(0x40);
    literal(b"x", &mut first);
    literal(&[b'y'; 4000], &mut first);
    let begin = frame(HEADERS, END_HEADERS, 1, &first);
    // Just less than a request may have.
    let large = [block(with(&[(b":method", b"GET")])), vec![0xbe; 250]].concat();
    let (server, _recorder, _origin, ssh) = stage().await;
    drop(ssh);
    let upstream = Origin::silent().await;
    let _ssh = server.ssh().forward_to("app:443", &upstream).command("http").publish().await;
    let before = server.rss_kib();
    let mut frames = server.visitor().frames(NAME, NO_TABLE).await;
    frames.write(&begin).await.unwrap();
    // Three find room beside each other; those that are refused never were under way.
    for number in 1..100 {
        frames.write(&frame(HEADERS, END_HEADERS, nth(number), &large)).await.unwrap();
        if number > 4 {
            assert_eq!(frames.outcome(nth(number)).await, Some(431));
        }
    }
    let grown = server.peak_rss_kib().saturating_sub(before);
    assert!(grown < 48 * 1024, "{grown} KiB for heads of 4 MiB");
}

#[tokio::test]
async fn floods_of_settings_and_pings_are_held_back_or_ended() {
    withstand(&[], &[], 200_000, |_| frame(PING, 0, 0, &[0; 8])).await;
    withstand(&[], &[], 200_000, |_| frame(SETTINGS, 0, 0, &[])).await;
    withstand(&[], &[], 200_000, |number| {
        frame(SETTINGS, 0, 0, &[&[0, 4][..], &(number & 0xffff).to_be_bytes()].concat())
    })
    .await;
}

#[tokio::test]
async fn requests_that_are_reset_at_once_cost_no_other_visitor_its_answer() {
    let piece =
        |number| [get(nth(number), END_STREAM), frame(RST_STREAM, 0, nth(number), &[0, 0, 0, 8])].concat();
    withstand(&[], &[], 10_000, piece).await;
}

#[tokio::test]
async fn streams_over_the_limit_are_refused() {
    let end = withstand(&[], &[], 10_000, |number| get(nth(number), 0)).await;
    assert_eq!(end, End::Closed);
}

#[tokio::test]
async fn downloads_that_are_taken_byte_by_byte_hold_little() {
    const STREAMS: u32 = 100;
    let begin: Vec<u8> = (0..STREAMS).flat_map(|number| get(nth(number), END_STREAM)).collect();
    let piece = |number| frame(WINDOW_UPDATE, 0, nth(number % STREAMS), &[0, 0, 0, 1]);
    // A window of nothing for each stream.
    withstand(&[(4, 0)], &begin, 20_000, piece).await;
}

#[tokio::test]
async fn a_stream_of_nothing_ends_the_connection_or_harms_nobody() {
    // Frames of data that carry none, without an end (CVE-2019-9518).
    let begin = frame(HEADERS, END_HEADERS, 1, &block(with(&[])));
    withstand(&[], &begin, 100_000, |_| frame(DATA, 0, 1, &[])).await;
    // Priorities, which mean nothing any more.
    withstand(&[], &[], 100_000, |number| frame(2, 0, nth(number), &[0, 0, 0, 0, 16])).await;
}

#[tokio::test]
async fn half_a_head_holds_up_no_other_visitor() {
    let (server, _origins, _ssh) = flood_stage().await;
    let mut frames = server.visitor().frames(NAME, &[]).await;
    frames.write(&frame(HEADERS, 0, 1, &block(with(&[])))).await.unwrap();
    let reply = within("another visitor", server.visitor().http2().get("https://other.localhost/")).await;
    assert_eq!(reply.status(), 200);
}
