//! What the fuzzers in `fuzz/` call: each takes any bytes, and panics where a promise is broken.

/// What a connection to the https port begins with.
pub fn hello(data: &[u8]) {
    crate::edge::hello::fuzzing::hello(data);
}

/// What a connection from a trusted proxy begins with.
pub fn proxy_header(data: &[u8]) {
    crate::edge::announced::fuzzing::proxy_header(data);
}
