//! The agent `hithe` and stock ssh, side by side: the same tests, two publishers. And what only the agent does.

use hithe_integration::{Child, Origin, Relay, TestServer, eventually, generate_key, within};
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const URL: &str = "https://app.localhost/";

/// Who publishes.
#[derive(Clone, Copy, Debug)]
enum By {
    Ssh,
    Agent,
}

impl By {
    /// `command` with its flags, at this name or port (`0`: any).
    async fn publish(self, server: &TestServer, command: &str, place: &str, origin: &Origin) -> Child {
        let (kind, flags) = command.split_once(' ').unwrap_or((command, ""));
        match self {
            Self::Ssh => {
                let bind = if kind == "tcp" { place.to_owned() } else { format!("{place}:443") };
                server.ssh().forward_to(&bind, origin).command(command).publish().await
            }
            Self::Agent => {
                let place = match (kind, place) {
                    (_, "0") => String::new(),
                    ("tcp", port) => format!("--remote-addr localhost:{port}"),
                    (_, name) => format!("--domain {name}"),
                };
                server.agent().command(kind, origin).words(flags).words(&place).publish().await
            }
        }
    }
}

/// One body, two tests.
macro_rules! by_both {
    ($($name:ident;)*) => {
        mod by_ssh {
            $(#[tokio::test] async fn $name() { super::$name(super::By::Ssh).await; })*
        }
        mod by_agent {
            $(#[tokio::test] async fn $name() { super::$name(super::By::Agent).await; })*
        }
    };
}

by_both! {
    a_web_service_is_published_under_its_name;
    flags_mean_the_same;
    a_request_and_its_answer_arrive_whole;
    tls_passes_through;
    a_tcp_service_is_published;
    many_requests_cost_few_connections;
    an_upstream_that_is_down_is_a_502_and_comes_back;
    an_answer_that_breaks_off_is_not_taken_for_whole;
    a_half_closed_connection_still_gets_its_answer;
    websockets_pass;
    who_publishes_again_takes_over;
    visitors_wait_while_the_connection_is_lost;
}

async fn a_web_service_is_published_under_its_name(by: By) {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut publisher = by.publish(&server, "http", "app", &origin).await;
    let url = format!("https://app.localhost:{}", server.https_address().port());
    assert_eq!(publisher.url().await, url);
    assert_eq!(server.visitor().get(URL).await.text(), "hello");
}

async fn flags_mean_the_same(by: By) {
    let server = TestServer::start().await;
    let origin = Origin::echoing_requests().await;
    let command =
        "http --basic-auth ada:correct-horse --request-header-add 'x-two: words of it' --compression";
    let _publisher = by.publish(&server, command, "app", &origin).await;
    assert_eq!(server.visitor().get(URL).await.status(), 401);
    let reply = server.visitor().basic("ada", "correct-horse").get(URL).await;
    assert_eq!(reply.seen_header("x-two").as_deref(), Some("words of it"));
}

async fn a_request_and_its_answer_arrive_whole(by: By) {
    let server = TestServer::start().await;
    let origin = Origin::digesting().await;
    let _publisher = by.publish(&server, "http", "app", &origin).await;
    let body: Vec<u8> = (0..8_000_000_u32).map(|at| (at % 251) as u8).collect();
    let digest = ring::digest::digest(&ring::digest::SHA256, &body);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let reply = server.visitor().send(Method::POST, URL, body).await;
    assert_eq!(reply.text(), format!("8000000 {hex}"));
    let sized = Origin::sized(20_000_000).await;
    let _second = by.publish(&server, "http", "big", &sized).await;
    assert_eq!(server.visitor().get("https://big.localhost/").await.body().len(), 20_000_000);
}

async fn tls_passes_through(by: By) {
    let server = TestServer::start().await;
    let origin = Origin::tls_echo("app.localhost").await;
    let _publisher = by.publish(&server, "tls", "app", &origin).await;
    let mut stream = server.visitor().insecure().tls("app.localhost", &[]).await;
    stream.write_all(b"echo").await.unwrap();
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"echo");
}

async fn a_tcp_service_is_published(by: By) {
    let server = TestServer::start().await;
    let origin = Origin::tcp_echo().await;
    let mut publisher = by.publish(&server, "tcp", "0", &origin).await;
    let port = publisher.forwarding().await.remove(0).port().unwrap();
    let mut stream = server.visitor().tcp(port).await;
    stream.write_all(b"echo").await.unwrap();
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"echo");
}

async fn many_requests_cost_few_connections(by: By) {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let _publisher = by.publish(&server, "http", "app", &origin).await;
    for _ in 0..100 {
        assert_eq!(server.visitor().get(URL).await.status(), 200);
    }
    assert_eq!((origin.requests(), origin.connections()), (100, 1));
}

async fn an_upstream_that_is_down_is_a_502_and_comes_back(by: By) {
    let server = TestServer::start().await;
    let (start, word) = tokio::sync::oneshot::channel();
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    let origin = Origin::absent_until(word, answer).await;
    let mut publisher = by.publish(&server, "http", "app", &origin).await;
    let reply = server.visitor().get(URL).await;
    assert_eq!((reply.status(), reply.code()), (502, Some("ERR_HITHE_8012")));
    let told = match by {
        By::Ssh => "502",
        By::Agent => "Failing",
    };
    publisher.wait_for_text(told).await;
    start.send(()).unwrap();
    let begun = || std::net::TcpStream::connect(origin.address()).ok();
    eventually("the service is there", begun).await;
    assert_eq!(server.visitor().get(URL).await.text(), "hello");
    if let By::Agent = by {
        publisher.wait_for_text("Working").await;
    }
}

async fn an_answer_that_breaks_off_is_not_taken_for_whole(by: By) {
    let server = TestServer::start().await;
    let origin = Origin::scripted("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it").await;
    let _publisher = by.publish(&server, "http", "app", &origin).await;
    let answer = server.visitor().open(URL).await.rest().await;
    assert!(answer.is_err(), "{answer:?}");
}

async fn a_half_closed_connection_still_gets_its_answer(by: By) {
    let server = TestServer::start().await;
    let origin = Origin::counting_bytes().await;
    let mut publisher = by.publish(&server, "tcp", "0", &origin).await;
    let port = publisher.forwarding().await.remove(0).port().unwrap();
    let mut stream = server.visitor().tcp(port).await;
    stream.write_all(&[1; 100_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer.trim(), "100000");
}

async fn websockets_pass(by: By) {
    use futures_util::{SinkExt, StreamExt};
    let server = TestServer::start().await;
    let origin = Origin::websocket_echo().await;
    let _publisher = by.publish(&server, "http", "app", &origin).await;
    let mut socket = server.visitor().websocket(URL).await;
    socket.send("over and over".into()).await.unwrap();
    let heard = within("an echo", socket.next()).await.unwrap().unwrap();
    assert_eq!(heard.into_text().unwrap().as_str(), "over and over");
}

async fn who_publishes_again_takes_over(by: By) {
    let server = TestServer::start().await;
    let (first, second) = (Origin::replying("first").await, Origin::replying("second").await);
    let mut old = by.publish(&server, "http", "app", &first).await;
    let _new = by.publish(&server, "http", "app", &second).await;
    assert_eq!(server.visitor().get(URL).await.text(), "second");
    within("the end of the first", old.wait()).await;
}

async fn visitors_wait_while_the_connection_is_lost(by: By) {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    by.publish(&server, "http", "app", &origin).await.kill().await;
    let visitor = server.visitor();
    let visit = visitor.get(URL);
    let (reply, _again) = tokio::join!(visit, by.publish(&server, "http", "app", &origin));
    assert_eq!(reply.text(), "hello");
}

/// Cuts the network of an agent that looks for its server each second, again and again, while visitors come.
async fn cut_again_and_again(times: usize) {
    let server = TestServer::with(|options| options.arg("--hold").arg("30s")).await;
    let origin = Origin::replying("hello").await;
    let relay = Relay::to(server.ssh_address()).await;
    let file = server.folder().join("quick.yml");
    std::fs::write(&file, "version: 3\nagent: {heartbeat_interval: 1s, heartbeat_tolerance: 1s}\n").unwrap();
    let agent = server.agent().through(&relay).command("http", &origin).words("--domain app --config");
    let mut agent = agent.word(&file).publish().await;
    let url = agent.url().await;
    let over = std::sync::atomic::AtomicBool::new(false);
    let visits = async {
        let mut count = 0;
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            let reply = server.visitor().get(URL).await;
            assert_eq!((reply.status(), reply.text()), (200, "hello"), "after {count}");
            count += 1;
        }
        count
    };
    let losses = async {
        for round in 1..=times {
            let count = |word: &str| agent.stdout().matches(word).count();
            let back = format!("Reconnected {url}");
            let (lost, again) = (count("Lost "), count(&back));
            relay.cut();
            eventually("the loss is told", || (count("Lost ") > lost).then_some(())).await;
            relay.mend();
            eventually("it is back under its name", || (count(&back) > again).then_some(())).await;
            assert_eq!(server.visitor().get(URL).await.text(), "hello", "round {round}");
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (count, ()) = tokio::join!(visits, losses);
    assert!(count > times, "{count}");
}

#[tokio::test]
async fn visitors_do_not_notice_that_an_agents_network_is_cut_and_comes_back() {
    cut_again_and_again(3).await;
}

#[tokio::test]
#[ignore = "cuts a network a hundred times: some minutes"]
async fn an_agent_comes_back_a_hundred_times_of_a_hundred() {
    cut_again_and_again(100).await;
}

#[tokio::test]
async fn an_agent_comes_back_to_a_server_that_was_started_again() {
    let mut server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let agent = server.agent().command("http", &origin);
    let mut agent = agent.publish().await;
    let url = agent.url().await;
    server.restart().await;
    assert_eq!(server.visitor().get_when_public(&url).await.text(), "hello");
}

#[tokio::test]
async fn an_agent_goes_to_the_next_server_while_the_last_one_finishes_its_visits() {
    let mut server = TestServer::start().await;
    let (origin, feed) = Origin::fed().await;
    let mut agent = server.agent().command("http", &origin).publish().await;
    let url = agent.url().await;
    let mut download = server.visitor().open(&url).await;
    assert!(feed.send("one ").await);
    assert_eq!(download.next_text().await, "one ");
    server.sigterm();
    server.start_beside().await;
    agent.wait_for_text(&format!("Reconnected {url}")).await;
    assert!(feed.send("two").await);
    assert_eq!(download.next_text().await, "two");
    drop(feed);
    download.rest().await.unwrap();
    server.older_ones_ended().await;
    assert!(agent.is_running());
    let names = server.ssh().command("names --json").run().await.stdout;
    assert!(names.contains("\"live\""), "{names}");
}

#[tokio::test]
async fn an_agent_without_visits_ends_at_once_while_its_server_finishes_those_of_others() {
    let server = TestServer::start().await;
    let (origin, feed) = Origin::fed().await;
    let _other = server.ssh().forward_to("other:443", &origin).command("http").publish().await;
    let mut download = server.visitor().open("https://other.localhost/").await;
    assert!(feed.send("one ").await);
    assert_eq!(download.next_text().await, "one ");
    let mut agent = server.agent().command("http", &Origin::replying("hello").await).publish().await;
    server.sigterm();
    agent.wait_for_text("ERR_HITHE_742").await;
    agent.interrupt().await;
    // Visits would have ten seconds.
    tokio::time::timeout(std::time::Duration::from_secs(8), agent.wait()).await.expect("it ends at once");
    assert!(feed.send("two").await);
    assert_eq!(download.next_text().await, "two");
}

#[tokio::test]
async fn what_cannot_succeed_ends_with_its_message_and_a_status_of_its_own() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let stranger = server.folder().join("stranger");
    generate_key(&stranger, "ed25519");
    let unknown = server.agent().key(&stranger).command("http", &origin).run().await;
    assert_eq!(unknown.code, Some(3), "{}", unknown.output());
    assert!(unknown.stderr.contains("does not let"), "{}", unknown.stderr);

    let other = server.another_key("other", "ed25519");
    server.authorize(&other);
    server.logged("authorized keys read again").await;
    let _holder = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let taken = server.agent().key(&other).command("http", &origin).word("--domain=app").run().await;
    assert_eq!(taken.code, Some(6), "{}", taken.output());
    assert!(taken.stderr.contains("ERR_HITHE_334"), "{}", taken.stderr);
    assert_eq!(taken.output().matches("ERR_HITHE_334").count(), 1, "{}", taken.output());

    let wrong = server.agent().command("http", &origin).words("--compresion").run().await;
    assert_eq!(wrong.code, Some(2), "{}", wrong.output());
    assert!(wrong.stderr.contains("--compression"), "{}", wrong.stderr);
}

#[tokio::test]
async fn a_host_key_that_has_changed_is_a_hard_stop() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let (known, foreign) = (server.folder().join("known"), server.folder().join("foreign"));
    generate_key(&foreign, "ed25519");
    let address = server.ssh_address();
    let line = format!("[{}]:{} {}", address.ip(), address.port(), TestServer::public_half(&foreign));
    std::fs::write(&known, line).unwrap();
    let agent = server.agent().command("http", &origin).word("--known-hosts").word(&known);
    let stopped = agent.run().await;
    assert_eq!(stopped.code, Some(4), "{}", stopped.output());
    assert!(
        stopped.stderr.contains("HAS CHANGED") && stopped.stderr.contains("line 1"),
        "{}",
        stopped.stderr
    );
}

#[tokio::test]
async fn the_agent_says_which_ssh_command_does_the_same() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let words = "http 3000 --domain app --basic-auth 'ada:correct horse' --dry-run";
    let dry = server.agent().words(words).run().await;
    assert_eq!(dry.code, Some(0), "{}", dry.output());
    let line = dry.stdout.lines().last().unwrap();
    assert!(line.starts_with("ssh ") && line.contains(" -R 443:localhost:3000 "), "{line}");
    // And it does: a shell, the same words, another upstream.
    let words = shell_words::split(line).unwrap();
    let behind = words.iter().position(|word| word == "http").unwrap();
    let ssh = server.ssh().forward_to("443", &origin).command_words(words.into_iter().skip(behind));
    let _ssh = ssh.publish().await;
    assert_eq!(server.visitor().basic("ada", "correct horse").get(URL).await.text(), "hello");
}

#[tokio::test]
async fn an_https_upstream_is_spoken_to_by_the_agent() {
    let server = TestServer::start().await;
    let origin = Origin::http().tls("localhost").replying("inside").await;
    let ca = server.folder().join("upstream.pem");
    std::fs::write(&ca, origin.certificate()).unwrap();
    let address = format!("https://localhost:{}", origin.port());
    let any = server.agent().words("http --domain app").word(&address).publish().await;
    assert_eq!(server.visitor().get(URL).await.text(), "inside");
    drop(any);
    let checked =
        server.agent().words("http --domain checked --upstream-tls-verify-cas").word(&ca).word(&address);
    let _checked = checked.publish().await;
    assert_eq!(server.visitor().get("https://checked.localhost/").await.text(), "inside");
    let strict =
        server.agent().words("http --domain strict --upstream-tls-verify").word(&address).publish().await;
    assert_eq!(server.visitor().get("https://strict.localhost/").await.status(), 502);
    drop(strict);
}

#[tokio::test]
async fn a_unix_socket_and_an_h2c_service_are_published() {
    let server = TestServer::start().await;
    let origin = Origin::http().http2().replying("in two").await;
    let address = format!("h2c://{}", origin.address());
    let _agent = server.agent().words("http --domain app").word(&address).publish().await;
    assert_eq!(server.visitor().get(URL).await.text(), "in two");
    let path = server.folder().join("app.sock");
    let socket = tokio::net::UnixListener::bind(&path).unwrap();
    let serve = async {
        let (mut stream, _) = socket.accept().await.unwrap();
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nunix").await.unwrap();
    };
    let address = format!("unix:{}", path.display());
    let _second = server.agent().words("http --domain unix").word(&address).publish().await;
    let visitor = server.visitor();
    let ((), reply) = tokio::join!(serve, visitor.get("https://unix.localhost/"));
    assert_eq!(reply.text(), "unix");
}

#[tokio::test]
async fn tls_that_ends_at_the_agent_is_ciphertext_for_the_server() {
    let server = TestServer::start().await;
    let origin = Origin::replying("secret words").await;
    let pair = rcgen::generate_simple_self_signed(["app.localhost".to_owned()]).unwrap();
    let (crt, key) = (server.folder().join("crt.pem"), server.folder().join("key.pem"));
    std::fs::write(&crt, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let agent = server.agent().command("tls", &origin).words("--domain app --terminate-at agent --crt");
    let _agent = agent.word(&crt).word("--key").word(&key).publish().await;
    let reply = server.visitor().trusting(&crt).get(URL).await;
    assert_eq!(reply.text(), "secret words");
}

/// russh keeps something of each channel for as long as its session lives, so that a session does not live for ever.
#[tokio::test]
async fn a_session_that_has_served_much_is_replaced_without_a_gap() {
    let server = TestServer::start().await;
    let origin = Origin::tcp_echo().await;
    let mut agent = server.agent().command("tcp", &origin).publish().await;
    let port = agent.forwarding().await.remove(0).port().unwrap();
    let mut lasting = server.visitor().tcp(port).await;
    let mut visits = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let visitor = server.visitor();
        visits.spawn(async move {
            for _ in 0..280 {
                let mut stream = visitor.tcp(port).await;
                stream.write_all(b"echo").await.unwrap();
                let mut heard = [0; 4];
                stream.read_exact(&mut heard).await.unwrap();
                assert_eq!(&heard, b"echo");
            }
        });
    }
    visits.join_all().await;
    server.logged("session=2").await;
    lasting.write_all(b"still").await.unwrap();
    let mut heard = [0; 5];
    within("an echo of the old session", lasting.read_exact(&mut heard)).await.unwrap();
    drop(lasting);
    server.logged("publisher left session=1").await;
    assert!(agent.is_running());
    let mut stream = server.visitor().tcp(port).await;
    stream.write_all(b"new").await.unwrap();
    within("an echo of the new session", stream.read_exact(&mut heard[..3])).await.unwrap();
}
