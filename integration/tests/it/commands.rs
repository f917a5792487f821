//! The command behind the host: what is understood, what is refused, and how a session ends.

use hithe_integration::{Origin, TestServer};

/// Runs a command with a forward and expects a refusal that names code and word, with nothing public.
async fn refused(command: &str, code: &str, word: &str) {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let ssh = server.ssh().forward_to("app:443", &origin).command(command).run().await;
    assert_eq!(ssh.code, Some(2), "{}", ssh.output());
    assert!(ssh.stdout.contains(code) && ssh.stdout.contains(word), "{}", ssh.output());
    assert_eq!(server.visitor().get("https://app.localhost/").await.status(), 404);
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn an_unknown_command_is_refused_with_a_suggestion() {
    refused("htp", "ERR_HITHE_1108", "did you mean http").await;
}

#[tokio::test]
async fn an_unknown_flag_is_refused_with_a_suggestion() {
    refused("http --basic-aut ada:correct-horse", "ERR_HITHE_1110", "did you mean --basic-auth").await;
}

#[tokio::test]
async fn a_bad_value_is_refused_without_showing_a_secret() {
    refused("http --basic-auth ada:short", "ERR_HITHE_360", "--basic-auth").await;
    refused("http --schemes ftp", "ERR_HITHE_1110", "ftp").await;
}

#[tokio::test]
async fn a_missing_command_is_refused_with_an_example() {
    refused("", "ERR_HITHE_1107", "ssh -R 443:localhost:80").await;
}

#[tokio::test]
async fn a_flag_of_another_tunnel_says_what_to_use() {
    refused("http --inspect", "ERR_HITHE_1109", "it needs an agent on your machine").await;
    refused("http -subdomain=app", "ERR_HITHE_1109", "it is called --domain NAME").await;
    refused("http -auth=ada:correct-horse", "ERR_HITHE_1109", "it is called --basic-auth").await;
}

#[tokio::test]
async fn a_command_without_a_forward_is_refused() {
    let server = TestServer::start().await;
    let ssh = server.ssh().command("http").run().await;
    assert_eq!(ssh.code, Some(2));
    assert!(ssh.stdout.contains("ERR_HITHE_1112"), "{}", ssh.output());
}

#[tokio::test]
async fn help_needs_no_forward_and_ends_with_status_0() {
    let server = TestServer::start().await;
    for command in ["http --help", "help", "tcp -h"] {
        let ssh = server.ssh().command(command).run().await;
        assert_eq!(ssh.code, Some(0), "{}", ssh.output());
        assert!(ssh.stdout.contains("ssh -R"), "{}", ssh.output());
    }
}

#[tokio::test]
async fn quotes_eaten_by_the_shell_do_not_matter() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let line = r#"http --basic-auth "u1:password1" --basic-auth 'u2:pass word #2'"#;
    let _ssh = server.ssh().forward_to("app:443", &origin).command(line).publish().await;
    let url = "https://app.localhost/";
    assert_eq!(server.visitor().get(url).await.status(), 401);
    assert_eq!(server.visitor().basic("u1", "password1").get(url).await.text(), "hello");
    assert_eq!(server.visitor().basic("u2", "pass word #2").get(url).await.text(), "hello");
}

#[tokio::test]
async fn without_a_session_the_user_name_is_the_command() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let _http = server.ssh().user("http").without_session().forward_to("app:443", &origin).spawn();
    assert_eq!(server.visitor().get_when_public("https://app.localhost/").await.text(), "hello");
    let port = *server.tcp_ports().start();
    let _tcp = server.ssh().user("tcp").without_session().forward_to(&port.to_string(), &origin).spawn();
    server.logged(&format!("tcp://localhost:{port}")).await;
    server.visitor().tcp(port).await;
}

#[tokio::test]
async fn a_session_may_repeat_the_command_of_the_user_name() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut ssh = server.ssh().user("http").forward_to("app:443", &origin).publish().await;
    assert_eq!(ssh.forwarding().await.len(), 1);
}

#[tokio::test]
async fn v2_without_a_session_is_ended_with_advice() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let ssh = server.ssh().without_session().forward_to("app:443", &origin).run().await;
    assert_eq!(ssh.code, Some(255));
    assert!(ssh.stderr.contains("ERR_HITHE_1111") && ssh.stderr.contains("http@HOST"), "{}", ssh.output());
}

#[tokio::test]
async fn an_unknown_syntax_version_is_refused() {
    let server = TestServer::start().await;
    for user in ["v1", "v9"] {
        let ssh = server.ssh().user(user).command("http").run().await;
        assert!(ssh.stderr.contains("ERR_HITHE_1106") && ssh.stderr.contains(user), "{}", ssh.output());
    }
}

#[tokio::test]
async fn any_other_user_name_is_fine() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let _ssh = server.ssh().user("ada").forward_to("app:443", &origin).command("http").publish().await;
}

#[tokio::test]
async fn the_end_of_standard_input_does_not_end_the_tunnel() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let null = server.ssh().stdin_null().forward_to("null:443", &origin).command("http");
    let _null = null.publish().await;
    let n = server.ssh().flag("-n").flag("-T").forward_to("n:443", &origin).command("http");
    let _n = n.publish().await;
    assert_eq!(server.visitor().get("https://null.localhost/").await.text(), "hello");
    assert_eq!(server.visitor().get("https://n.localhost/").await.text(), "hello");
}

#[tokio::test]
async fn the_greeting_names_the_account_and_the_endpoint_and_then_each_request() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut ssh = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    server.visitor().get("https://app.localhost/path?q=1").await;
    let line = ssh.wait_for_text("GET /path?q=1").await;
    assert!(line.contains("200") && line.contains("5 B"), "{line}");
    let said = ssh.stdout();
    assert!(said.starts_with("hithe (via SSH) (Ctrl+C to quit)\n\nAccount     "), "{said}");
    assert!(said.contains("SHA256:"), "{said}");
    assert!(!said.contains('\r'), "{said}");
}

#[tokio::test]
async fn on_a_terminal_lines_end_in_cr_lf_and_ctrl_c_ends_the_session_politely() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let ssh = server.ssh().terminal().flag("-t").forward_to("app:443", &origin).command("http");
    let mut ssh = ssh.publish().await;
    assert!(ssh.stdout().contains("quit)\r\n"), "{:?}", ssh.stdout());
    ssh.type_in(b"\x03").await;
    assert_eq!(ssh.wait().await.code(), Some(130));
    let reply = server.visitor().get("https://app.localhost/").await;
    assert_eq!(reply.code(), Some("ERR_HITHE_3200"));
}

#[tokio::test]
async fn ctrl_c_with_an_open_websocket_ends_at_once_too() {
    let server = TestServer::start().await;
    let origin = Origin::websocket_echo().await;
    let ssh = server.ssh().terminal().flag("-t").forward_to("app:443", &origin).command("http");
    let mut ssh = ssh.publish().await;
    let _open = server.visitor().websocket("wss://app.localhost/").await;
    ssh.type_in(b"\x03").await;
    assert_eq!(ssh.wait().await.code(), Some(130));
}

#[tokio::test]
async fn killing_the_client_withdraws_its_endpoint() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut ssh = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    ssh.kill().await;
    server.logged("publisher left").await;
    assert_eq!(server.visitor().get("https://app.localhost/").await.status(), 404);
}

#[tokio::test]
async fn exit_on_forward_failure_sees_a_name_that_cannot_be_had() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let ssh =
        server.ssh().exit_on_forward_failure().forward_to("www:443", &origin).command("http").run().await;
    assert_eq!(ssh.code, Some(255));
    assert!(ssh.stderr.contains("remote port forwarding failed"), "{}", ssh.output());
}

/// The lines that ngrok's documentation shows for ssh (behaviour.md 1.4 and 1.5), as a person types them.
const DOCUMENTED: &[(&str, &str, &[&str])] = &[
    ("443", "http", &["https"]),
    ("80", "http --schemes http", &["http"]),
    ("0", "http", &["https"]),
    ("80", "http --schemes http,https", &["http", "https"]),
    ("app:443", "http --basic-auth 'user1:password1' --basic-auth 'user2:password2'", &["https"]),
    ("443", "http --circuit-breaker 0.5", &["https"]),
    ("443", "http --compression", &["https"]),
    ("443", "http --cidr-allow 110.0.0.0/8 --cidr-allow 220.12.0.0/16", &["https"]),
    ("443", "http --cidr-allow 127.0.0.0/8 --cidr-deny 110.2.3.4/32", &["https"]),
    ("443", "http --request-header-add='is-ngrok: 1' --request-header-remove='referrer'", &["https"]),
    ("443", "http --request-header-add='host: localhost'", &["https"]),
    ("443", "http --response-header-add='content-security-policy: script-src self'", &["https"]),
    ("443", "http --response-header-remove='server'", &["https"]),
    ("443", r#"http --ua-filter-allow="(foo)","(bar)" --ua-filter-deny='bot'"#, &["https"]),
    ("443", "http --verify-webhook github --verify-webhook-secret s3cret", &["https"]),
    ("443", "http --websocket-tcp-converter", &["https"]),
    ("app:443", "tls --cidr-allow 127.0.0.0/8", &["tls"]),
    ("443", "tls", &["tls"]),
    ("0", "tcp --cidr-allow 127.0.0.0/8 --cidr-deny 10.0.0.0/8", &["tcp"]),
    ("0", "tcp", &["tcp"]),
];

#[tokio::test]
async fn the_lines_of_ngroks_documentation_publish_what_they_say() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    for (bind, command, schemes) in DOCUMENTED {
        let ssh = server.ssh().forward_to(bind, &origin).command(command);
        let mut ssh = ssh.spawn().expecting(schemes.len());
        let urls = ssh.forwarding().await;
        let of: Vec<_> =
            urls.iter().map(|it| it.url.split(':').next().unwrap_or_default().to_owned()).collect();
        assert_eq!(of, *schemes, "-R {bind} {command}");
        ssh.interrupt().await;
        ssh.wait().await;
    }
}
