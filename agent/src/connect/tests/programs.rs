//! Ways that lead through a program: `ProxyCommand`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::super::{ConnectError, ServerOptions};
use super::server::TestServer;
use super::{Home, Person, enter, knowing, refused, to};

/// Options for a server that is reached by this program only.
fn by_program(home: &Home, server: &TestServer, program: &str) -> ServerOptions {
    home.write(
        "config",
        format!(
            "Host server\n HostName 127.0.0.1\n Port {}\n ProxyCommand {program}\n",
            server.address.port()
        ),
    );
    ServerOptions { address: Some("server".into()), ..to(server) }
}

#[tokio::test]
async fn a_proxy_command_leads_to_the_server_and_ends_with_the_connection() {
    let home = Home::new();
    let server = TestServer::start(knowing(&[&home.key("id_ed25519")])).await;
    home.knows(&server);
    let pid = home.0.path().join("pid");
    for program in ["nc %h %p", "nc %h %p | cat", "sh -c 'echo $$ > {pid}; nc %h %p; exec sleep 1000'"] {
        let program = program.replace("{pid}", pid.to_str().unwrap());
        let options = by_program(&home, &server, &program);
        let handle = enter(&home.route(&options, &[])).await.unwrap();
        assert!(!handle.is_closed(), "{program}");
    }
    let program = fs::read_to_string(pid).unwrap();
    let process = PathBuf::from(format!("/proc/{}", program.trim()));
    let gone = async {
        while process.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("nothing is left of it, and no zombie");
}

#[tokio::test]
async fn a_proxy_command_that_ends_is_to_blame_and_its_words_are_told() {
    let home = Home::new();
    let server = TestServer::start(knowing(&[&home.key("id_ed25519")])).await;
    home.knows(&server);
    let person = Person::who_says(&[]);
    for (program, why, is_final) in [
        ("false", "it ended with status 1", false),
        ("no-such-program --auth ada:secret %h", "it ended with status 127: ", true),
        ("sh -c 'echo no way >&2; exit 3'", "it ended with status 3: no way", false),
        ("sh -c 'exec >&-; exec sleep 1000'", "it closed its output", false),
        ("sh -c 'kill -9 $$'", "signal: 9", false),
        ("sh -c 'echo SSH-2.0-half; echo cut >&2; exit 4'", "status 4: cut", false),
    ] {
        let options = by_program(&home, &server, program);
        let route = home.route(&options, &[]).asking(person.clone());
        let error = refused(&route).await;
        assert!(error.to_string().contains(why), "{program}: {error}");
        assert!(matches!(error, ConnectError::ProxyCommand { .. }), "{error}");
        assert_eq!(error.is_final(), is_final, "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        assert!(error.advice().starts_with("The fault is the program's"), "{}", error.advice());
    }
    assert!(person.asked().contains("no way"), "{}", person.asked());
    assert!(server.tried().is_empty());
}

#[tokio::test]
async fn what_a_server_says_through_a_program_before_it_turns_us_away_is_told() {
    let home = Home::new();
    let server = TestServer::start(knowing(&[])).await;
    // The last one takes nothing of ours, and says it after we noticed.
    for program in
        ["echo too many of you, try later", "sh -c 'exec <&-; sleep 0.2; echo too many of you, try later'"]
    {
        let error = refused(&home.route(&by_program(&home, &server, program), &[])).await;
        assert!(!error.is_final());
        assert!(error.to_string().contains("too many of you, try later"), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_command_leads_to_a_jump_host() {
    let home = Home::new();
    let key = home.key("id_ed25519");
    let (server, jump) =
        (TestServer::start(knowing(&[&key])).await, TestServer::start(knowing(&[&key])).await);
    home.knows(&server);
    home.knows(&jump);
    home.write(
        "config",
        format!(
            "Host server\n HostName 127.0.0.1\n Port {}\n ProxyJump jump\nHost jump\n HostName 127.0.0.1\n Port {}\n ProxyCommand nc %h %p\n",
            server.address.port(),
            jump.address.port()
        ),
    );
    let options = ServerOptions { address: Some("server".into()), ..to(&server) };
    enter(&home.route(&options, &[])).await.unwrap();
    assert_eq!(jump.tried().last(), Some(&format!("to {}", server.address)));
}

#[tokio::test]
async fn a_proxy_command_may_be_ssh_itself() {
    let home = Home::new();
    let key = home.key("id_ed25519");
    let (server, jump) =
        (TestServer::start(knowing(&[&key])).await, TestServer::start(knowing(&[&key])).await);
    home.knows(&server);
    let ssh = format!(
        "ssh -F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i {} -p {} -W %h:%p ada@127.0.0.1",
        home.ssh().join("id_ed25519").display(),
        jump.address.port()
    );
    enter(&home.route(&by_program(&home, &server, &ssh), &[])).await.unwrap();
    assert_eq!(jump.tried().last(), Some(&format!("to {}", server.address)));
    assert!(server.tried()[0].starts_with("v2 "));
}
