//! Custom domains: who sets a TXT record there may publish there, and nobody else.

use std::path::Path;

use hithe_integration::{NameServer, Origin, TestServer, within};

async fn server_asking(dns: &NameServer) -> TestServer {
    let address = dns.address().to_string();
    TestServer::with(|it| it.arg("--custom-domains").arg("--dns-resolver").arg(address)).await
}

/// The value that `whoami` tells to set.
async fn value(server: &TestServer, key: &Path) -> String {
    within("the key logs in", async {
        loop {
            let said = server.ssh().key(key).command("whoami --json").run().await;
            if said.code == Some(0) {
                let who: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
                return who.get("domain_record").and_then(|it| it.as_str()).unwrap().to_owned();
            }
        }
    })
    .await
}

async fn own_value(server: &TestServer) -> String {
    value(server, &server.user_key()).await
}

/// What is told to who may not publish at this name.
async fn refused(server: &TestServer, name: &str, origin: &Origin) -> String {
    let said = server.ssh().forward_to(&format!("{name}:80"), origin).command("http").run().await;
    assert_eq!(said.code, Some(1), "{}", said.output());
    assert!(said.stdout.contains("ERR_HITHE_319"), "{}", said.output());
    said.stdout
}

async fn is_visited(server: &TestServer, name: &str, visited: &str, origin: &Origin) {
    let bind = format!("{name}:80");
    let mut ssh = server.ssh().forward_to(&bind, origin).command("http").publish().await;
    assert_eq!(server.visitor().get(&format!("http://{visited}/")).await.text(), "hello");
    ssh.interrupt().await;
    ssh.wait().await;
}

#[tokio::test]
async fn who_has_set_no_record_is_told_which_one_and_then_publishes() {
    let dns = NameServer::start().await;
    let server = server_asking(&dns).await;
    let origin = Origin::replying("hello").await;
    let value = own_value(&server).await;
    assert!(value.starts_with("SHA256:"), "{value}");
    let told = refused(&server, "none.example.net", &origin).await;
    let record = |name: &str| format!("_hithe.{name}. TXT \"{value}\"");
    assert!(told.contains(&record("none.example.net")), "{told}");
    dns.set("_hithe.shop.example.net", "something else");
    dns.set("_hithe.shop.example.net", &value);
    is_visited(&server, "shop.example.net", "shop.example.net", &origin).await;
    is_visited(&server, "shop.example.net", "shop.example.net", &origin).await;
    assert_eq!(dns.asked("_hithe.shop.example.net"), 1, "what was found is remembered");
    let who = server.ssh().command("whoami").run().await;
    assert!(who.stdout.contains(&record("NAME")), "{}", who.output());
}

#[tokio::test]
async fn the_record_of_another_account_proves_nothing() {
    let dns = NameServer::start().await;
    let server = server_asking(&dns).await;
    let origin = Origin::replying("hello").await;
    let bob = server.another_key("bob", "ed25519");
    server.authorize(&bob);
    let of_bob = value(&server, &bob).await;
    dns.set("_hithe.example.net", &of_bob);
    let told = refused(&server, "example.net", &origin).await;
    assert!(told.contains("another account's"), "{told}");
    let publish = || server.ssh().key(&bob).forward_to("example.net:80", &origin).command("http").publish();
    let _ssh = publish().await;
    assert_eq!(server.visitor().get("http://example.net/").await.text(), "hello");
}

#[tokio::test]
async fn a_record_proves_what_lies_below_it_and_a_wildcard() {
    let dns = NameServer::start().await;
    let server = server_asking(&dns).await;
    let origin = Origin::replying("hello").await;
    dns.set("_hithe.example.net", &own_value(&server).await);
    is_visited(&server, "a.b.example.net", "a.b.example.net", &origin).await;
    is_visited(&server, "*.example.net", "any.example.net", &origin).await;
    refused(&server, "*.example.org", &origin).await;
    assert_eq!(dns.asked("_hithe.net"), 0, "a top-level domain is nobody's");
}

#[tokio::test]
async fn a_name_that_changes_hands_is_not_kept_for_who_had_it() {
    let dns = NameServer::start().await;
    let server = server_asking(&dns).await;
    let origin = Origin::replying("hello").await;
    let bob = server.another_key("bob", "ed25519");
    server.authorize(&bob);
    dns.set("_hithe.example.net", &value(&server, &bob).await);
    dns.set("_hithe.example.net", &own_value(&server).await);
    is_visited(&server, "example.net", "example.net", &origin).await;
    within("the name is free", async {
        while server.visitor().get("http://example.net/").await.status() == 200 {}
    })
    .await;
    let _ssh = server.ssh().key(&bob).forward_to("example.net:80", &origin).command("http").publish().await;
    assert_eq!(server.visitor().get("http://example.net/").await.text(), "hello");
    let taken = server.ssh().forward_to("example.net:80", &origin).command("http").run().await;
    assert!(taken.stdout.contains("ERR_HITHE_334"), "what is live is nobody else's: {}", taken.output());
}

#[tokio::test]
async fn a_named_account_proves_by_its_name_or_by_any_of_its_keys() {
    let dns = NameServer::start().await;
    let server = server_asking(&dns).await;
    let origin = Origin::replying("hello").await;
    let (laptop, desk) = (server.another_key("laptop", "ed25519"), server.another_key("desk", "ed25519"));
    server.admin("accounts add ada");
    for key in [&laptop, &desk] {
        server.admin(&format!("keys add ada '{}'", TestServer::public_half(key)));
    }
    assert_eq!(value(&server, &laptop).await, "account=ada server=localhost");
    let fingerprint = hithe_integration::clients::fingerprint(&desk.with_extension("pub")).await;
    dns.set("_hithe.name.example.net", "account=ada server=localhost");
    dns.set("_hithe.key.example.net", &fingerprint);
    dns.set("_hithe.elsewhere.example.net", "account=ada server=localhost.example");
    let publish = |bind: &str| server.ssh().key(&laptop).forward_to(bind, &origin).command("http");
    let _name = publish("name.example.net:80").publish().await;
    let _key = publish("key.example.net:80").publish().await;
    let elsewhere = publish("elsewhere.example.net:80").run().await;
    assert!(elsewhere.stdout.contains("ERR_HITHE_319"), "{}", elsewhere.output());
}

#[tokio::test]
async fn a_name_server_that_fails_or_is_silent_is_not_taken_for_no_record() {
    let dns = NameServer::start().await;
    let server = server_asking(&dns).await;
    let origin = Origin::replying("hello").await;
    dns.fail("_hithe.failing.example.net");
    let told = refused(&server, "failing.example.net", &origin).await;
    assert!(told.contains("SERVFAIL") && told.contains("cannot be looked up"), "{told}");
    dns.be_silent("_hithe.silent.example.net");
    let told = refused(&server, "silent.example.net", &origin).await;
    assert!(told.contains("has not answered within 5 s"), "{told}");
    dns.fail("_hithe.shop.example.org");
    dns.set("_hithe.example.org", &own_value(&server).await);
    is_visited(&server, "shop.example.org", "shop.example.org", &origin).await;
}

#[tokio::test]
async fn a_silent_name_server_holds_up_nothing_else_of_the_command() {
    let dns = NameServer::start().await;
    let server = server_asking(&dns).await;
    let origin = Origin::replying("hello").await;
    for silent in ["_hithe.one.example.net", "_hithe.two.example.net", "_hithe.above.example.org"] {
        dns.be_silent(silent);
    }
    dns.set("_hithe.shop.above.example.org", &own_value(&server).await);
    let binds = ["one.example.net:80", "two.example.net:80", "shop.above.example.org:80", "app:80"];
    let ssh = binds.iter().fold(server.ssh(), |ssh, bind| ssh.forward_to(bind, &origin));
    let mut ssh = ssh.command("http").spawn();
    for visited in ["http://app.localhost/", "http://shop.above.example.org/"] {
        let is_public = async { while server.visitor().get(visited).await.status() != 200 {} };
        within("what can be proved is public", is_public).await;
    }
    assert!(!ssh.output().contains("ERR_HITHE_319"), "the others are still asked for: {}", ssh.output());
    ssh.wait_for_text("two.example.net is yours cannot be looked up").await;
}

#[tokio::test]
async fn a_name_server_that_is_gone_is_said_to_be() {
    let dns = NameServer::start().await;
    let server = server_asking(&dns).await;
    let origin = Origin::replying("hello").await;
    drop(dns);
    let told = refused(&server, "shop.example.net", &origin).await;
    assert!(told.contains("cannot be looked up") && !told.contains("there is no TXT record"), "{told}");
    assert!(told.contains("_hithe.shop.example.net. TXT"), "{told}");
}

#[tokio::test]
async fn an_account_whose_proofs_fail_makes_the_server_ask_no_more_for_a_while() {
    let dns = NameServer::start().await;
    let server = server_asking(&dns).await;
    let origin = Origin::replying("hello").await;
    dns.set("_hithe.example.org", &own_value(&server).await);
    let names = (0..11).map(|n| format!("n{n}.example.org:80")).collect::<Vec<_>>();
    let ssh = names.iter().fold(server.ssh(), |ssh, name| ssh.forward_to(name, &origin));
    let right = ssh.command("http").publish().await;
    drop(right);
    let names = (0..11).map(|n| format!("n{n}.example.net:80")).collect::<Vec<_>>();
    let ssh = names.iter().fold(server.ssh(), |ssh, name| ssh.forward_to(name, &origin));
    let told = ssh.command("http").run().await.stdout;
    assert_eq!(told.matches("there is no TXT record").count(), 10, "{told}");
    assert!(told.contains("10 proofs of your account have failed within a minute"), "{told}");
    assert_eq!(dns.asked("_hithe.n10.example.net"), 0);
}

#[tokio::test]
async fn names_below_the_domain_and_those_of_the_operator_need_no_proof() {
    let dns = NameServer::start().await;
    let address = dns.address().to_string();
    let server = TestServer::with(|it| {
        let it = it.arg("--custom-domains").arg("--dns-resolver").arg(address);
        it.arg("--allow-domain").arg("shop.example.net")
    })
    .await;
    let origin = Origin::replying("hello").await;
    is_visited(&server, "app", "app.localhost", &origin).await;
    is_visited(&server, "shop.example.net", "shop.example.net", &origin).await;
    assert_eq!(dns.questions(), 0);
}

#[tokio::test]
async fn a_proved_domain_still_needs_a_certificate_for_https() {
    let dns = NameServer::start().await;
    let server = server_asking(&dns).await;
    let origin = Origin::replying("hello").await;
    dns.set("_hithe.example.net", &own_value(&server).await);
    let told = server.ssh().forward_to("example.net:443", &origin).command("http").run().await;
    assert!(told.stdout.contains("no certificate for example.net"), "{}", told.output());
    let _tls = server.ssh().forward_to("example.net:443", &origin).command("tls").publish().await;
}
