//! The one integration binary: real clients against the built server, a module for each area.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails the test")]

mod access;
mod addresses;
mod clients;
mod commands;
mod compression;
mod converter;
mod demo;
mod forwards;
mod guards;
mod harness;
mod headers;
mod http;
mod https;
mod isolation;
mod limits;
mod lines;
mod logins;
mod multiplex;
mod mutual_tls;
mod names;
mod one_port;
mod robust;
mod serving;
mod smoke;
mod smuggling;
mod tcp;
mod transfers;
mod upstream;
mod webhook;
