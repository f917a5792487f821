//! Bad days: visitors that leave, clients that answer late or read nothing, certificates that change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hithe_integration::protocol::{read_to_end, read_until};
use hithe_integration::{Origin, ProtocolClient, TestServer, within};
use russh::client::Msg;
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use russh::{Channel, ChannelMsg, Sig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn protocol_client(server: &TestServer, port: u16) -> (ProtocolClient, Channel<Msg>) {
    publishing(ProtocolClient::log_in(server.ssh_address(), "v2", &server.user_key()).await, port).await
}

async fn publishing(client: ProtocolClient, port: u16) -> (ProtocolClient, Channel<Msg>) {
    client.forward("localhost", u32::from(port)).await.unwrap();
    let mut session = client.exec("tcp").await;
    read_until(&mut session, "Forwarding").await;
    (client, session)
}

#[tokio::test]
async fn a_visitor_that_leaves_before_the_client_answers_harms_no_neighbour() {
    let server = TestServer::start().await;
    let port = *server.tcp_ports().start();
    let (mut client, _session) = protocol_client(&server, port).await;

    let leaver = server.visitor().tcp(port).await;
    let refused_late = client.opening().await;
    drop(leaver);
    refused_late.refuse().await;

    let leaver = server.visitor().tcp(port).await;
    let accepted_late = client.opening().await;
    drop(leaver);
    let mut late = accepted_late.accept().await;
    let mut rest = Vec::new();
    late.read_to_end(&mut rest).await.unwrap();

    let mut visitor = server.visitor().tcp(port).await;
    let mut channel = client.opening().await.accept().await;
    visitor.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    channel.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}

/// What a client may say on a channel beside data; some has no meaning for a visit.
#[derive(Clone, Copy, Debug)]
enum Aside {
    ExtendedData,
    Signal,
    Terminal,
    WindowChange,
    Environment,
    Shell,
    Exec,
    Subsystem,
    X11,
    Agent,
}

async fn say(channel: &Channel<Msg>, aside: Aside) -> Result<(), russh::Error> {
    match aside {
        Aside::ExtendedData => channel.extended_data_bytes(1, "error").await,
        Aside::Signal => channel.signal(Sig::INT).await,
        Aside::Terminal => channel.request_pty(false, "xterm", 80, 24, 0, 0, &[]).await,
        Aside::WindowChange => channel.window_change(80, 24, 0, 0).await,
        Aside::Environment => channel.set_env(false, "LANG", "C").await,
        Aside::Shell => channel.request_shell(false).await,
        Aside::Exec => channel.exec(false, "http").await,
        Aside::Subsystem => channel.request_subsystem(false, "sftp").await,
        Aside::X11 => channel.request_x11(false, false, "MIT-MAGIC-COOKIE-1", "00", 0).await,
        Aside::Agent => channel.agent_forward(false).await,
    }
}

/// More than russh queues for a channel.
const MORE_THAN_A_QUEUE: usize = 300;

/// A visit's bytes pass in both directions.
async fn a_visit_is_served(server: &TestServer, port: u16, client: &mut ProtocolClient) {
    let mut visitor = server.visitor().tcp(port).await;
    let mut channel = client.opening().await.accept().await;
    let mut heard = [0; 5];
    visitor.write_all(b"hello").await.unwrap();
    within("the visitor's words", channel.read_exact(&mut heard)).await.unwrap();
    channel.write_all(&heard).await.unwrap();
    within("the answer", visitor.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"hello");
}

async fn messages_that_are_no_data_hold_up_no_other_visit(asides: &[Aside]) {
    let server = TestServer::start().await;
    let port = *server.tcp_ports().start();
    let (mut client, _session) = protocol_client(&server, port).await;
    for aside in asides {
        let mut visitor = server.visitor().tcp(port).await;
        let channel = client.opening().await.accept_channel().await;
        for _ in 0..MORE_THAN_A_QUEUE {
            within(&format!("room for {aside:?}"), say(&channel, *aside)).await.unwrap();
        }
        a_visit_is_served(&server, port, &mut client).await;
        // Nor does it harm the visit itself.
        channel.data(&b"still here"[..]).await.unwrap();
        let mut heard = [0; 10];
        within("the visit's own data", visitor.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, b"still here", "after {aside:?}");
    }
}

#[tokio::test]
async fn errors_and_signals_on_a_visits_channel_hold_up_no_other() {
    messages_that_are_no_data_hold_up_no_other_visit(&[Aside::ExtendedData, Aside::Signal]).await;
}

#[tokio::test]
async fn requests_on_a_visits_channel_that_only_a_session_knows_hold_up_no_other() {
    messages_that_are_no_data_hold_up_no_other_visit(&[
        Aside::Terminal,
        Aside::WindowChange,
        Aside::Environment,
        Aside::Shell,
        Aside::Exec,
        Aside::Subsystem,
        Aside::X11,
        Aside::Agent,
    ])
    .await;
}

/// An upload whose client opens its small window some five hundred times.
#[tokio::test]
async fn a_window_that_is_opened_again_and_again_holds_up_no_other_visit() {
    const WINDOW: u32 = 32 << 10;
    const MUCH: u64 = 8 << 20;
    let server = TestServer::start().await;
    let port = *server.tcp_ports().start();
    let (address, key) = (server.ssh_address(), server.user_key());
    let client = ProtocolClient::log_in_with_window(address, "v2", &key, WINDOW).await;
    let (mut client, _session) = publishing(client, port).await;
    let mut visitor = server.visitor().tcp(port).await;
    let mut channel = client.opening().await.accept().await;
    let upload = async {
        visitor.write_all(&vec![7; MUCH as usize]).await.unwrap();
        visitor.shutdown().await.unwrap();
    };
    let taken = async { tokio::io::copy(&mut channel, &mut tokio::io::sink()).await.unwrap() };
    let ((), taken) = within("an upload", async { tokio::join!(upload, taken) }).await;
    assert_eq!(taken, MUCH);
    // The news of the window and this share a queue.
    channel.write_all(b"taken").await.unwrap();
    let mut answer = [0; 5];
    within("the answer to an upload", visitor.read_exact(&mut answer)).await.unwrap();
    a_visit_is_served(&server, port, &mut client).await;
}

/// Sends until the server closes the channel, and tells how much went.
async fn send_without_end(channel: Channel<Msg>) -> usize {
    let (mut reader, writer) = channel.split();
    let sent = AtomicUsize::new(0);
    let sending = async {
        while sent.load(Ordering::Relaxed) < WITHOUT_END {
            writer.data_bytes(vec![7; 32 << 10]).await.unwrap();
            sent.fetch_add(32 << 10, Ordering::Relaxed);
        }
    };
    let closed =
        async { while reader.wait().await.is_some_and(|message| !matches!(message, ChannelMsg::Close)) {} };
    within("the server closes the channel", async {
        tokio::select! {
            () = closed => {}
            () = sending => {}
        }
    })
    .await;
    sent.into_inner()
}

const WITHOUT_END: usize = 256 << 20;
/// A visit may have half of it.
const SMALL_SPOOL: &str = "64MiB";
/// That half, what sockets and windows hold, and what is thrown away before the channel is closed.
const ENOUGH: usize = 96 << 20;

#[tokio::test]
async fn what_is_sent_for_a_tcp_visit_that_was_cut_off_is_not_received_for_ever() {
    let server = TestServer::with(|options| options.arg("--spool-limit").arg(SMALL_SPOOL)).await;
    let port = *server.tcp_ports().start();
    let (mut client, _session) = protocol_client(&server, port).await;
    let mut visitor = server.visitor().tcp(port).await;
    let sent = send_without_end(client.opening().await.accept_channel().await).await;
    assert!(sent < ENOUGH, "{sent} bytes were received");
    let read = within("the end", tokio::io::copy(&mut visitor, &mut tokio::io::sink())).await;
    assert!(read.is_err(), "{read:?} looks complete");
}

#[tokio::test]
async fn what_is_sent_for_an_answer_that_was_cut_off_is_not_received_for_ever() {
    let server = TestServer::with(|options| options.arg("--spool-limit").arg(SMALL_SPOOL)).await;
    let mut client = ProtocolClient::log_in(server.ssh_address(), "v2", &server.user_key()).await;
    client.forward("app", 80).await.unwrap();
    let mut session = client.exec("http").await;
    read_until(&mut session, "http://app.localhost").await;
    let visitor = server.visitor();
    let asking = visitor.open("http://app.localhost/");
    let answering = async {
        let mut channel = client.opening().await.accept_channel().await;
        read_until(&mut channel, "\r\n\r\n").await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {WITHOUT_END}\r\n\r\n");
        channel.data(head.as_bytes()).await.unwrap();
        send_without_end(channel).await
    };
    let (mut answer, sent) = tokio::join!(asking, answering);
    assert!(sent < ENOUGH, "{sent} bytes were received");
    // The visit ends although nobody took what was on its way.
    read_until(&mut session, "a visit's share of the spool is full").await;
    while answer.next().await.expect("an answer that does not look complete").is_ok() {}
}

#[tokio::test]
async fn the_channel_carries_address_and_number_as_asked_and_the_visitors_own() {
    let server = TestServer::start().await;
    let client = ProtocolClient::log_in(server.ssh_address(), "v2", &server.user_key()).await;
    let mut client = client;
    let number = client.forward("App.LOCALHOST", 0).await.unwrap();
    assert!((1..=65535).contains(&number));
    let mut session = client.exec("http --schemes http").await;
    read_until(&mut session, "http://app.localhost").await;
    let visitor = server.visitor();
    let asking = visitor.open("http://app.localhost/");
    let answering = async {
        let opening = client.opening().await;
        let seen = (opening.connected.clone(), opening.originator.0.clone());
        let mut channel = opening.accept().await;
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            channel.read_buf(&mut asked).await.unwrap();
        }
        channel.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        seen
    };
    let (reply, (connected, originator)) = tokio::join!(asking, answering);
    assert_eq!(reply.status(), 200);
    assert_eq!(connected, ("App.LOCALHOST".to_owned(), number));
    assert_eq!(originator, "127.0.0.1");
}

#[tokio::test]
async fn a_session_may_open_before_its_forwards_come() {
    let server = TestServer::start().await;
    let client = ProtocolClient::log_in(server.ssh_address(), "v2", &server.user_key()).await;
    let session = client.handle.channel_open_session().await.unwrap();
    client.forward("app", 443).await.unwrap();
    session.exec(true, "http").await.unwrap();
    let mut session = session;
    read_until(&mut session, "https://app.localhost").await;
}

#[tokio::test]
async fn a_wrong_command_gives_its_forward_back() {
    let server = TestServer::start().await;
    let client = ProtocolClient::log_in(server.ssh_address(), "v2", &server.user_key()).await;
    client.forward("app", 443).await.unwrap();
    let ended = read_to_end(&mut client.exec("htp").await).await;
    assert_eq!(ended.code, Some(2));
    client.forward("app", 443).await.unwrap();
    read_until(&mut client.exec("http").await, "https://app.localhost").await;
}

#[tokio::test]
async fn memory_does_not_grow_with_requests() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let _ssh = server.ssh().forward_to("app:80", &origin).command("http").publish().await;
    let url = "http://app.localhost/";
    let mut connection = server.visitor().connection(url).await;
    let mut settled = 0;
    for round in 0..6 {
        for _ in 0..500 {
            assert_eq!(connection.get(url).await.status(), 200);
        }
        if round == 2 {
            settled = server.rss_kib();
        }
    }
    let after = server.rss_kib();
    assert!(after < settled + 2048, "{settled} KiB became {after} KiB");
}

#[tokio::test]
async fn a_second_exec_on_one_channel_is_refused_and_harms_nothing() {
    let server = TestServer::start().await;
    let origin_port = *server.tcp_ports().start();
    let (client, session) = protocol_client(&server, origin_port).await;
    session.exec(true, "htp").await.unwrap();
    client.forward("other", 443).await.unwrap();
    read_until(&mut client.exec("http").await, "https://other.localhost").await;
    server.visitor().tcp(origin_port).await;
}

fn certificate(folder: &std::path::Path, pair: &str, names: &[&str]) {
    let folder = folder.join(pair);
    std::fs::create_dir_all(&folder).expect("a folder");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    std::fs::write(folder.join("privkey.pem"), made.signing_key.serialize_pem()).expect("a key file");
    std::fs::write(folder.join("fullchain.pem"), made.cert.pem()).expect("a certificate file");
}

#[tokio::test]
async fn certificates_of_a_directory_are_used_and_read_again_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "wild", &["*.w.test", "w.test"]);
    let directory = folder.path().display().to_string();
    let server = TestServer::with(|o| o.domain("w.test").arg("--certificates").arg(&directory)).await;
    let origin = Origin::replying("hello").await;
    let _ssh = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let trusts = async |pair: &str| {
        let file = folder.path().join(pair).join("fullchain.pem");
        server.visitor().trusting(&file).try_tls("app.w.test", &[]).await.is_ok()
    };
    assert!(trusts("wild").await);
    certificate(folder.path(), "exact", &["app.w.test"]);
    server.logged("exact").await;
    assert!(trusts("exact").await && !trusts("wild").await);
}

#[tokio::test]
async fn a_certificate_that_does_not_match_its_key_is_refused_with_both_files() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "a", &["a.w.test"]);
    certificate(folder.path(), "b", &["b.w.test"]);
    std::fs::copy(folder.path().join("b/privkey.pem"), folder.path().join("a/privkey.pem")).unwrap();
    let directory = folder.path().display().to_string();
    let output = TestServer::refusing(|o| o.domain("w.test").arg("--certificates").arg(&directory)).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("a/fullchain.pem") && said.contains("a/privkey.pem"), "{said}");
}

#[tokio::test]
async fn forwards_that_are_refused_take_no_room() {
    let server = TestServer::start().await;
    let before = server.rss_kib();
    let client = ProtocolClient::log_in(server.ssh_address(), "v2", &server.user_key()).await;
    let _session = client.handle.channel_open_session().await.unwrap();
    let long = "a".repeat(200 * 1024);
    for _ in 0..64 {
        client.forward(&long, 443).await.unwrap_err();
    }
    let after = server.rss_kib();
    assert!(after < before + 8 * 1024, "{before} KiB became {after} KiB");
}

struct DoesNotRead;

impl russh::client::Handler for DoesNotRead {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: russh::client::ChannelOpenHandle,
        _: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        reply.reject(russh::ChannelOpenFailure::ConnectFailed).await;
        Ok(())
    }
}

#[tokio::test]
async fn lines_that_wait_for_a_console_do_not_hold_their_requests() {
    let server = TestServer::start().await;
    let config = Arc::new(russh::client::Config { window_size: 0, ..Default::default() });
    let mut client = russh::client::connect(config, server.ssh_address(), DoesNotRead).await.unwrap();
    let key = Arc::new(load_secret_key(server.user_key(), None).unwrap());
    let key = PrivateKeyWithHashAlg::new(key, None);
    assert!(client.authenticate_publickey("v2", key).await.unwrap().success());
    client.tcpip_forward("app", 80).await.unwrap();
    let session = client.channel_open_session().await.unwrap();
    session.exec(true, "http").await.unwrap();
    server.visitor().get_when_public("http://app.localhost/").await;
    let before = server.rss_kib();
    let padding = "x".repeat(512 * 1024);
    let request =
        format!("GET /a HTTP/1.1\r\nhost: app.localhost\r\nx: {padding}\r\nconnection: close\r\n\r\n");
    for _ in 0..100 {
        let mut visitor = tokio::net::TcpStream::connect(server.http_address()).await.unwrap();
        visitor.write_all(request.as_bytes()).await.unwrap();
        let _ = visitor.read_to_end(&mut Vec::new()).await;
    }
    let after = server.rss_kib();
    assert!(after < before + 16 * 1024, "{before} KiB became {after} KiB");
}
