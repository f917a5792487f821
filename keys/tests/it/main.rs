//! The library beside the programs of OpenSSH: what ssh-keygen writes is read, and what sshd would do is done.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod certificates;
mod keygen;
mod revocations;
mod sshd;
