//! What the agent does with files: ngrok's own kind of configuration, folders that it serves, keys and proxies.

use std::path::PathBuf;

use hithe_integration::terminal::Terminal;
use hithe_integration::{Child, Origin, TestServer, within};

/// A token of this server that counts already, as its operator gives it to somebody.
async fn token(server: &TestServer) -> String {
    server.admin("accounts add ada");
    let said = server.admin("tokens add ada");
    let token = said.lines().next().expect("a token is printed once").to_owned();
    let prompter = server.prompter(&token);
    within("the token logs in", async {
        while server.ssh().typing(&prompter).command("whoami").run().await.code != Some(0) {}
    })
    .await;
    token
}

fn file(server: &TestServer, text: &str) -> PathBuf {
    let path = server.folder().join("agent.yml");
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn an_ngrok_file_of_version_2_runs_as_it_is_but_for_the_servers_address() {
    let server = TestServer::start().await;
    let (web, echo) = (Origin::replying("web").await, Origin::tcp_echo().await);
    let text = format!(
        "version: \"2\"\nauthtoken: {}\nserver_addr: {}\nregion: us\nlog: false\nweb_addr: false\ntunnels:\n  \
         website:\n    proto: http\n    addr: {}\n    domain: site\n    schemes: [http, https]\n    basic_auth:\n      - \"ada:correct-horse\"\n    \
         inspect: false\n  shell:\n    proto: tcp\n    addr: {}\n",
        token(&server).await,
        server.ssh_address(),
        web.port(),
        echo.port()
    );
    let agent =
        server.agent().without_server().words("start --all --accept-new-host-key --ssh-config none --config");
    let mut agent = agent.word(file(&server, &text)).publish().await;
    agent.forwardings(3).await;
    assert_eq!(server.visitor().get("https://site.localhost/").await.status(), 401);
    let reply = server.visitor().basic("ada", "correct-horse").get("http://site.localhost/").await;
    assert_eq!(reply.text(), "web");
    assert!(agent.stderr().contains("region"), "it says what means nothing here: {}", agent.stderr());
}

#[tokio::test]
async fn an_ngrok_file_of_version_3_runs_as_it_is_but_for_the_servers_address() {
    let server = TestServer::start().await;
    let web = Origin::replying("three").await;
    let text = format!(
        "version: 3\nagent:\n  authtoken: {}\n  connect_url: {}\n  web_addr: false\nendpoints:\n  - name: website\n    \
         url: https://site.localhost\n    description: the site\n    upstream:\n      url: http://localhost:{}\n      protocol: http1\n",
        token(&server).await,
        server.ssh_address(),
        web.port()
    );
    let agent = server
        .agent()
        .without_server()
        .words("start website --accept-new-host-key --ssh-config none --config");
    let _agent = agent.word(file(&server, &text)).publish().await;
    assert_eq!(server.visitor().get("https://site.localhost/").await.text(), "three");
}

#[tokio::test]
async fn a_wrong_key_in_a_file_is_named_with_its_line_and_nothing_is_published() {
    let server = TestServer::start().await;
    let text = "version: 2\ntunnels:\n  web:\n    proto: http\n    addr: 80\n    basic_aut: [a:b]\n";
    let file = file(&server, text);
    for words in ["start --all", "config check"] {
        let refused = server.agent().without_server().words(words).word("--config").word(&file).run().await;
        assert_eq!(refused.code, Some(2), "{}", refused.output());
        assert!(
            refused.stderr.contains("agent.yml:6:5:") && refused.stderr.contains("basic_auth"),
            "{}",
            refused.stderr
        );
    }
}

#[tokio::test]
async fn a_folder_is_published_and_what_lies_outside_is_not() {
    let server = TestServer::start().await;
    let folder = server.folder().join("www");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    std::fs::write(folder.join("hello.txt"), "hello from a file").unwrap();
    std::fs::write(folder.join(".secret"), "hidden").unwrap();
    std::os::unix::fs::symlink(server.user_key(), folder.join("key")).unwrap();
    let address = format!("file://{}", folder.display());
    let _agent = server.agent().words("http --domain files").word(&address).publish().await;
    let get = async |path: &str| server.visitor().get(&format!("https://files.localhost{path}")).await;
    assert_eq!(get("/hello.txt").await.text(), "hello from a file");
    let listing = get("/").await;
    assert!(
        listing.text().contains("hello.txt")
            && listing.text().contains("sub")
            && !listing.text().contains(".secret")
    );
    let part = server.visitor().header("range", "bytes=6-9").get("https://files.localhost/hello.txt").await;
    assert_eq!((part.status(), part.text()), (206, "from"));
    for outside in ["/.secret", "/key", "/../id", "/%2e%2e/id", "/sub/..%2f..%2fid"] {
        let status = get(outside).await.status();
        assert!((400..500).contains(&status), "{outside}: {status}");
    }
}

#[tokio::test]
async fn diagnose_says_that_all_is_well_or_where_it_is_not() {
    let server = TestServer::start().await;
    let well = server.agent().words("diagnose").run().await;
    assert_eq!(well.code, Some(0), "{}", well.output());
    assert!(well.stdout.contains("[ OK ]") && !well.stdout.contains("[FAIL]"), "{}", well.stdout);
    let stranger = server.another_key("stranger", "ed25519");
    let ill = server.agent().key(stranger).words("diagnose").run().await;
    assert_eq!(ill.code, Some(3), "{}", ill.output());
    assert!(ill.stdout.contains("[FAIL]"), "{}", ill.stdout);
}

#[tokio::test]
async fn what_cannot_be_printed_is_no_success_and_a_reader_who_has_gone_is_no_fault() {
    let server = TestServer::start().await;
    let file = file(&server, "version: 3\nendpoints:\n  - {name: web, upstream: {url: 80}}\n");
    let hithe = hithe_integration::program::hithe();
    let ended = async |words: &str, to: &str| {
        let line = format!("exec 2>/dev/null; \"$0\" {words} --config \"$1\" {to}");
        let mut shell = tokio::process::Command::new("bash");
        shell.args(["-o", "pipefail", "-c", &line]).arg(hithe).arg(&file).env("HOME", server.folder());
        within(words, shell.status()).await.unwrap().code()
    };
    let address = server.ssh_address();
    let diagnose = format!("diagnose --ssh-config none --server {address}");
    for words in [
        "http 80 --server a --ssh-config none --dry-run",
        "config check",
        "config path",
        "config schema",
        "version",
        "completions bash",
        "start --help",
        &diagnose,
    ] {
        assert_eq!(ended(words, ">/dev/full").await, Some(1), "{words}");
    }
    for words in ["config schema", "config check", "completions zsh", "http --help", "version"] {
        assert_eq!(ended(words, "| head -c 1 >/dev/null").await, Some(0), "{words}");
    }
}

#[tokio::test]
async fn a_dry_run_asks_for_the_files_that_a_real_one_needs() {
    let server = TestServer::start().await;
    for (words, said) in [
        ("http file:///nowhere/at/all", "file:///nowhere/at/all: "),
        (
            "tls 443 --terminate-at agent --crt /nowhere/crt --key /nowhere/key",
            "there is no file /nowhere/crt",
        ),
        ("http 80 --identity /nowhere/key", "/nowhere/key does not exist"),
    ] {
        let dry = server.agent().words(words).words("--dry-run").run().await;
        assert_eq!((dry.code, dry.stdout.as_str()), (Some(2), ""), "{}", dry.output());
        assert!(dry.stderr.contains(said), "{}", dry.stderr);
    }
}

#[tokio::test]
async fn the_line_of_a_dry_run_publishes_as_it_stands() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let known = server.folder().join("known hosts");
    let agent = server.agent().command("http", &origin).words("--domain app --known-hosts").word(&known);
    let dry = agent.words("--dry-run").run().await;
    assert_eq!(dry.code, Some(0), "{}", dry.output());
    let mut shell = tokio::process::Command::new("bash");
    shell.args(["-c", &dry.stdout]).env("HOME", server.folder()).stdin(std::process::Stdio::null());
    let mut ssh = Child::spawn(shell, None);
    ssh.forwarding().await;
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "hello");
}

/// A real bash, its completions as `hithe completions` says they are set up, and somebody who types.
#[tokio::test]
async fn the_tabulator_completes_names_of_endpoints_and_files_in_bash() {
    let server = TestServer::start().await;
    let file = file(
        &server,
        "version: 3\nendpoints:\n  - {name: website, upstream: {url: 80}}\n  - {name: shell, url: 'tcp://', upstream: {url: 22}}\n",
    );
    std::fs::write(server.folder().join("certificate.pem"), "").unwrap();
    let folder = hithe_integration::program::hithe().parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut bash = tokio::process::Command::new("bash");
    bash.args(["--norc", "--noprofile", "-i"]).current_dir(server.folder());
    bash.env("PATH", path).env("TERM", "dumb").env("HOME", server.folder());
    let mut bash = Child::spawn(bash, Some(Terminal::open()));
    bash.type_in(b"source <(hithe completions bash); echo so''urced\n").await;
    bash.wait_for_line(|line| line.trim() == "sourced").await;
    let file = file.display();
    for (typed, completed) in [
        (format!("hithe --config {file} start web\tsh\t"), "start website shell"),
        ("hithe tls 443 --crt certi\t".to_owned(), "tls 443 --crt certificate.pem"),
        ("hithe dia\t".to_owned(), "hithe diagnose"),
    ] {
        // Ctrl-A, so that the line is printed and not obeyed.
        bash.type_in(format!("{typed}\x01echo they are: \n").as_bytes()).await;
        bash.wait_for_line(|line| line.starts_with("they are: ") && line.trim().ends_with(completed)).await;
    }
}

#[tokio::test]
async fn what_a_newcomer_leaves_out_is_answered_with_what_to_do() {
    let server = TestServer::start().await;
    let file = file(&server, "version: 3\nendpoints:\n  - {name: web, upstream: {url: 80}}\n");
    let config = format!("--config {}", file.display());
    for (words, said) in [
        ("http 80", "hithe config add-server HOST"),
        ("start", "Open it with `hithe config edit`"),
        (&format!("start {config}"), "say --all: web"),
        (&format!("start wbe {config}"), "it has: web"),
        ("tcp 22 --compression", "all flags: hithe tcp --help"),
        ("htpp 80", "'http'"),
    ] {
        let refused = server.agent().without_server().words(words).run().await;
        assert_eq!(refused.code, Some(2), "{words}: {}", refused.output());
        assert!(refused.stderr.contains(said), "{words}: {}", refused.stderr);
    }
}

#[tokio::test]
async fn who_sends_a_private_key_to_the_server_is_told() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let pair = rcgen::generate_simple_self_signed(["app.localhost".to_owned()]).unwrap();
    for (name, pem) in [("crt.pem", pair.cert.pem()), ("key.pem", pair.signing_key.serialize_pem())] {
        std::fs::write(server.folder().join(name), pem).unwrap();
    }
    let agent = server.agent().command("tls", &origin).words("--domain app --crt");
    let agent =
        agent.word(server.folder().join("crt.pem")).word("--key").word(server.folder().join("key.pem"));
    let sent = agent.clone().publish().await;
    assert!(sent.stderr().contains("SENT TO THE SERVER"), "{}", sent.stderr());
    drop(sent);
    let kept = agent.words("--terminate-at agent").publish().await;
    assert!(!kept.stderr().contains("SENT"), "{}", kept.stderr());
}
