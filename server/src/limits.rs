//! How much of the server anybody may have: a network from which publishers or visitors come, and an account.

mod accounts;
mod admission;
mod pace;
mod penalties;
mod quota;
mod source;
mod visitors;

pub(crate) use accounts::{Accounts, MAX_REMEMBERED, Month, Overdrawn, Usage, VisitPlace};
pub(crate) use admission::{Admission, Admitted, Full};
pub(crate) use penalties::{Offence, PenaltyBox};
pub(crate) use quota::{Overrides, Quota};
pub(crate) use visitors::{VisitorPlace, Visitors};
