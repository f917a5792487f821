//! The side of the publishers: SSH connections whose forwards become endpoints.
//!
//! [`handler`] translates russh's callbacks into events, [`session`] is the actor that decides, [`forwards`] answers
//! `-R` requests at once, [`publish`] makes endpoints public, [`console`] is what the publisher reads.

mod console;
mod door;
mod forwards;
mod handler;
mod link;
mod live;
mod login;
mod offer;
mod publish;
mod publisher;
mod session;
mod text;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hithe_cli_parser::Code;
use russh::keys::{Algorithm, Certificate, EcdsaCurve, HashAlg, PrivateKey};
use russh::server::{Config, run_stream};
use russh::{Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::admin::Desk;
use crate::certs::Certificates;
use crate::config::CipherPreference;
use crate::drain::DrainWatch;
use crate::limits::{Accounts, Offence};
use crate::metrics::Metrics;
use crate::modules::Commons;
use crate::proof::Prover;
use crate::registry::Registry;
use crate::store::Recorder;
use crate::trust::Trust;
use crate::tunnel::channel::MIN_WINDOW;
use crate::tunnel::spool::Spool;
pub(crate) use door::Door;
use handler::Handler;
use link::{Link, Pulse};
use offer::{CipherOffer, MAX_OPENING};

/// What every session needs of the server.
pub(crate) struct Publishers {
    pub(crate) registry: Registry,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) access: Access,
    /// Looks up whose a custom domain is, where that lets it be claimed.
    pub(crate) prover: Option<Prover>,
    /// What accounts have of the server.
    pub(crate) accounts: Accounts,
    /// Answers what is asked of the server itself.
    pub(crate) desk: Desk,
    pub(crate) public: PublicPorts,
    /// Logins and what is published, for the audit log.
    pub(crate) audit: Recorder,
    /// Owns the sessions; it drains after the visitors.
    pub(crate) tasks: DrainWatch,
    /// Begins to drain first: the sign to tell the consoles.
    pub(crate) visitors: DrainWatch,
    pub(crate) algorithms: Algorithms,
    pub(crate) door: Door,
    pub(crate) metrics: Arc<Metrics>,
    /// Holds what slow visitors have not taken.
    pub(crate) spool: Arc<Spool>,
    /// What the modules of all endpoints share.
    pub(crate) commons: Arc<Commons>,
    /// Whom to believe about who a publisher is.
    pub(crate) trust: Trust,
}

/// The ports that URLs show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublicPorts {
    pub(crate) http: u16,
    pub(crate) https: u16,
}

/// Serves one connection of a publisher until it ends.
pub(crate) async fn serve(context: Arc<Publishers>, socket: TcpStream, peer: SocketAddr) {
    let entered = match context.door.enter(peer.ip()) {
        Ok(entered) => entered,
        Err(refusal) => return context.door.turn_away(socket, refusal, &context.metrics).await,
    };
    let kill = CancellationToken::new();
    let pulse = Arc::new(Pulse::default());
    let deadline = Instant::now() + context.door.grace();
    let _ = socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(link::WRITE_STALL));
    let mut link = Link::new(socket, Arc::clone(&pulse), &kill);
    let mut handler = Handler::new(Arc::clone(&context), peer, pulse, kill.clone(), entered.waiting);
    let (logged_in, publisher) = (handler.logged_in(), handler.publisher());
    let tried = handler.login.tried();
    let watched = context.door.watch(peer.ip());
    let running = async {
        link.greet(VERSION).await?;
        let opening =
            link.peek(MAX_OPENING, |seen| Some((version_line(seen)?, CipherOffer::find(seen)?))).await?;
        let (version, offer) = opening.unwrap_or_default();
        handler.know(&version);
        let config = context.algorithms.for_client(&offer);
        // Boxed: what it needs for the key exchange would stay with this task as long as the session lives.
        let session = Box::pin(run_stream(config, Box::new(link), handler)).await?;
        session.await
    };
    let overdue = async {
        sleep_until(deadline).await;
        if !logged_in.is_cancelled() {
            kill.cancel();
        }
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = running => ended,
        () = overdue => Ok(()),
    };
    if ended.is_ok()
        && let Some(publisher) = publisher.get()
    {
        publisher.has_left();
    }
    drop(entered.counted);
    let offence = (!logged_in.is_cancelled())
        .then(|| context.offence(peer, Instant::now() >= deadline, tried.load(Ordering::Relaxed)));
    // What a server that is about to end cuts off is nobody's fault.
    watched.ended(offence.filter(|_| !context.visitors.is_draining()));
    // A client that just goes away is how most tunnels end.
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "the connection of a publisher ended");
    }
}

impl Publishers {
    /// What a connection was about that did not log in.
    fn offence(&self, peer: SocketAddr, late: bool, tried: bool) -> Offence {
        self.audit.refused_login(peer.ip());
        match (late, tried) {
            (true, _) => {
                self.metrics.refused(Code::LOGIN_DEADLINE);
                Offence::TooSlow
            }
            (false, true) => {
                self.metrics.refused(Code::UNKNOWN_KEY);
                Offence::Failed
            }
            (false, false) => Offence::NotTried,
        }
    }
}

/// The first line of what a client has sent (RFC 4253 §4.2).
fn version_line(seen: &[u8]) -> Option<String> {
    let (line, _) = seen.split_at_checked(seen.iter().position(|byte| *byte == b'\n')?)?;
    Some(String::from_utf8_lossy(line).trim_end().to_owned())
}

/// What the server shows to publishers.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostKeys {
    pub(crate) keys: Vec<PrivateKey>,
    /// Of some of the keys, for clients that trust their authority.
    pub(crate) certificates: Vec<Certificate>,
}

/// russh's settings, one set for each kind of client.
pub(crate) struct Algorithms {
    /// What a client has to have to get the wanted ciphers alone.
    wanted: &'static [&'static str],
    alone: Arc<Config>,
    /// For the others.
    all: Arc<Config>,
}

impl Algorithms {
    pub(crate) fn new(host: HostKeys, preference: CipherPreference) -> Self {
        let aes = match preference {
            CipherPreference::AesGcm => true,
            CipherPreference::Chacha20 => false,
            CipherPreference::Auto => has_aes_instructions(),
        };
        let (wanted, ciphers): (&[_], &[_]) = if aes {
            (&["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"], AES_GCM)
        } else {
            (&["chacha20-poly1305@openssh.com"], CHACHA20)
        };
        let alone = Arc::new(config(host.clone(), ciphers, ETM_MACS));
        Self { wanted, alone, all: Arc::new(config(host, ALL_CIPHERS, ALL_MACS)) }
    }

    fn for_client(&self, offer: &CipherOffer) -> Arc<Config> {
        match offer.has_any(self.wanted) {
            true => Arc::clone(&self.alone),
            false => Arc::clone(&self.all),
        }
    }
}

fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    false
}

fn config(host: HostKeys, ciphers: &'static [cipher::Name], macs: &'static [mac::Name]) -> Config {
    Config {
        server_id: SshId::Standard(Cow::Borrowed(VERSION)),
        methods: MethodSet::from(
            [MethodKind::PublicKey, MethodKind::KeyboardInteractive, MethodKind::Password].as_slice(),
        ),
        // Keys are looked up by hash and nothing depends on the user name: there is no time to hide.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: host.keys,
        certificates: host.certificates,
        // A rekey that the server starts can end a busy session; clients start it by themselves (RFC 4253 §9).
        limits: Limits {
            rekey_write_limit: usize::MAX,
            rekey_read_limit: usize::MAX,
            rekey_time_limit: Duration::from_secs(100 * 365 * 24 * 3600),
        },
        // It grows with the round trip.
        window_size: MIN_WINDOW,
        maximum_packet_size: 32 * 1024,
        preferred: Preferred {
            kex: Cow::Borrowed(KEX),
            key: Cow::Borrowed(KEYS),
            cipher: Cow::Borrowed(ciphers),
            mac: Cow::Borrowed(macs),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::default()
        },
        max_auth_attempts: 10,
        inactivity_timeout: None,
        // It would begin before the login; see `Publisher::watch_over`.
        keepalive_interval: None,
        nodelay: true,
        ..Config::default()
    }
}

const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// What we call ourselves (RFC 4253 §4.2).
const VERSION: &str = concat!("SSH-2.0-hithed_", env!("CARGO_PKG_VERSION"));

/// No `ssh-rsa`, which signs with SHA-1.
const KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    Algorithm::SkEd25519,
    Algorithm::SkEcdsaSha2NistP256,
];

const AES_GCM: &[cipher::Name] = &[cipher::AES_256_GCM, cipher::AES_128_GCM];

/// For machines without AES instructions.
const CHACHA20: &[cipher::Name] = &[cipher::CHACHA20_POLY1305];

/// Old libraries have counter mode only.
const ALL_CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// Beside ciphers that need none: some clients want one in common all the same.
const ETM_MACS: &[mac::Name] = &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM];

/// Old libraries encrypt and authenticate apart.
const ALL_MACS: &[mac::Name] =
    &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM, mac::HMAC_SHA512, mac::HMAC_SHA256];
