//! A server for tests: it speaks SSH, takes some keys and tokens, and leads on to other hosts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};
use russh::server::{
    self, Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

/// What the server knows, and what happened there.
#[derive(Debug, Default)]
pub(crate) struct Knows {
    pub(crate) keys: Vec<PublicKey>,
    pub(crate) certificates: bool,
    /// Has everything signed, so that keys can be told from their certificates, and takes nothing.
    pub(crate) demands_signatures: bool,
    pub(crate) token: Option<String>,
    /// The instructions of its question, and the right answer if it has a prompt.
    pub(crate) question: Option<(String, Option<String>)>,
    pub(crate) banner: Option<String>,
    /// Written before the version line, and then it hangs up.
    pub(crate) turns_away: Option<String>,
    pub(crate) host_certificate: Option<Certificate>,
    pub(crate) refuses_forwards: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) host_key: PrivateKey,
    /// Users and fingerprints or words that were tried.
    pub(crate) tried: Arc<Mutex<Vec<String>>>,
}

impl TestServer {
    pub(crate) async fn start(knows: Knows) -> Self {
        Self::with_key(knows, new_key()).await
    }

    pub(crate) async fn with_key(knows: Knows, host_key: PrivateKey) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), host_key, tried: Arc::default() };
        let config = Arc::new(server::Config {
            keys: vec![server.host_key.clone()],
            certificates: knows.host_certificate.clone().into_iter().collect(),
            auth_rejection_time: Duration::ZERO,
            auth_rejection_time_initial: Some(Duration::ZERO),
            // Six, as sshd's, and one since russh counts the method `none`, too.
            max_auth_attempts: 7,
            ..Default::default()
        });
        let (knows, tried) = (Arc::new(knows), Arc::clone(&server.tried));
        spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                if let Some(text) = &knows.turns_away {
                    stream.write_all(text.as_bytes()).await.unwrap();
                    continue;
                }
                let one = One { knows: Arc::clone(&knows), tried: Arc::clone(&tried) };
                let config = Arc::clone(&config);
                spawn(async move {
                    if let Ok(running) = server::run_stream(config, stream, one).await {
                        let _ = running.await;
                    }
                });
            }
        });
        server
    }

    /// Its line of known_hosts.
    pub(crate) fn known_hosts_line(&self) -> String {
        format!("[127.0.0.1]:{} {}\n", self.address.port(), self.host_key.public_key().to_openssh().unwrap())
    }

    pub(crate) fn tried(&self) -> Vec<String> {
        self.tried.lock().unwrap().clone()
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's server ends with its runtime")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

pub(crate) fn new_key() -> PrivateKey {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap()
}

/// Writes a key into a file and returns its path.
pub(crate) fn write_key(folder: &Path, name: &str, key: &PrivateKey) -> PathBuf {
    let path = folder.join(name);
    key.write_openssh_file(&path, LineEnding::LF).unwrap();
    path
}

struct One {
    knows: Arc<Knows>,
    tried: Arc<Mutex<Vec<String>>>,
}

impl One {
    fn note(&self, what: String) {
        self.tried.lock().unwrap().push(what);
    }
}

fn verdict(right: bool) -> Result<Auth, russh::Error> {
    Ok(if right { Auth::Accept } else { Auth::reject() })
}

impl server::Handler for One {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, russh::Error> {
        Ok(self.knows.banner.clone())
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        self.note(format!(
            "{user} {} {}",
            offer.algorithm,
            super::known_hosts::fingerprint(offer.public_key)
        ));
        verdict(
            self.knows.certificates
                || self.knows.demands_signatures
                || self.knows.keys.iter().any(|key| key.key_data() == offer.public_key.key_data()),
        )
    }

    async fn auth_publickey(
        &mut self,
        _user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        if self.knows.demands_signatures {
            self.note("the key itself".into());
        }
        verdict(self.knows.keys.iter().any(|known| known.key_data() == key.public_key.key_data()))
    }

    async fn auth_openssh_certificate(
        &mut self,
        _user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, russh::Error> {
        self.note(format!("certificate {}", certificate.key_id()));
        verdict(self.knows.certificates)
    }

    async fn auth_password(&mut self, _user: &str, password: &str) -> Result<Auth, russh::Error> {
        self.note("password".into());
        verdict(self.knows.token.as_deref() == Some(password))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let Some((instructions, right)) = self.knows.question.clone() else { return verdict(false) };
        match response {
            Some(mut answers) => {
                verdict(right.is_some() && answers.next().as_deref() == right.as_deref().map(str::as_bytes))
            }
            None => {
                let prompts = right.map(|_| ("Access token: ".into(), false)).into_iter().collect::<Vec<_>>();
                Ok(Auth::Partial {
                    name: "".into(),
                    instructions: instructions.into(),
                    prompts: prompts.into(),
                })
            }
        }
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        assert_eq!(line, b"whoami --json");
        session.channel_success(channel)?;
        session.data(channel, &br#"{"account": "ada", "credential": "key", "source": "127.0.0.1"}"#[..])?;
        session.eof(channel)?;
        session.close(channel)
    }

    async fn tcpip_forward(
        &mut self,
        _address: &str,
        port: &mut u32,
        _session: &mut Session,
    ) -> Result<bool, russh::Error> {
        assert_eq!(*port, 0);
        *port = 4321;
        self.note("forward".into());
        Ok(!self.knows.refuses_forwards)
    }

    async fn cancel_tcpip_forward(
        &mut self,
        _address: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, russh::Error> {
        self.note(format!("cancel {port}"));
        Ok(true)
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.note(format!("to {host}:{port}"));
        let place = (host.to_owned(), u16::try_from(port).unwrap());
        spawn(async move {
            match TcpStream::connect(place).await {
                Ok(mut next) => {
                    reply.accept().await;
                    #[expect(clippy::disallowed_methods, reason = "a test's server")]
                    let _ = tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut next).await;
                }
                Err(_) => reply.reject(russh::ChannelOpenFailure::ConnectFailed).await,
            }
        });
        Ok(())
    }
}
