//! Visitors with certificates: who gets in, what the upstream learns, and no way around it.

use std::path::{Path, PathBuf};

use hithe_integration::{Child, Origin, TestServer, eventually};
use http::Method;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, SerialNumber,
};

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

    /// A command that admits its visitors.
    fn command(&self) -> [String; 3] {
        ["http".to_owned(), "--mutual-tls-cas".to_owned(), self.pem()]
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
        let folder = tempfile::tempdir_in(folder).unwrap().keep();
        let paths = (folder.join("client.pem"), folder.join("client.key"));
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }
}

async fn publish(server: &TestServer, ours: &Authority, origin: &Origin) -> Child {
    server.ssh().forward_to("app:443", origin).command_words(ours.command()).publish().await
}

#[tokio::test]
async fn only_visitors_with_a_certificate_of_the_authority_get_in_and_the_upstream_learns_who() {
    let (server, origin) = (TestServer::start().await, Origin::echoing_requests().await);
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let _ssh = publish(&server, &ours, &origin).await;
    let ada = ours.sign(server.folder(), |_| {});
    for flags in [["--http1.1", "--tlsv1.3"], ["--http2", "--tlsv1.3"], ["--http2", "--tls-max=1.2"]] {
        let flags = flags.map(|flag| flag.split('=').collect::<Vec<_>>()).concat();
        let forged = ["-H", "hithe-mtls-subject-cn: root", "-H", "hithe_mtls_subject_cn: root", URL];
        let curl = server.visitor().showing(&ada).curl(flags.into_iter().chain(forged)).await;
        assert_eq!(curl.code, Some(0), "{}", curl.stderr);
        for seen in [
            r#"["hithe-mtls-subject-cn","ada %C3%A9 lovelace"]"#,
            r#"["hithe-mtls-subject-alt-name-dns","ada.example"]"#,
            r#"["hithe-mtls-email-addresses","ada@example.com"]"#,
            r#"["hithe-mtls-serial-number","12ab"]"#,
        ] {
            assert!(curl.stdout.contains(seen), "{seen} is not in {}", curl.stdout);
        }
        assert!(!curl.stdout.contains("root"), "{}", curl.stdout);
    }
    let before = origin.requests();
    let mallory = theirs.sign(server.folder(), |_| {});
    let expired = ours.sign(server.folder(), |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let visitor = server.visitor();
    for refused in [visitor.clone(), visitor.clone().showing(&mallory), visitor.showing(&expired)] {
        for version in ["1.2", "1.3"] {
            let curl = refused.curl(["--tls-max", version, URL]).await;
            assert!(
                matches!(curl.code, Some(35 | 56 | 98)),
                "a failed handshake, not {:?}: {}",
                curl.code,
                curl.stderr
            );
        }
    }
    assert_eq!(origin.requests(), before, "nothing of them reached the upstream");
}

#[tokio::test]
async fn nobody_forges_a_certificate_where_none_is_asked_for() {
    let (server, origin) = (TestServer::start().await, Origin::echoing_requests().await);
    let command = "http --schemes http,https";
    let _ssh = server.ssh().forward_to("app:443", &origin).command(command).publish().await;
    for url in [URL, "http://app.localhost/"] {
        let visitor = server.visitor().header("hithe-mtls-subject-cn", "root");
        let reply = visitor.header("Hithe_Mtls_Serial-Number", "root").get(url).await;
        assert!(!reply.text().contains("root"), "{}", reply.text());
    }
}

#[tokio::test]
async fn a_websocket_is_opened_with_a_certificate() {
    use futures_util::{SinkExt, StreamExt};
    let (server, origin) = (TestServer::start().await, Origin::websocket_echo().await);
    let ours = Authority::new("ours");
    let _ssh = publish(&server, &ours, &origin).await;
    let ada = ours.sign(server.folder(), |_| {});
    let mut socket = server.visitor().showing(&ada).websocket("wss://app.localhost/").await;
    socket.send("hello".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "hello");
}

#[tokio::test]
async fn a_connection_made_for_another_name_or_for_none_is_misdirected() {
    let (server, origin) = (TestServer::start().await, Origin::replying("secret").await);
    let open = Origin::replying("open").await;
    let _guarded = publish(&server, &Authority::new("ours"), &origin).await;
    let _open = server.ssh().forward_to("open:443", &open).command("http").publish().await;
    let mut connection = server.visitor().http2().connection("https://open.localhost/").await;
    assert_eq!(connection.get("https://open.localhost/").await.text(), "open");
    let reply = connection.send(Method::GET, URL, "").await;
    assert_eq!((reply.status(), reply.code()), (421, Some("ERR_HITHE_1421")));
    assert_eq!(connection.get("https://open.localhost/").await.text(), "open", "it goes on for its own name");
    let request = "GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n";
    let answer = server.visitor().raw_tls("open.localhost", request).await;
    assert!(answer.starts_with(b"HTTP/1.1 421"), "{}", String::from_utf8_lossy(&answer));
    // No server name is sent for an address.
    let nameless = ["-i", "--http1.1", "-H", "Host: app.localhost", "https://127.0.0.1/"];
    let curl = server.visitor().insecure().curl(nameless).await;
    assert!(curl.stdout.starts_with("HTTP/1.1 421"), "{}{}", curl.stdout, curl.stderr);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_kept_connection_does_not_reach_the_endpoint_that_took_the_name_over() {
    let (server, origin) = (TestServer::start().await, Origin::replying("hello").await);
    let ours = Authority::new("ours");
    let ada = ours.sign(server.folder(), |_| {});
    let mut ssh = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let mut kept = server.visitor().http2().connection(URL).await;
    assert_eq!(kept.get(URL).await.text(), "hello");
    // The endpoint of the same name asks for a certificate now, then again with the same demands.
    for visitor in [server.visitor(), server.visitor().http2(), server.visitor()] {
        ssh.kill().await;
        ssh = publish(&server, &ours, &origin).await;
        let before = origin.requests();
        let reply = kept.get(URL).await;
        assert_eq!((reply.status(), reply.code()), (421, Some("ERR_HITHE_1421")));
        assert_eq!(origin.requests(), before);
        eventually("the connection that is of no more use is closed", || kept.is_closed().then_some(()))
            .await;
        kept = visitor.showing(&ada).connection(URL).await;
        assert_eq!(kept.get(URL).await.text(), "hello");
    }
}

#[tokio::test]
async fn no_session_stands_for_a_certificate() {
    let (server, origin) = (TestServer::start().await, Origin::echoing_requests().await);
    let ours = Authority::new("ours");
    let _ssh = publish(&server, &ours, &origin).await;
    let _open = server.ssh().forward_to("open:443", &origin).command("http").publish().await;
    let ada = ours.sign(server.folder(), |_| {});
    let file = server.folder().join("session");
    let session = file.to_str().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let visitor = server.visitor().showing(&ada);
        let first = visitor.s_client("app.localhost", &[version, "-sess_out", session]).await;
        assert!(first.contains("hithe-mtls-subject-cn"), "{first}");
        if file.exists() {
            let again = server.visitor().s_client("app.localhost", &[version, "-sess_in", session]).await;
            assert!(!again.contains("HTTP/1.1 200"), "{again}");
        }
        server.visitor().s_client("open.localhost", &[version, "-sess_out", session]).await;
        assert!(file.exists(), "an open endpoint has sessions");
        let carried_over = server.visitor().s_client("app.localhost", &[version, "-sess_in", session]).await;
        assert!(!carried_over.contains("HTTP/1.1 200"), "{carried_over}");
        std::fs::remove_file(&file).unwrap();
    }
}

#[tokio::test]
async fn raw_bytes_inside_tls_are_for_visitors_with_a_certificate_too() {
    let (server, origin) = (TestServer::start().await, Origin::replying("plain inside").await);
    let ours = Authority::new("ours");
    let words = ["tls", "--terminate-at", "edge", "--mutual-tls-cas", &ours.pem()].map(str::to_owned);
    let _ssh = server.ssh().forward_to("app:443", &origin).command_words(words).publish().await;
    let ada = ours.sign(server.folder(), |_| {});
    for version in ["-tls1_2", "-tls1_3"] {
        let said = server.visitor().showing(&ada).s_client("app.localhost", &[version]).await;
        assert!(said.contains("plain inside"), "{said}");
        let before = origin.connections();
        let refused = server.visitor().s_client("app.localhost", &[version]).await;
        assert!(!refused.contains("plain inside") && origin.connections() == before, "{refused}");
    }
}

#[tokio::test]
async fn authorities_may_be_known_to_the_server_by_name_and_come_in_long_lines() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    std::fs::write(folder.path().join("corp.pem"), ours.pem()).unwrap();
    let server = TestServer::with(|options| options.arg("--client-cas").arg(folder.path())).await;
    let origin = Origin::replying("hello").await;
    let ada = ours.sign(server.folder(), |_| {});
    let long = format!("{}\n{}", "# What openssl says of it\n".repeat(1000), ours.pem());
    for named in ["corp", &long] {
        let words = ["http", "--mutual-tls-cas", named];
        let mut ssh = server.ssh().forward_to("app:443", &origin).command_words(words).publish().await;
        assert_eq!(server.visitor().showing(&ada).curl([URL]).await.stdout, "hello");
        assert_ne!(server.visitor().curl([URL]).await.code, Some(0));
        ssh.kill().await;
    }
    let command = "http --mutual-tls-cas crop";
    let refused = server.ssh().forward_to("app:443", &origin).command(command).run().await;
    assert!(
        refused.stdout.contains("ERR_HITHE_1695") && refused.stdout.contains("knows corp"),
        "{}",
        refused.stdout
    );
    let endless = format!("{}{}", "#".repeat(100_000), ours.pem());
    let words = ["http", "--mutual-tls-cas", &endless];
    let refused = server.ssh().forward_to("app:443", &origin).command_words(words).run().await;
    assert!(refused.code == Some(2) && refused.stdout.contains("65536 bytes"), "{}", refused.output());
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_code() {
    let (server, origin) = (TestServer::start().await, Origin::absent().await);
    let ours = Authority::new("ours").pem();
    let no_authority = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let no_authority = no_authority.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let refusals: [(&str, Vec<&str>, &str, i32); 7] = [
        ("443", vec!["tls", "--mutual-tls-cas", &ours], "ERR_HITHE_1694", 2),
        ("443", vec!["http", "--schemes", "http,https", "--mutual-tls-cas", &ours], "ERR_HITHE_1694", 2),
        ("80", vec!["http", "--mutual-tls-cas", &ours], "ERR_HITHE_1694", 1),
        ("443", vec!["http", "--mutual-tls-cas", "corp"], "ERR_HITHE_1695", 1),
        ("443", vec!["http", "--mutual-tls-cas", &no_authority], "ERR_HITHE_1696", 1),
        ("443", vec!["http", "--mutual-tls-cas", "/etc/ca.pem"], "base64 -w0", 2),
        ("0", vec!["tcp", "--mutual-tls-cas", &ours], "ERR_HITHE_1110", 2),
    ];
    for (bind, words, said, code) in refusals {
        let refused = server.ssh().forward_to(bind, &origin).command_words(words.clone()).run().await;
        assert!(refused.stdout.contains(said), "{words:?}: {}", refused.output());
        assert_eq!(refused.code, Some(code), "{words:?}: {}", refused.output());
    }
}
