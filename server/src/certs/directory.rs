//! `--certificates DIR`: pairs `DIR/NAME/{fullchain,privkey}.pem`, as certbot lays them out, read again on change.
//!
//! What a pair is good for stands in its certificate; the folder's name means nothing. A pair that became bad is
//! complained about and the one before it stays in use.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use hithe_cli_parser::HostName;
use rustls::InconsistentKeys;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

use super::Message;

const CHAIN: &str = "fullchain.pem";
const KEY: &str = "privkey.pem";

/// The certificates that the operator gives.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// What [`Directory::refresh`] compares with; visitors do not wait for it.
    pairs: Mutex<Pairs>,
    by_name: ArcSwap<Names>,
}

/// By folder.
type Pairs = BTreeMap<PathBuf, Pair>;

/// By name; `*.example.com` for a wildcard.
type Names = HashMap<String, Arc<CertifiedKey>>;

/// Why the files of a folder are not in use. One line, for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PairError {
    #[error("cannot read the certificates in {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("there are no certificates in {path}: expected {path}/NAME/fullchain.pem and privkey.pem")]
    Empty { path: PathBuf },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} holds no certificate in PEM format")]
    NoCertificate { path: PathBuf },
    #[error("{path} holds no private key in PEM format without passphrase")]
    NoKey { path: PathBuf },
    #[error("the certificate {chain} does not belong to the key {key}")]
    Mismatch { chain: PathBuf, key: PathBuf },
    #[error("cannot use {chain} with {key}: {source}")]
    Unusable { chain: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("the certificate {path} has no DNS name (subject alternative name)")]
    Nameless { path: PathBuf },
}

/// What was found in a folder the last time something changed in it.
#[derive(Debug)]
struct Pair {
    stamps: [Option<Stamp>; 2],
    /// Missing as long as the folder has never held a good pair.
    loaded: Option<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
    /// Seconds since 1970.
    not_after: i64,
    /// The complaint was made.
    expiry_told: bool,
}

/// A file that changed has another one, also when a link now leads to another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Directory {
    /// At the start every pair has to be good.
    pub(super) fn load(path: &Path) -> Result<(Self, Vec<Message>), Vec<PairError>> {
        let folders = folders(path).map_err(|error| vec![error])?;
        if folders.is_empty() {
            return Err(vec![PairError::Empty { path: path.to_owned() }]);
        }
        let mut pairs = Pairs::new();
        let mut errors = Vec::new();
        for folder in folders {
            match Pair::load(&folder) {
                Ok(pair) => drop(pairs.insert(folder, pair)),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut messages: Vec<_> = pairs.iter().map(|(folder, pair)| pair.announced(folder)).collect();
        messages.extend(newly_expired(&mut pairs));
        let by_name = ArcSwap::from_pointee(by_name(&pairs));
        Ok((Self { path: path.to_owned(), pairs: Mutex::new(pairs), by_name }, messages))
    }

    /// The exact certificate, else one with a wildcard for the last label only (RFC 9525 §6.3).
    pub(super) fn find(&self, name: &HostName) -> Option<Arc<CertifiedKey>> {
        let name = name.as_str();
        let names = self.by_name.load();
        let wildcard = || names.get(&format!("*.{}", name.split_once('.')?.1));
        names.get(name).or_else(wildcard).map(Arc::clone)
    }

    /// The certificate in a folder, and the names that it is for.
    pub(super) fn in_folder(&self, folder: &str) -> Option<(Arc<CertifiedKey>, Vec<String>)> {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = pairs.get(&self.path.join(folder))?.loaded.as_ref()?;
        Some((Arc::clone(&loaded.key), loaded.names.clone()))
    }

    /// Reads what changed. Each problem is told once, until its files change again.
    pub(super) fn refresh(&self) -> Vec<Message> {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        // While the directory itself cannot be read, all stays as it is.
        let Ok(folders) = folders(&self.path) else { return vec![] };
        let mut messages = Vec::new();
        pairs.retain(|folder, _| {
            let stays = folders.contains(folder);
            if !stays {
                messages.push(Message::Changed(format!("the certificate in {} is gone", folder.display())));
            }
            stays
        });
        for folder in folders {
            let pair = pairs.entry(folder.clone()).or_insert(Pair { stamps: [None; 2], loaded: None });
            messages.extend(pair.refresh(&folder));
        }
        let is_changed = !messages.is_empty();
        messages.extend(newly_expired(&mut pairs));
        if is_changed {
            self.by_name.store(Arc::new(by_name(&pairs)));
        }
        messages
    }
}

impl Pair {
    fn load(folder: &Path) -> Result<Self, PairError> {
        // Stamps first: a change while reading shows at the next look.
        let stamps = stamps(folder);
        Ok(Self { stamps, loaded: Some(load(folder)?) })
    }

    fn refresh(&mut self, folder: &Path) -> Option<Message> {
        let stamps = stamps(folder);
        let is_new = self.loaded.is_none() && self.stamps == [None; 2];
        if stamps == self.stamps && !is_new {
            return None;
        }
        self.stamps = stamps;
        match load(folder) {
            Ok(loaded) => {
                self.loaded = Some(loaded);
                Some(self.announced(folder))
            }
            Err(error) if self.loaded.is_some() => {
                Some(Message::Complaint(format!("{error}; the certificate before it stays in use")))
            }
            // An empty folder stays [None; 2]: it is told when its first file comes.
            Err(_) if stamps == [None; 2] => None,
            Err(error) => Some(Message::Complaint(error.to_string())),
        }
    }

    fn announced(&self, folder: &Path) -> Message {
        let names = self.loaded.as_ref().map(|it| it.names.join(", ")).unwrap_or_default();
        Message::Changed(format!("using the certificate in {} for {names}", folder.display()))
    }
}

/// Folders of the directory, also by link. Hidden ones and files are passed over.
fn folders(path: &Path) -> Result<Vec<PathBuf>, PairError> {
    let unreadable = |source| PairError::Directory { path: path.to_owned(), source };
    let mut folders = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !is_hidden && entry.path().is_dir() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

fn stamps(folder: &Path) -> [Option<Stamp>; 2] {
    [CHAIN, KEY].map(|file| {
        let metadata = fs::metadata(folder.join(file)).ok()?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Some(Stamp { inode: metadata.ino(), size: metadata.size(), modified })
    })
}

fn load(folder: &Path) -> Result<Loaded, PairError> {
    let (chain_path, key_path) = (folder.join(CHAIN), folder.join(KEY));
    let chain = read_chain(&chain_path)?;
    let key = read_key(&key_path)?;
    let (names, not_after) =
        chain.first().and_then(facts).ok_or(PairError::NoCertificate { path: chain_path.clone() })?;
    if names.is_empty() {
        return Err(PairError::Nameless { path: chain_path });
    }
    let key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|source| match source {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            PairError::Mismatch { chain: chain_path, key: key_path }
        }
        source => PairError::Unusable { chain: chain_path, key: key_path, source },
    })?;
    Ok(Loaded { names, key: Arc::new(key), not_after, expiry_told: false })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, PairError> {
    let content = read(path)?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&content).collect();
    chain
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| PairError::NoCertificate { path: path.to_owned() })
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, PairError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| PairError::NoKey { path: path.to_owned() })
}

fn read(path: &Path) -> Result<Vec<u8>, PairError> {
    fs::read(path).map_err(|source| PairError::Read { path: path.to_owned(), source })
}

/// What a certificate may hold beside that is no name that a visitor asks for.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._*".contains(&byte)
}

/// DNS names in lower case, and the end of the validity.
fn facts(leaf: &CertificateDer<'static>) -> Option<(Vec<String>, i64)> {
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let alternatives = leaf.subject_alternative_name().ok()?;
    let names = alternatives.iter().flat_map(|it| &it.value.general_names);
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) if name.bytes().all(is_of_name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    Some((names.filter_map(dns).collect(), leaf.validity().not_after.timestamp()))
}

/// Of several certificates for one name, the one that lasts longest.
fn by_name(pairs: &Pairs) -> Names {
    let mut loaded: Vec<&Loaded> = pairs.values().filter_map(|pair| pair.loaded.as_ref()).collect();
    loaded.sort_by_key(|it| it.not_after);
    let names =
        loaded.into_iter().flat_map(|it| it.names.iter().map(|name| (name.clone(), Arc::clone(&it.key))));
    names.collect()
}

fn newly_expired(pairs: &mut Pairs) -> Vec<Message> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut messages = Vec::new();
    for (folder, pair) in pairs {
        let Some(loaded) = pair.loaded.as_mut().filter(|it| !it.expiry_told && it.not_after <= now) else {
            continue;
        };
        loaded.expiry_told = true;
        let path = folder.join(CHAIN);
        messages.push(Message::Complaint(format!(
            "the certificate {} has expired: visitors refuse it",
            path.display()
        )));
    }
    messages
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    fn write_pair(folder: &Path, names: &[&str], not_after: SystemTime) {
        fs::create_dir_all(folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = not_after.into();
        fs::write(folder.join(CHAIN), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(folder.join(KEY), key.serialize_pem()).unwrap();
    }

    fn pair(root: &TempDir, folder: &str, names: &[&str]) -> PathBuf {
        let path = root.path().join(folder);
        write_pair(&path, names, SystemTime::now() + YEAR);
        path
    }

    fn load_all(root: &TempDir) -> Directory {
        Directory::load(root.path()).unwrap().0
    }

    fn errors(root: &TempDir) -> String {
        let errors = Directory::load(root.path()).unwrap_err();
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn names_come_from_the_certificate_and_not_from_the_folder() {
        let root = TempDir::new().unwrap();
        pair(&root, "whatever", &["app.example.com", "WWW.example.com"]);
        let directory = load_all(&root);
        assert!(directory.find(&name("app.example.com")).is_some());
        assert!(directory.find(&name("www.example.com")).is_some());
        assert!(directory.find(&name("whatever")).is_none());
    }

    #[test]
    fn an_exact_certificate_goes_before_a_wildcard_which_covers_one_label() {
        let root = TempDir::new().unwrap();
        pair(&root, "wild", &["*.example.com"]);
        pair(&root, "exact", &["app.example.com"]);
        let directory = load_all(&root);
        let found = |text| directory.find(&name(text));
        assert!(!Arc::ptr_eq(&found("app.example.com").unwrap(), &found("other.example.com").unwrap()));
        assert!(found("a.b.example.com").is_none() && found("example.com").is_none());
    }

    #[test]
    fn links_are_followed_and_plain_files_are_passed_over() {
        let (root, archive) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let real = pair(&archive, "real", &["linked.example.com"]);
        symlink(real, root.path().join("live")).unwrap();
        fs::write(root.path().join("README"), "hello").unwrap();
        fs::create_dir(root.path().join(".hidden")).unwrap();
        assert!(load_all(&root).find(&name("linked.example.com")).is_some());
    }

    #[test]
    fn at_the_start_every_bad_pair_is_an_error_that_names_its_files() {
        let root = TempDir::new().unwrap();
        let (a, b) = (pair(&root, "a", &["a.example"]), pair(&root, "b", &["b.example"]));
        fs::copy(b.join(KEY), a.join(KEY)).unwrap();
        fs::write(b.join(CHAIN), "rubbish").unwrap();
        fs::create_dir(root.path().join("c")).unwrap();
        let told = errors(&root);
        assert!(told.contains("a/fullchain.pem does not belong to the key"), "{told}");
        assert!(told.contains("a/privkey.pem"), "{told}");
        assert!(told.contains("b/fullchain.pem holds no certificate"), "{told}");
        assert!(told.contains("cannot read") && told.contains("c/fullchain.pem"), "{told}");
    }

    #[test]
    fn a_key_with_passphrase_and_an_empty_directory_are_named() {
        let root = TempDir::new().unwrap();
        assert!(errors(&root).contains("there are no certificates in"));
        let folder = pair(&root, "a", &["a.example"]);
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        fs::write(folder.join(KEY), encrypted).unwrap();
        assert!(errors(&root).contains("without passphrase"), "{}", errors(&root));
    }

    #[test]
    fn a_renewed_pair_is_used_without_a_restart() {
        let root = TempDir::new().unwrap();
        pair(&root, "a", &["a.example"]);
        let directory = load_all(&root);
        let before = directory.find(&name("a.example")).unwrap();
        assert_eq!(directory.refresh(), []);
        pair(&root, "a", &["a.example", "b.example"]);
        assert!(matches!(&directory.refresh()[..], [Message::Changed(_)]));
        assert!(!Arc::ptr_eq(&before, &directory.find(&name("a.example")).unwrap()));
        assert!(directory.find(&name("b.example")).is_some());
        assert_eq!(directory.refresh(), []);
    }

    #[test]
    fn a_pair_that_became_bad_is_told_once_and_the_old_one_stays() {
        let root = TempDir::new().unwrap();
        let folder = pair(&root, "a", &["a.example"]);
        let directory = load_all(&root);
        let before = directory.find(&name("a.example")).unwrap();
        fs::write(folder.join(KEY), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let told = directory.refresh();
        assert!(matches!(&told[..], [Message::Complaint(text)] if text.contains("stays in use")), "{told:?}");
        assert_eq!(directory.refresh(), []);
        assert!(Arc::ptr_eq(&before, &directory.find(&name("a.example")).unwrap()));
        pair(&root, "a", &["a.example"]);
        directory.refresh();
        assert!(!Arc::ptr_eq(&before, &directory.find(&name("a.example")).unwrap()));
    }

    #[test]
    fn folders_come_and_go() {
        let root = TempDir::new().unwrap();
        let gone = pair(&root, "a", &["a.example"]);
        let directory = load_all(&root);
        fs::create_dir(root.path().join("b")).unwrap();
        assert_eq!(directory.refresh(), []);
        pair(&root, "b", &["b.example"]);
        fs::remove_dir_all(gone).unwrap();
        assert_eq!(directory.refresh().len(), 2);
        assert!(directory.find(&name("a.example")).is_none() && directory.find(&name("b.example")).is_some());
    }

    #[test]
    fn an_expired_certificate_is_complained_about_once() {
        let root = TempDir::new().unwrap();
        write_pair(&root.path().join("a"), &["a.example"], SystemTime::now() - YEAR);
        let (directory, told) = Directory::load(root.path()).unwrap();
        let expired = |it: &Message| matches!(it, Message::Complaint(text) if text.contains("has expired"));
        assert!(told.iter().any(expired), "{told:?}");
        assert_eq!(directory.refresh(), []);
    }

    #[test]
    fn of_two_certificates_for_a_name_the_longer_lasting_counts() {
        let root = TempDir::new().unwrap();
        write_pair(&root.path().join("a"), &["x.example", "only.example"], SystemTime::now() + YEAR * 2);
        write_pair(&root.path().join("b"), &["x.example"], SystemTime::now() + YEAR);
        let directory = load_all(&root);
        let found = |text| directory.find(&name(text)).unwrap();
        assert!(Arc::ptr_eq(&found("x.example"), &found("only.example")));
    }
}
