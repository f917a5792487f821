//! Bodies as they are read: without their content codings, bounded.

use std::io::Read;

/// Most that a body becomes when decoded, in bytes.
pub(super) const DECODED: usize = 8 << 20;

/// A body without its codings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) bytes: Vec<u8>,
    /// There was more than the bound.
    pub(super) is_cut: bool,
    /// Why it, or what follows, could not be decoded.
    pub(super) error: Option<String>,
}

/// Undoes the codings of a `Content-Encoding`, the last first.
pub(super) fn decode(body: Vec<u8>, encoding: &str) -> Decoded {
    let mut decoded = Decoded { bytes: body, is_cut: false, error: None };
    // More than a few are an attack.
    for coding in encoding.rsplit(',').map(str::trim).filter(|it| !it.is_empty()).take(4) {
        let (bytes, is_cut, error) = match undo(&decoded.bytes, &coding.to_ascii_lowercase()) {
            Ok(read) => read,
            Err(error) => return Decoded { error: Some(error), ..decoded },
        };
        decoded = Decoded { bytes, is_cut: decoded.is_cut | is_cut, error };
        if decoded.error.is_some() {
            break;
        }
    }
    decoded
}

type Read3 = (Vec<u8>, bool, Option<String>);

fn undo(body: &[u8], coding: &str) -> Result<Read3, String> {
    Ok(match coding {
        "identity" => (body.to_vec(), false, None),
        "gzip" | "x-gzip" => all(flate2::read::MultiGzDecoder::new(body)),
        "deflate" => {
            // Some send it without the header that the standard wants.
            let zlib = all(flate2::read::ZlibDecoder::new(body));
            if zlib.2.is_some() && zlib.0.is_empty() {
                all(flate2::read::DeflateDecoder::new(body))
            } else {
                zlib
            }
        }
        "br" => all(brotli::Decompressor::new(body, 4096)),
        "zstd" => {
            let mut decoder = zstd::stream::read::Decoder::new(body).map_err(|error| error.to_string())?;
            // RFC 9659: windows of more than 8 MB are not for the web.
            decoder.window_log_max(23).map_err(|error| error.to_string())?;
            all(decoder)
        }
        other => return Err(format!("the coding {other} is not known")),
    })
}

fn all(reader: impl Read) -> Read3 {
    let mut bytes = Vec::new();
    let outcome = reader.take(DECODED as u64 + 1).read_to_end(&mut bytes);
    let is_cut = bytes.len() > DECODED;
    bytes.truncate(DECODED);
    (bytes, is_cut, outcome.err().map(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_coding_of_the_web_is_undone() {
        let text = b"the same, the same, the same".repeat(9);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(&text).unwrap();
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        bare.write_all(&text).unwrap();
        let mut br = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
        br.write_all(&text).unwrap();
        for (body, coding) in [
            (gzip(&text), "gzip"),
            (zlib.finish().unwrap(), "deflate"),
            (bare.finish().unwrap(), "deflate"),
            (br.into_inner(), "BR"),
            (zstd::encode_all(text.as_slice(), 1).unwrap(), "zstd"),
            (zstd::encode_all(gzip(&text).as_slice(), 1).unwrap(), "gzip, zstd"),
        ] {
            assert_eq!(
                decode(body, coding),
                Decoded { bytes: text.clone(), ..Decoded::default() },
                "{coding}"
            );
        }
    }

    #[test]
    fn a_bomb_is_cut() {
        let decoded = decode(gzip(&vec![0; 3 * DECODED]), "gzip");
        assert_eq!((decoded.bytes.len(), decoded.is_cut), (DECODED, true));
    }

    #[test]
    fn what_came_before_the_damage_is_shown() {
        let mut body = gzip(b"hello");
        body.truncate(body.len() - 6);
        let decoded = decode(body, "gzip");
        assert_eq!(decoded.bytes, b"hello");
        assert!(decoded.error.is_some());
        let unknown = decode(b"x".to_vec(), "exi");
        assert_eq!(unknown.bytes, b"x");
        assert_eq!(unknown.error.as_deref(), Some("the coding exi is not known"));
    }
}
