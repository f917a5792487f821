//! TLS that ends at the server as its publisher wants it: where, from which version on, with whose certificate.

use std::path::{Path, PathBuf};

use hithe_integration::{Origin, TestServer};
use rcgen::{CertificateParams, KeyPair};

/// A self-signed certificate for these names and its key, in PEM.
fn pair(names: &[&str]) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    (CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// What `base64 -w0` of the file prints.
fn packed(folder: &Path, text: &str) -> String {
    let file = written(folder, "pack", text);
    let output = std::process::Command::new("base64").arg("-w0").arg(file).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, text).unwrap();
    file
}

#[tokio::test]
async fn an_older_tls_than_asked_for_is_refused() {
    let (server, origin) = (TestServer::start().await, Origin::replying("hello").await);
    for command in ["http --tls-min-version 1.3", "tls --terminate-at edge --tls-min-version 1.3"] {
        let mut ssh = server.ssh().forward_to("app:443", &origin).command(command).publish().await;
        assert!(server.visitor().s_client("app.localhost", &["-tls1_3"]).await.contains("200 OK"));
        let before = origin.connections();
        let refused = server.visitor().s_client("app.localhost", &["-tls1_2"]).await;
        assert!(refused.contains("protocol version") && !refused.contains("200 OK"), "{refused}");
        assert_eq!(origin.connections(), before);
        ssh.kill().await;
    }
    let command = "http --tls-min-version 1.2";
    let _ssh = server.ssh().forward_to("app:443", &origin).command(command).publish().await;
    assert!(server.visitor().s_client("app.localhost", &["-tls1_2"]).await.contains("200 OK"));
}

#[tokio::test]
async fn a_tls_endpoint_may_end_at_the_server() {
    let server = TestServer::start().await;
    let origin = Origin::replying("plain inside").await;
    let command = "tls --terminate-at edge";
    let mut ssh = server.ssh().forward_to("app:443", &origin).command(command).publish().await;
    assert!(ssh.url().await.starts_with("tls://app.localhost"));
    for version in ["-tls1_2", "-tls1_3"] {
        let said = server.visitor().s_client("app.localhost", &[version, "-alpn", "h2,http/1.1"]).await;
        assert!(said.contains("plain inside") && said.contains("Verify return code: 0"), "{said}");
        assert!(said.contains("No ALPN negotiated"), "{said}");
    }
    let secure = Origin::http().tls("inner").replying("encrypted anew").await;
    let command = "tls --terminate-at edge --upstream-tls";
    let _again = server.ssh().forward_to("anew:443", &secure).command(command).publish().await;
    assert!(server.visitor().s_client("anew.localhost", &[]).await.contains("encrypted anew"));
}

#[tokio::test]
async fn a_publisher_may_bring_a_certificate_in_pem_or_base64() {
    let server = TestServer::with(|options| {
        options.arg("--allow-domain").arg("shop.example").env("HITHED_LOG_LEVEL", "debug")
    })
    .await;
    let origin = Origin::replying("hello").await;
    let (pem, key) = pair(&["shop.example"]);
    let file = written(server.folder(), "shop.pem", &pem);
    let (packed_pem, packed_key) = (packed(server.folder(), &pem), packed(server.folder(), &key));
    for (command, crt, key) in [
        ("http", &pem, &key),
        ("http", &packed_pem, &packed_key),
        ("http", &pem, &packed_key),
        // With a certificate, TLS ends at the server.
        ("tls", &pem, &key),
    ] {
        let words = [command, "--crt", crt, "--key", key];
        let mut ssh =
            server.ssh().forward_to("shop.example:443", &origin).command_words(words).publish().await;
        let said = server.visitor().trusting(&file).s_client("shop.example", &[]).await;
        assert!(said.contains("hello") && said.contains("Verify return code: 0"), "{said}");
        let told = ssh.output() + &server.log();
        let of_the_key = [packed_key.get(60..100), key.lines().nth(1)];
        assert!(!of_the_key.into_iter().flatten().any(|part| told.contains(part)), "{told}");
        ssh.kill().await;
    }
    // Without one, the name outside of the server's domain has none.
    let refused = server.ssh().forward_to("shop.example:443", &origin).command("http").run().await;
    assert!(refused.code == Some(1) && refused.stdout.contains("ERR_HITHE_319"), "{}", refused.output());
    // A certificate gives no leave to publish under its name.
    let (foreign, key) = pair(&["bank.example"]);
    let words = ["http", "--crt", &foreign, "--key", &key];
    let refused = server.ssh().forward_to("bank.example:443", &origin).command_words(words).run().await;
    assert!(refused.code.is_some_and(|code| code != 0), "{}", refused.output());
    assert!(refused.output().contains("ERR_HITHE_319"), "{}", refused.output());
}

#[tokio::test]
async fn a_certificate_of_the_operator_is_named_by_who_has_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let [chosen, wild, deep, foreign] =
        [&["app.localhost"], &["*.localhost"], &["*.app.localhost"], &["other.localhost"]].map(|it| pair(it));
    for (name, (pem, key)) in [("chosen", &chosen), ("wild", &wild), ("deep", &deep), ("foreign", &foreign)] {
        written(folder.path(), &format!("{name}/fullchain.pem"), pem);
        written(folder.path(), &format!("{name}/privkey.pem"), key);
    }
    let server = TestServer::with(|options| options.arg("--certificates").arg(folder.path())).await;
    let origin = Origin::replying("hello").await;
    for (command, name, shown) in [
        ("http", "chosen", &chosen),
        ("http", "wild", &wild),
        ("tls", "chosen", &chosen),
        ("tls", "wild", &wild),
    ] {
        let words = format!("{command} --crt {name}");
        let mut ssh = server.ssh().forward_to("app:443", &origin).command(&words).publish().await;
        let file = written(server.folder(), "shown.pem", &shown.0);
        let said = server.visitor().trusting(&file).s_client("app.localhost", &[]).await;
        assert!(said.contains("hello") && said.contains("Verify return code: 0"), "{words}: {said}");
        ssh.kill().await;
    }
    for (bind, words) in [
        ("app:443", "http --crt foreign"),
        ("app:443", "http --crt deep"),
        ("app:443", "tls --crt foreign"),
        ("app:443", "http --crt no-such-folder"),
        ("app:443", "http --crt .."),
        ("*.app.localhost:443", "http --crt wild"),
        ("443", "http --crt chosen"),
    ] {
        let refused = server.ssh().forward_to(bind, &origin).command(words).run().await;
        assert!(matches!(refused.code, Some(1 | 2)), "{words}: {}", refused.output());
        let code = if words.ends_with("..") { "ERR_HITHE_1110" } else { "ERR_HITHE_1633" };
        assert!(refused.stdout.contains(code), "{words}: {}", refused.output());
    }
    let _ssh =
        server.ssh().forward_to("*.app.localhost:443", &origin).command("http --crt deep").publish().await;
}

#[tokio::test]
async fn a_connection_made_for_another_name_does_not_get_around_the_demands() {
    let (server, origin) = (TestServer::start().await, Origin::replying("hello").await);
    let strict = "http --tls-min-version 1.3";
    let _strict = server.ssh().forward_to("strict:443", &origin).command(strict).publish().await;
    let raw = "tls --terminate-at edge";
    let _raw = server.ssh().forward_to("raw:443", &origin).command(raw).publish().await;
    let _open = server.ssh().forward_to("open:443", &origin).command("http").publish().await;
    for (name, host) in [
        ("open.localhost", "strict.localhost"),
        ("open.localhost", "raw.localhost"),
        ("strict.localhost", "raw.localhost"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = server.visitor().raw_tls(name, request).await;
        assert!(answer.starts_with(b"HTTP/1.1 421"), "{host}: {}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_code() {
    let (server, origin) = (TestServer::start().await, Origin::absent().await);
    let ((crt, key), (other, _)) = (pair(&["app.localhost"]), pair(&["app.localhost"]));
    let refusals: [(&str, Vec<&str>, &str, i32); 14] = [
        ("443", vec!["tls", "--tls-min-version", "1.3"], "ERR_HITHE_1632", 2),
        ("443", vec!["http", "--tls-min-version", "1.1"], "ERR_HITHE_224", 2),
        ("443", vec!["tls", "--terminate-at", "agent"], "ERR_HITHE_1109", 2),
        ("443", vec!["http", "--terminate-at", "upstream"], "use the command tls", 2),
        ("443", vec!["http", "--crt", "/etc/cert.pem"], "base64 -w0", 2),
        ("443", vec!["http", "--crt", "corp"], "ERR_HITHE_1633", 1),
        ("443", vec!["http", "--crt", &crt], "needs its private key", 2),
        ("443", vec!["http", "--key", &key], "ERR_HITHE_1633", 2),
        ("443", vec!["http", "--crt", &other, "--key", &key], "ERR_HITHE_1633", 1),
        ("443", vec!["tls", "--terminate-at", "upstream", "--crt", &crt, "--key", &key], "ERR_HITHE_1633", 2),
        ("443", vec!["tls", "--upstream-tls"], "needs --terminate-at edge", 2),
        ("80", vec!["http", "--crt", &crt, "--key", &key], "ERR_HITHE_1633", 1),
        ("80", vec!["http", "--tls-min-version", "1.3"], "ERR_HITHE_1632", 1),
        ("0", vec!["tcp", "--terminate-at", "edge"], "ERR_HITHE_1110", 2),
    ];
    for (bind, words, said, code) in refusals {
        let refused = server.ssh().forward_to(bind, &origin).command_words(words.clone()).run().await;
        assert!(refused.stdout.contains(said), "{words:?}: {}", refused.output());
        assert_eq!(refused.code, Some(code), "{words:?}: {}", refused.output());
        assert!(!refused.output().contains(key.lines().nth(1).unwrap()));
    }
}
