//! The side of the publishers: SSH connections whose forwards become endpoints.
//!
//! [`handler`] translates russh's callbacks into events, [`session`] is the actor that decides, [`forwards`] answers
//! `-R` requests at once, [`publish`] makes endpoints public, [`console`] is what the publisher reads.

mod admission;
mod auth;
mod console;
mod forwards;
mod handler;
mod link;
mod publish;
mod publisher;
mod session;
mod text;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey};
use russh::server::{Config, run_stream};
use russh::{Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub(crate) use admission::Admission;
pub(crate) use auth::KeyRing;

use crate::certs::Certificates;
use crate::config::CipherPreference;
use crate::drain::DrainWatch;
use crate::registry::Registry;
use crate::tunnel::channel::MIN_WINDOW;
use crate::tunnel::spool::Spool;
use handler::Handler;
use link::{Link, Pulse};

/// What every session needs of the server.
pub(crate) struct Publishers {
    pub(crate) registry: Registry,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) keys: KeyRing,
    pub(crate) public: PublicPorts,
    /// Owns the sessions; it drains after the visitors.
    pub(crate) tasks: DrainWatch,
    /// Begins to drain first: the sign to tell the consoles.
    pub(crate) visitors: DrainWatch,
    pub(crate) algorithms: Algorithms,
    pub(crate) admission: Admission,
    /// Holds what slow visitors have not taken.
    pub(crate) spool: Arc<Spool>,
    /// On an open server: counts every connection.
    pub(crate) open_admission: Option<Admission>,
}

/// The ports that URLs show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublicPorts {
    pub(crate) http: u16,
    pub(crate) https: u16,
}

/// Serves one connection of a publisher until it ends.
pub(crate) async fn serve(context: Arc<Publishers>, socket: TcpStream, peer: SocketAddr) {
    let Some(admitted) = context.admission.admit(peer.ip()) else {
        tracing::debug!(%peer, "too many connections that have not logged in");
        return;
    };
    let counted = context.open_admission.as_ref().map(|admission| admission.admit(peer.ip()));
    if matches!(counted, Some(None)) {
        tracing::debug!(%peer, "too many connections from this source to an open server");
        return;
    }
    let kill = CancellationToken::new();
    let pulse = Arc::new(Pulse::default());
    let deadline = Instant::now() + LOGIN_GRACE;
    let _ = socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(link::WRITE_STALL));
    let mut link = Link::new(socket, Arc::clone(&pulse), &kill);
    let mut handler = Handler::new(Arc::clone(&context), peer, pulse, kill.clone(), admitted);
    let logged_in = handler.logged_in();
    let running = async {
        let version = link.peek_version().await?;
        handler.know(&version);
        let config = context.algorithms.for_client(&version);
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
        () = overdue => return,
    };
    // A client that just goes away is how most tunnels end.
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "the connection of a publisher ended");
    }
}

/// russh's settings, one set for each kind of client.
pub(crate) struct Algorithms {
    modern: Arc<Config>,
    legacy: Arc<Config>,
}

impl Algorithms {
    pub(crate) fn new(host_keys: Vec<PrivateKey>, preference: CipherPreference) -> Self {
        let modern = match preference {
            CipherPreference::AesGcm => AES_GCM,
            CipherPreference::Chacha20 => CHACHA20_FIRST,
            CipherPreference::Auto if has_aes_instructions() => AES_GCM,
            CipherPreference::Auto => CHACHA20_FIRST,
        };
        let modern = config(host_keys.clone(), modern);
        let legacy = config(host_keys, LEGACY_CIPHERS);
        Self { modern: Arc::new(modern), legacy: Arc::new(legacy) }
    }

    /// AEADs only for clients that are known to have AES-GCM.
    fn for_client(&self, version: &str) -> Arc<Config> {
        match has_aes_gcm(version) {
            true => Arc::clone(&self.modern),
            false => Arc::clone(&self.legacy),
        }
    }
}

/// OpenSSH has had it since 6.2, PuTTY since 0.78; both ask for ChaCha20 first.
fn has_aes_gcm(version: &str) -> bool {
    let at_least = |prefix: &str, least: (u32, u32)| {
        let Some(rest) = version.strip_prefix(prefix) else { return false };
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= least
    };
    at_least("SSH-2.0-OpenSSH_", (6, 2))
        || at_least("SSH-2.0-OpenSSH_for_Windows_", (7, 6))
        || at_least("SSH-2.0-PuTTY_Release_", (0, 78))
        || version.starts_with("SSH-2.0-hithe")
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

fn config(keys: Vec<PrivateKey>, ciphers: &'static [cipher::Name]) -> Config {
    Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-hithed_", env!("CARGO_PKG_VERSION")))),
        methods: MethodSet::from([MethodKind::PublicKey, MethodKind::KeyboardInteractive].as_slice()),
        // Keys are looked up by hash and nothing depends on the user name: there is no time to hide.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys,
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
            mac: Cow::Borrowed(MACS),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::default()
        },
        max_auth_attempts: 10,
        inactivity_timeout: None,
        // Dead at (max + 1) intervals of silence: 15 s.
        keepalive_interval: Some(Duration::from_secs(5)),
        keepalive_max: 2,
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

/// The client's order decides, so what is to be used must be alone.
const AES_GCM: &[cipher::Name] = &[cipher::AES_256_GCM, cipher::AES_128_GCM];

/// For machines without AES instructions.
const CHACHA20_FIRST: &[cipher::Name] =
    &[cipher::CHACHA20_POLY1305, cipher::AES_256_GCM, cipher::AES_128_GCM];

/// Old libraries have counter mode only.
const LEGACY_CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

const MACS: &[mac::Name] = &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM, mac::HMAC_SHA512, mac::HMAC_SHA256];

/// From accept to login.
const LOGIN_GRACE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_have_aes_gcm_are_known_by_their_version() {
        for version in [
            "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7",
            "SSH-2.0-OpenSSH_10.1",
            "SSH-2.0-OpenSSH_6.2",
            "SSH-2.0-OpenSSH_for_Windows_9.5",
            "SSH-2.0-PuTTY_Release_0.78",
            "SSH-2.0-hithe_0.1.0",
        ] {
            assert!(has_aes_gcm(version), "{version}");
        }
        for version in [
            "SSH-2.0-OpenSSH_5.9p1",
            "SSH-2.0-PuTTY_Release_0.77",
            "SSH-2.0-dropbear_2022.83",
            "SSH-2.0-paramiko_2.12.0",
            "SSH-2.0-OpenSSH_",
            "",
        ] {
            assert!(!has_aes_gcm(version), "{version}");
        }
    }
}
