//! The agent's way into the server, as ssh_config describes it, and what it tells its upstream and its person.

use std::path::{Path, PathBuf};
use std::process::Command;

use hithe_integration::{Origin, TestServer, generate_key, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const URL: &str = "https://app.localhost/";

/// ssh_config that leads to the server by the name `tunnel`, with these lines.
fn ssh_config(server: &TestServer, lines: &str) -> PathBuf {
    let path = server.folder().join("ssh_config");
    let known_hosts = server.folder().join("known_by_config");
    let text = format!(
        "Host tunnel\n HostName {}\n Port {}\n IdentityAgent none\n StrictHostKeyChecking accept-new\n UserKnownHostsFile {}\n{lines}\n",
        server.ssh_address().ip(),
        server.ssh_address().port(),
        known_hosts.display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn ssh(config: &Path, words: &[&str]) -> String {
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(config).arg("-T").args(words);
    let done = ssh.output().unwrap();
    String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
}

#[tokio::test]
async fn a_certificate_and_a_program_of_ssh_config_serve_agent_and_ssh_alike() {
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca");
    generate_key(&authority, "ed25519");
    let server =
        TestServer::with(|options| options.arg("--trusted-user-ca").arg(authority.with_extension("pub")))
            .await;
    let key = server.another_key("holder", "ed25519");
    let signed = Command::new("ssh-keygen")
        .args(["-q", "-I", "ada laptop", "-n", "ada", "-s"])
        .arg(&authority)
        .arg(key.with_extension("pub"))
        .status();
    assert!(signed.unwrap().success());
    let certificate = server.folder().join("elsewhere.pub");
    std::fs::rename(format!("{}-cert.pub", key.display()), &certificate).unwrap();
    let lines = format!(
        " IdentityFile {}\n CertificateFile {}\n ProxyCommand nc %h %p",
        key.display(),
        certificate.display()
    );
    let config = ssh_config(&server, &lines);
    let by_ssh = ssh(&config, &["v2@tunnel", "whoami"]);
    assert!(by_ssh.contains("Account   ada"), "{by_ssh}");

    let by_agent = agent_first(&server, "diagnose", &config).await;
    assert!(by_agent.contains("account ada"), "{by_agent}");
    let origin = Origin::replying("hello").await;
    let _agent = server
        .agent()
        .without_server()
        .command("http", &origin)
        .words("--domain app --server tunnel --ssh-config")
        .word(&config)
        .publish()
        .await;
    assert_eq!(server.visitor().get(URL).await.text(), "hello");
}

async fn agent_first(server: &TestServer, command: &str, config: &Path) -> String {
    let agent = server.agent().without_server().words(command).words("--server tunnel --ssh-config");
    agent.word(config).run().await.output()
}

#[tokio::test]
async fn a_program_that_leads_nowhere_is_told_from_a_server_that_does() {
    let server = TestServer::start().await;
    let config = ssh_config(
        &server,
        &format!(
            " IdentityFile {}\n ProxyCommand no-such-program --auth ada:secret %h",
            server.user_key().display()
        ),
    );
    let said = agent_first(&server, "diagnose", &config).await;
    assert!(said.contains("the ProxyCommand `no-such-program ...` does not lead to"), "{said}");
    assert!(!said.contains("secret"), "{said}");
    assert!(said.contains("The fault is the program's"), "{said}");
}

/// A key that may publish, with the passphrase `open sesame`.
async fn locked_key(server: &TestServer) -> PathBuf {
    let locked = server.another_key("locked", "ed25519");
    server.authorize(&locked);
    server.logged("authorized keys read again").await;
    let changed = Command::new("ssh-keygen")
        .args(["-q", "-p", "-P", "", "-N", "open sesame", "-f"])
        .arg(&locked)
        .status();
    assert!(changed.unwrap().success());
    locked
}

/// Before the login a question of the server whether the client is there is an error (RFC 4252 §6), which ends the connection.
#[tokio::test]
async fn who_takes_long_to_type_a_passphrase_gets_in_all_the_same() {
    let server = TestServer::start().await;
    let locked = locked_key(&server).await;
    let config = ssh_config(&server, &format!(" IdentityFile {}", locked.display()));
    let slow_person = server.prompter("open sesame");
    let typed = std::fs::read_to_string(&slow_person).unwrap();
    std::fs::write(&slow_person, typed.replace("printf", "sleep 6; printf")).unwrap();
    let ssh = tokio::process::Command::new("ssh")
        .arg("-F")
        .arg(&config)
        .args(["-T", "v2@tunnel", "whoami"])
        .env("SSH_ASKPASS", slow_person)
        .env("SSH_ASKPASS_REQUIRE", "force")
        .output();
    let done = within("a slow login", ssh).await.unwrap();
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(said.contains("Account   "), "{said}");
}

#[tokio::test]
async fn who_offers_a_key_and_does_not_sign_is_not_told_that_it_is_unknown() {
    let server = TestServer::start().await;
    let locked = locked_key(&server).await;
    let config =
        ssh_config(&server, &format!(" IdentityFile {}\n NumberOfPasswordPrompts 1", locked.display()));
    let typed = Command::new("ssh")
        .arg("-F")
        .arg(&config)
        .args(["-T", "v2@tunnel", "whoami"])
        .env("SSH_ASKPASS", server.prompter("wrong"))
        .env("SSH_ASKPASS_REQUIRE", "force")
        .output()
        .unwrap();
    let refused = String::from_utf8_lossy(&typed.stderr).into_owned();
    assert!(refused.contains("ERR_HITHE_1102: your client offered the key SHA256:"), "{refused}");
    assert!(refused.contains("did not sign"), "{refused}");

    let by_agent = server.agent().key(&locked).words("http 80").run().await;
    assert_eq!(by_agent.code, Some(3), "{}", by_agent.output());
    assert!(by_agent.stderr.contains("run `ssh-add "), "{}", by_agent.stderr);
}

#[tokio::test]
async fn what_to_do_is_said_in_terms_of_the_agents_flags() {
    let server = TestServer::start().await;
    let other = server.another_key("other", "ed25519");
    server.authorize(&other);
    server.logged("authorized keys read again").await;
    let origin = Origin::tcp_echo().await;
    let outside = server.agent().command("tcp", &origin).words("--remote-addr localhost:1").run().await;
    assert_eq!(outside.code, Some(6), "{}", outside.output());
    assert!(outside.stderr.contains("leave --remote-addr out"), "{}", outside.stderr);
    assert!(!outside.stderr.contains("-R"), "{}", outside.stderr);
}

#[tokio::test]
async fn curl_speaks_to_a_service_of_http1_or_http2_behind_tls_that_ends_at_the_agent() {
    let server = TestServer::start().await;
    let (one, two) = (Origin::replying("hello").await, Origin::http().http2().replying("hello").await);
    let pair = rcgen::generate_simple_self_signed(["app.localhost".to_owned()]).unwrap();
    let (crt, key) = (server.folder().join("crt.pem"), server.folder().join("key.pem"));
    std::fs::write(&crt, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let publish = |origin: &Origin, flags: &'static str| {
        let agent = server.agent().command("tls", origin).words("--domain app --terminate-at agent --crt");
        agent.word(&crt).word("--key").word(&key).words(flags).publish()
    };
    let port = server.https_address().port();
    let curl = async |flag: &'static str| {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["-sS", flag, "--max-time", "20", "--resolve", &format!("app.localhost:{port}:127.0.0.1")]);
        curl.arg("--cacert").arg(&crt).args(["-w", " over %{http_version}"]);
        let done = curl.arg(format!("https://app.localhost:{port}/")).output().await.unwrap();
        String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
    };
    let mut agent = publish(&one, "").await;
    assert_eq!(curl("--http2").await, "hello over 1.1");
    agent.kill().await;
    let _agent = publish(&two, "--upstream-protocol http2").await;
    assert_eq!(curl("--http2").await, "hello over 2");
    let refused = curl("--http1.1").await;
    assert!(!refused.contains("hello"), "{refused}");
}

/// How an upload comes to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Orderly,
    /// The visitor resets its connection.
    Reset,
    /// The server is gone.
    Lost,
}

/// What an upstream sees that reads until the end.
async fn upload(end: End) -> std::io::Result<usize> {
    let mut server = TestServer::start().await;
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let words = format!("tcp {}", upstream.local_addr().unwrap());
    let mut agent = server.agent().words(&words).publish().await;
    let port = agent.forwarding().await.remove(0).port().unwrap();
    let mut visitor = server.visitor().tcp(port).await;
    visitor.write_all(b"part").await.unwrap();
    let (mut upload, _) = within("a connection to the upstream", upstream.accept()).await.unwrap();
    let mut heard = [0; 4];
    within("what was sent", upload.read_exact(&mut heard)).await.unwrap();
    match end {
        End::Orderly => visitor.shutdown().await.unwrap(),
        End::Reset => {
            visitor.set_zero_linger().unwrap();
            drop(visitor);
        }
        End::Lost => server.kill(),
    }
    within("the end of the upload", upload.read(&mut heard)).await
}

#[tokio::test]
async fn an_upload_that_is_cut_reaches_the_upstream_as_a_reset_and_a_whole_one_as_an_end() {
    assert_eq!(upload(End::Orderly).await.unwrap(), 0);
    for cut in [End::Reset, End::Lost] {
        assert_eq!(upload(cut).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_session_that_shares_a_name_and_is_replaced_gets_no_more_visits() {
    let server = TestServer::start().await;
    let origin = Origin::tcp_echo().await;
    let mut agent = server.agent().command("tcp", &origin).words("--pooling-enabled").publish().await;
    let port = agent.forwarding().await.remove(0).port().unwrap();
    let mut lasting = server.visitor().tcp(port).await;
    lasting.write_all(b"long").await.unwrap();
    let mut heard = [0; 5];
    within("an echo", lasting.read_exact(&mut heard[..4])).await.unwrap();
    let mut visits = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let visitor = server.visitor();
        visits.spawn(async move {
            for _ in 0..280 {
                let mut stream = visitor.tcp(port).await;
                stream.write_all(b"echo").await.unwrap();
                let mut heard = [0; 4];
                stream.read_exact(&mut heard).await.unwrap();
            }
        });
    }
    visits.join_all().await;
    server.logged("session=2").await;
    let shared = async { while server.ssh().command("names").run().await.stdout.contains("2 members") {} };
    within("the replaced session leaves the pool", shared).await;
    lasting.write_all(b"still").await.unwrap();
    within("an echo of the old session", lasting.read_exact(&mut heard)).await.unwrap();
    drop(lasting);
    server.logged("publisher left session=1").await;
    let mut stream = server.visitor().tcp(port).await;
    stream.write_all(b"new").await.unwrap();
    within("an echo of the new session", stream.read_exact(&mut heard[..3])).await.unwrap();
}
