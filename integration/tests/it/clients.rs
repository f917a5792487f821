//! The client matrix: what publishes besides OpenSSH, each started the way its users start it.

use hithe_integration::{Child, Origin, Program, TestServer};
use tokio::io::AsyncReadExt;

/// Publishes with this client and visits what it says is public.
async fn publishes_over_https(program: Program) {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let mut client = server.client(program).forward_to("443", &origin).command("http").publish().await;

    let url = client.url().await;
    let reply = server.visitor().get(&url).await;

    assert!(url.starts_with("https://"), "{url}");
    assert_eq!((reply.status(), reply.text()), (200, "hello"));
}

/// Publishes without a session, by user name, a name it chose; so nothing is printed that says when.
async fn publishes_by_user_name(program: Program) {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let _client = server.client(program).user("http").forward_to("app.localhost:80", &origin).spawn().await;

    let reply = server.visitor().get_when_public("http://app.localhost/").await;

    assert_eq!((reply.status(), reply.text()), (200, "hello"));
}

#[tokio::test]
async fn dropbears_dbclient_publishes() {
    publishes_over_https(Program::Dbclient).await;
}

#[tokio::test]
async fn puttys_plink_publishes() {
    publishes_over_https(Program::Plink).await;
}

#[tokio::test]
async fn paramiko_publishes() {
    publishes_over_https(Program::Paramiko).await;
}

#[tokio::test]
async fn asyncssh_publishes() {
    publishes_over_https(Program::Asyncssh).await;
}

#[tokio::test]
async fn plink_without_a_session_publishes_by_user_name() {
    publishes_by_user_name(Program::Plink).await;
}

#[tokio::test]
async fn dbclient_without_a_session_publishes_by_user_name() {
    publishes_by_user_name(Program::Dbclient).await;
}

#[tokio::test]
async fn ssh_without_a_session_publishes_by_user_name() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let ssh = server.ssh().user("http").without_session().forward_to("app.localhost:80", &origin);
    let mut ssh = ssh.spawn();

    let reply = server.visitor().get_when_public("http://app.localhost/").await;

    assert_eq!((reply.status(), reply.text()), (200, "hello"));
    assert!(ssh.is_running());
}

#[tokio::test]
async fn with_a_session_the_exec_line_decides_and_not_the_user_name() {
    let server = TestServer::start().await;
    let origin = Origin::greeting("hello").await;
    let mut ssh = server.ssh().user("http").forward_to("0", &origin).command("tcp").publish().await;

    let port = ssh.forwarding().await.remove(0).port().expect("a tcp endpoint has a port");
    let mut heard = [0; 5];
    server.visitor().tcp(port).await.read_exact(&mut heard).await.unwrap();

    assert_eq!(&heard, b"hello");
}

/// The ciphers of both directions.
async fn ciphers(ssh: &mut Child) -> [String; 2] {
    let mut found = Vec::new();
    for direction in ["server->client cipher: ", "client->server cipher: "] {
        let line = ssh.wait_for_text(direction).await;
        let cipher = line.split(direction).nth(1).and_then(|rest| rest.split(' ').next());
        found.push(cipher.expect("a cipher").to_owned());
    }
    found.try_into().expect("two directions")
}

#[tokio::test]
async fn openssh_gets_aes_gcm_unless_the_operator_says_chacha20() {
    for (options, expected) in [
        (&[][..], "aes128-gcm@openssh.com"),
        (&["--ssh-cipher", "chacha20"], "chacha20-poly1305@openssh.com"),
    ] {
        let server = TestServer::with(|all| options.iter().fold(all, |all, word| all.arg(word))).await;
        let origin = Origin::replying("hello").await;
        let ssh = server.ssh().flag("-v").forward_to("app:80", &origin).command("http");
        let mut ssh = ssh.publish().await;
        assert_eq!(ciphers(&mut ssh).await, [expected, expected]);
        assert_eq!(server.visitor().get("http://app.localhost/").await.text(), "hello");
    }
}

#[tokio::test]
async fn a_client_that_has_only_one_cipher_gets_it() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    for cipher in ["chacha20-poly1305@openssh.com", "aes256-ctr", "aes256-gcm@openssh.com"] {
        let ssh = server.ssh().flag("-v").option(&format!("Ciphers={cipher}"));
        let mut ssh = ssh.forward_to("0", &origin).command("http").publish().await;
        assert_eq!(ciphers(&mut ssh).await, [cipher, cipher]);
    }
}

#[tokio::test]
async fn other_clients_publish_with_either_preference_of_the_server() {
    for program in [Program::Dbclient, Program::Plink, Program::Paramiko, Program::Asyncssh] {
        let server = TestServer::with(|options| options.arg("--ssh-cipher").arg("chacha20")).await;
        let origin = Origin::replying("hello").await;
        let client = server.client(program).forward_to("app.localhost:80", &origin).command("http");
        let _client = client.publish().await;
        assert_eq!(server.visitor().get("http://app.localhost/").await.text(), "hello", "{program:?}");
    }
}
