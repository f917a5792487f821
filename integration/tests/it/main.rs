//! The one integration binary: real clients against the built server, a module for each area.

mod clients;
mod harness;
mod smoke;
