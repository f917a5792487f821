//! The library beside the programs of OpenSSH: what ssh-keygen writes is read, and what sshd would do is done.

mod certificates;
mod keygen;
mod revocations;
mod sshd;
