//! See `hithe_keys::fuzzing::krl`; `cargo +nightly fuzz run krl` in `keys/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hithe_keys::fuzzing::krl(data));
