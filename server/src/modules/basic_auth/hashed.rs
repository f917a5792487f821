//! Pairs of which the server knows only a hash: dear to check, and so bounded.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use hithe_cli_parser::{Credential, Hash, Secret};
use lru::LruCache;
use ring::hmac;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// Hashes that are computed at a time, over all endpoints.
#[derive(Clone, Debug)]
pub(in crate::modules) struct Hashing(Arc<Semaphore>);

impl Default for Hashing {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(cores.div_ceil(2))))
    }
}

pub(super) struct Hashed {
    pairs: Arc<[Pair]>,
    /// Pairs that were right a while ago.
    right: Mutex<LruCache<[u8; 32], Instant>>,
    /// Checks of this endpoint that are under way or wait.
    queue: Arc<Semaphore>,
    hashing: Hashing,
}

struct Pair {
    user: String,
    kind: Hash,
    hash: Secret<String>,
}

/// Too many checks wait already.
#[derive(Debug)]
pub(super) struct Busy;

const QUEUE: usize = 32;
const REMEMBERED: usize = 1024;
const MEMORY: Duration = Duration::from_secs(300);

impl Hashed {
    /// `None` where no pair has a hash.
    pub(super) fn new(pairs: &[&Credential], hashing: &Hashing) -> Option<Self> {
        let pair = |it: &&Credential| {
            let kind = Hash::of(it.password.expose())?;
            Some(Pair { user: it.user.clone(), kind, hash: it.password.clone() })
        };
        let pairs: Vec<Pair> = pairs.iter().filter_map(pair).collect();
        (!pairs.is_empty()).then(|| Self {
            pairs: pairs.into(),
            right: Mutex::new(LruCache::unbounded()),
            queue: Arc::new(Semaphore::new(QUEUE)),
            hashing: hashing.clone(),
        })
    }

    /// Whether a pair was right within the last minutes.
    pub(super) fn remembers(&self, key: &hmac::Key, pair: &[u8]) -> bool {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.get(&tag(key, pair)).is_some_and(|since| since.elapsed() < MEMORY)
    }

    /// Checks a pair. A user that is not known costs as much as one that is, so that the time does not tell them.
    pub(super) async fn check(&self, key: &hmac::Key, pair: Vec<u8>) -> Result<bool, Busy> {
        let place = Arc::clone(&self.queue).try_acquire_owned().map_err(|_| Busy)?;
        let turn = Arc::clone(&self.hashing.0).acquire_owned().await.map_err(|_| Busy)?;
        let tag = tag(key, &pair);
        let pairs = Arc::clone(&self.pairs);
        let checked = spawn_blocking(move || {
            let right = is_right(&pairs, &pair);
            // Held until the work is done, also where its visitor has left.
            drop((turn, place));
            right
        });
        let right = checked.await.unwrap_or(false);
        if right {
            let mut remembered = self.right.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.put(tag, Instant::now());
            if remembered.len() > REMEMBERED {
                remembered.pop_lru();
            }
        }
        Ok(right)
    }
}

fn tag(key: &hmac::Key, pair: &[u8]) -> [u8; 32] {
    let mut tag = [0; 32];
    tag.copy_from_slice(hmac::sign(key, pair).as_ref());
    tag
}

fn is_right(pairs: &[Pair], presented: &[u8]) -> bool {
    let Ok(presented) = std::str::from_utf8(presented) else { return false };
    let Some((user, password)) = presented.split_once(':') else { return false };
    let mut of_user = pairs.iter().filter(|pair| pair.user == user).peekable();
    if of_user.peek().is_none() {
        pairs.first().map(|pair| pair.admits(password));
        return false;
    }
    of_user.any(|pair| pair.admits(password))
}

impl Pair {
    fn admits(&self, password: &str) -> bool {
        let hash = self.hash.expose();
        match self.kind {
            Hash::Bcrypt => bcrypt::verify(password, hash).unwrap_or(false),
            Hash::Argon2 => PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `htpasswd -nbB -C 5 ada correct-horse` and by `argon2 saltsalt -id -t 1 -k 256 -p 1 -e`.
    const PAIRS: [&str; 2] = [
        "ada:$2y$05$3o1BVdet4iS1BMP1oN/pTeKc7JgVccgFI0Ia4wwYJcrOa0UKnARcO",
        "bob:$argon2id$v=19$m=256,t=1,p=1$c2FsdHNhbHQ$oFjxfxOOwD9I5XAMwdsVvwsq6UblhDtTXBVIW+NAIKU",
    ];

    fn hashed() -> Hashed {
        let pairs: Vec<Credential> = PAIRS.iter().map(|pair| pair.parse().unwrap()).collect();
        Hashed::new(&pairs.iter().collect::<Vec<_>>(), &Hashing::default()).unwrap()
    }

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, b"test")
    }

    #[tokio::test]
    async fn hashes_made_elsewhere_admit_their_password_and_no_other() {
        let hashed = hashed();
        for (pair, right) in [
            ("ada:correct-horse", true),
            ("bob:battery-staple", true),
            ("ada:battery-staple", false),
            ("eve:correct-horse", false),
            ("ada:", false),
            ("ada", false),
        ] {
            assert_eq!(hashed.check(&key(), pair.as_bytes().to_vec()).await.unwrap(), right, "{pair}");
            assert_eq!(hashed.remembers(&key(), pair.as_bytes()), right);
        }
    }

    #[tokio::test]
    async fn a_flood_is_turned_away_and_not_queued_without_end() {
        let (hashed, key) = (hashed(), key());
        let checks =
            (0..QUEUE + 5).map(|number| hashed.check(&key, format!("ada:wrong-{number}").into_bytes()));
        let results = futures_util::future::join_all(checks).await;
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 5);
    }
}
