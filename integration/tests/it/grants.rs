//! Who may publish by OpenSSH's own terms: options of `authorized_keys`, certificates of users and of the server,
//! revocation.

use std::path::{Path, PathBuf};
use std::process::Command;

use hithe_integration::{Origin, TestServer, within};

/// Writes `authorized_keys` anew: lines of options, each before the key of the same place.
async fn authorize(server: &TestServer, lines: &[(&str, &Path)]) {
    let text = lines.iter().map(|(options, key)| format!("{options} {}\n", TestServer::public_half(key)));
    let text: String = text.collect();
    let write = || std::fs::write(server.authorized_keys(), text).unwrap();
    server.logged_after("authorized keys read again", write).await;
}

async fn server_with(options: &str) -> TestServer {
    let server = TestServer::start().await;
    authorize(&server, &[(options, &server.user_key())]).await;
    server
}

/// `ssh-keygen` on a public key: gives the path of the certificate.
fn sign(authority: &Path, key: &Path, arguments: &[&str]) -> PathBuf {
    let done = Command::new("ssh-keygen")
        .args(["-q", "-s"])
        .arg(authority)
        .args(arguments)
        .arg(key.with_extension("pub"))
        .status()
        .unwrap();
    assert!(done.success(), "ssh-keygen signs");
    PathBuf::from(format!("{}-cert.pub", key.display()))
}

#[tokio::test]
async fn permitlisten_says_what_may_be_bound() {
    let server = server_with(r#"permitlisten="app:443",permitlisten="*.ada.localhost:*""#).await;
    let origin = Origin::replying("hello").await;
    let _app = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let _full = server.ssh().forward_to("x.ada.localhost:80", &origin).command("http").publish().await;
    for (bind, command) in [
        ("other:443", "http"),
        ("app:80", "http"),
        ("443", "http"),
        ("0", "tcp"),
        ("app:443", "http --schemes http,https"),
        ("app:443", "http --domain other"),
        ("app:443", "tls --url tls://other"),
    ] {
        let refused = server.ssh().forward_to(bind, &origin).command(command).run().await;
        let told = ["ERR_HITHE_316", "ERR_HITHE_1118"].iter().any(|code| refused.stdout.contains(code));
        assert!(told && refused.code == Some(1), "-R {bind} {command}: {refused:?}");
    }
}

#[tokio::test]
async fn a_key_without_forwarding_asks_and_publishes_nothing() {
    let server = server_with("restrict").await;
    let origin = Origin::replying("hello").await;
    let refused = server.ssh().forward_to("app:443", &origin).command("http").run().await;
    assert!(refused.stdout.contains("ERR_HITHE_316"), "{}", refused.output());
    let who = server.ssh().command("whoami").run().await;
    assert!(who.stdout.contains("May bind  nothing"), "{}", who.output());
}

#[tokio::test]
async fn from_and_expiry_decide_at_the_login() {
    let server = TestServer::start().await;
    let key = server.user_key();
    for (options, admitted) in [
        (r#"from="10.0.0.0/8""#, false),
        (r#"from="127.0.0.0/8,!127.0.0.1""#, false),
        (r#"from="127.0.0.*""#, true),
        (r#"expiry-time="20200101""#, false),
        (r#"expiry-time="20990101Z""#, true),
    ] {
        authorize(&server, &[(options, &key)]).await;
        let who = server.ssh().command("whoami").run().await;
        assert_eq!(who.code == Some(0), admitted, "{options}: {}", who.output());
    }
}

#[tokio::test]
async fn a_forced_command_runs_whatever_the_client_asks_for() {
    let server = server_with(r#"command="http --basic-auth ada:correct-horse",no-pty"#).await;
    let origin = Origin::replying("hello").await;
    for asked in ["http", "tcp", "whoami"] {
        let ssh = server.ssh().forward_to("app:443", &origin).command(asked);
        let mut ssh = ssh.publish().await;
        assert!(ssh.output().contains(&format!("SSH_ORIGINAL_COMMAND={asked}")), "{}", ssh.output());
        assert_eq!(server.visitor().get("https://app.localhost/").await.status(), 401, "{asked}");
        ssh.interrupt().await;
        ssh.wait().await;
    }
    // Without a session, and with a command in the user name.
    let _silent = server.ssh().user("tcp").without_session().forward_to("app:443", &origin).spawn();
    let reply = server.visitor().get_when_public("https://app.localhost/").await;
    assert_eq!(reply.status(), 401);
}

#[tokio::test]
async fn keys_of_one_account_share_their_names_and_others_do_not() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let [second, stranger] = ["second", "stranger"].map(|name| server.another_key(name, "ed25519"));
    let own = server.user_key();
    let lines =
        [(r#"account="ada""#, &*own), (r#"account="ada""#, &*second), (r#"account="bob""#, &*stranger)];
    authorize(&server, &lines).await;
    let mut first = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    first.interrupt().await;
    first.wait().await;
    let refused = server.ssh().key(&stranger).forward_to("app:443", &origin).command("http").run().await;
    assert!(refused.stdout.contains("ERR_HITHE_334"), "{}", refused.output());
    let _again = server.ssh().key(&second).forward_to("app:443", &origin).command("http").publish().await;
}

/// A server that trusts an authority, which has signed nothing yet.
async fn server_with_authority(more: &str) -> (TestServer, PathBuf) {
    let folder = tempfile::tempdir().unwrap().keep();
    let authority = folder.join("ca");
    hithe_integration::generate_key(&authority, "ed25519");
    let revoked = folder.join("revoked");
    std::fs::write(&revoked, "").unwrap();
    let server = TestServer::with(|options| {
        let options = options.arg("--trusted-user-ca").arg(authority.with_extension("pub"));
        let options = options.arg("--revoked-keys").arg(&revoked);
        more.split_whitespace().fold(options, |options, word| options.arg(word))
    });
    (server.await, authority)
}

#[tokio::test]
async fn a_certificate_lets_its_holder_in_as_its_principal() {
    let (server, authority) = server_with_authority("").await;
    let origin = Origin::replying("hello").await;
    let key = server.another_key("holder", "ed25519");
    sign(&authority, &key, &["-I", "ada laptop", "-n", "ada", "-V", "+1h", "-z", "7"]);
    let who = server.ssh().key(&key).command("whoami").run().await;
    assert!(who.stdout.contains("Account   ada") && who.stdout.contains("serial 7"), "{}", who.output());
    let _web = server.ssh().key(&key).forward_to("app:443", &origin).command("http").publish().await;
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "hello");
    // Another key with the same principal is the same account.
    let second = server.another_key("second", "ecdsa");
    sign(&authority, &second, &["-I", "ada desk", "-n", "ada"]);
    let _same = server.ssh().key(&second).forward_to("app:443", &origin).command("http").publish().await;
}

#[tokio::test]
async fn what_a_certificate_does_not_permit_is_refused() {
    let (server, authority) = server_with_authority("").await;
    let other = server.another_key("other-ca", "ed25519");
    for (number, (authority, arguments)) in [
        (&authority, vec!["-n", "ada", "-V", "20200101:20200102"]),
        (&authority, vec!["-n", "ada", "-V", "20990101:20990102"]),
        (&authority, vec!["-n", "ada", "-O", "source-address=10.0.0.0/8"]),
        (&authority, vec!["-n", "ada", "-O", "critical:unknown@example.com=1"]),
        (&authority, vec![]),
        (&authority, vec!["-h", "-n", "ada"]),
        (&other, vec!["-n", "ada"]),
    ]
    .into_iter()
    .enumerate()
    {
        let key = server.another_key(&format!("key-{number}"), "ed25519");
        sign(authority, &key, &[&["-I", "id"], arguments.as_slice()].concat());
        let refused = server.ssh().key(&key).command("whoami").run().await;
        assert_eq!(refused.code, Some(255), "{arguments:?}: {}", refused.output());
    }
    // And the server lets others in meanwhile.
    assert_eq!(server.ssh().command("whoami").run().await.code, Some(0));
}

#[tokio::test]
async fn the_options_of_a_certificate_hold() {
    let (server, authority) = server_with_authority("").await;
    let origin = Origin::replying("hello").await;
    let forced = server.another_key("forced", "ed25519");
    let command = "force-command=http --basic-auth ada:correct-horse";
    sign(&authority, &forced, &["-I", "id", "-n", "ada", "-O", command]);
    let _web = server.ssh().key(&forced).forward_to("app:443", &origin).command("http").publish().await;
    assert_eq!(server.visitor().get("https://app.localhost/").await.status(), 401);
    let closed = server.another_key("closed", "ed25519");
    sign(&authority, &closed, &["-I", "id", "-n", "ada", "-O", "no-port-forwarding"]);
    let refused = server.ssh().key(&closed).forward_to("b:443", &origin).command("http").run().await;
    assert!(refused.stdout.contains("ERR_HITHE_316"), "{}", refused.output());
}

#[tokio::test]
async fn principals_that_are_names_are_what_may_be_bound() {
    let (server, authority) = server_with_authority("").await;
    let origin = Origin::replying("hello").await;
    let key = server.another_key("holder", "ed25519");
    sign(&authority, &key, &["-I", "id", "-n", "ada,*.ada.localhost,app.localhost"]);
    for bind in ["x.ada.localhost:443", "app:443"] {
        let _web = server.ssh().key(&key).forward_to(bind, &origin).command("http").publish().await;
    }
    for (bind, command) in [("other:443", "http"), ("443", "http"), ("0", "tcp")] {
        let refused = server.ssh().key(&key).forward_to(bind, &origin).command(command).run().await;
        assert!(refused.stdout.contains("may not bind"), "{bind}: {}", refused.output());
    }
}

#[tokio::test]
async fn what_is_revoked_is_out_at_once() {
    let (server, authority) = server_with_authority("").await;
    let origin = Origin::replying("hello").await;
    let key = server.another_key("holder", "ed25519");
    let certificate = sign(&authority, &key, &["-I", "id", "-n", "ada", "-z", "5"]);
    let mut web = server.ssh().key(&key).forward_to("app:443", &origin).command("http").publish().await;
    let list = authority.with_file_name("revoked");
    let done = Command::new("ssh-keygen").arg("-kf").arg(&list).arg(&certificate).status().unwrap();
    assert!(done.success());
    assert_eq!(web.wait().await.code(), Some(255));
    assert_eq!(server.ssh().key(&key).command("whoami").run().await.code, Some(255));
    assert_eq!(server.ssh().command("whoami").run().await.code, Some(0));
    // A list that cannot be read lets nobody in.
    std::fs::write(&list, "SSHKRL\n\0broken").unwrap();
    let out = async { while server.ssh().command("whoami").run().await.code != Some(255) {} };
    within("everybody is out", out).await;
}

#[tokio::test]
async fn a_client_that_trusts_an_authority_knows_the_server_by_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let [authority, host] = ["ca", "host"].map(|name| folder.path().join(name));
    hithe_integration::generate_key(&authority, "ed25519");
    hithe_integration::generate_key(&host, "ed25519");
    sign(&authority, &host, &["-I", "the server", "-h", "-n", "127.0.0.1"]);
    let server = TestServer::with(|options| options.arg("--host-key").arg(&host)).await;
    let known = folder.path().join("known_hosts");
    let line = format!("@cert-authority * {}\n", TestServer::public_half(&authority));
    std::fs::write(&known, line).unwrap();
    let strict = format!("UserKnownHostsFile={}", known.display());
    // Of options that are given twice ssh takes the first.
    let who = server.ssh().first_option(&strict).first_option("StrictHostKeyChecking=yes").command("whoami");
    let who = who.run().await;
    assert_eq!(who.code, Some(0), "{}", who.output());
}
