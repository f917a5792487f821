//! The one integration binary: real clients against the built server, a module for each area.

mod clients;
mod commands;
mod forwards;
mod harness;
mod http;
mod https;
mod logins;
mod multiplex;
mod names;
mod robust;
mod serving;
mod smoke;
mod tcp;
