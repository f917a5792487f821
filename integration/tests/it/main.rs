//! The one integration binary: real clients against the built server, a module for each area.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails the test")]

mod access;
mod addresses;
mod browser;
mod cables;
mod clients;
mod commands;
mod compression;
mod converter;
mod demo;
mod domains;
mod early_answers;
mod ending;
mod forwards;
mod grants;
mod guards;
mod h2_abuse;
mod harness;
mod headers;
mod health;
mod http;
mod https;
mod isolation;
mod limits;
mod lines;
mod logins;
mod misread;
mod multiplex;
mod mutual_tls;
mod names;
mod one_port;
mod proxied;
mod reload;
mod returning;
mod robust;
mod serving;
mod smoke;
mod smuggling;
mod systemd;
mod tcp;
mod transfers;
mod upstream;
mod webhook;
mod websockets;
