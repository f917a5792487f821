//! See `hithed::fuzzing::hello`; `cargo +nightly fuzz run hello` in `server/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hithed::fuzzing::hello(data));
