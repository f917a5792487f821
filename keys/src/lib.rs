//! Who is who: the server's host keys, the keys that may publish, and the fingerprints that name them.
//!
//! Uses nothing else of Hithe, so that server and agent share it.

mod authorized;
mod fingerprint;
pub mod host;

pub use authorized::{Authorized, AuthorizedKeys, AuthorizedKeysError, Complaint};
pub use fingerprint::{Fingerprint, FingerprintError};
