//! How much of the server anybody may have: a network from which publishers or visitors come, and an account.

mod admission;
mod penalties;
mod source;

pub(crate) use admission::{Admission, Admitted, Full};
pub(crate) use penalties::{Offence, PenaltyBox};
