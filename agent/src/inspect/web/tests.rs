//! The inspector's server, as its page and as programs see it.

use std::net::SocketAddr;
use std::sync::Mutex;

use axum::body::Body;
use axum::http::{Method, Request};
use base64::Engine as _;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::inspect::Limits;
use crate::inspect::testing::{exchange, visitor};
use crate::{Dialer, EndpointStatus, Phase, Upstream};

/// An agent with one http endpoint `web` and one tcp endpoint `db`.
struct Agent {
    upstream: Mutex<Option<SocketAddr>>,
    stopped: Mutex<Vec<String>>,
}

fn endpoint(name: &str, kind: &'static str, upstream: &str, urls: &[&str]) -> EndpointStatus {
    EndpointStatus {
        name: name.to_owned(),
        kind,
        upstream: upstream.to_owned(),
        inspect: kind == "http",
        urls: urls.iter().map(|&url| url.to_owned()).collect(),
        account: Some("ada".to_owned()),
        latency: Some(Duration::from_millis(12)),
        phase: Phase::Online { since: std::time::UNIX_EPOCH + Duration::from_secs(1_790_000_000) },
        unreachable: None,
    }
}

impl Local for Agent {
    fn status(&self) -> Arc<Status> {
        let urls = ["https://brave-otter.tunnel.example", "http://brave-otter.tunnel.example"];
        Arc::new(Status {
            server: "tunnel.example:22".to_owned(),
            web: None,
            endpoints: vec![
                endpoint("web", "http", "http://localhost:8080", &urls),
                endpoint("db", "tcp", "localhost:5432", &["tcp://tunnel.example:20001"]),
            ],
        })
    }

    fn configuration(&self) -> Vec<(String, String)> {
        let line = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![line("server", "tunnel.example:22"), line("token", "•••"), line("inspect_db_size", "50 MB")]
    }

    fn dialer(&self, endpoint: &str) -> Option<Dialer> {
        let address = self.upstream.lock().unwrap().filter(|_| endpoint == "web")?;
        let upstream = Upstream::parse(&address.to_string(), hithe_cli_parser::Kind::Http).unwrap();
        Dialer::new(&upstream, None).ok()
    }

    fn start(&self, fields: Value) -> api::BoxFuture<Result<EndpointStatus, ApiError>> {
        Box::pin(async move {
            let name = fields["name"].as_str().ok_or_else(|| ApiError::bad("a tunnel needs a name"))?;
            Ok(endpoint(name, "http", "http://localhost:1", &["https://new.tunnel.example"]))
        })
    }

    fn stop(&self, endpoint: &str) -> api::BoxFuture<Result<(), ApiError>> {
        self.stopped.lock().unwrap().push(endpoint.to_owned());
        Box::pin(async { Ok(()) })
    }
}

struct Bench {
    inspector: Inspector,
    agent: Arc<Agent>,
    router: Router,
}

fn bench() -> Bench {
    let inspector = Inspector::new(Limits::default());
    let agent = Arc::new(Agent { upstream: Mutex::new(None), stopped: Mutex::default() });
    let local: Arc<dyn Local> = Arc::<Agent>::clone(&agent);
    let app = App {
        inspector: inspector.clone(),
        local,
        access: Arc::default(),
        feeds: Arc::new(Semaphore::new(FEEDS)),
        replays: Arc::new(Semaphore::new(REPLAYS)),
        tasks: TaskTracker::new(),
    };
    Bench { inspector, agent, router: router(app) }
}

impl Bench {
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:4040");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self.send(request.body(body).unwrap()).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, json) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {json}");
        json
    }

    async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }
}

fn keys(json: &Value) -> Vec<&str> {
    json.as_object().unwrap().keys().map(String::as_str).collect()
}

const REQUEST: &[u8] =
    b"POST /orders?id=7 HTTP/1.1\r\nhost: a\r\nx-tag: 1\r\nX-Tag: 2\r\ncontent-length: 5\r\n\r\nhello";
const RESPONSE: &[u8] =
    b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

#[tokio::test]
async fn tunnels_have_the_fields_of_ngroks_api() {
    let bench = bench();
    exchange(&bench.inspector, REQUEST, RESPONSE);
    let json = bench.get("/api/tunnels").await;
    assert_eq!(keys(&json), ["tunnels", "uri"]);
    let names: Vec<_> = json["tunnels"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["web", "web (http)", "db"]);
    let tunnel = &json["tunnels"][1];
    assert_eq!(keys(tunnel), ["config", "metrics", "name", "proto", "public_url", "uri"]);
    assert_eq!(tunnel["uri"], "/api/tunnels/web%20%28http%29");
    assert_eq!(tunnel["proto"], "http");
    assert_eq!(tunnel["public_url"], "http://brave-otter.tunnel.example");
    assert_eq!(tunnel["config"], json!({ "addr": "http://localhost:8080", "inspect": true }));
    assert_eq!(
        keys(&tunnel["metrics"]["conns"]),
        ["count", "gauge", "p50", "p90", "p95", "p99", "rate1", "rate15", "rate5"]
    );
    assert_eq!(
        keys(&tunnel["metrics"]["http"]),
        ["count", "p50", "p90", "p95", "p99", "rate1", "rate15", "rate5"]
    );
    assert_eq!(tunnel["metrics"]["conns"]["count"], 1);
    assert_eq!(tunnel["metrics"]["http"]["count"], 1);
    assert_eq!(bench.get("/api/tunnels/web%20%28http%29").await, *tunnel);
    assert_eq!(json["tunnels"][2]["public_url"], "tcp://tunnel.example:20001");
    assert_eq!(json["tunnels"][2]["metrics"]["conns"]["count"], 0);
}

#[tokio::test]
async fn tunnels_are_started_and_stopped_by_programs() {
    let bench = bench();
    let fields = json!({ "name": "more", "addr": 8000, "proto": "http" });
    let (status, json) = bench.ask(Method::POST, "/api/tunnels", Some(fields)).await;
    assert_eq!((status, &json["name"]), (201, &json!("more")));
    let (status, _) = bench.ask(Method::DELETE, "/api/tunnels/web%20%28http%29", None).await;
    assert_eq!(status, 204);
    assert_eq!(*bench.agent.stopped.lock().unwrap(), ["web"]);
    let (status, json) = bench.ask(Method::DELETE, "/api/tunnels/none", None).await;
    assert_eq!(status, 404);
    assert_eq!(keys(&json), ["details", "error_code", "msg", "status_code"]);
    assert_eq!(json["details"], json!({ "path": "/api/tunnels/none" }));
    let (status, json) = bench.ask(Method::POST, "/api/tunnels", Some(json!([]))).await;
    assert_eq!((status, &json["status_code"]), (400, &json!(400)));
}

#[tokio::test]
async fn requests_have_the_fields_of_ngroks_api() {
    let bench = bench();
    exchange(&bench.inspector, REQUEST, RESPONSE);
    exchange(&bench.inspector, b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n", b"");
    let json = bench.get("/api/requests/http").await;
    assert_eq!(keys(&json), ["requests", "uri"]);
    let requests = json["requests"].as_array().unwrap();
    assert_eq!(requests[0]["response"], Value::Null);
    let request = &requests[1];
    assert_eq!(
        keys(request),
        ["duration", "id", "remote_addr", "request", "response", "start", "tunnel_name", "uri"]
    );
    assert_eq!(keys(&request["request"]), ["headers", "method", "proto", "raw", "uri"]);
    assert_eq!(keys(&request["response"]), ["headers", "proto", "raw", "status", "status_code"]);
    assert_eq!(request["request"]["uri"], "/orders?id=7");
    assert_eq!(request["request"]["headers"]["X-Tag"], json!(["1", "2"]));
    assert_eq!(request["response"]["status"], "201 Created");
    assert_eq!(request["response"]["status_code"], 201);
    assert_eq!(request["tunnel_name"], "web");
    assert!(request["duration"].as_u64().unwrap() > 0);
    assert!(request["start"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    let decoder = &base64::engine::general_purpose::STANDARD;
    assert_eq!(decoder.decode(request["request"]["raw"].as_str().unwrap()).unwrap(), REQUEST);
    assert_eq!(decoder.decode(request["response"]["raw"].as_str().unwrap()).unwrap(), RESPONSE);
    assert_eq!(bench.get(request["uri"].as_str().unwrap()).await, *request);

    let count = async |query: &str| {
        bench.get(&format!("/api/requests/http?{query}")).await["requests"].as_array().unwrap().len()
    };
    assert_eq!(count("limit=1").await, 1);
    assert_eq!(count("tunnel_name=web%20(http)").await, 2);
    assert_eq!(count("tunnel_name=db").await, 0);
    assert_eq!(bench.ask(Method::GET, "/api/requests/http?limit=x", None).await.0, 400);
    assert_eq!(bench.ask(Method::DELETE, "/api/requests/http", None).await.0, 204);
    assert_eq!(count("").await, 0);
}

#[tokio::test]
async fn status_and_endpoints_have_the_fields_of_ngroks_api() {
    let bench = bench();
    let status = bench.get("/api/status").await;
    assert_eq!(keys(&status), ["agent_version", "session", "status", "uri"]);
    assert_eq!(status["session"]["legs"], json!([{ "region": "tunnel.example:22", "latency": 12_000_000 }]));
    let endpoints = bench.get("/api/endpoints").await;
    assert_eq!(endpoints["endpoints"][0]["name"], "web");
    assert_eq!(endpoints["endpoints"][0]["upstream"]["url"], "http://localhost:8080");
    assert_eq!(bench.ask(Method::GET, "/api/nothing", None).await.0, 404);
    bench.get("/api").await;
}

#[tokio::test]
async fn every_answer_tells_browsers_what_a_page_may_do() {
    let bench = bench();
    exchange(
        &bench.inspector,
        REQUEST,
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 17\r\n\r\n<script></script>",
    );
    let id = bench.inspector.store().all()[0].id;
    for path in [
        "/",
        "/status",
        "/assets/app.js",
        "/api/tunnels",
        "/nothing",
        &format!("/ui/entries/{id}/response/body"),
    ] {
        let request = Request::get(path).header("host", "localhost:4040").body(Body::empty()).unwrap();
        let response = bench.send(request).await;
        let header =
            |name: &str| response.headers().get(name).map_or("", |it| it.to_str().unwrap()).to_owned();
        let policy = header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("unsafe"), "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        if path.starts_with("/ui") {
            assert_eq!(header("content-type"), "application/octet-stream");
            assert_eq!(header("content-disposition"), "attachment");
        }
    }
}

#[tokio::test]
async fn another_name_or_site_gets_nothing() {
    let bench = bench();
    let rebound =
        Request::get("/api/requests/http").header("host", "evil.example").body(Body::empty()).unwrap();
    assert_eq!(bench.send(rebound).await.status(), 403);
    let page = Request::get("/").header("host", "evil.example").body(Body::empty()).unwrap();
    let response = bench.send(page).await;
    assert_eq!(response.status(), 403);
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("web_allow_hosts"));
    for path in ["/ui/replay", "/api/tunnels", "/api/requests/http"] {
        let form = Request::post(path).header("host", "localhost").header("content-type", "text/plain");
        assert_eq!(bench.send(form.body(Body::from("{}")).unwrap()).await.status(), 415, "{path}");
        let cross =
            Request::post(path).header("host", "localhost").header("content-type", "application/json");
        let cross = cross.header("origin", "https://evil.example").body(Body::from("{}")).unwrap();
        assert_eq!(bench.send(cross).await.status(), 403, "{path}");
    }
}

async fn next_event(body: &mut Body) -> Value {
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        let frame = timeout(Duration::from_secs(20), body.frame()).await.expect("an event").unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    serde_json::from_str(text.strip_prefix("data: ").unwrap().trim()).unwrap()
}

#[tokio::test]
async fn a_page_is_told_of_what_its_filter_admits() {
    let bench = bench();
    exchange(&bench.inspector, REQUEST, RESPONSE);
    let ask =
        Request::get("/ui/events?filter=status:4xx").header("host", "localhost").body(Body::empty()).unwrap();
    let mut feed = bench.send(ask).await.into_body();
    let first = next_event(&mut feed).await;
    assert_eq!(first["lines"], json!([]));
    assert_eq!(first["usage"]["entries"], 1);
    assert_eq!(first["status"]["endpoints"][0]["phase"], "online");
    exchange(&bench.inspector, REQUEST, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let second = next_event(&mut feed).await;
    assert_eq!((second["anew"].as_bool(), &second["lines"][0]["status"]), (Some(false), &json!(404)));
    bench.inspector.store().clear();
    assert_eq!(next_event(&mut feed).await["anew"], true);

    let ask =
        Request::get("/ui/events?filter=status:x").header("host", "localhost").body(Body::empty()).unwrap();
    let error = next_event(&mut bench.send(ask).await.into_body()).await;
    assert!(error["error"].as_str().unwrap().contains("no status"), "{error}");
}

/// An upstream that says what it was asked, and keeps the connection.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(async |request: Request<Body>| {
        let line = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        format!("{line} {}", String::from_utf8_lossy(&body))
    });
    let server = axum::serve(listener, app).into_future();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(server)
    });
    address
}

async fn replayed(bench: &Bench, count: usize) -> Arc<Entry> {
    let mut changed = bench.inspector.store().watch();
    loop {
        let all = bench.inspector.store().all();
        if all.len() == count && all[0].duration.is_some() {
            return Arc::clone(&all[0]);
        }
        timeout(Duration::from_secs(20), changed.changed()).await.expect("a replay").unwrap();
    }
}

#[tokio::test]
async fn a_request_is_replayed_as_it_was_and_changed() {
    let bench = bench();
    *bench.agent.upstream.lock().unwrap() = Some(upstream().await);
    exchange(
        &bench.inspector,
        b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-b: c\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        RESPONSE,
    );
    let original = bench.inspector.store().all()[0].id;
    let id = original.to_string();
    let (status, json) = bench.ask(Method::POST, "/api/requests/http", Some(json!({ "id": id }))).await;
    assert_eq!((status, json), (204, Value::Null));
    let entry = replayed(&bench, 2).await;
    assert_eq!(entry.replay_of, Some(original));
    let http = entry.http().unwrap();
    assert_eq!(http.request.body().0, b"hello");
    let said = String::from_utf8(http.response.as_ref().unwrap().message.body().0).unwrap();
    assert!(said.starts_with("POST /a ") && said.ends_with("} hello"), "{said}");
    assert!(said.contains("\"x-b\": \"c\"") && said.contains("\"content-length\": \"5\""), "{said}");

    let edited =
        json!({ "method": "PUT", "target": "/b?c", "headers": [["Host", "z"], ["D", "e"]], "body": "new" });
    let order = json!({ "id": id, "edited": edited });
    assert_eq!(bench.ask(Method::POST, "/ui/replay", Some(order)).await.0, 204);
    let entry = replayed(&bench, 3).await;
    let said = String::from_utf8(entry.http().unwrap().response.as_ref().unwrap().message.body().0).unwrap();
    assert!(
        said.starts_with("PUT /b?c ") && said.ends_with("} new") && said.contains("\"d\": \"e\""),
        "{said}"
    );
    // Replays are no visits.
    assert_eq!(bench.inspector.metrics("web").http.figures().count, 1);
}

#[tokio::test]
async fn what_cannot_be_replayed_is_refused_with_the_reason() {
    let bench = bench();
    exchange(&bench.inspector, b"POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhel", b"");
    exchange(&bench.inspector, REQUEST, RESPONSE);
    let all = bench.inspector.store().all();
    let ask = async |order: Value| {
        let (status, json) = bench.ask(Method::POST, "/ui/replay", Some(order)).await;
        (status, json["msg"].as_str().unwrap_or_default().to_owned())
    };
    let (status, reason) = ask(json!({ "id": all[1].id.to_string() })).await;
    assert_eq!((status, reason.as_str()), (400, "the request did not pass as a whole"));
    let (status, reason) = ask(json!({ "id": all[0].id.to_string() })).await;
    assert!(status == 404 && reason.contains("no endpoint web"), "{status} {reason}");
    for (method, target, headers) in [
        ("GE T", "/", json!([])),
        ("GET", "/a b", json!([])),
        ("GET", "/\r\nX: y", json!([])),
        ("GET", "/", json!([["a b", "c"]])),
        ("GET", "/", json!([["a", "b\r\nc: d"]])),
    ] {
        let edited = json!({ "method": method, "target": target, "headers": headers, "body": null });
        let (status, reason) = ask(json!({ "id": all[0].id.to_string(), "edited": edited })).await;
        assert_eq!(status, 400, "{reason}");
    }
    *bench.agent.upstream.lock().unwrap() = Some(SocketAddr::from(([127, 0, 0, 1], 1)));
    let (status, reason) = ask(json!({ "id": all[0].id.to_string() })).await;
    assert!(status == 502 && reason.starts_with("upstream: "), "{status} {reason}");
    assert_eq!(visitor(), all[0].visitor);
}
