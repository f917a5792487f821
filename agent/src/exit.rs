//! The numbers with which the program `hithe` ends, for scripts and service managers. 0 is an orderly end.

/// Something of this machine fails: what was asked for cannot be printed.
pub const HERE: u8 = 1;
/// What was typed, or stands in a file, cannot be meant.
pub const USAGE: u8 = 2;
/// The server does not let us in: an unknown key, a wrong token.
pub const LOGIN: u8 = 3;
/// The server is not, or not provably, the one we know.
pub const HOST_KEY: u8 = 4;
/// The server cannot be reached.
pub const NETWORK: u8 = 5;
/// The server knows us, and does not do what it was asked for.
pub const REFUSED: u8 = 6;

/// All of them in words, for `--help` and the manual.
pub(crate) const TABLE: [(u8, &str); 7] = [
    (0, "it is done, or was ended by you"),
    (HERE, "this machine: the output cannot be written, no thread can be had"),
    (USAGE, "wrong flags, or a wrong file"),
    (LOGIN, "the server does not let you in"),
    (HOST_KEY, "the server's host key is not the one that is known"),
    (NETWORK, "the server cannot be reached, or a proxy refuses; endpoints go on trying if that may help"),
    (REFUSED, "the server refuses what was asked for: a name that is taken, a session that was taken over"),
];

#[cfg(test)]
mod tests {
    #[test]
    fn the_manual_has_the_table() {
        let manual = include_str!("../../docs/agent.md");
        for (status, meaning) in super::TABLE {
            assert!(manual.contains(&format!("\n| {status} | {meaning} |\n")), "{status}: {meaning}");
        }
    }
}
