//! The keys that a login can show: in files, with certificates beside them, and in ssh-agent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use russh::Signer;
use russh::keys::agent::client::{AgentClient, AgentStream};
use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode as _;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::ssh_key::{Signature, public::KeyData};
use russh::keys::{Certificate, HashAlg, PrivateKey, PublicKey};
use tokio::time::timeout;

use super::gate::Gate;
use super::locked::{PrivateFile, unlock};
use super::modes::{Exposed, can_be_read};
use super::{ConnectError, Hop, Identity, IdentitySource};

/// Bytes of a key file.
const MAX_FILE: u64 = 64 * 1024;
/// ssh-agent answers from memory.
const AGENT: Duration = Duration::from_secs(5);

type Agent = AgentClient<Box<dyn AgentStream + Send + Unpin>>;

/// A key that is offered, and who signs with it.
#[derive(Debug)]
pub(super) struct Offer {
    /// As messages call it.
    pub(super) name: String,
    pub(super) key: PublicKey,
    pub(super) certificate: Option<Certificate>,
    signs: Signs,
}

#[derive(Clone, Debug)]
enum Signs {
    /// ssh-agent, asked for what it lists.
    Agent(Box<AgentIdentity>),
    Key(Arc<PrivateKey>),
    /// The file needs a passphrase, which is asked for when the server would take the key.
    Locked(PathBuf),
}

/// All that can be offered, in the order in which ssh would do it, but what was named on the command line comes before
/// other keys. A key comes before its certificate: who it is must not depend on the client.
pub(super) struct Keyring {
    pub(super) offers: Vec<Offer>,
    /// Why something is not offered.
    pub(super) notes: Vec<String>,
    /// A passphrase is missing for something of it.
    pub(super) is_locked: bool,
    agent: Option<Agent>,
}

impl Keyring {
    pub(super) async fn of(hop: &Hop, gate: &Gate, binding: Option<&AgentSessionBinding>) -> Self {
        let mut ring = Self { offers: Vec::new(), notes: Vec::new(), is_locked: false, agent: None };
        let in_agent = ring.open_agent(hop, binding).await;
        let mut files = Vec::new();
        for identity in &hop.identities {
            match KeyFile::read(identity, gate).await {
                Ok(Some(file)) => files.push((identity.source, file)),
                Ok(None) if identity.source == IdentitySource::Usual => {}
                Ok(None) => ring.notes.push(format!("{}: there is no such file", identity.path.display())),
                Err(KeyError { why, is_locked }) => {
                    ring.is_locked |= is_locked;
                    ring.notes.push(format!("{}: {why}", identity.path.display()));
                }
            }
        }
        for path in &hop.certificates {
            ring.add_certificate(path, &files, &in_agent, hop.identities_only);
        }
        let mut entries = Vec::new();
        for (source, file) in files {
            entries.push((source, file.entry(None)));
            // Certificates that are named are meant instead of those that lie beside the keys.
            let beside = if hop.certificates.is_empty() { ring.beside(&file) } else { None };
            entries.extend(beside.map(|certificate| (source, file.entry(Some(certificate)))));
        }
        let (typed, others): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(source, _)| *source == IdentitySource::Option);
        let mut others: Vec<_> = others.into_iter().map(|(_, entry)| entry).collect();
        for (_, entry) in typed {
            ring.add(entry, &in_agent);
        }
        // Keys that are configured come before the agent's others: of many keys only the first few are offered.
        let mut unnamed = Vec::new();
        for identity in &in_agent {
            match others.iter().position(|entry| entry.is(identity)) {
                Some(at) => ring.add(others.remove(at), &in_agent),
                None => unnamed.push(identity),
            }
        }
        for identity in unnamed.into_iter().filter(|_| !hop.identities_only) {
            ring.add_of_agent(identity);
        }
        for entry in others {
            ring.add(entry, &in_agent);
        }
        ring
    }

    /// Offers what there is a private key for.
    fn add(&mut self, entry: Entry, in_agent: &[AgentIdentity]) {
        let Entry { name, key, certificate, private, exposed } = entry;
        match (signs(&key, private, in_agent), exposed) {
            (Some(signs), _) => self.push(Offer { name, key, certificate, signs }),
            (None, _) if certificate.is_some() => {}
            (None, Some(why)) => {
                tracing::warn!("{name}: {why}");
                self.notes.push(format!("{name}: {why}"));
            }
            (None, None) => self.notes.push(format!("{name}: ssh-agent does not have its private key")),
        }
    }

    /// One that `CertificateFile` names, with the key that it is for.
    fn add_certificate(
        &mut self,
        path: &Path,
        files: &[(IdentitySource, KeyFile)],
        in_agent: &[AgentIdentity],
        identities_only: bool,
    ) {
        let name = path.display().to_string();
        let read = read(path).map_err(|error| error.to_string());
        let certificate = match read.and_then(|text| user_certificate(&text)) {
            Ok(certificate) => certificate,
            Err(why) => return self.notes.push(format!("{name}: {why}")),
        };
        let key = PublicKey::from(certificate.public_key().clone());
        let its = |(_, file): &&(IdentitySource, KeyFile)| file.public.key_data() == key.key_data();
        let private = files.iter().filter(its).find_map(|(_, file)| file.private.clone());
        let is_named = files.iter().any(|file| its(&file));
        let in_agent = if identities_only && !is_named { &[] } else { in_agent };
        match signs(&key, private, in_agent) {
            Some(signs) => self.push(Offer { name, key, certificate: Some(certificate), signs }),
            None => self
                .notes
                .push(format!("{name}: its private key is in no file that is named, and not in ssh-agent")),
        }
    }

    /// The certificate beside a key, if there is one that is good for a login.
    fn beside(&mut self, file: &KeyFile) -> Option<Certificate> {
        match user_certificate(&beside(&file.path, "-cert.pub")?) {
            Ok(certificate) => Some(certificate),
            Err(why) => {
                self.notes.push(format!("{}-cert.pub: {why}", file.name));
                None
            }
        }
    }

    fn add_of_agent(&mut self, identity: &AgentIdentity) {
        let (key, certificate, comment) = match identity {
            AgentIdentity::PublicKey { key, comment } => (key.clone(), None, comment),
            AgentIdentity::Certificate { certificate, comment } => {
                (PublicKey::from(certificate.public_key().clone()), Some(certificate.clone()), comment)
            }
        };
        let name = format!("{} of ssh-agent", hithe_cli_parser::printable(comment));
        self.push(Offer { name, key, certificate, signs: Signs::Agent(Box::new(identity.clone())) });
    }

    fn push(&mut self, offer: Offer) {
        let same = |known: &Offer| {
            known.key.key_data() == offer.key.key_data() && known.certificate == offer.certificate
        };
        if !self.offers.iter().any(same) {
            self.offers.push(offer);
        }
    }

    /// The keys in ssh-agent. That there is none is usual.
    async fn open_agent(&mut self, hop: &Hop, binding: Option<&AgentSessionBinding>) -> Vec<AgentIdentity> {
        let Some(path) = &hop.agent else { return Vec::new() };
        let opened = timeout(AGENT, async {
            let mut agent = connect_agent(path).await?;
            // Agents that do not know this say so, and serve all the same.
            if let Some(binding) = binding {
                let _ = agent.bind_session(binding, false).await;
            }
            let identities = agent.request_identities().await?;
            Ok::<_, russh::keys::Error>((agent, identities))
        });
        let why = match opened.await {
            Ok(Ok((agent, identities))) => {
                self.agent = Some(agent);
                return identities;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".into(),
        };
        self.notes.push(format!("ssh-agent at {}: {why}", path.display()));
        Vec::new()
    }

    /// Who signs with the key of an offer.
    pub(super) fn signer<'a>(&'a mut self, at: usize, gate: &'a Gate) -> Option<(&'a Offer, KeySigner<'a>)> {
        let offer = self.offers.get(at)?;
        Some((offer, KeySigner { offer, agent: self.agent.as_mut(), gate }))
    }
}

/// Signs with one key.
pub(super) struct KeySigner<'a> {
    offer: &'a Offer,
    agent: Option<&'a mut Agent>,
    gate: &'a Gate,
}

impl Signer for KeySigner<'_> {
    type Error = ConnectError;

    async fn auth_sign(
        &mut self,
        _shown: &AgentIdentity,
        hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, ConnectError> {
        let key = match &self.offer.signs {
            Signs::Key(key) => Arc::clone(key),
            Signs::Locked(path) => unlock(path, self.gate).await.map_err(failed)?,
            Signs::Agent(identity) => {
                let agent = self.agent.as_mut().ok_or_else(|| failed("ssh-agent is gone"))?;
                // It may ask for a confirmation, or for a touch of a device.
                let _open = self.gate.ask_open();
                return Box::pin(agent.sign_request(identity, hash, to_sign))
                    .await
                    .map_err(|error| failed(error.to_string()));
            }
        };
        let signature = sign(&key, hash, &to_sign).map_err(failed)?;
        signature.encode(&mut to_sign).map_err(|error| failed(error.to_string()))?;
        Ok(to_sign)
    }
}

fn sign(key: &PrivateKey, hash: Option<HashAlg>, data: &[u8]) -> Result<Vec<u8>, String> {
    let signature: Result<Signature, _> = match key.key_data() {
        KeypairData::Rsa(pair) => (pair, hash.or(Some(HashAlg::Sha512))).try_sign(data),
        pair => pair.try_sign(data),
    };
    let mut encoded = Vec::new();
    signature.map_err(|error| error.to_string())?.encode(&mut encoded).map_err(|error| error.to_string())?;
    Ok(encoded)
}

fn failed(why: impl Into<String>) -> ConnectError {
    ConnectError::Ssh(russh::Error::IO(io::Error::other(why.into())))
}

/// Something that may be offered: a key, or a certificate for it.
struct Entry {
    name: String,
    key: PublicKey,
    certificate: Option<Certificate>,
    private: Option<Signs>,
    /// Why the private key does not count.
    exposed: Option<String>,
}

impl Entry {
    /// Whether ssh-agent lists just this.
    fn is(&self, identity: &AgentIdentity) -> bool {
        match (identity, &self.certificate) {
            (AgentIdentity::PublicKey { key, .. }, None) => key.key_data() == self.key.key_data(),
            (AgentIdentity::Certificate { certificate, .. }, Some(ours)) => certificate == ours,
            _ => false,
        }
    }
}

/// Who signs with a key: ssh-agent if it has it, as key rather than as certificate.
fn signs(key: &PublicKey, private: Option<Signs>, in_agent: &[AgentIdentity]) -> Option<Signs> {
    let same = |identity: &&AgentIdentity| public(identity) == key.key_data();
    let is_key = |identity: &&AgentIdentity| matches!(identity, AgentIdentity::PublicKey { .. });
    let held = in_agent.iter().filter(same).find(is_key).or_else(|| in_agent.iter().find(same));
    held.map(|held| Signs::Agent(Box::new(held.clone()))).or(private)
}

/// # Errors
/// It is no certificate that a user could show.
fn user_certificate(text: &str) -> Result<Certificate, String> {
    let certificate =
        Certificate::from_openssh(text.trim()).map_err(|error| format!("it is no certificate: {error}"))?;
    match certificate.cert_type() {
        CertType::User => Ok(certificate),
        CertType::Host => Err("it is a certificate of a host, not of a user".into()),
    }
}

/// Why there is no key to offer in a file.
struct KeyError {
    why: String,
    is_locked: bool,
}

impl From<String> for KeyError {
    fn from(why: String) -> Self {
        Self { why, is_locked: false }
    }
}

/// What stands in a key file.
struct KeyFile {
    name: String,
    path: PathBuf,
    public: PublicKey,
    /// None where the file has only the public half, or needs a device, or others can read it.
    private: Option<Signs>,
    /// That others can read it.
    exposed: Option<String>,
}

impl KeyFile {
    /// None if it is not there and need not be.
    async fn read(identity: &Identity, gate: &Gate) -> Result<Option<Self>, KeyError> {
        let path = &identity.path;
        let text = match read(path) {
            Ok(text) => text,
            // The agent may have the private half all the same.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(public_half(path).map(|public| Self::new(path, public, None)));
            }
            Err(error) => return Err(error.to_string().into()),
        };
        if let Ok(public) = PublicKey::from_openssh(text.trim()) {
            return Ok(Some(Self::new(path, public, None)));
        }
        let file = PrivateFile::read(path, &text)?;
        let exposed = fs::metadata(path).ok().and_then(|metadata| can_be_read(path, &metadata));
        if let Some(Exposed { why, mend }) = exposed {
            let exposed = format!("{why}, so it is not used: `{mend}`");
            // The agent may have it all the same.
            let public = file.public().or_else(|| public_half(path)).ok_or_else(|| exposed.clone())?;
            return Ok(Some(Self { exposed: Some(exposed), ..Self::new(path, public, None) }));
        }
        let (public, private) = match file {
            PrivateFile::Open(key) if needs_device(key.public_key()) => (key.public_key().clone(), None),
            PrivateFile::Open(key) => (key.public_key().clone(), Some(Signs::Key(Arc::new(*key)))),
            PrivateFile::Locked(public) => {
                let public = match public.or_else(|| public_half(path)) {
                    Some(public) => public,
                    None => {
                        let unlocked = unlock(path, gate).await;
                        unlocked.map_err(|why| KeyError { why, is_locked: true })?.public_key().clone()
                    }
                };
                (public, Some(Signs::Locked(path.clone())))
            }
        };
        Ok(Some(Self::new(path, public, private)))
    }

    fn new(path: &Path, public: PublicKey, private: Option<Signs>) -> Self {
        Self { name: path.display().to_string(), path: path.to_owned(), public, private, exposed: None }
    }

    /// The key, or what certifies it.
    fn entry(&self, certificate: Option<Certificate>) -> Entry {
        let name = match certificate {
            Some(_) => format!("{} (certificate)", self.name),
            None => self.name.clone(),
        };
        Entry {
            name,
            key: self.public.clone(),
            certificate,
            private: self.private.clone(),
            exposed: self.exposed.clone(),
        }
    }
}

/// `id_ed25519.pub` beside `id_ed25519`.
fn public_half(path: &Path) -> Option<PublicKey> {
    PublicKey::from_openssh(beside(path, ".pub")?.trim()).ok()
}

fn needs_device(key: &PublicKey) -> bool {
    matches!(key.key_data(), KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_))
}

fn public(identity: &AgentIdentity) -> &KeyData {
    match identity {
        AgentIdentity::PublicKey { key, .. } => key.key_data(),
        AgentIdentity::Certificate { certificate, .. } => certificate.public_key(),
    }
}

fn beside(path: &Path, suffix: &str) -> Option<String> {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    read(Path::new(&name)).ok()
}

pub(super) fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_FILE {
        return Err(io::Error::other("it is too large for a key"));
    }
    // What is no text is no key either, and is told so.
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

#[cfg(unix)]
async fn connect_agent(path: &Path) -> Result<Agent, russh::keys::Error> {
    Ok(AgentClient::connect_uds(path).await?.dynamic())
}

#[cfg(windows)]
async fn connect_agent(path: &Path) -> Result<Agent, russh::keys::Error> {
    Ok(AgentClient::connect_named_pipe(path).await?.dynamic())
}

#[cfg(not(any(unix, windows)))]
async fn connect_agent(_path: &Path) -> Result<Agent, russh::keys::Error> {
    Err(russh::keys::Error::AgentFailure)
}
