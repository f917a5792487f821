//! Whatever a visitor sends on HTTP/1: the upstream reads the requests that were routed to it, and no others.

use std::cell::RefCell;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tokio::time::sleep;

use super::*;

/// Requests and violations, as an upstream sees them that reads by the letter (RFC 9112 §2.2, §3, §5 and §6).
#[derive(Default)]
struct Upstream {
    requests: Vec<(String, String)>,
    faults: Vec<String>,
}

/// How the body of a request ends.
enum Framing {
    Length(usize),
    Chunked,
}

/// A part and what follows it, or nothing yet, or what is wrong.
type Reading<'a, T> = Result<Option<(T, &'a [u8])>, String>;

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Bytes up to a line's end, and what follows. `None` if there is none yet.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

/// Fields up to an empty line, and what follows.
fn fields(mut bytes: &[u8]) -> Reading<'_, Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let Some((field, rest)) = line(bytes) else { return Ok(None) };
        bytes = rest;
        if field.is_empty() {
            return Ok(Some((fields, bytes)));
        }
        let colon = field.iter().position(|byte| *byte == b':').ok_or("a field without a colon")?;
        let (name, value) = (&field[..colon], &field[colon + 1..]);
        let clean = value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 127));
        if !is_token(name) || !clean {
            return Err(format!("the field {}", field.escape_ascii()));
        }
        let value = String::from_utf8_lossy(value).trim_matches([' ', '\t']).to_owned();
        fields.push((String::from_utf8_lossy(name).to_lowercase(), value));
    }
}

/// A head, and what follows.
fn head(bytes: &[u8]) -> Reading<'_, ((String, String), Framing)> {
    let Some((first, rest)) = line(bytes) else { return Ok(None) };
    let parts: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = parts[..] else {
        return Err(format!("the request line {}", first.escape_ascii()));
    };
    let path = target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS");
    if !is_token(method) || !path || target.iter().any(|byte| *byte <= b' ' || *byte == 127) {
        return Err(format!("the request line {}", first.escape_ascii()));
    }
    let Some((fields, rest)) = fields(rest)? else { return Ok(None) };
    let of = |name: &str| {
        fields.iter().filter(|field| field.0 == name).map(|field| field.1.as_str()).collect::<Vec<_>>()
    };
    if !matches!(of("host")[..], [host] if host.eq_ignore_ascii_case("a.test")) {
        return Err(format!("the hosts {:?}", of("host")));
    }
    let framing = match (&of("transfer-encoding")[..], &of("content-length")[..]) {
        ([], []) => Framing::Length(0),
        ([], [length]) if !length.is_empty() && length.bytes().all(|digit| digit.is_ascii_digit()) => {
            Framing::Length(length.parse().map_err(|_| format!("the length {length}"))?)
        }
        (["chunked"], []) => Framing::Chunked,
        (codings, lengths) => return Err(format!("the codings {codings:?} and lengths {lengths:?}")),
    };
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Some((((text(method), text(target)), framing), rest)))
}

/// What follows a body.
fn after<'a>(mut bytes: &'a [u8], framing: &Framing) -> Result<Option<&'a [u8]>, String> {
    if let Framing::Length(length) = framing {
        return Ok(bytes.get(*length..));
    }
    loop {
        let Some((size, rest)) = line(bytes) else { return Ok(None) };
        let number = std::str::from_utf8(size).ok().filter(|it| it.bytes().all(|c| c.is_ascii_hexdigit()));
        let number = number.and_then(|it| usize::from_str_radix(it, 16).ok());
        match number.ok_or_else(|| format!("the chunk size {}", size.escape_ascii()))? {
            0 => return Ok(fields(rest)?.map(|(_, rest)| rest)),
            number => match rest.get(number..) {
                Some([b'\r', b'\n', rest @ ..]) => bytes = rest,
                Some([_, _, ..]) => return Err("a chunk longer than it says".to_owned()),
                _ => return Ok(None),
            },
        }
    }
}

/// Answers what comes on one connection.
async fn play(mut stream: DuplexStream, upstream: &RefCell<Upstream>) {
    let mut bytes = Vec::new();
    let mut begun = None;
    loop {
        let step = match &begun {
            None => head(&bytes).map(|head| {
                head.map(|((request, framing), rest)| {
                    upstream.borrow_mut().requests.push(request);
                    (bytes.len() - rest.len(), Some(framing))
                })
            }),
            Some(framing) => {
                after(&bytes, framing).map(|rest| rest.map(|rest| (bytes.len() - rest.len(), None)))
            }
        };
        match step {
            Err(fault) => return upstream.borrow_mut().faults.push(fault),
            Ok(Some((used, next))) => {
                bytes.drain(..used);
                begun = next;
                if begun.is_none() && stream.write_all(OK.as_bytes()).await.is_err() {
                    return;
                }
            }
            Ok(None) => {
                if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        }
    }
}

/// What came of what a visitor sent.
struct Told {
    upstream: Upstream,
    /// What the edge told of requests that were routed and are over.
    routed: Vec<(String, String)>,
    /// Requests that the edge took.
    begun: u64,
}

/// Lets a visitor send these bytes, so many at a time.
async fn visit(bytes: &[u8], piece: usize) -> Told {
    let mut bench = Bench::new();
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let place = bench.edge.site.visitors.admit("127.0.0.1".parse().unwrap()).unwrap();
    let activity = Activity::new(permit, place);
    let (near, far) = duplex(64 * 1024);
    let (edge, watched) = (Arc::clone(&bench.edge), Arc::clone(&activity));
    let from = Visitor::new("192.0.2.7:4000".parse().unwrap(), None);
    bench.edge.visits.spawn(async move { http1(&edge, far, from, None, watched).await });
    let (mut answers, mut requests) = tokio::io::split(near);
    let log = Arc::clone(&bench.log);
    let upstream = RefCell::new(Upstream::default());
    let serve = async {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(stream) = bench.dialled.recv() => connections.push(play(stream, &upstream)),
                Some(()) = connections.next(), if !connections.is_empty() => {}
            }
        }
    };
    let send = async {
        for piece in bytes.chunks(piece) {
            if requests.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        // The clock stands still until there is nothing left to do.
        sleep(Duration::from_secs(2)).await;
    };
    let mut serve = Box::pin(serve);
    let read = async {
        let _ = tokio::io::copy(&mut answers, &mut tokio::io::sink()).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = send => {}
        () = &mut serve => {}
        () = read => {}
    }
    drop((answers, requests));
    tokio::select! {
        () = sleep(Duration::from_secs(2)) => {}
        () = &mut serve => {}
    }
    drop(serve);
    let records = log.records.lock().unwrap();
    let routed = records.iter().filter_map(|record| match record {
        VisitRecord::Request { method, uri, .. } => Some((method.to_string(), uri.to_string())),
        _ => None,
    });
    Told { routed: routed.collect(), begun: activity.begun(), upstream: upstream.into_inner() }
}

fn text(choices: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    select(choices).prop_map(|text| text.as_bytes().to_vec())
}

fn request_line() -> impl Strategy<Value = Vec<u8>> {
    text(&[
        "GET /a HTTP/1.1\r\n",
        "POST /b HTTP/1.1\r\n",
        "HEAD /c HTTP/1.1\r\n",
        "PUT /d HTTP/1.0\r\n",
        "POST http://a.test/e HTTP/1.1\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "GET /f HTTP/1.1\n",
        "GET  /g HTTP/1.1\r\n",
        "GET /h\tHTTP/1.1\r\n",
        "GET /i\r\n",
        "\r\nGET /j HTTP/1.1\r\n",
    ])
}

fn field() -> impl Strategy<Value = Vec<u8>> {
    text(&[
        "Host: a.test\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 33\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length:3\n",
        "Content-Length : 3\r\n",
        "content-length: 03\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: Chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding:\tchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive, content-length, transfer-encoding\r\n",
        "Expect: 100-continue\r\n",
        "Upgrade: websocket\r\nConnection: upgrade\r\n",
        "TE: trailers\r\nTrailer: x\r\n",
        "X: a\rb\r\n",
        " folded\r\n",
        "no colon\r\n",
    ])
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    text(&[
        "",
        "abc",
        "3\r\nabc\r\n0\r\n\r\n",
        "3;x=y\r\nabc\r\n0\r\nx: 1\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "0\r\n\r\n",
        "0\r\n",
        "0\r\nhost: b.test\r\ncontent-length: 9\r\n\r\n",
        "GET /s HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "25\r\nGET /s HTTP/1.1\r\nHost: a.test\r\n\r\n\r\n0\r\n\r\n",
    ])
}

/// Something like a request.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let host = prop_oneof![9 => Just(b"Host: a.test\r\n".to_vec()), 1 => Just(Vec::new())];
    let end = prop_oneof![9 => Just(b"\r\n".to_vec()), 1 => text(&["\n", "", "\r"])];
    (request_line(), host, vec(field(), 0..4), end, body())
        .prop_map(|(line, host, fields, end, body)| [line, host, fields.concat(), end, body].concat())
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        12 => request(),
        1 => request_line(),
        1 => field(),
        1 => body(),
        1 => text(&["\r\n", "\n", "\r", "\0", "\r\n\r\n"]),
        1 => vec(any::<u8>(), 0..20),
    ]
}

/// Whether all of `part` comes in `whole`, in this order.
fn comes_in<T: PartialEq>(part: &[T], whole: &[T]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|wanted| rest.any(|one| one == wanted))
}

#[tokio::test(start_paused = true)]
async fn requests_in_one_stream_of_bytes_arrive_one_by_one() {
    let bytes =
        format!("POST /b HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{GET}{GET}", GET.len());
    let told = visit(bytes.as_bytes(), 5).await;
    let expected = [("POST", "/b"), ("GET", "/")].map(|(method, path)| (method.to_owned(), path.to_owned()));
    assert_eq!(told.upstream.requests, expected);
    assert_eq!((told.routed.as_slice(), told.begun), (&expected[..], 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    #[test]
    fn an_upstream_reads_the_requests_that_were_routed_to_it_and_no_others(
        pieces in vec(piece(), 1..6),
        size in select(&[1_usize, 5, 64, 4096][..]),
    ) {
        let bytes = pieces.concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let told = runtime.unwrap().block_on(visit(&bytes, size));
        let Told { upstream, routed, begun } = told;
        let sent = bytes.escape_ascii();
        prop_assert!(upstream.faults.is_empty(), "{sent}: {:?}", upstream.faults);
        prop_assert!(upstream.requests.len() as u64 <= begun, "{sent}: {:?}", upstream.requests);
        // The last one may not have come to its end.
        let over = upstream.requests.split_last().map_or(&[][..], |(_, others)| others);
        prop_assert!(comes_in(over, &routed), "{sent}: {over:?} of {routed:?}");
    }
}
