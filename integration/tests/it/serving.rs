//! The program itself: how it starts, what it says when it cannot, and how it ends.

use std::process::Output;
use std::time::Duration;

use hithe_integration::{Origin, TestServer, closed};

fn said(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_option() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = said(&TestServer::refusing(|options| options.ssh_listen(&address)).await);
    assert!(
        said.contains(&address) && said.contains("--ssh-listen") && said.contains("another port"),
        "{said}"
    );
}

#[tokio::test]
async fn an_unreadable_host_key_is_named() {
    let said = said(&TestServer::refusing(|o| o.arg("--host-key").arg("/nowhere/key")).await);
    assert!(said.contains("/nowhere/key"), "{said}");
}

#[tokio::test]
async fn a_misspelt_key_of_the_file_is_refused_with_line_column_and_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hithed.toml");
    std::fs::write(&file, "domain = \"localhost\"\nssh-lisen = \"[::]:22\"\n").unwrap();
    let said = said(&TestServer::refusing(|o| o.arg("--config").arg(&file)).await);
    assert!(said.contains("hithed.toml:2:1") && said.contains("ssh-listen"), "{said}");
}

#[tokio::test]
async fn all_listeners_are_dual_stack_and_in_the_ready_file() {
    let server = TestServer::with(|options| options.dual_stack().ssh_listen("[::]:0")).await;
    for addresses in server.addresses() {
        assert!(!addresses.is_empty());
        for address in addresses {
            server.visitor().dial(*address).await;
        }
    }
    let port = server.ssh_address().port();
    server.visitor().dial(([127, 0, 0, 1], port).into()).await;
    server.visitor().dial((std::net::Ipv6Addr::LOCALHOST, port).into()).await;
}

#[tokio::test]
async fn secrets_of_the_state_directory_are_0600() {
    use std::os::unix::fs::PermissionsExt;
    let server = TestServer::start().await;
    for file in ["ssh_host_ed25519_key", "ca.key", "names.secret"] {
        let mode = std::fs::metadata(server.state_dir().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn sigterm_finishes_a_running_download_and_then_ends_the_publishers() {
    let (origin, feed) = Origin::fed().await;
    let mut server = TestServer::start().await;
    let mut ssh = server.ssh().forward_to("app:80", &origin).command("http").publish().await;
    assert!(feed.send("first ").await);
    let mut stream = server.visitor().open("http://app.localhost/").await;
    assert_eq!(stream.next_text().await, "first ");
    server.sigterm();
    ssh.wait_for_text("shutting down").await;
    closed(server.http_address()).await;
    assert!(feed.send("second").await);
    assert_eq!(stream.next_text().await, "second");
    drop(feed);
    assert!(stream.next().await.is_none_or(|chunk| chunk.is_ok()));
    drop(stream);
    assert!(server.wait().await.success());
    assert!(server.log().contains("every visit was finished"), "{}", server.log());
    ssh.wait().await;
    // On the console, or in the disconnect where the console's channel was closed before.
    assert!(ssh.output().contains("The server has shut down"), "{}", ssh.output());
}

#[tokio::test]
async fn a_second_signal_cuts_at_once() {
    let (origin, feed) = Origin::fed().await;
    let mut server = TestServer::with(|options| options.arg("--grace").arg("1h")).await;
    let mut ssh = server.ssh().forward_to("app:80", &origin).command("http").publish().await;
    assert!(feed.send("first").await);
    let mut stream = server.visitor().open("http://app.localhost/").await;
    stream.next_text().await;
    server.sigterm();
    ssh.wait_for_text("shutting down").await;
    server.sigterm();
    assert!(server.wait().await.success());
    assert!(server.log().contains("visits were cut"), "{}", server.log());
}

#[tokio::test]
async fn a_restart_keeps_host_key_and_authority() {
    let mut server = TestServer::start().await;
    let before = (std::fs::read(server.ca()).unwrap(), host_key(&server));
    server.restart().await;
    assert_eq!((std::fs::read(server.ca()).unwrap(), host_key(&server)), before);
}

fn host_key(server: &TestServer) -> Vec<u8> {
    std::fs::read(server.state_dir().join("ssh_host_ed25519_key")).expect("the host key is there")
}

#[tokio::test]
async fn json_log_lines_are_json() {
    let server = TestServer::with(|options| options.arg("--log-format").arg("json")).await;
    server.logged("is ready").await;
    for line in server.log().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[tokio::test]
async fn a_client_whose_network_is_cut_is_gone_within_seconds_even_amid_uploads() {
    let server = TestServer::start().await;
    let origin = Origin::counting_bytes().await;
    let relay = hithe_integration::Relay::to(server.ssh_address()).await;
    let port = *server.tcp_ports().start();
    let ssh = server.ssh().through(&relay).forward_to(&port.to_string(), &origin).command("tcp");
    let _ssh = ssh.publish().await;
    let uploads = (0..4).map(|_| async {
        let mut stream = server.visitor().tcp(port).await;
        while tokio::io::AsyncWriteExt::write_all(&mut stream, &[0; 65536]).await.is_ok() {}
    });
    let cutting = async {
        hithe_integration::eventually("bytes flow", || (relay.passed() > 1 << 20).then_some(())).await;
        relay.cut();
    };
    let all = async { tokio::join!(futures_util::future::join_all(uploads), cutting) };
    tokio::time::timeout(Duration::from_secs(25), all).await.expect("the uploads end");
    server.logged("publisher left").await;
}
