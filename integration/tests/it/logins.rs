//! Who may log in, and what a login does not give.

use std::sync::Arc;

use hithe_integration::protocol::read_until;
use hithe_integration::{Origin, ProtocolClient, TestServer};
use ring::signature::KeyPair;
use russh::client;
use russh::keys::ssh_key::public::{Ed25519PublicKey, KeyData, SkEd25519};
use russh::keys::{PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, load_secret_key};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn ed25519_ecdsa_and_rsa_keys_log_in() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let keys: Vec<_> = ["ed25519", "ecdsa", "rsa"].map(|kind| server.another_key(kind, kind)).into();
    keys.iter().for_each(|key| server.authorize(key));
    server.logged("authorized keys read again").await;
    for key in keys {
        let _ssh = server.ssh().key(key).forward_to("443", &origin).command("http").publish().await;
    }
}

#[tokio::test]
async fn an_unknown_key_is_refused_and_shown_the_reason() {
    let server = TestServer::start().await;
    let stranger = server.another_key("stranger", "ed25519");
    let ssh = server.ssh().key(stranger).command("http").run().await;
    assert_eq!(ssh.code, Some(255));
    assert!(ssh.output().contains("ERR_HITHE_1102") && ssh.output().contains("SHA256:"), "{}", ssh.output());
}

#[tokio::test]
async fn on_an_open_server_any_key_publishes() {
    let server = TestServer::with(|options| options.without_keys().open()).await;
    let origin = Origin::replying("hello").await;
    let stranger = server.another_key("stranger", "ed25519");
    let _ssh = server.ssh().key(&stranger).forward_to("app:443", &origin).command("http").publish().await;
    assert!(server.log().contains("OPEN"), "{}", server.log());
    let wildcard = server.ssh().key(&stranger).forward_to("*.b:443", &origin).command("http").run().await;
    assert!(wildcard.stdout.contains("ERR_HITHE_318"), "{}", wildcard.output());
}

#[tokio::test]
async fn an_unknown_option_in_authorized_keys_makes_its_line_unusable_and_the_log_says_so() {
    let server = TestServer::start().await;
    let key = server.another_key("restricted", "ed25519");
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let all = std::fs::read_to_string(server.authorized_keys()).unwrap();
    std::fs::write(server.authorized_keys(), format!("{all}from-mars=\"yes\" {public}")).unwrap();
    server.logged("this key is not used").await;
    assert_eq!(server.ssh().key(key).command("http").run().await.code, Some(255));
}

#[tokio::test]
async fn what_is_not_offered_is_refused_and_harms_nothing() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let control = server.folder().join("control");
    let master = server.ssh().as_master(&control).flag("-A").flag("-X").forward_to("app:443", &origin);
    let mut master = master.command("http").publish().await;
    let stdio = server.ssh().sharing(&control).flag("-W").flag("127.0.0.1:1").run().await;
    assert_ne!(stdio.code, Some(0), "{}", stdio.output());
    let subsystem = server.ssh().sharing(&control).flag("-s").command("sftp").run().await;
    assert_ne!(subsystem.code, Some(0), "{}", subsystem.output());
    let socket = server.ssh().sharing(&control).control("forward").forward("/tmp/hithe.sock:127.0.0.1:1");
    assert_ne!(socket.run().await.code, Some(0));
    assert!(master.is_running());
    assert_eq!(server.visitor().get("https://app.localhost/").await.text(), "hello");
}

#[tokio::test]
async fn a_connection_that_does_not_log_in_is_cut() {
    let server = TestServer::with(|options| options.arg("--login-grace").arg("2s")).await;
    let mut silent = TcpStream::connect(server.ssh_address()).await.unwrap();
    let mut said = Vec::new();
    hithe_integration::within("the end of the grace", silent.read_to_end(&mut said)).await.unwrap();
    assert!(said.starts_with(b"SSH-2.0-hithed_"), "{said:?}");
}

struct TrustsAll;

impl client::Handler for TrustsAll {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

#[tokio::test]
async fn a_client_that_is_turned_away_cannot_stay() {
    let server = TestServer::with(|options| options.arg("--log-level").arg("debug")).await;
    let (mut from_server, mut to_server) =
        TcpStream::connect(server.ssh_address()).await.unwrap().into_split();
    let (stream, other_end) = tokio::io::duplex(64 * 1024);
    let (mut from_client, mut to_client) = tokio::io::split(other_end);
    let staying = async {
        let to_client = tokio::io::copy(&mut from_server, &mut to_client);
        let _ = tokio::join!(to_client, tokio::io::copy(&mut from_client, &mut to_server));
        // Both directions have ended, and the connection is still held.
        std::future::pending::<()>().await;
    };
    let login = async {
        let mut client = client::connect_stream(Arc::default(), stream, TrustsAll).await.unwrap();
        let key = load_secret_key(server.user_key(), None).unwrap();
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        assert!(client.authenticate_publickey("v9", key).await.unwrap().success());
        server.logged("the connection of a publisher ended").await;
    };
    tokio::select! {
        () = staying => {}
        () = login => {}
    }
}

/// A security key (FIDO) in software: signs as PROTOCOL.u2f of OpenSSH says.
struct SecurityKey(ring::signature::Ed25519KeyPair);

impl SecurityKey {
    const APPLICATION: &str = "ssh:";

    fn new() -> Self {
        Self(ring::signature::Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap())
    }

    fn public(&self) -> PublicKey {
        let point = Ed25519PublicKey(self.0.public_key().as_ref().try_into().unwrap());
        PublicKey::new(KeyData::SkEd25519(SkEd25519::new(point, Self::APPLICATION)), "token")
    }
}

impl russh::Signer for SecurityKey {
    type Error = russh::SendError;

    async fn auth_sign(
        &mut self,
        _: &russh::keys::agent::AgentIdentity,
        _: Option<russh::keys::HashAlg>,
        mut message: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        const TOUCHED_FIRST_TIME: [u8; 5] = [1, 0, 0, 0, 1];
        let sha256 = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes);
        let application = sha256(Self::APPLICATION.as_bytes());
        let digest = sha256(&message);
        let signed = [application.as_ref(), &TOUCHED_FIRST_TIME, digest.as_ref()].concat();
        let signature = self.0.sign(&signed);
        let mut blob = Vec::new();
        for part in [b"sk-ssh-ed25519@openssh.com".as_slice(), signature.as_ref()] {
            blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
            blob.extend(part);
        }
        blob.extend(TOUCHED_FIRST_TIME);
        message.extend(u32::try_from(blob.len()).unwrap().to_be_bytes());
        message.extend(blob);
        Ok(message)
    }
}

#[tokio::test]
async fn a_security_key_logs_in() {
    let server = TestServer::start().await;
    let mut token = SecurityKey::new();
    let line = token.public().to_openssh().unwrap();
    let all = std::fs::read_to_string(server.authorized_keys()).unwrap();
    std::fs::write(server.authorized_keys(), format!("{all}{line}\n")).unwrap();
    server.logged("authorized keys read again").await;
    let mut client = ProtocolClient::connect(server.ssh_address()).await;
    let public = token.public();
    let answer = client.handle.authenticate_publickey_with("v2", public, None, &mut token).await;
    assert!(answer.unwrap().success());
    client.forward("app", 443).await.unwrap();
    read_until(&mut client.exec("http").await, "https://app.localhost").await;
}
