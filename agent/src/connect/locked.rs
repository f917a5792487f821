//! What is in the file of a private key, and the passphrase for it.

use std::path::Path;
use std::sync::Arc;

use russh::keys::ssh_key::Cipher;
use russh::keys::{Error, PrivateKey, PublicKey, decode_secret_key};

use super::gate::{Gate, Lock};
use super::identity::read;

/// Passphrases that are taken for one file, over all connections, as ssh does for one.
const TRIES: usize = 3;

const PUTTY: &str = "PuTTY-User-Key-File";

/// The file of a private key.
pub(super) enum PrivateFile {
    Open(Box<PrivateKey>),
    /// It needs a passphrase. OpenSSH's own form tells the public half without it.
    Locked(Option<PublicKey>),
}

impl PrivateFile {
    /// # Errors
    /// There is no key in it, or none in a form that can be read here.
    pub(super) fn read(path: &Path, text: &str) -> Result<Self, String> {
        match PrivateKey::from_openssh(text) {
            Ok(key) if key.cipher() == Cipher::TdesCbc => return Err(unreadable(path)),
            Ok(key) if key.is_encrypted() => return Ok(Self::Locked(Some(key.public_key().clone()))),
            Ok(key) => return Ok(Self::Open(Box::new(key))),
            Err(_) => {}
        }
        match decode_secret_key(text, None) {
            Ok(key) => Ok(Self::Open(Box::new(key))),
            // Of the old form russh reads RSA keys, with one cipher.
            Err(_)
                if text.contains("DEK-Info:")
                    && !(text.contains("DEK-Info: AES-128-CBC") && text.contains("BEGIN RSA")) =>
            {
                Err(unreadable(path))
            }
            Err(Error::KeyIsEncrypted) => Ok(Self::Locked(None)),
            Err(_) if text.contains("BEGIN ENCRYPTED PRIVATE KEY") => Ok(Self::Locked(None)),
            Err(_) if text.starts_with(PUTTY) && !text.contains("Encryption: none") => Ok(Self::Locked(None)),
            Err(_) if text.starts_with(PUTTY) || text.contains("PRIVATE KEY") => Err(unreadable(path)),
            Err(_) => Err("there is no private key in it".into()),
        }
    }

    /// The public half, if it tells that without a passphrase.
    pub(super) fn public(&self) -> Option<PublicKey> {
        match self {
            Self::Open(key) => Some(key.public_key().clone()),
            Self::Locked(public) => public.clone(),
        }
    }
}

fn unreadable(path: &Path) -> String {
    let path = path.display();
    format!(
        "its private key is in a form that is not read here: `ssh-keygen -p -f {path}` writes it in OpenSSH's, or put it into \
         ssh-agent with `ssh-add {path}`"
    )
}

/// The private key of a file for which a passphrase is needed: of an earlier question, or of one now.
///
/// # Errors
/// Nobody knows it.
pub(super) async fn unlock(path: &Path, gate: &Gate) -> Result<Arc<PrivateKey>, String> {
    let questions = gate.questions();
    let _open = gate.ask_open();
    let mut locks = questions.turn().await;
    let mut tries = match locks.get(path) {
        Some(Lock::Open(key)) => return Ok(Arc::clone(key)),
        Some(Lock::Shut(tries)) => *tries,
        None => 0,
    };
    if !questions.somebody_is_there() {
        let path = path.display();
        return Err(format!("it needs a passphrase, and nobody can be asked: run `ssh-add {path}` before"));
    }
    let text = read(path).map_err(|error| error.to_string())?;
    while tries < TRIES {
        let question = format!("Passphrase for {}: ", path.display());
        let typed =
            questions.ask(move |person| person.secret(&question)).await.map_err(|error| error.to_string())?;
        tries = if typed.expose().is_empty() { TRIES } else { tries + 1 };
        locks.insert(path.to_owned(), Lock::Shut(tries));
        if typed.expose().is_empty() {
            break;
        }
        let text = text.clone();
        // bcrypt takes its time.
        let opened =
            tokio::task::spawn_blocking(move || decode_secret_key(&text, Some(typed.expose()))).await;
        match opened {
            Ok(Ok(key)) => {
                let key = Arc::new(key);
                locks.insert(path.to_owned(), Lock::Open(Arc::clone(&key)));
                return Ok(key);
            }
            // Of PKCS #8: the passphrase was not even tried.
            Ok(Err(Error::Der(_))) => {
                locks.insert(path.to_owned(), Lock::Shut(TRIES));
                return Err(unreadable(path));
            }
            _ => {
                let _ = questions.ask(|person| person.show("That does not open it.")).await;
            }
        }
    }
    Err("its passphrase was not given".into())
}
