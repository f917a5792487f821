//! TLS that ends at the server as its publisher wants it: certificates of visitors, of the publisher, and versions.

use std::path::{Path, PathBuf};

use hithe_integration::{Origin, TestServer};
use http::Method;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, SerialNumber,
};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

const URL: &str = "https://app.localhost/";

/// An authority for visitors' certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate for ada, and writes it with its key.
    fn sign(&self, folder: &Path, adjust: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec!["ada.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "ada \u{e9} lovelace");
        params.subject_alt_names.push(SanType::Rfc822Name("ada@example.com".try_into().unwrap()));
        params.serial_number = Some(SerialNumber::from(vec![0x12, 0xab]));
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let paths = (folder.join("client.pem"), folder.join("client.key"));
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }
}

async fn curl(
    server: &TestServer,
    client: Option<&(PathBuf, PathBuf)>,
    more: &[&str],
) -> (Option<i32>, String) {
    let mut arguments = vec![URL];
    if let Some((certificate, key)) = client {
        arguments.extend(["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()]);
    }
    arguments.extend(more);
    let curl = server.visitor().curl(arguments).await;
    (curl.code, curl.stdout)
}

#[tokio::test]
async fn only_visitors_with_a_certificate_of_the_authority_get_in_and_the_upstream_learns_who() {
    let (server, origin) = (TestServer::start().await, Origin::echoing_requests().await);
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let words = ["http".to_owned(), "--mutual-tls-cas".to_owned(), ours.pem()];
    let _ssh = server.ssh().forward_to("app:443", &origin).command_words(words).publish().await;
    let ada = ours.sign(server.folder(), |_| {});
    for version in ["--http1.1", "--http2"] {
        let forged = ["-H", "hithe-mtls-subject-cn: root", version];
        let (code, said) = curl(&server, Some(&ada), &forged).await;
        assert_eq!(code, Some(0), "{said}");
        for seen in [
            r#"["hithe-mtls-subject-cn","ada "#,
            r#"["hithe-mtls-subject-alt-name-dns","ada.example"]"#,
            r#"["hithe-mtls-email-addresses","ada@example.com"]"#,
            r#"["hithe-mtls-serial-number","12ab"]"#,
        ] {
            assert!(said.contains(seen), "{seen} is not in {said}");
        }
        assert!(!said.contains("root"), "{said}");
    }
    let before = origin.requests();
    assert_ne!(curl(&server, None, &[]).await.0, Some(0));
    let mallory = theirs.sign(server.folder(), |_| {});
    assert_ne!(curl(&server, Some(&mallory), &[]).await.0, Some(0));
    let expired = ours.sign(server.folder(), |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    assert_ne!(curl(&server, Some(&expired), &[]).await.0, Some(0));
    assert_eq!(origin.requests(), before, "nothing of them reached the upstream");
}

#[tokio::test]
async fn nobody_forges_a_certificate_where_none_is_asked_for() {
    let (server, origin) = (TestServer::start().await, Origin::echoing_requests().await);
    let _ssh = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let reply = server.visitor().header("hithe-mtls-subject-cn", "root").get(URL).await;
    assert_eq!(reply.seen_header("hithe-mtls-subject-cn"), None);
}

#[tokio::test]
async fn a_connection_made_for_another_name_is_misdirected() {
    let (server, origin) = (TestServer::start().await, Origin::replying("secret").await);
    let open = Origin::replying("open").await;
    let ours = Authority::new("ours");
    let words = ["http".to_owned(), "--mutual-tls-cas".to_owned(), ours.pem()];
    let _guarded = server.ssh().forward_to("app:443", &origin).command_words(words).publish().await;
    let _open = server.ssh().forward_to("open:443", &open).command("http").publish().await;
    let mut connection = server.visitor().http2().connection("https://open.localhost/").await;
    assert_eq!(connection.get("https://open.localhost/").await.text(), "open");
    let reply = connection.send(Method::GET, URL, "").await;
    assert_eq!((reply.status(), reply.code()), (421, Some("ERR_HITHE_1421")));
    let request = "GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n";
    let answer = server.visitor().raw_tls("open.localhost", request).await;
    assert!(answer.starts_with(b"HTTP/1.1 421"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn each_connection_shows_its_certificate_and_no_session_stands_for_one() {
    let (server, origin) = (TestServer::start().await, Origin::echoing_requests().await);
    let ours = Authority::new("ours");
    let words = ["http".to_owned(), "--mutual-tls-cas".to_owned(), ours.pem()];
    let _ssh = server.ssh().forward_to("app:443", &origin).command_words(words).publish().await;
    let _open = server.ssh().forward_to("open:443", &origin).command("http").publish().await;
    let ada = ours.sign(server.folder(), |_| {});
    let session = server.folder().join("session");
    let session = session.to_str().unwrap();
    let with_certificate =
        ["-cert", ada.0.to_str().unwrap(), "-key", ada.1.to_str().unwrap(), "-sess_out", session];
    for version in ["-tls1_2", "-tls1_3"] {
        let first = s_client(&server, "app.localhost", &[&[version], &with_certificate[..]].concat()).await;
        assert!(first.contains("hithe-mtls-subject-cn"), "{first}");
        let resumed = s_client(&server, "app.localhost", &[version, "-sess_in", session]).await;
        assert!(!resumed.contains("HTTP/1.1 200"), "a session would outlive its certificate: {resumed}");
        // A session of the open endpoint opens nothing here.
        s_client(&server, "open.localhost", &[version, "-sess_out", session]).await;
        let carried_over = s_client(&server, "app.localhost", &[version, "-sess_in", session]).await;
        assert!(!carried_over.contains("HTTP/1.1 200"), "{carried_over}");
    }
}

/// What `openssl s_client` shows of a GET.
async fn s_client(server: &TestServer, name: &str, more: &[&str]) -> String {
    let address = server.https_address().to_string();
    let ca = server.ca();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address, "-servername", name, "-CAfile", ca.to_str().unwrap()]);
    command.arg("-ign_eof").args(more);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("openssl starts");
    let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    let mut stdin = child.stdin.take().unwrap();
    // It may have ended already.
    let _ = stdin.write_all(request.as_bytes()).await;
    let output = hithe_integration::within("openssl", child.wait_with_output()).await.unwrap();
    drop(stdin);
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn an_older_tls_than_asked_for_is_refused() {
    let (server, origin) = (TestServer::start().await, Origin::replying("hello").await);
    let _ssh =
        server.ssh().forward_to("app:443", &origin).command("http --tls-min-version 1.3").publish().await;
    assert!(s_client(&server, "app.localhost", &["-tls1_3"]).await.contains("200 OK"));
    assert!(!s_client(&server, "app.localhost", &["-tls1_2"]).await.contains("200 OK"));
}

#[tokio::test]
async fn a_tls_endpoint_may_end_at_the_server() {
    let server = TestServer::start().await;
    let origin = Origin::replying("plain inside").await;
    let command = "tls --terminate-at edge --tls-min-version 1.3";
    let mut ssh = server.ssh().forward_to("app:443", &origin).command(command).publish().await;
    assert!(ssh.url().await.starts_with("tls://app.localhost"));
    let said = s_client(&server, "app.localhost", &["-tls1_3"]).await;
    assert!(said.contains("plain inside") && said.contains("Verify return code: 0"), "{said}");
    let secure = Origin::http().tls("inner").replying("encrypted anew").await;
    let command = "tls --terminate-at edge --upstream-tls";
    let _again = server.ssh().forward_to("anew:443", &secure).command(command).publish().await;
    assert!(s_client(&server, "anew.localhost", &[]).await.contains("encrypted anew"));
}

#[tokio::test]
async fn a_publisher_may_bring_a_certificate_in_pem_or_base64() {
    let server = TestServer::with(|options| options.arg("--allow-domain").arg("shop.example")).await;
    let origin = Origin::replying("hello").await;
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["shop.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (pem, secret) = (certificate.pem(), key.serialize_pem());
    let pack = |text: &str| {
        let mut command = std::process::Command::new("base64");
        let file = server.folder().join("pack");
        std::fs::write(&file, text).unwrap();
        String::from_utf8(command.arg("-w0").arg(file).output().unwrap().stdout).unwrap()
    };
    let file = server.folder().join("shop.pem");
    std::fs::write(&file, &pem).unwrap();
    for (crt, key) in [(pem.clone(), secret.clone()), (pack(&pem), pack(&secret))] {
        let words = ["http".to_owned(), "--crt".to_owned(), crt, "--key".to_owned(), key];
        let mut ssh =
            server.ssh().forward_to("shop.example:443", &origin).command_words(words).publish().await;
        let reply = server.visitor().trusting(&file).get("https://shop.example/").await;
        assert_eq!(reply.text(), "hello");
        assert!(!(ssh.stdout() + &server.log()).contains("PRIVATE"));
        ssh.kill().await;
    }
    let other = KeyPair::generate().unwrap().serialize_pem();
    let words = ["http".to_owned(), "--crt".to_owned(), pem, "--key".to_owned(), other];
    let refused = server.ssh().forward_to("app:443", &origin).command_words(words).run().await;
    assert!(refused.stdout.contains("do not belong together"), "{}", refused.output());
}

#[tokio::test]
async fn authorities_and_certificates_may_be_known_to_the_server_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    std::fs::write(folder.path().join("corp.pem"), ours.pem()).unwrap();
    let server = TestServer::with(|options| options.arg("--client-cas").arg(folder.path())).await;
    let origin = Origin::replying("hello").await;
    let command = "http --mutual-tls-cas corp";
    let _ssh = server.ssh().forward_to("app:443", &origin).command(command).publish().await;
    let ada = ours.sign(server.folder(), |_| {});
    assert_eq!(curl(&server, Some(&ada), &[]).await, (Some(0), "hello".to_owned()));
    assert_ne!(curl(&server, None, &[]).await.0, Some(0));
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_code() {
    let (server, origin) = (TestServer::start().await, Origin::absent().await);
    let no_authority = {
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
    };
    let refusals: [(&str, Vec<&str>, &str); 10] = [
        ("443", vec!["tls", "--mutual-tls-cas", "corp"], "ERR_HITHE_1694"),
        ("443", vec!["http", "--schemes", "http,https", "--mutual-tls-cas", "corp"], "ERR_HITHE_1694"),
        ("443", vec!["http", "--mutual-tls-cas", "corp"], "ERR_HITHE_1695"),
        ("443", vec!["http", "--mutual-tls-cas", &no_authority], "ERR_HITHE_1696"),
        ("443", vec!["tls", "--tls-min-version", "1.3"], "ERR_HITHE_1632"),
        ("443", vec!["http", "--tls-min-version", "1.1"], "ERR_HITHE_224"),
        ("443", vec!["tls", "--terminate-at", "agent"], "ERR_HITHE_1109"),
        ("443", vec!["http", "--crt", "/etc/cert.pem"], "base64 -w0"),
        ("443", vec!["http", "--crt", "corp"], "ERR_HITHE_1633"),
        ("443", vec!["tls", "--upstream-tls"], "needs --terminate-at edge"),
    ];
    for (bind, words, said) in refusals {
        let refused = server.ssh().forward_to(bind, &origin).command_words(words.clone()).run().await;
        assert!(refused.stdout.contains(said), "{words:?}: {}", refused.output());
        assert!(matches!(refused.code, Some(1 | 2)));
    }
    let ours = Authority::new("ours").pem();
    let refused =
        server.ssh().forward_to("80", &origin).command_words(["http", "--mutual-tls-cas", &ours]).run().await;
    assert!(refused.stdout.contains("ERR_HITHE_1694"), "{}", refused.output());
}
