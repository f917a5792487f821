//! See `hithe_keys::fuzzing::certificate`; `cargo +nightly fuzz run certificate` in `keys/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hithe_keys::fuzzing::certificate(data));
