//! The server's own certificate authority, made once in the state directory and good for its domain only.
//!
//! A visitor who trusts `ca.pem` trusts it for nothing else: name constraints (RFC 5280 §4.2.1.10) permit the domain
//! and what is below it, and no address.

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hithe_cli_parser::HostName;
use lru::LruCache;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tempfile::NamedTempFile;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::Message;

const DAY: Duration = Duration::from_secs(24 * 3600);
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3652);
/// An authority with less than this ahead is replaced at the start, so that it outlives all its certificates.
const AUTHORITY_REST: Duration = DAY.saturating_mul(180);
const LEAF_LIFE: Duration = DAY.saturating_mul(90);
/// A certificate with less than this ahead is made anew.
const LEAF_REST: Duration = DAY.saturating_mul(30);
/// For visitors whose clock is slow.
const BACKDATED: Duration = Duration::from_secs(3600);
/// Certificates kept; of more names, the one unused for longest is made anew when it is asked for again.
const CACHE: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// RFC 5280 Appendix A.1, ub-common-name.
const MAX_COMMON_NAME: usize = 64;

/// Issues certificates for names at or below one domain.
pub(super) struct Authority {
    domain: HostName,
    certificate_file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    cache: Mutex<LruCache<HostName, Leaf>>,
}

struct Leaf {
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: the state directory must be writable")]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "others can read the key {path} (mode {mode:04o}): run chmod 600 {path}, or delete it to get a new one"
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{certificate} and {key} are not an authority of this server: delete both to get a new one")]
    Broken { certificate: PathBuf, key: PathBuf },
    #[error("cannot make a certificate")]
    Issue(#[from] rcgen::Error),
    #[error("cannot use the certificate that was made")]
    Use(#[from] rustls::Error),
}

impl Authority {
    pub(super) fn load_or_create(
        state_dir: &Path,
        domain: &HostName,
    ) -> Result<(Self, Vec<Message>), AuthorityError> {
        let files = Files::of(state_dir);
        if let Some((issuer, facts)) = files.read()? {
            let Some(reason) = facts.outdated(domain) else {
                return Ok((Self::new(domain, files, issuer), vec![]));
            };
            let issuer = files.create(state_dir, domain)?;
            let path = files.certificate.display();
            let told = format!("{reason}: made a new authority, visitors have to trust {path} anew");
            return Ok((Self::new(domain, files, issuer), vec![Message::Complaint(told)]));
        }
        let issuer = files.create(state_dir, domain)?;
        let told =
            format!("made an authority for {domain}, visitors can trust {}", files.certificate.display());
        Ok((Self::new(domain, files, issuer), vec![Message::Changed(told)]))
    }

    fn new(domain: &HostName, files: Files, issuer: Issuer<'static, KeyPair>) -> Self {
        let cache = Mutex::new(LruCache::new(CACHE));
        Self { domain: domain.clone(), certificate_file: files.certificate, issuer, cache }
    }

    pub(super) fn certificate_file(&self) -> &Path {
        &self.certificate_file
    }

    /// Whether the constraints let this authority speak for the name.
    pub(super) fn permits(&self, name: &HostName) -> bool {
        *name == self.domain || name.is_below(&self.domain)
    }

    /// The certificate of exactly this name; that of the domain covers the names directly below it too.
    pub(super) fn certify(&self, name: &HostName) -> Result<Arc<CertifiedKey>, AuthorityError> {
        let now = SystemTime::now();
        if let Some(leaf) = self.cache().get(name).filter(|leaf| now < leaf.renew_at) {
            return Ok(Arc::clone(&leaf.key));
        }
        // Not under the lock: two visitors at once may make two, which is harmless.
        let key = Arc::new(self.issue(name, now)?);
        let renew_at = now + (LEAF_LIFE - LEAF_REST);
        self.cache().put(name.clone(), Leaf { key: Arc::clone(&key), renew_at });
        Ok(key)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, LruCache<HostName, Leaf>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issue(&self, name: &HostName, now: SystemTime) -> Result<CertifiedKey, AuthorityError> {
        let mut names = vec![name.to_string()];
        if *name == self.domain {
            names.push(format!("*.{name}"));
        }
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = common_name("Hithe endpoint");
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + LEAF_LIFE).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let chain = vec![certificate.der().clone()];
        Ok(CertifiedKey::from_der(chain, key.into(), &default_provider())?)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// The authority on disk.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What the authority on disk is good for.
struct Facts {
    permitted: Vec<String>,
    /// Seconds since 1970.
    not_after: i64,
}

impl Files {
    fn of(state_dir: &Path) -> Self {
        Self { certificate: state_dir.join("ca.pem"), key: state_dir.join("ca.key") }
    }

    /// `None` unless both are there: a certificate without key is of no use, nor the other way round.
    fn read(&self) -> Result<Option<(Issuer<'static, KeyPair>, Facts)>, AuthorityError> {
        let (Some(certificate), Some(key)) = (read_if_there(&self.certificate)?, read_if_there(&self.key)?)
        else {
            return Ok(None);
        };
        refuse_exposed(&self.key)?;
        Self::parse(&certificate, &key).map(Some).ok_or_else(|| AuthorityError::Broken {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        })
    }

    fn parse(certificate: &str, key: &str) -> Option<(Issuer<'static, KeyPair>, Facts)> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
        let key = KeyPair::from_pem(key).ok()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
        if parsed.public_key().subject_public_key.data != key.public_key_raw() {
            return None;
        }
        let facts =
            Facts { permitted: permitted(&parsed), not_after: parsed.validity().not_after.timestamp() };
        Some((Issuer::from_ca_cert_der(&der, key).ok()?, facts))
    }

    fn create(
        &self,
        state_dir: &Path,
        domain: &HostName,
    ) -> Result<Issuer<'static, KeyPair>, AuthorityError> {
        let params = authority_params(domain, SystemTime::now());
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?;
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            |source| AuthorityError::Write { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(unwritable(state_dir))?;
        replace(state_dir, &self.key, &key.serialize_pem(), 0o600).map_err(unwritable(&self.key))?;
        replace(state_dir, &self.certificate, &certificate.pem(), 0o644)
            .map_err(unwritable(&self.certificate))?;
        Ok(Issuer::new(params, key))
    }
}

impl Facts {
    /// Why this authority cannot serve the domain.
    fn outdated(&self, domain: &HostName) -> Option<String> {
        let permitted = self.permitted.join(", ");
        if permitted != domain.to_string() {
            return Some(format!("the authority was good for {permitted:?} and not for {domain}"));
        }
        let rest = SystemTime::now() + AUTHORITY_REST;
        let rest = rest.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        (self.not_after < rest.try_into().unwrap_or(i64::MAX))
            .then(|| "the authority was about to expire".to_owned())
    }
}

fn authority_params(domain: &HostName, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("Hithe authority of {domain}"));
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + AUTHORITY_LIFE).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(domain.to_string())],
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(Ipv4Addr::UNSPECIFIED.into(), 0)),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(Ipv6Addr::UNSPECIFIED.into(), 0)),
        ],
    });
    params
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text.chars().take(MAX_COMMON_NAME).collect::<String>());
    name
}

fn permitted(certificate: &X509Certificate<'_>) -> Vec<String> {
    let constraints =
        certificate.name_constraints().ok().flatten().and_then(|it| it.value.permitted_subtrees.as_ref());
    let name = |base: &GeneralName<'_>| match base {
        GeneralName::DNSName(name) => (*name).to_owned(),
        other => other.to_string(),
    };
    constraints.into_iter().flatten().map(|subtree| name(&subtree.base)).collect()
}

fn read_if_there(path: &Path) -> Result<Option<String>, AuthorityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityError::Read { path: path.to_owned(), source }),
    }
}

fn refuse_exposed(path: &Path) -> Result<(), AuthorityError> {
    let metadata =
        fs::metadata(path).map_err(|source| AuthorityError::Read { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(AuthorityError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

/// A reader sees the old file or the new one, whole.
fn replace(directory: &Path, path: &Path, content: &str, mode: u32) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(content.as_bytes())?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    fn authority(state: &TempDir, domain: &str) -> (Authority, Vec<Message>) {
        Authority::load_or_create(state.path(), &name(domain)).unwrap()
    }

    fn mode(path: PathBuf) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_an_authority_and_says_where() {
        let state = TempDir::new().unwrap();
        let (authority, told) = authority(&state, "tunnel.example");
        assert_eq!(authority.certificate_file(), state.path().join("ca.pem"));
        assert!(matches!(&told[..], [Message::Changed(text)] if text.contains("ca.pem")), "{told:?}");
        assert_eq!(mode(state.path().join("ca.key")), 0o600);
        assert_eq!(mode(state.path().join("ca.pem")), 0o644);
    }

    #[test]
    fn the_next_start_finds_the_same_authority() {
        let state = TempDir::new().unwrap();
        authority(&state, "tunnel.example");
        let before = fs::read(state.path().join("ca.pem")).unwrap();
        let (_, told) = authority(&state, "tunnel.example");
        assert_eq!(told, []);
        assert_eq!(fs::read(state.path().join("ca.pem")).unwrap(), before);
    }

    #[test]
    fn another_domain_needs_another_authority_and_that_is_said() {
        let state = TempDir::new().unwrap();
        authority(&state, "old.example");
        let (authority, told) = authority(&state, "new.example");
        assert!(matches!(&told[..], [Message::Complaint(text)] if text.contains("old.example")), "{told:?}");
        assert!(authority.permits(&name("a.new.example")));
    }

    #[test]
    fn files_that_do_not_fit_together_are_refused_with_the_way_out() {
        let (state, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        authority(&state, "a.example");
        authority(&other, "a.example");
        fs::copy(other.path().join("ca.key"), state.path().join("ca.key")).unwrap();
        let error = Authority::load_or_create(state.path(), &name("a.example")).unwrap_err();
        assert!(error.to_string().contains("delete both"), "{error}");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let state = TempDir::new().unwrap();
        authority(&state, "a.example");
        fs::set_permissions(state.path().join("ca.key"), Permissions::from_mode(0o644)).unwrap();
        let error = Authority::load_or_create(state.path(), &name("a.example")).unwrap_err();
        assert!(matches!(error, AuthorityError::Exposed { .. }), "{error}");
    }

    #[test]
    fn an_authority_that_is_about_to_expire_is_replaced() {
        let soon = SystemTime::now() + DAY;
        let not_after = soon.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().try_into().unwrap();
        let facts = Facts { permitted: vec!["a.example".to_owned()], not_after };
        assert!(facts.outdated(&name("a.example")).unwrap().contains("expire"));
    }

    #[test]
    fn a_certificate_is_made_once_for_a_name() {
        let state = TempDir::new().unwrap();
        let (authority, _) = authority(&state, "a.example");
        let first = authority.certify(&name("x.a.example")).unwrap();
        assert!(Arc::ptr_eq(&first, &authority.certify(&name("x.a.example")).unwrap()));
        assert!(!Arc::ptr_eq(&first, &authority.certify(&name("y.a.example")).unwrap()));
    }

    #[test]
    fn a_certificate_near_its_end_is_made_anew() {
        let state = TempDir::new().unwrap();
        let (authority, _) = authority(&state, "a.example");
        let first = authority.certify(&name("x.a.example")).unwrap();
        authority.cache().get_mut(&name("x.a.example")).unwrap().renew_at = SystemTime::now();
        assert!(!Arc::ptr_eq(&first, &authority.certify(&name("x.a.example")).unwrap()));
    }

    #[test]
    fn it_speaks_for_its_domain_only() {
        let state = TempDir::new().unwrap();
        let (authority, _) = authority(&state, "a.example");
        for (text, permitted) in
            [("a.example", true), ("x.y.a.example", true), ("xa.example", false), ("b.org", false)]
        {
            assert_eq!(authority.permits(&name(text)), permitted, "{text}");
        }
    }
}
