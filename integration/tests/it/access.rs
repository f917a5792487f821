//! Accounts, keys and tokens of the database: who may publish what, and who may say so.

use std::path::{Path, PathBuf};

use hithe_integration::{Finished, OpenSsh, Origin, TestServer};

/// A server whose own key is that of ada, an admin, and nothing else is let in.
async fn server_of_ada() -> TestServer {
    let server = TestServer::with(|options| options.without_keys()).await;
    server.admin("accounts add ada --admin --description 'Ada L'");
    add_key(&server, "ada", &server.user_key(), "");
    server
}

fn add_key(server: &TestServer, account: &str, key: &Path, more: &str) {
    server.admin(&format!("keys add {account} '{}' {more}", TestServer::public_half(key)));
}

/// Bob with a key of his own.
async fn bob(server: &TestServer, rules: &str) -> PathBuf {
    server.admin("accounts add bob");
    let key = server.another_key("bob", "ed25519");
    add_key(server, "bob", &key, rules);
    ask_as(server, &key, "whoami").await;
    key
}

/// Runs a command about the server and gives what it prints. The server looks for changes every two seconds, so that
/// a login that follows one may have to be tried again.
async fn ask(server: &TestServer, line: &str) -> String {
    ask_as(server, &server.user_key(), line).await
}

async fn ask_as(server: &TestServer, key: &Path, line: &str) -> String {
    admitted(|| server.ssh().key(key).command(line)).await.stdout
}

/// What ssh said when the server knew of whom it is: what was written beside it, it sees a moment later.
async fn admitted(ssh: impl Fn() -> OpenSsh) -> Finished {
    hithe_integration::within("the login", async {
        loop {
            let done = ssh().run().await;
            if done.code != Some(255) {
                return done;
            }
        }
    })
    .await
}

async fn publish_as(
    server: &TestServer,
    key: &Path,
    bind: &str,
    origin: &Origin,
) -> hithe_integration::Child {
    ask_as(server, key, "whoami").await;
    server.ssh().key(key).forward_to(bind, origin).command("http").publish().await
}

#[tokio::test]
async fn an_admin_runs_the_server_over_ssh() {
    let server = server_of_ada().await;
    let key = server.another_key("bob", "ed25519");
    assert!(
        ask(&server, "accounts add bob --description 'the other one'").await.contains("account bob made")
    );
    let line = format!("keys add bob {}", TestServer::public_half(&key));
    assert!(ask(&server, &line).await.contains("may log in as bob"));
    let who = server.ssh().key(&key).command("whoami").run().await;
    assert!(who.stdout.contains("Account   bob") && who.stdout.contains("Admin     no"), "{}", who.output());
    let accounts: serde_json::Value =
        serde_json::from_str(&ask(&server, "accounts list --json").await).unwrap();
    assert_eq!(
        (&accounts[0]["account"], &accounts[1]["description"]),
        (&"ada".into(), &"the other one".into())
    );
}

#[tokio::test]
async fn what_only_admins_may_is_refused_to_others_and_written_down() {
    let server = server_of_ada().await;
    let key = bob(&server, "").await;
    ask(&server, "whoami").await;
    for line in
        ["accounts", "accounts add eve", "keys list ada", "tokens add bob", "names reserve a bob", "audit"]
    {
        let refused = server.ssh().key(&key).command(line).run().await;
        assert_eq!(
            (refused.code, refused.stdout.contains("ERR_HITHE_1130")),
            (Some(1), true),
            "{line}: {refused:?}"
        );
    }
    let audit = ask(&server, "audit bob").await;
    assert!(audit.contains("accounts add") && audit.contains("only an admin may do that"), "{audit}");
    assert!(!ask(&server, "accounts").await.contains("eve"));
}

#[tokio::test]
async fn a_key_binds_what_its_rules_allow_and_nothing_else() {
    let server = server_of_ada().await;
    let origin = Origin::replying("hello").await;
    let key = bob(&server, "--acl 'bind:app,bind:*.bob'").await;
    let _app = publish_as(&server, &key, "app:443", &origin).await;
    let _below =
        server.ssh().key(&key).forward_to("x.bob.localhost:443", &origin).command("http").publish().await;
    for (bind, command, code) in [
        ("other:443", "http", "ERR_HITHE_316"),
        ("bob:443", "http", "ERR_HITHE_316"),
        ("443", "http", "ERR_HITHE_316"),
        ("0", "http --domain other.localhost", "ERR_HITHE_316"),
        ("0", "tls --url tls://other.localhost", "ERR_HITHE_316"),
        ("0", "tcp", "ERR_HITHE_356"),
        (&server.tcp_ports().start().to_string(), "tcp", "ERR_HITHE_308"),
    ] {
        let refused = server.ssh().key(&key).forward_to(bind, &origin).command(command).run().await;
        assert!(refused.stdout.contains(code), "-R {bind} {command}: {}", refused.output());
    }
}

#[tokio::test]
async fn a_key_that_is_taken_away_takes_its_sessions_along() {
    let server = server_of_ada().await;
    let origin = Origin::replying("hello").await;
    let key = bob(&server, "").await;
    let mut tunnel = publish_as(&server, &key, "app:443", &origin).await;
    let fingerprint = ask(&server, "keys list bob --json").await;
    let keys: serde_json::Value = serde_json::from_str(&fingerprint).unwrap();
    ask(&server, &format!("keys remove {}", keys[0]["fingerprint"].as_str().unwrap())).await;
    assert_eq!(tunnel.wait().await.code(), Some(255));
    assert!(tunnel.output().contains("no longer what it was"), "{}", tunnel.output());
    assert_eq!(server.ssh().key(&key).command("whoami").run().await.code, Some(255));
    assert_eq!(server.visitor().get("https://app.localhost/").await.status(), 404);
}

#[tokio::test]
async fn a_key_that_leaves_the_file_takes_its_sessions_along() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let key = server.another_key("second", "ed25519");
    let before = std::fs::read_to_string(server.authorized_keys()).unwrap();
    server.authorize(&key);
    server.logged("authorized keys read again").await;
    let mut tunnel = server.ssh().key(&key).forward_to("app:443", &origin).command("http").publish().await;
    let _other = server.ssh().forward_to("other:443", &origin).command("http").publish().await;
    std::fs::write(server.authorized_keys(), before).unwrap();
    assert_eq!(tunnel.wait().await.code(), Some(255));
    assert_eq!(server.visitor().get("https://other.localhost/").await.text(), "hello");
}

#[tokio::test]
async fn a_token_is_typed_in_place_of_a_password() {
    let server = server_of_ada().await;
    let origin = Origin::replying("hello").await;
    server.admin("accounts add ci");
    let token = server.admin("tokens add ci --acl 'bind:build' --expires 1h");
    let token = token.lines().next().unwrap();
    let prompter = server.prompter(token);
    for methods in ["password", "keyboard-interactive"] {
        let methods = format!("PreferredAuthentications={methods}");
        let ssh = || server.ssh().typing(&prompter).option(&methods).command("whoami");
        let who = admitted(ssh).await;
        assert!(who.stdout.contains("Account   ci"), "{methods}: {}", who.output());
    }
    let tunnel =
        server.ssh().typing(&prompter).forward_to("build:443", &origin).command("http").publish().await;
    assert_eq!(server.visitor().get("https://build.localhost/").await.text(), "hello");
    let wrong = server.prompter(&format!("{token}0"));
    let refused = server.ssh().typing(&wrong).command("whoami").run().await;
    assert_eq!(refused.code, Some(255));
    assert!(!server.log().contains(token.rsplit('_').next().unwrap()), "no secret stands in the log");
    drop(tunnel);
}

#[tokio::test]
async fn a_token_that_is_revoked_or_has_expired_admits_nobody() {
    let server = server_of_ada().await;
    server.admin("accounts add ci");
    let [revoked, expired] = ["", "--expires 1s"].map(|more| server.admin(&format!("tokens add ci {more}")));
    let [revoked, expired] = [&revoked, &expired].map(|text| text.lines().next().unwrap());
    ask(&server, &format!("tokens revoke {}", revoked.split('_').nth(1).unwrap())).await;
    let refused = server.ssh().typing(&server.prompter(revoked)).command("whoami").run().await;
    assert_eq!(refused.code, Some(255), "{}", refused.output());
    let expired = server.prompter(expired);
    let refused =
        async { while server.ssh().typing(&expired).command("whoami").run().await.code != Some(255) {} };
    hithe_integration::within("the token expires", refused).await;
}

#[tokio::test]
async fn a_restricted_login_of_an_admin_is_none() {
    let server = server_of_ada().await;
    let key = server.another_key("small", "ed25519");
    add_key(&server, "ada", &key, "--acl 'bind:app'");
    ask(&server, "whoami").await;
    let refused = server.ssh().key(&key).command("tokens add ada").run().await;
    assert!(refused.stdout.contains("ERR_HITHE_1130"), "{}", refused.output());
}

#[tokio::test]
async fn several_keys_of_an_account_have_its_names() {
    let server = server_of_ada().await;
    let origin = Origin::replying("hello").await;
    let second = server.another_key("second", "ed25519");
    add_key(&server, "ada", &second, "");
    let mut tunnel = publish_as(&server, &server.user_key(), "app:443", &origin).await;
    tunnel.interrupt().await;
    tunnel.wait().await;
    let stranger = bob(&server, "").await;
    let refused = server.ssh().key(&stranger).forward_to("app:443", &origin).command("http").run().await;
    assert!(refused.stdout.contains("ERR_HITHE_334"), "{}", refused.output());
    let _again = server.ssh().key(&second).forward_to("app:443", &origin).command("http").publish().await;
}

#[tokio::test]
async fn a_reserved_name_is_for_its_account_alone() {
    let server = server_of_ada().await;
    let origin = Origin::replying("hello").await;
    let key = bob(&server, "").await;
    for what in ["app", "'*.team'", "www"] {
        ask(&server, &format!("names reserve {what} bob")).await;
    }
    let port = *server.tcp_ports().end();
    ask(&server, &format!("names reserve {port} bob")).await;
    for bind in ["app:443", "x.team.localhost:443", "www:443"] {
        let refused = server.ssh().forward_to(bind, &origin).command("http").run().await;
        let is_refused = ["ERR_HITHE_334", "ERR_HITHE_320"].iter().any(|code| refused.stdout.contains(code));
        assert!(is_refused, "{bind}: {}", refused.output());
        let _bobs = server.ssh().key(&key).forward_to(bind, &origin).command("http").publish().await;
    }
    let _wildcard = server.ssh().key(&key).forward_to("*.team:443", &origin).command("http").publish().await;
    let refused = server.ssh().forward_to(&port.to_string(), &origin).command("tcp").run().await;
    assert!(refused.stdout.contains("ERR_HITHE_334"), "{}", refused.output());
    let _tcp = server.ssh().key(&key).forward_to(&port.to_string(), &origin).command("tcp").publish().await;
    let names = ask(&server, "names list bob").await;
    assert!(names.contains("app.localhost") && names.contains("reserved"), "{names}");
    ask(&server, "names release app").await;
    let _ada = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
}

#[tokio::test]
async fn a_running_server_sees_what_hithed_admin_releases() {
    let server = server_of_ada().await;
    let origin = Origin::replying("hello").await;
    let key = bob(&server, "").await;
    let mut tunnel = publish_as(&server, &server.user_key(), "app:443", &origin).await;
    tunnel.interrupt().await;
    tunnel.wait().await;
    let refused = server.ssh().key(&key).forward_to("app:443", &origin).command("http").run().await;
    assert!(refused.stdout.contains("ERR_HITHE_334"), "{}", refused.output());
    let names_without = async |what: &str| {
        let gone = async { while ask(&server, "names").await.contains(what) {} };
        hithe_integration::within("the server sees it", gone).await;
    };
    server.try_admin("names release app");
    names_without("app.localhost").await;
    let mut bobs = server.ssh().key(&key).forward_to("app:443", &origin).command("http").publish().await;
    bobs.interrupt().await;
    bobs.wait().await;
    assert!(ask(&server, "names").await.contains("app.localhost"));
    server.admin("accounts remove bob");
    names_without("app.localhost").await;
}

#[tokio::test]
async fn everybody_sees_and_ends_their_own_sessions() {
    let server = server_of_ada().await;
    let origin = Origin::replying("hello").await;
    let key = bob(&server, "").await;
    let mut tunnel = publish_as(&server, &key, "app:443", &origin).await;
    let _adas = server.ssh().forward_to("other:443", &origin).command("http").publish().await;
    let seen = server.ssh().key(&key).command("sessions").run().await.stdout;
    assert!(seen.contains("https://app.localhost") && !seen.contains("other.localhost"), "{seen}");
    let refused = server.ssh().key(&key).command("sessions kick ada").run().await;
    assert_eq!(refused.code, Some(1), "{}", refused.output());
    let kicked = server.ssh().key(&key).command("sessions kick bob").run().await;
    assert_eq!(kicked.stdout, "1 session ended\n", "{}", kicked.output());
    assert_eq!(tunnel.wait().await.code(), Some(255));
    assert!(tunnel.output().contains("ended by bob"), "{}", tunnel.output());
}

#[tokio::test]
async fn the_audit_log_tells_who_published_what_from_where() {
    let server = server_of_ada().await;
    let origin = Origin::replying("hello").await;
    let _tunnel = publish_as(&server, &server.user_key(), "app:443", &origin).await;
    let stranger = server.another_key("stranger", "ed25519");
    server.ssh().key(stranger).option("BindAddress=127.0.0.9").command("http").run().await;
    let audit = ask(&server, "audit --json").await;
    let entries: serde_json::Value = serde_json::from_str(&audit).unwrap();
    let published = entries.as_array().unwrap().iter().find(|it| it["action"] == "publish").unwrap();
    assert_eq!((&published["account"], &published["source"]), (&"ada".into(), &"127.0.0.1".into()));
    assert!(published["object"].as_str().unwrap().starts_with("https://app.localhost"));
    // The server knows that nobody logged in when the connection is over, which the client does not wait for.
    let refused = |audit: &str| {
        let mut lines = audit.lines();
        lines.any(|line| line.contains("127.0.0.9") && line.contains("refused, 1 times"))
    };
    let told = async { while !refused(&ask(&server, "audit").await) {} };
    hithe_integration::within("the audit log has the stranger", told).await;
}

#[tokio::test]
async fn accounts_outlive_a_crash() {
    let mut server = server_of_ada().await;
    ask(&server, "accounts add bob").await;
    server.restart().await;
    assert!(ask(&server, "accounts").await.contains("bob"));
}

#[tokio::test]
async fn a_server_that_cannot_read_its_reservations_starts_and_gives_nobody_what_may_be_reserved() {
    let mut server = server_of_ada().await;
    let origin = Origin::replying("hello").await;
    ask(&server, "accounts add bob").await;
    ask(&server, "names reserve app bob").await;
    let path = server.state_dir().join("hithe.db");
    server.sigterm();
    server.wait().await;
    let mut bytes = std::fs::read(&path).unwrap();
    let row = b"app.localhostbob";
    let at = bytes.windows(row.len()).position(|it| it == row).unwrap();
    let page = at / 4096 * 4096;
    bytes[page..page + 4096].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    server.start_again().await;
    server.logged("reservations cannot be read").await;
    let refused = server.ssh().forward_to("app:443", &origin).command("http").run().await;
    assert!(refused.stdout.contains("ERR_HITHE_320"), "{}", refused.output());
    let _random = server.ssh().forward_to("443", &origin).command("http").publish().await;
}

#[tokio::test]
async fn a_key_of_the_file_keeps_to_its_rules_in_the_database() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    server.admin("accounts add ada --admin");
    add_key(&server, "ada", &server.user_key(), "--acl bind:app");
    let known =
        async { while !server.ssh().command("whoami").run().await.stdout.contains("Account   ada") {} };
    hithe_integration::within("the account is known", known).await;
    let who = server.ssh().command("whoami").run().await.stdout;
    assert!(who.contains("Admin     no") && who.contains("May bind  bind:app"), "{who}");
    let refused = server.ssh().forward_to("other:443", &origin).command("http").run().await;
    assert!(refused.stdout.contains("ERR_HITHE_316"), "{}", refused.output());
}

#[tokio::test]
async fn a_database_that_another_program_holds_keeps_no_visitor_waiting() {
    let server = server_of_ada().await;
    let origin = Origin::replying("hello").await;
    let _tunnel = publish_as(&server, &server.user_key(), "app:443", &origin).await;
    let database = server.state_dir().join("hithe.db");
    let mut other = tokio::process::Command::new("/usr/bin/python3")
        .args(["-c", HOLDS])
        .arg(database)
        .stdout(std::process::Stdio::piped())
        .stdin(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = [0; 5];
    tokio::io::AsyncReadExt::read_exact(other.stdout.as_mut().unwrap(), &mut said).await.unwrap();
    let started = tokio::time::Instant::now();
    while started.elapsed() < std::time::Duration::from_secs(5) {
        let asked = tokio::time::Instant::now();
        assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "hello");
        // It would be some seconds of a tick that waits for the lock.
        assert!(asked.elapsed() < std::time::Duration::from_secs(2), "{:?}", asked.elapsed());
        let stranger = server.ssh().typing(&server.prompter("x")).command("whoami").run().await;
        assert_eq!(stranger.code, Some(255));
    }
}

/// Takes the database for itself and says so.
const HOLDS: &str = "
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute('BEGIN IMMEDIATE')
print('held', flush=True)
sys.stdin.read()
";
