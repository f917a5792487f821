//! See `hithed::fuzzing::proxy_header`; `cargo +nightly fuzz run proxy_header` in `server/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hithed::fuzzing::proxy_header(data));
