//! Who is who, and who may do what by OpenSSH's own terms: the server's host keys and their certificates, the keys and
//! authorities that may publish and what each of them may, what is revoked, and the fingerprints that name keys.
//!
//! Uses nothing else of Hithe, so that server and agent share it. Reads files when it is told to and asks no clock: the
//! time is given.

mod address;
mod authorized;
mod certificate;
mod complaint;
mod expiry;
mod files;
mod fingerprint;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod grant;
pub mod host;
mod krl;
mod line;
mod options;
mod patterns;
mod revocation;

pub use address::AddressPatterns;
pub use authorized::AuthorizedKeys;
pub use certificate::{CertAuthorities, CertGrant, CertRefused, Login};
pub use complaint::{Complaint, Severity};
pub use files::FileError;
pub use fingerprint::{Fingerprint, FingerprintError};
pub use grant::{Account, AccountName, Grant, Refused, Restrictions, Source};
pub use krl::KrlError;
pub use patterns::{ListenPattern, NamePattern, OpenPattern, PatternError};
pub use revocation::{RevocationError, Revocations};
