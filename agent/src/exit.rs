//! The numbers with which the program `hithe` ends, for scripts and service managers. 0 is an orderly end.

/// What was typed, or stands in a file, cannot be meant.
pub const USAGE: u8 = 2;
/// The server does not let us in: an unknown key, a wrong token.
pub const LOGIN: u8 = 3;
/// The server is not, or not provably, the one we know.
pub const HOST_KEY: u8 = 4;
/// The server cannot be reached.
pub const NETWORK: u8 = 5;
