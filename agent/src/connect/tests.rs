//! Whole ways into servers that run in the test.

mod host_keys;
#[cfg(unix)]
mod offers;
#[cfg(unix)]
mod programs;
pub(crate) mod server;

use std::collections::VecDeque;
use std::fs;
use std::io;
#[cfg(unix)]
use std::process::Command;
#[cfg(unix)]
use std::process::Stdio;
use std::sync::Mutex;
use std::time::SystemTime;

use russh::client::{Config, DisconnectReason, Session};
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey, PublicKeyOrCertificate};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::server::{Knows, TestServer, new_key, write_key};
use super::known_hosts;
use super::modes::write_for_us;
use super::*;
use crate::exit;

/// Somebody who answers from a list, and remembers what was asked.
#[derive(Debug, Default)]
struct Person {
    answers: Mutex<VecDeque<&'static str>>,
    asked: Mutex<Vec<String>>,
}

impl Person {
    fn who_says(answers: &[&'static str]) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.iter().copied().collect()), asked: Mutex::default() })
    }

    fn asked(&self) -> String {
        self.asked.lock().unwrap().join("\n")
    }
}

impl Ask for Person {
    fn is_there(&self) -> bool {
        true
    }

    fn show(&self, text: &str) -> io::Result<()> {
        self.asked.lock().unwrap().push(text.to_owned());
        Ok(())
    }

    fn line(&self, question: &str) -> io::Result<String> {
        self.show(question)?;
        let answer = self.answers.lock().unwrap().pop_front();
        answer.map(str::to_owned).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn secret(&self, question: &str) -> io::Result<Secret<String>> {
        self.line(question).map(Secret::new)
    }
}

struct Quiet(Gate);

impl Handler for Quiet {
    type Error = ConnectError;

    async fn auth_banner(&mut self, banner: &str, _session: &mut Session) -> Result<(), ConnectError> {
        self.0.hear_lines(banner);
        Ok(())
    }

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, ConnectError> {
        self.0.check_server_key(key).await
    }

    async fn disconnected(&mut self, reason: DisconnectReason<ConnectError>) -> Result<(), ConnectError> {
        self.0.hear_the_end(&reason);
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => Err(error),
        }
    }
}

/// A home directory with `.ssh`.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".ssh")).unwrap();
        Self(home)
    }

    fn ssh(&self) -> PathBuf {
        self.0.path().join(".ssh")
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        write_for_us(&self.ssh().join(name), text);
    }

    fn key(&self, name: &str) -> PrivateKey {
        let key = new_key();
        write_key(&self.ssh(), name, &key);
        key
    }

    fn knows(&self, server: &TestServer) {
        let path = self.ssh().join("known_hosts");
        let lines = fs::read_to_string(&path).unwrap_or_default() + &server.known_hosts_line();
        fs::write(path, lines).unwrap();
    }

    fn route(&self, options: &ServerOptions, variables: &[(&str, &str)]) -> Route {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let around = Surroundings { home: Some(self.0.path().into()), system_config: None, variables };
        resolve::resolve(options, &around).unwrap().asking(Arc::new(Nobody))
    }

    fn way_to(&self, server: &TestServer) -> Route {
        self.route(&to(server), &[])
    }
}

fn to(server: &TestServer) -> ServerOptions {
    let limit = Some(Duration::from_secs(10));
    ServerOptions { address: Some(server.address.to_string()), connect_timeout: limit, ..Default::default() }
}

async fn enter(route: &Route) -> Result<Handle<Quiet>, ConnectError> {
    route.connect(Config::default(), Quiet).await
}

async fn refused(route: &Route) -> ConnectError {
    match enter(route).await {
        Ok(_) => panic!("this should be refused"),
        Err(error) => error,
    }
}

fn knowing(keys: &[&PrivateKey]) -> Knows {
    Knows { keys: keys.iter().map(|key| key.public_key().clone()).collect(), ..Default::default() }
}

#[tokio::test]
async fn a_usual_key_opens_a_known_server() {
    let home = Home::new();
    let server = TestServer::start(knowing(&[&home.key("id_ed25519")])).await;
    home.knows(&server);
    enter(&home.way_to(&server)).await.unwrap();
    assert!(server.tried()[0].starts_with("v2 ssh-ed25519 "));
}

// Windows has ssh-keygen where OpenSSH was installed.
#[tokio::test]
async fn a_key_that_was_named_is_the_only_one_that_is_offered() {
    let home = Home::new();
    let (usual, stranger) = (home.key("id_ed25519"), home.key("stranger"));
    let server = TestServer::start(knowing(&[&usual])).await;
    home.knows(&server);
    let named = |name: &str| ServerOptions { identities: vec![home.ssh().join(name)], ..to(&server) };
    let error = refused(&home.route(&named("stranger"), &[])).await;
    assert_eq!(error.exit_status(), exit::LOGIN);
    let offered = known_hosts::fingerprint(stranger.public_key());
    assert!(server.tried().iter().all(|tried| tried.contains(&offered)), "{:?}", server.tried());
    home.write("broken", "no key");
    let error = refused(&home.route(&named("broken"), &[])).await;
    assert!(error.to_string().contains("broken"), "{error}");
    enter(&home.route(&named("id_ed25519"), &[])).await.unwrap();
    home.write("config", "IdentityFile ~/.ssh/gone\nIdentitiesOnly yes\n");
    let error = refused(&home.way_to(&server)).await;
    assert!(error.to_string().contains("gone: there is no such file"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn an_rsa_key_signs_with_sha_2() {
    let home = Home::new();
    // Faster than making one here without optimisation.
    let path = home.ssh().join("id_rsa");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f"]).arg(&path).status();
    assert!(made.unwrap().success());
    fs::remove_file(home.ssh().join("id_rsa.pub")).unwrap();
    let key = russh::keys::load_secret_key(&path, None).unwrap();
    let server = TestServer::start(knowing(&[&key])).await;
    home.knows(&server);
    enter(&home.way_to(&server)).await.unwrap();
    assert!(server.tried()[0].starts_with("v2 rsa-sha2-512 "), "{:?}", server.tried());
}

/// A certificate for a key, made by an authority.
fn certify(
    authority: &PrivateKey,
    key: &PrivateKey,
    kind: CertType,
    principal: &str,
) -> russh::keys::Certificate {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut rng = russh::keys::key::safe_rng();
    let public = key.public_key().key_data().clone();
    let mut builder = Builder::new_with_random_nonce(&mut rng, public, now - 60, now + 3600).unwrap();
    builder.cert_type(kind).unwrap().key_id("id").unwrap().valid_principal(principal).unwrap();
    builder.sign(authority).unwrap()
}

#[tokio::test]
async fn a_passphrase_is_asked_once_and_only_where_the_server_knows_the_key() {
    let home = Home::new();
    let key = new_key();
    let locked = key.encrypt(&mut russh::keys::key::safe_rng(), "open sesame").unwrap();
    write_key(&home.ssh(), "id_ed25519", &locked);
    let stranger = TestServer::start(Knows::default()).await;
    home.knows(&stranger);
    let person = Person::who_says(&[]);
    assert!(refused(&home.way_to(&stranger).asking(person.clone())).await.is_final());
    assert!(!person.asked().contains("Passphrase"), "{}", person.asked());

    let knows = Knows { question: Some(("I do not know you.".into(), None)), ..knowing(&[&key]) };
    let server = TestServer::start(knows).await;
    home.knows(&server);
    let person = Person::who_says(&["wrong", "open sesame"]);
    let route = home.way_to(&server).asking(person.clone());
    enter(&route).await.unwrap();
    enter(&route.clone()).await.unwrap();
    assert_eq!(person.asked().matches("Passphrase").count(), 2, "{}", person.asked());
    let error = refused(&home.way_to(&server)).await;
    assert!(error.to_string().contains("needs a passphrase, and nobody can be asked"), "{error}");
    assert!(error.advice().starts_with("Put the key into ssh-agent"), "{}", error.advice());
    assert!(error.to_string().contains("ssh-add"), "{error}");
    assert_eq!(error.exit_status(), exit::LOGIN);
}

#[tokio::test]
async fn a_wrong_passphrase_is_asked_for_three_times_in_all_and_then_comes_the_next_key() {
    let home = Home::new();
    let locked = |name: &str| {
        let key = new_key();
        let locked = key.encrypt(&mut russh::keys::key::safe_rng(), "open sesame").unwrap();
        write_key(&home.ssh(), name, &locked);
        key
    };
    let (first, second) = (locked("id_ed25519"), locked("id_ecdsa"));
    let certificate = certify(&new_key(), &first, CertType::User, "v2");
    home.write("id_ed25519-cert.pub", certificate.to_openssh().unwrap());
    let server = TestServer::start(Knows { certificates: true, ..knowing(&[&first, &second]) }).await;
    home.knows(&server);
    let person = Person::who_says(&["wrong"; 3]);
    person.answers.lock().unwrap().push_back("open sesame");
    let route = home.way_to(&server).asking(person.clone());
    enter(&route).await.unwrap();
    enter(&route).await.unwrap();
    let questions = |name: &str| {
        person.asked().matches(&format!("Passphrase for {}", home.ssh().join(name).display())).count()
    };
    assert_eq!((questions("id_ed25519:"), questions("id_ecdsa:")), (3, 1), "{}", person.asked());
}

#[cfg(unix)]
#[tokio::test]
async fn keys_of_other_forms_open_the_server_or_it_is_said_what_to_do() {
    let home = Home::new();
    let path = home.ssh().join("id_rsa");
    let run = |line: &str| {
        let line = line.replace("KEY", path.to_str().unwrap());
        let done = Command::new("sh").arg("-c").arg(&line).stderr(Stdio::null()).status().unwrap();
        assert!(done.success(), "{line}");
    };
    let unreadable = "`ssh-keygen -p -f ";
    for (make, outcome) in [
        ("openssl genpkey -algorithm ed25519 -aes256 -pass pass:sesame -out KEY", "opens"),
        ("puttygen -q -t ed25519 -o KEY --new-passphrase KEY-pass", "opens"),
        ("ssh-keygen -q -t ed25519 -N sesame -Z aes256-gcm@openssh.com -f KEY", "opens"),
        ("ssh-keygen -q -t rsa -m PEM -N sesame -f KEY", "opens"),
        ("ssh-keygen -q -t ecdsa -m PEM -N sesame -f KEY", unreadable),
        ("ssh-keygen -q -t ed25519 -N sesame -Z 3des-cbc -f KEY", unreadable),
        ("openssl genrsa -traditional -aes256 -passout pass:sesame -out KEY 2048", unreadable),
        ("openssl ecparam -name secp256k1 -genkey -noout -out KEY", unreadable),
        (
            "openssl genpkey -algorithm ed25519 | openssl pkcs8 -topk8 -v2 des3 -passout pass:sesame -out KEY",
            unreadable,
        ),
        ("head -c 300 /dev/urandom > KEY", "there is no private key in it"),
        ("touch KEY", "there is no private key in it"),
    ] {
        home.write("id_rsa-pass", "sesame");
        run(make);
        let public = russh::keys::load_secret_key(&path, Some("sesame")).map(|key| key.public_key().clone());
        let keys = public.into_iter().collect();
        let server = TestServer::start(Knows { keys, ..Default::default() }).await;
        home.knows(&server);
        let person = Person::who_says(&["sesame"]);
        let entered = enter(&home.way_to(&server).asking(person)).await;
        match entered {
            Ok(_) => assert_eq!(outcome, "opens", "{make}"),
            Err(error) => assert!(error.to_string().contains(outcome), "{make}: {error}"),
        }
        run("rm -f KEY KEY.pub KEY-pass");
    }
}

#[tokio::test]
async fn a_token_logs_in_alone_and_a_wrong_one_ends_it() {
    let home = Home::new();
    home.key("id_ed25519");
    let server = TestServer::start(Knows { token: Some("secret".into()), ..Default::default() }).await;
    home.knows(&server);
    let with = |token: &str| ServerOptions { token: Some(Secret::new(token.into())), ..to(&server) };
    enter(&home.route(&with("secret"), &[])).await.unwrap();
    let error = refused(&home.route(&with("wrong"), &[])).await;
    assert!(error.to_string().contains("access token is not known"), "{error}");
    assert!(error.is_final());
    assert_eq!(server.tried(), ["password", "password"]);
}

#[tokio::test]
async fn what_the_server_says_about_a_key_it_does_not_know_reaches_the_person() {
    let home = Home::new();
    home.key("id_ed25519");
    let said = "ERR_HITHE_1102: your key is not known to this server.\x1b[2J";
    let knows =
        Knows { question: Some((said.into(), None)), banner: Some("Welcome\n".into()), ..Default::default() };
    let server = TestServer::start(knows).await;
    home.knows(&server);
    let error = refused(&home.way_to(&server)).await;
    assert!(error.is_final());
    assert!(error.to_string().contains("id_ed25519"), "{error}");
    assert!(
        error.advice().starts_with("Welcome\nERR_HITHE_1102: your key is not known"),
        "{}",
        error.advice()
    );
    assert!(!error.advice().contains('\x1b'));
}

#[tokio::test]
async fn a_person_answers_the_servers_question() {
    let home = Home::new();
    let knows = Knows {
        question: Some(("No key. Or type a token.".into(), Some("secret".into()))),
        ..Default::default()
    };
    let server = TestServer::start(knows).await;
    home.knows(&server);
    let person = Person::who_says(&["wrong", "secret"]);
    enter(&home.way_to(&server).asking(person.clone())).await.unwrap();
    assert!(person.asked().starts_with("No key. Or type a token.\nAccess token: "), "{}", person.asked());
    assert!(refused(&home.way_to(&server)).await.is_final());
}

#[tokio::test]
async fn no_more_keys_are_offered_than_a_server_puts_up_with() {
    let home = Home::new();
    let names: Vec<_> = (0..9).map(|n| format!("key{n}")).collect();
    let config: String = names.iter().map(|name| format!("IdentityFile ~/.ssh/{name}\n")).collect();
    home.write("config", config);
    for name in &names {
        home.key(name);
    }
    let server =
        TestServer::start(Knows { question: Some(("Who are you?".into(), None)), ..Default::default() })
            .await;
    home.knows(&server);
    let error = refused(&home.way_to(&server)).await;
    assert!(error.to_string().contains("4 more keys were not offered"), "{error}");
    assert!(error.advice().contains("Who are you?"), "the question comes after the keys: {error}");
    assert_eq!(server.tried().len(), 5);
}

#[tokio::test]
async fn jump_hosts_lead_to_a_server_and_each_is_checked() {
    let home = Home::new();
    let key = home.key("id_ed25519");
    let server = TestServer::start(knowing(&[&key])).await;
    let (near, far) = (TestServer::start(knowing(&[&key])).await, TestServer::start(knowing(&[&key])).await);
    let jumps = format!("ada@{},bob@{}", near.address, far.address);
    home.write(
        "config",
        format!("Host server\n HostName 127.0.0.1\n Port {}\n ProxyJump {jumps}\n", server.address.port()),
    );
    let options = ServerOptions { address: Some("server".into()), ..to(&server) };
    home.knows(&server);
    home.knows(&near);
    let error = refused(&home.route(&options, &[])).await;
    assert!(matches!(&error, ConnectError::Jump { host, .. } if *host == far.address.to_string()), "{error}");
    assert_eq!(error.exit_status(), exit::HOST_KEY);
    home.knows(&far);
    let handle = enter(&home.route(&options, &[])).await.unwrap();
    assert!(!handle.is_closed());
    assert!(near.tried().last().unwrap().starts_with(&format!("to {}", far.address)));
    assert!(far.tried().last().unwrap().starts_with(&format!("to {}", server.address)));
    assert!(near.tried()[0].starts_with("ada ") && far.tried()[0].starts_with("bob "));
}

#[tokio::test]
async fn a_token_is_not_shown_to_a_jump_host() {
    let home = Home::new();
    let key = home.key("id_ed25519");
    let jump = TestServer::start(knowing(&[&key])).await;
    let server = TestServer::start(Knows { token: Some("secret".into()), ..Default::default() }).await;
    home.write("config", format!("Host 127.0.0.1\n ProxyJump ada@localhost:{}\n", jump.address.port()));
    home.knows(&server);
    let line = jump.known_hosts_line().replace("127.0.0.1", "localhost");
    let path = home.ssh().join("known_hosts");
    fs::write(&path, fs::read_to_string(&path).unwrap() + &line).unwrap();
    let options = ServerOptions { token: Some(Secret::new("secret".into())), ..to(&server) };
    enter(&home.route(&options, &[])).await.unwrap();
    assert!(!jump.tried().contains(&"password".to_owned()), "{:?}", jump.tried());
}

#[tokio::test]
async fn why_a_server_turns_somebody_away_in_plain_text_is_told_and_tried_again() {
    let home = Home::new();
    let text = "ERR_HITHE_1201: too many connections from your network\r\n";
    let server = TestServer::start(Knows { turns_away: Some(text.into()), ..Default::default() }).await;
    let error = refused(&home.way_to(&server)).await;
    assert!(error.to_string().contains("too many connections from your network"), "{error}");
    assert!(!error.is_final());
}

#[tokio::test]
async fn who_does_not_speak_ssh_is_told_from_a_server() {
    let home = Home::new();
    let text = "HTTP/1.1 400 Bad Request\r\n".repeat(40);
    let server = TestServer::start(Knows { turns_away: Some(text), ..Default::default() }).await;
    let error = refused(&home.way_to(&server)).await;
    assert!(matches!(error, ConnectError::Protocol { .. }), "{error}");
    assert!(error.to_string().ends_with("it answers \"HTTP/1.1 400 Bad Request\""), "{error}");
    assert_eq!(error.exit_status(), exit::NETWORK);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_given_up_but_not_while_a_person_thinks() {
    let home = Home::new();
    let hop = home.way_to(&TestServer {
        address: "127.0.0.1:1".parse().unwrap(),
        host_key: new_key(),
        tried: Arc::default(),
    });
    let gate = hop.gate();
    let limit = Duration::from_secs(10);
    let never = std::future::pending::<Result<(), ConnectError>>();
    assert!(matches!(gate.within("x", limit, never).await, Err(ConnectError::Timeout { .. })));
    let thinking = async {
        tokio::time::sleep(limit / 2).await;
        let open = gate.ask_open();
        tokio::time::sleep(10 * limit - limit / 100).await;
        drop(open);
        // What comes after the answer has its time.
        tokio::time::sleep(limit * 9 / 10).await;
        Ok::<_, ConnectError>(())
    };
    gate.within("x", limit, thinking).await.unwrap();
    let silent_after_the_answer = async {
        drop(gate.ask_open());
        std::future::pending::<Result<(), ConnectError>>().await
    };
    assert!(matches!(
        gate.within("x", limit, silent_after_the_answer).await,
        Err(ConnectError::Timeout { .. })
    ));
}

#[tokio::test]
async fn a_server_that_falls_silent_in_the_key_exchange_is_hung_up_on() {
    let home = Home::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Some(listener.local_addr().unwrap().to_string());
    let limit = Some(Duration::from_millis(300));
    let options = ServerOptions { address, connect_timeout: limit, ..Default::default() };
    let route = home.route(&options, &[]);
    let silent = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-silent\r\n").await.unwrap();
        let mut heard = Vec::new();
        let ended = stream.read_to_end(&mut heard).await;
        assert!(heard.starts_with(b"SSH-2.0-"), "{ended:?}");
    };
    let (error, ended) = tokio::join!(refused(&route), tokio::time::timeout(Duration::from_secs(10), silent));
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
    ended.expect("the connection is closed, not only forgotten");
}

#[tokio::test]
async fn who_is_asked_can_change_without_asking_again() {
    let home = Home::new();
    let key = new_key();
    let locked = key.encrypt(&mut russh::keys::key::safe_rng(), "open sesame").unwrap();
    write_key(&home.ssh(), "id_ed25519", &locked);
    let server = TestServer::start(knowing(&[&key])).await;
    home.knows(&server);
    let route = home.way_to(&server).asking(Person::who_says(&["open sesame"]));
    enter(&route).await.unwrap();
    enter(&route.asking(Arc::new(Nobody))).await.unwrap();
}
