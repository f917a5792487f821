//! Where the certificates of SNS come from: over HTTPS from Amazon, kept for the next message.
//!
//! Any visitor can name a certificate, so what is fetched is bounded in size, in time and in number at once, and
//! what could not be had is not asked for again at once.

use std::fmt;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, select};
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use lru::LruCache;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::sns::{Certificate, CertificateUrl};

/// Gives the certificate that stands at a URL.
pub(in crate::modules) trait CertificateSource: Send + Sync {
    fn certificate<'a>(&'a self, url: &'a CertificateUrl) -> BoxFuture<'a, Option<Arc<Certificate>>>;
}

/// Fetches from Amazon.
pub(in crate::modules) struct Amazon {
    known: Mutex<LruCache<CertificateUrl, Arc<Certificate>>>,
    /// What was not to be had, and until when it is not asked for again. Apart from the others, which a visitor
    /// could displace by naming what does not exist.
    missing: Mutex<LruCache<CertificateUrl, Instant>>,
    fetches: Semaphore,
    connector: OnceCell<TlsConnector>,
    port: u16,
}

/// Why there is no certificate. Goes to the log.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("too many are being fetched")]
    Busy,
    #[error("it took longer than {DEADLINE:?}")]
    Timeout,
    #[error("no connection")]
    Connect(#[from] std::io::Error),
    #[error("no TLS")]
    Tls(#[from] rustls::Error),
    #[error("no answer")]
    Http(#[from] hyper::Error),
    #[error("the answer was {0}")]
    Status(StatusCode),
    #[error("the answer was too large or broke off")]
    Body,
    #[error("the answer is not a certificate")]
    Form,
    #[error("the URL cannot be asked for")]
    Url,
}

/// SNS has a certificate for each region and changes it about once a year.
const KEPT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);
const AT_ONCE: usize = 4;
const DEADLINE: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 64 * 1024;
const ASK_AGAIN: Duration = Duration::from_secs(30);

impl Default for Amazon {
    fn default() -> Self {
        Self {
            known: Mutex::new(LruCache::new(KEPT)),
            missing: Mutex::new(LruCache::new(KEPT)),
            fetches: Semaphore::new(AT_ONCE),
            connector: OnceCell::new(),
            port: 443,
        }
    }
}

impl CertificateSource for Amazon {
    fn certificate<'a>(&'a self, url: &'a CertificateUrl) -> BoxFuture<'a, Option<Arc<Certificate>>> {
        Box::pin(async move {
            if let Some(known) = self.recall(url) {
                return known;
            }
            let fetched = match timeout(DEADLINE, self.fetch(url)).await {
                Ok(fetched) => fetched,
                Err(_) => Err(FetchError::Timeout),
            };
            match fetched {
                Ok(certificate) => {
                    let certificate = Arc::new(certificate);
                    locked(&self.known).put(url.clone(), Arc::clone(&certificate));
                    Some(certificate)
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(host = url.host(), cause, "no certificate of SNS: {error}");
                    if !matches!(error, FetchError::Busy) {
                        locked(&self.missing).put(url.clone(), Instant::now() + ASK_AGAIN);
                    }
                    None
                }
            }
        })
    }
}

impl Amazon {
    /// What is known of it, if that still holds.
    fn recall(&self, url: &CertificateUrl) -> Option<Option<Arc<Certificate>>> {
        if let Some(certificate) = locked(&self.known).get(url) {
            return Some(Some(Arc::clone(certificate)));
        }
        let missing = locked(&self.missing).get(url).is_some_and(|until| Instant::now() < *until);
        missing.then_some(None)
    }

    async fn fetch(&self, url: &CertificateUrl) -> Result<Certificate, FetchError> {
        let _permit = self.fetches.try_acquire().map_err(|_| FetchError::Busy)?;
        let connector = self.connector.get_or_try_init(system_roots).await?;
        let tcp = TcpStream::connect((url.host(), self.port)).await?;
        let name = ServerName::try_from(url.host().to_owned()).map_err(|_| FetchError::Url)?;
        let tls = connector.connect(name, tcp).await?;
        let pem = get(TokioIo::new(tls), url).await?;
        Certificate::of_pem(&pem).ok_or(FetchError::Form)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request over a connection of its own. Redirects are not followed.
async fn get(
    io: impl hyper::rt::Read + hyper::rt::Write + Unpin,
    url: &CertificateUrl,
) -> Result<Vec<u8>, FetchError> {
    let (mut sender, connection) = http1::handshake(io).await?;
    let request = Request::get(url.path()).header(HOST, url.host());
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|_| FetchError::Url)?;
    let exchange = pin!(async move {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        body.map(|it| it.to_bytes().to_vec()).map_err(|_| FetchError::Body)
    });
    match select(exchange, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        // It has read everything that there is.
        Either::Right((_, exchange)) => exchange.await,
    }
}

/// Trusts what the system trusts, so that the operator keeps that list and not this program.
async fn system_roots() -> Result<TlsConnector, FetchError> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.map_err(std::io::Error::other)?.certs);
    connector(roots)
}

fn connector(roots: RootCertStore) -> Result<TlsConnector, FetchError> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions()?.with_root_certificates(roots);
    Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())))
}

impl fmt::Debug for Amazon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Amazon")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Answers every connection with these bytes, as whoever it is asked for.
    struct Stand {
        roots: RootCertStore,
        port: u16,
        asked: Arc<AtomicUsize>,
    }

    const NAME: &str = "localhost";

    async fn stand(answer: Vec<u8>) -> Stand {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([NAME.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let _ = tls.read(&mut [0; 1024]).await;
                let _ = tls.write_all(&answer).await;
                let _ = tls.shutdown().await;
            }
        });
        Stand { roots, port, asked }
    }

    impl Stand {
        fn source(&self) -> Amazon {
            let connector = OnceCell::new_with(connector(self.roots.clone()).ok());
            Amazon { connector, port: self.port, ..Amazon::default() }
        }
    }

    fn answer(status: &str, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    fn here() -> CertificateUrl {
        CertificateUrl::at(NAME, "/a.pem")
    }

    #[tokio::test]
    async fn a_certificate_is_fetched_once() {
        let pem = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap().cert.pem();
        let stand = stand(answer("200 OK", pem.as_bytes())).await;
        let source = stand.source();
        assert!(source.certificate(&here()).await.is_some());
        assert!(source.certificate(&here()).await.is_some());
        assert_eq!(stand.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_is_no_certificate_is_not_asked_for_again_at_once() {
        let big = vec![b'x'; MAX_BYTES + 1];
        for answer in [
            answer("302 Found", b""),
            answer("200 OK", b"nothing"),
            answer("200 OK", &big),
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec(),
            b"SSH-2.0-x\r\n".to_vec(),
        ] {
            let stand = stand(answer).await;
            let source = stand.source();
            assert!(source.certificate(&here()).await.is_none());
            assert!(source.certificate(&here()).await.is_none());
            assert_eq!(stand.asked.load(Ordering::SeqCst), 1);
        }
    }

    #[tokio::test]
    async fn a_host_that_nobody_vouches_for_is_not_believed() {
        let stand = stand(answer("200 OK", b"")).await;
        let source = Stand { roots: RootCertStore::empty(), ..stand }.source();
        assert!(source.certificate(&here()).await.is_none());
    }
}
