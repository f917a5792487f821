//! Modules that look at headers and change them, typed as ngrok documents them.

use hithe_integration::origin::text;
use hithe_integration::{OpenSsh, Origin, TestServer};

const URL: &str = "http://app.localhost/";

/// The words of a command as the publisher's own shell hands them to ssh.
fn typed(ssh: OpenSsh, line: &str) -> OpenSsh {
    ssh.command_words(shell_words::split(line).expect("a line for a shell"))
}

async fn published(line: &str) -> (TestServer, Origin, hithe_integration::Child) {
    let (server, origin) = (TestServer::start().await, Origin::echoing_requests().await);
    let ssh = typed(server.ssh().forward_to("app:80", &origin), line).publish().await;
    (server, origin, ssh)
}

#[tokio::test]
async fn documented_lines_add_and_remove_request_headers() {
    let (server, _origin, _ssh) = published(
        "http --request-header-add='is-ngrok: 1' --request-header-add='x-visitor: ${conn.client_ip}' \
         --request-header-add='country: ${.ngrok.geo.country_code}' --request-header-remove='Referer'",
    )
    .await;
    let reply = server.visitor().header("referer", "http://elsewhere").header("is-ngrok", "0").get(URL).await;
    let seen = reply.json()["headers"].to_string();
    assert!(seen.contains(r#"["is-ngrok","0"],["is-ngrok","1"]"#), "{seen}");
    assert_eq!(reply.seen_header("x-visitor").as_deref(), Some("127.0.0.1"));
    assert_eq!(reply.seen_header("country").as_deref(), Some(""));
    assert_eq!(reply.seen_header("referer"), None);
}

#[tokio::test]
async fn removing_and_adding_replaces_and_forwarded_headers_can_go() {
    let (server, _origin, _ssh) = published(
        "http --request-header-remove=accept --request-header-add='accept: text/plain' \
         --request-header-remove=X-Forwarded-For",
    )
    .await;
    let reply = server.visitor().header("accept", "*/*").get(URL).await;
    assert_eq!(reply.seen_header("accept").as_deref(), Some("text/plain"));
    assert_eq!(reply.seen_header("x-forwarded-for"), None);
    assert!(reply.seen_header("x-forwarded-host").is_some());
}

#[tokio::test]
async fn responses_show_what_is_known_of_the_visit() {
    let origin = Origin::answering(async |_| {
        let mut answer = text("hello");
        answer.headers_mut().insert("server", "secret/1".parse().unwrap());
        answer
    })
    .await;
    let server = TestServer::start().await;
    let line = "http --basic-auth ada:correct-horse --response-header-remove server \
                --response-header-add 'x-who: ${.basic_auth.username} ${req.method} ${req.url.path}' \
                --response-header-add 'x-status: ${res.status_code}' \
                --response-header-add 'x-tls: ${conn.tls.version} ${conn.tls.sni} ${conn.tls.negotiated_alpn}'";
    let _ssh = typed(server.ssh().forward_to("app:443", &origin), line).publish().await;
    let visitor = server.visitor().basic("ada", "correct-horse");
    let reply = visitor.get("https://app.localhost/a?b").await;
    assert_eq!(reply.header("x-who"), Some("ada GET /a"));
    assert_eq!(reply.header("x-status"), Some("200"));
    assert_eq!(reply.header("x-tls"), Some("1.3 app.localhost http/1.1"));
    assert_eq!(reply.header("server"), None);
    let refused = server.visitor().get("https://app.localhost/").await;
    assert_eq!((refused.status(), refused.header("x-status")), (401, None));
}

#[tokio::test]
async fn upstream_and_visitor_are_told_the_same_of_one_request() {
    let (server, _origin, _ssh) = published(
        "http --host-header localhost:3000 --request-header-add='x-id: ${.ngrok.request_id}' \
         --request-header-add='x-asked: ${req.host} ${req.url.host}${req.url.path}' \
         --request-header-add='x-server: ${conn.server_ip}:${conn.server_port} ${endpoint.host}' \
         --request-header-add='x-then: ${.backend.connection_reused}${res.status_code}' \
         --response-header-add='x-id: ${.hithe.request_id}' \
         --response-header-add='x-reused: ${.backend.connection_reused} ${.backend.dial_duration}'",
    )
    .await;
    let reply = server.visitor().get("http://app.localhost/a?b").await;
    assert_eq!(reply.header("x-id").map(str::len), Some(32));
    assert_eq!(reply.seen_header("x-id").as_deref(), reply.header("x-id"));
    assert_eq!(reply.seen_header("host").as_deref(), Some("localhost:3000"));
    let public = reply.seen_header("x-forwarded-host").unwrap();
    assert_eq!(reply.seen_header("x-asked"), Some(format!("{public} app.localhost/a")));
    let server_side = format!("{} app.localhost", server.http_address());
    assert_eq!(reply.seen_header("x-server"), Some(server_side));
    assert_eq!(reply.seen_header("x-then").as_deref(), Some(""));
    let dialled = reply.header("x-reused").unwrap();
    assert!(dialled.starts_with("false ") && dialled.ends_with("ms"), "{dialled}");
    let again = server.visitor().get(URL).await;
    assert_eq!(again.header("x-reused"), Some("true"));
    assert_ne!(again.header("x-id"), reply.header("x-id"));
}

#[tokio::test]
async fn a_wildcard_sends_visitors_to_the_name_that_they_asked_for() {
    let origin = Origin::answering(async |_| {
        let mut answer = text("moved");
        answer.headers_mut().insert("location", "//shop.internal/login".parse().unwrap());
        answer
    })
    .await;
    let server = TestServer::start().await;
    let ssh = server.ssh().forward_to("*.shop:443", &origin);
    let _ssh = typed(ssh, "http --request-header-add='host: shop.internal'").publish().await;
    for asked in ["https://berlin.shop.localhost", "https://rome.shop.localhost"] {
        let reply = server.visitor().get(&format!("{asked}/")).await;
        assert_eq!(reply.header("location"), Some(format!("{asked}/login").as_str()));
    }
}

#[tokio::test]
async fn a_rule_sets_no_cookie_for_the_names_of_others() {
    let (server, _origin, _ssh) = published(
        "http --response-header-add='set-cookie: a=1; Domain=localhost; Path=/' \
         --response-header-add='set-cookie: b=2; Domain=app.localhost' \
         --response-header-add='set-cookie: c=3; ${req.url.query}'",
    )
    .await;
    let reply = server.visitor().get("http://app.localhost/?Domain=.localhost").await;
    let cookies: Vec<_> = reply.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1; Path=/", "b=2; Domain=app.localhost", "c=3"]);
}

#[tokio::test]
async fn neither_does_one_of_an_answer_that_hithe_gives_to_a_websocket() {
    let (server, origin) = (TestServer::start().await, Origin::tcp_echo().await);
    let line =
        "http --websocket-tcp-converter --response-header-add='set-cookie: a=1; Domain=localhost; Path=/'";
    let _ssh = typed(server.ssh().forward_to("app:80", &origin), line).publish().await;
    // A handshake, and at once the close of what it opens.
    let handshake = b"GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\
                      \x88\x80\0\0\0\0";
    let answer = server.visitor().raw(handshake).await;
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101") && answer.contains("\nset-cookie: a=1; path=/\r"), "{answer}");
}

#[tokio::test]
async fn what_a_visitor_sends_cannot_split_a_request() {
    let (server, _origin, _ssh) =
        published("http --request-header-add='x-agent: ${req.user_agent} ${req.url}'").await;
    let request = b"GET /%0d%0aevil:1 HTTP/1.1\r\nHost: app.localhost\r\nUser-Agent: a\xc2\x85b\xffc\td\r\n\
                    Connection: close\r\n\r\n";
    let answer = String::from_utf8_lossy(&server.visitor().raw(request).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("x-agent") && !answer.contains(r#"["evil""#), "{answer}");
}

#[tokio::test]
async fn an_upstream_that_knows_itself_by_another_name_sends_visitors_to_the_public_one() {
    let origin = Origin::answering(async |question| {
        let host = question.headers()["host"].to_str().unwrap().to_owned();
        let public = question.headers()["x-forwarded-host"].to_str().unwrap().to_owned();
        let mut answer = text(&format!("{host} for {public}"));
        answer.headers_mut().insert("location", format!("http://{host}/login").parse().unwrap());
        answer.headers_mut().insert("set-cookie", "a=1; Domain=shop.internal; Path=/".parse().unwrap());
        answer
    })
    .await;
    let server = TestServer::start().await;
    for line in
        ["http --host-header shop.internal:3000", "http --request-header-add='host: shop.internal:3000'"]
    {
        let mut ssh = typed(server.ssh().forward_to("app:80", &origin), line).publish().await;
        let reply = server.visitor().get(URL).await;
        assert!(reply.text().starts_with("shop.internal:3000 for app.localhost"), "{}", reply.text());
        let public = reply.text().split(" for ").nth(1).unwrap();
        assert_eq!(reply.header("location"), Some(format!("http://{public}/login").as_str()));
        assert_eq!(reply.header("set-cookie"), Some("a=1; Path=/"));
        ssh.kill().await;
    }
}

#[tokio::test]
async fn user_agents_are_admitted_as_the_documented_line_says() {
    let (server, _origin, _ssh) =
        published(r#"http --ua-filter-allow="(foo)","(bar)" --ua-filter-deny='.*'"#).await;
    assert_eq!(server.visitor().header("user-agent", "a bar").get(URL).await.status(), 200);
    let refused = server.visitor().header("user-agent", "curl/8").get(URL).await;
    assert_eq!((refused.status(), refused.code()), (403, Some("ERR_HITHE_3211")));
    assert_eq!(server.visitor().get(URL).await.status(), 403);
}

#[tokio::test]
async fn rules_that_cannot_be_are_refused_with_their_code() {
    let (server, origin) = (TestServer::start().await, Origin::absent().await);
    for (line, code) in [
        ("http --request-header-add='no colon'", "ERR_HITHE_370"),
        ("http --request-header-add='content-length: 3'", "ERR_HITHE_372"),
        ("http --response-header-add='no colon'", "ERR_HITHE_371"),
        ("http --response-header-remove=transfer-encoding", "ERR_HITHE_373"),
        ("http --request-header-remove=host", "ERR_HITHE_398"),
        ("http --request-header-remove=user-agent", "ERR_HITHE_372"),
        ("http --request-header-add='X-A: 1' --request-header-add='x-a: 2'", "ERR_HITHE_375"),
        ("http --request-header-add='host: http://localhost:3000'", "such as localhost:3000"),
        ("http --request-header-remove='authorization: Bearer x'", "takes a NAME alone"),
        ("http --request-header-add='a: ${conn.clientip}'", "did you mean ${conn.client_ip}?"),
        ("http --ua-filter-allow='(foo'", "ERR_HITHE_2090"),
        ("http --ua-filter-deny='(foo'", "unclosed group, at character 1"),
        ("http --ua-filter-allow=''", "--ua-filter-allow"),
        ("http --host-header=rewrite", "--host-header localhost:3000"),
        ("tcp --request-header-add='a: b'", "for http endpoints, not for tcp"),
    ] {
        let refused = typed(server.ssh().forward_to("0", &origin), line).run().await;
        assert_eq!(refused.code, Some(2), "{line}");
        assert!(refused.stdout.contains(code), "{line}: {}", refused.output());
    }
}
