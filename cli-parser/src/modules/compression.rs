//! Compression: what can be said about it.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Definition, Kind, Manual, Stage};

/// Compresses responses.
#[derive(Clone, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compression {
    /// Compress responses that gain by it, as the visitor's Accept-Encoding allows
    #[arg(long = "compression", id = "compression")]
    pub enabled: bool,
}

impl Default for Compression {
    /// To name it is to want it.
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl Definition for Compression {
    const STAGE: Stage = Stage::Encode;
    const ON: &'static [Kind] = &[Kind::Http];
    const MANUAL: Manual = Manual {
        what: "Compresses responses with zstd, br, gzip or deflate: the one that the visitor's `Accept-Encoding` weighs \
               most, and of equals the first of these; a visitor that weighs `identity` more than any of them gets the \
               body as it is. Text, JSON, JavaScript, XML, SVG, WebAssembly, event streams and \
               uncompressed fonts are compressed; anything else passes as it is (gRPC too), and so does what the upstream has \
               encoded itself, what says `Cache-Control: no-transform`, a part of a file (206), and what has fewer \
               than 1024 bytes.\n\nBodies are streamed: what the upstream has sent goes to the visitor as soon as the \
               upstream pauses, so that event streams stay live (they are compressed with gzip or deflate only, which \
               take less memory while a stream is open). `Vary: Accept-Encoding` is added, `Content-Length` and \
               `Accept-Ranges` go, digests of the body (`Repr-Digest`, `Content-Digest`, `Digest`, `Content-MD5`) go too, in \
               headers and trailers, and a strong `ETag` becomes a weak one: conditional requests with `If-None-Match` \
               still work, those with `If-Match` do not.",
        line: "ssh -R 443:localhost:80 HOST http --compression",
        defaults: "Off. Levels are chosen for speed, and cannot be set.",
        codes: &[],
    };

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        flags.extend(self.enabled.then_some(("--compression", None)));
    }
}
