//! Traffic to look at, and the page with it in a real browser.

use std::io::Write as _;
use std::process::Stdio;

use bytes::Bytes;

use super::*;
use crate::inspect::Recording;

struct Visit(Recording);

impl Visit {
    fn of(inspector: &Inspector, endpoint: &str) -> Self {
        Self(inspector.tap(endpoint).open(visitor()))
    }

    fn asks(self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.request(&Bytes::copy_from_slice(bytes.as_ref()));
        self
    }

    fn gets(self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.response(&Bytes::copy_from_slice(bytes.as_ref()));
        self
    }

    fn after(self, milliseconds: u64) -> Self {
        std::thread::sleep(Duration::from_millis(milliseconds));
        self
    }
}

fn request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{line} HTTP/1.1\r\nhost: brave-otter.tunnel.example\r\nuser-agent: Mozilla/5.0 (X11; Linux x86_64) Firefox/150.0\r\naccept: */*\r\nx-forwarded-for: 203.0.113.24\r\nx-forwarded-proto: https\r\n{headers}"
    );
    if !body.is_empty() {
        bytes.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    [bytes.as_bytes(), b"\r\n", body].concat()
}

fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nServer: nginx/1.28\r\nDate: Sat, 21 Nov 2026 10:53:51 GMT\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn frame(first: u8, payload: &[u8], is_masked: bool) -> Vec<u8> {
    let bit = if is_masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length @ 0..=125) => bytes.push(bit | length),
        _ => {
            bytes.push(bit | 126);
            bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    if is_masked {
        bytes.extend_from_slice(&[0; 4]);
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// A picture of one colour.
fn png() -> Vec<u8> {
    let chunk = |kind: &[u8], data: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(&[kind, data].concat());
        [&u32::try_from(data.len()).unwrap().to_be_bytes(), kind, data, &crc.sum().to_be_bytes()].concat()
    };
    let mut rows = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    for y in 0..120_u8 {
        rows.write_all(&[0]).unwrap();
        for x in 0..200_u8 {
            rows.write_all(&[15 + x / 2, 118 + y / 2, 110_u8.wrapping_add(x)]).unwrap();
        }
    }
    let head = [0, 0, 0, 200, 0, 0, 0, 120, 8, 2, 0, 0, 0];
    let start = b"\x89PNG\r\n\x1a\n".to_vec();
    [start, chunk(b"IHDR", &head), chunk(b"IDAT", &rows.finish().unwrap()), chunk(b"IEND", b"")].concat()
}

const ORDER: &str = r#"{"id":90071992547409931,"customer":{"name":"Ada Löve","tags":["new","vip"],"address":null},"lines":[{"sku":"A-1","price":12.50,"count":2},{"sku":"B-7","price":3e2,"count":1}],"paid":true,"note":"<script>document.title='gone'</script>","empty":{},"none":[]}"#;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Of all kinds. What stays open is returned.
fn traffic(inspector: &Inspector, pause: u64) -> Vec<Visit> {
    let web = || Visit::of(inspector, "web");
    let json = "content-type: application/json\r\n";
    web().asks(request("GET /", "", b"")).after(pause / 8).gets(response(
        "200 OK",
        "Content-Type: text/html; charset=utf-8\r\n",
        b"<!doctype html>\n<title>Shop</title>\n<h1>Hello</h1>\n<script>document.title='gone'</script>\n",
    ));
    web().asks(request("GET /static/harbour.png", "", b"")).gets(response(
        "200 OK",
        "Content-Type: image/png\r\nCache-Control: max-age=3600\r\n",
        &png(),
    ));
    web().asks(request("GET /account", "cookie: session=abc\r\n", b"")).gets(response(
        "302 Found",
        "Location: /login?next=%2Faccount\r\n",
        b"",
    ));
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    web()
        .asks(request("POST /login?next=%2Faccount", form, b"user=ada&password=correct+horse&remember=on"))
        .gets(response("303 See Other", "Location: /account\r\nSet-Cookie: session=1; HttpOnly\r\n", b""));
    let soap = b"<?xml version=\"1.0\"?><soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\"><soap:Body><price currency=\"EUR\">12.50</price><!-- net --><empty/></soap:Body></soap:Envelope>";
    web().asks(request("POST /soap", "content-type: text/xml\r\n", soap)).gets(response(
        "500 Internal Server Error",
        "Content-Type: text/xml\r\n",
        b"<fault><reason>no stock</fault>",
    ));
    let multipart = [b"--XX\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nHarbour at dawn\r\n--XX\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"harbour.png\"\r\nContent-Type: image/png\r\n\r\n".to_vec(), png(), b"\r\n--XX--\r\n".to_vec()].concat();
    web()
        .asks(request("POST /photos", "content-type: multipart/form-data; boundary=XX\r\n", &multipart))
        .after(pause / 4)
        .gets(response("201 Created", json, br#"{"id":7,}"#));
    web()
        .asks(request("DELETE /photos/7", "authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.x\r\n", b""))
        .gets(response("403 Forbidden", "Content-Type: text/plain\r\n", b"not yours\n"));
    web()
        .asks(request("GET /search?q=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E&page=2&sort=price", "", b""))
        .after(pause)
        .gets(response("200 OK", &format!("{json}Content-Encoding: gzip\r\n"), &gzip(ORDER.as_bytes())));
    web().asks(request("GET /missing.js", "", b"")).gets(response(
        "404 Not Found",
        "Content-Type: text/plain\r\n",
        b"404\n",
    ));
    web()
        .asks(request("GET /cut", "", b""))
        .gets("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nonly the beginning");
    web().asks("GET /<img/src=x/onerror=document.title='gone'> HTTP/1.1\r\nHost: x\r\n<b>: <script>document.title='gone'</script>\r\n\r\n").gets(response("400 Bad Request", "", b""));
    Visit::of(inspector, "db")
        .gets(b"J\0\0\0\x0a5.7.44\0\x08\0\0\0")
        .asks(b"\x16\x03\x01 and what the client says")
        .gets([7; 900]);
    let upgrade =
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\nsec-websocket-version: 13\r\n";
    let mut open = web()
        .asks(request("GET /live", upgrade, b""))
        .gets("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    open = open.asks(frame(0x81, br#"{"subscribe":["prices","orders"]}"#, true));
    for price in 0..6 {
        open = open.after(pause / 20).gets(frame(0x81, format!("{{\"event\":\"price\",\"sku\":\"A-{price}\",\"price\":{price}.5,\"at\":\"2026-11-21T10:53:5{price}Z\"}}").as_bytes(), false));
    }
    open = open.gets(frame(0x89, b"ping", false)).asks(frame(0x8a, b"ping", true)).gets(frame(
        0x82,
        &png()[..90],
        false,
    ));
    let closing = web()
        .asks(request("GET /live?old", upgrade, b""))
        .gets("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
    drop(closing.gets(frame(0x81, b"hello", false)).asks(frame(0x88, b"\x03\xe9going away", true)));
    web().asks(request("POST /orders", json, ORDER.as_bytes())).after(pause / 9).gets(response(
        "201 Created",
        &format!("{json}X-Request-Id: 5f2c\r\n"),
        ORDER.as_bytes(),
    ));
    inspector.settle();
    vec![open]
}

/// Serves it until it is stopped: `HITHE_DEMO=4040 cargo test -p hithe --lib inspect_by_hand -- --ignored`.
#[tokio::test]
#[ignore = "for looking at it"]
async fn inspect_by_hand() {
    let port = std::env::var("HITHE_DEMO").ok().and_then(|port| port.parse().ok()).unwrap_or(4040);
    let bench = bench();
    *bench.agent.upstream.lock().unwrap() = Some(upstream().await);
    let _open = traffic(&bench.inspector, 1400);
    let listener = crate::inspect::bind(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
    serve(listener, bench.inspector.clone(), bench.agent, Access::default()).await.unwrap();
}

/// What a browser made of a page, when its scripts have come so far. The browser gives it when it is loaded, and what is
/// told of later may come before or after that.
#[cfg(target_os = "linux")]
async fn browsed(url: &str, far_enough: impl Fn(&str) -> bool) -> String {
    let mut page = String::new();
    for _ in 0..20 {
        page = dumped(url).await;
        if far_enough(&page) {
            break;
        }
    }
    page
}

#[cfg(target_os = "linux")]
async fn dumped(url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut chromium = tokio::process::Command::new("chromium");
    chromium.args(["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    chromium.args(["--disable-background-networking", "--disable-component-update", "--no-proxy-server"]);
    chromium.args([
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--timeout=4000",
        "--dump-dom",
    ]);
    if rustix::process::geteuid().is_root() {
        chromium.arg("--no-sandbox"); // it refuses to run as root with one
    }
    chromium.arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
    chromium.env("HOME", profile.path()).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(120), chromium.output()).await.expect("a browser that ends");
    String::from_utf8_lossy(&output.expect("chromium starts").stdout).into_owned()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_what_passed_and_runs_nothing_of_it() {
    let bench = bench();
    let _open = traffic(&bench.inspector, 0);
    let listener = crate::inspect::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let id = |target: &str| {
        let all = bench.inspector.store().all();
        let found = all.iter().find(|entry| entry.http().is_some_and(|http| http.target.starts_with(target)));
        found.unwrap().id
    };
    let (search, live) = (id("/search"), id("/live"));
    let agent = Arc::clone(&bench.agent);
    let server = serve(listener, bench.inspector.clone(), agent, Access::default());
    let looking = async {
        let is_whole = |page: &str| page.contains("90071992547409931") && page.contains("live on");
        let page = browsed(&format!("http://{address}/#{search}"), is_whole).await;
        assert_eq!(page.matches("class=\"row\"").count(), bench.inspector.store().all().len(), "{page}");
        assert!(page.contains("90071992547409931"), "JSON as it was: {page}");
        assert!(page.contains("/&lt;img/src=x/onerror"), "{page}");
        assert!(!page.contains("<title>gone") && !page.contains("onerror=\""), "{page}");
        assert!(page.contains("id=\"live\" class=\"live on\""), "{page}");
        let subscribes = |page: &str| page.contains("{\"subscribe\":[\"prices\",\"orders\"]}");
        let page = browsed(&format!("http://{address}/#{live}"), subscribes).await;
        assert!(subscribes(&page), "{page}");
        let says_how_it_stands = |page: &str| page.contains("inspect_db_size") && page.contains("p99");
        let page = browsed(&format!("http://{address}/status"), says_how_it_stands).await;
        assert!(says_how_it_stands(&page), "{page}");
    };
    tokio::select! {
        () = looking => {}
        ended = server => panic!("{ended:?}"),
    }
}
