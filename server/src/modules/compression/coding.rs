//! The codings that a visitor takes, and their encoders.

use std::io::{self, Write};

use flate2::Compression as Level;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderValue;
use http::header::GetAll;
use zstd::stream::raw::CParameter;

/// A coding that we can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Zstd,
    Br,
    Gzip,
    Deflate,
}

impl Coding {
    /// Of equal weight, the first that is left.
    const ALL: [Self; 4] = [Self::Zstd, Self::Br, Self::Gzip, Self::Deflate];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    const fn is_small(self) -> bool {
        matches!(self, Self::Gzip | Self::Deflate)
    }

    /// An encoder for so many bytes, where that is known: it takes less memory for few.
    ///
    /// # Errors
    /// No memory for it.
    pub(super) fn encoder(self, length: Option<u64>) -> io::Result<Encoder> {
        Ok(match self {
            Self::Gzip => Encoder::Gzip(GzEncoder::new(Vec::new(), Level::new(GZIP_LEVEL))),
            Self::Deflate => Encoder::Deflate(ZlibEncoder::new(Vec::new(), Level::new(GZIP_LEVEL))),
            Self::Br => Encoder::Br(Box::new(brotli::CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER,
                BROTLI_LEVEL,
                BROTLI_WINDOW,
            ))),
            Self::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(ZSTD_WINDOW)?;
                encoder.set_parameter(CParameter::HashLog(ZSTD_TABLE))?;
                encoder.set_parameter(CParameter::ChainLog(ZSTD_TABLE))?;
                encoder.set_pledged_src_size(length)?;
                Encoder::Zstd(encoder)
            }
        })
    }
}

const GZIP_LEVEL: u32 = 5;
const BROTLI_LEVEL: u32 = 4;
const BROTLI_BUFFER: usize = 4096;
/// Powers of two of bytes that are looked back at. In all, an encoder of brotli takes 2 MiB, one of zstd 900 KiB, and one
/// of gzip 370 KiB. Brotli with 2^18 takes half as much again for 3 % of the size.
const BROTLI_WINDOW: u32 = 17;
const ZSTD_LEVEL: i32 = 3;
const ZSTD_WINDOW: u32 = 18;
/// Powers of two of entries in each of the two tables of what was seen. The level's own would take 500 KiB more, for 1 %
/// of the size.
const ZSTD_TABLE: u32 = 15;

/// What a visitor's `Accept-Encoding` weighs each coding with, in thousandths; 0 refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    codings: [u16; 4],
    /// To have it as it is. One that says nothing of that likes any coding better that it names.
    identity: u16,
}

impl Wanted {
    /// Without the header a visitor takes any coding, but few that leave it out can decode one.
    pub(super) fn of(values: &GetAll<'_, HeaderValue>) -> Self {
        let (mut named, mut rest, mut identity) = ([None; 4], None, 0);
        for part in values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')) {
            let mut parameters = part.split(';');
            let name = parameters.next().unwrap_or_default().trim();
            let weight = parameters.find_map(|it| weight(it.trim())).unwrap_or(1000);
            if name == "*" {
                rest = Some(weight);
            } else if name.eq_ignore_ascii_case("identity") {
                identity = weight;
            }
            let name = if name.eq_ignore_ascii_case("x-gzip") { "gzip" } else { name };
            let found =
                Coding::ALL.iter().zip(&mut named).find(|(it, _)| it.as_str().eq_ignore_ascii_case(name));
            if let Some((_, slot)) = found {
                *slot = Some(weight);
            }
        }
        Self { codings: named.map(|weight| weight.or(rest).unwrap_or(0)), identity }
    }

    /// The coding to give; a small one where the encoder may have to stay for long. Where none will do, the body stays
    /// as it is, even for a visitor that refuses that: there is nothing better to give it.
    pub(super) fn best(self, small: bool) -> Option<Coding> {
        let weighed = Coding::ALL.into_iter().zip(self.codings);
        let takes = weighed.filter(|(coding, weight)| {
            *weight > 0 && *weight >= self.identity && (coding.is_small() || !small)
        });
        // The last of equals is taken, so from behind.
        takes.rev().max_by_key(|(_, weight)| *weight).map(|(coding, _)| coding)
    }
}

/// `q=0.5` in thousandths (RFC 9110 §12.4.2).
fn weight(parameter: &str) -> Option<u16> {
    let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
    let weight: f32 = value.trim().parse().ok().filter(|it| (0.0..=1.0).contains(it))?;
    Some((weight * 1000.0).round() as u16)
}

/// Writes into memory.
pub(super) enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    pub(super) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(data),
            Self::Deflate(encoder) => encoder.write_all(data),
            Self::Br(encoder) => encoder.write_all(data),
            Self::Zstd(encoder) => encoder.write_all(data),
        }
    }

    /// Makes all that was written decodable from what is taken next.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Deflate(encoder) => encoder.flush(),
            Self::Br(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }

    /// What came out so far, if it is that much.
    pub(super) fn take(&mut self, least: usize) -> Option<Vec<u8>> {
        let out = match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Deflate(encoder) => encoder.get_mut(),
            Self::Br(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        };
        (out.len() >= least).then(|| std::mem::take(out))
    }

    /// The rest.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Deflate(encoder) => encoder.finish(),
            Self::Br(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::ACCEPT_ENCODING;

    use super::*;

    fn best(lines: &[&str]) -> Option<&'static str> {
        let headers: HeaderMap = lines.iter().map(|line| (ACCEPT_ENCODING, line.parse().unwrap())).collect();
        Wanted::of(&headers.get_all(ACCEPT_ENCODING)).best(false).map(Coding::as_str)
    }

    #[test]
    fn the_greatest_weight_wins_and_of_equals_the_fastest() {
        for (lines, coding) in [
            (&["gzip, deflate, br, zstd"][..], Some("zstd")),
            (&["gzip, deflate, br"], Some("br")),
            (&["gzip", "deflate"], Some("gzip")),
            (&["x-gzip"], Some("gzip")),
            (&["gzip;q=0.5, deflate;q=0.8"], Some("deflate")),
            (&["br;q=0, *"], Some("zstd")),
            (&["*;q=0"], None),
            (&["identity"], None),
            (&["identity, gzip;q=0.5"], None),
            (&["gzip;q=0.5", "Identity;Q=0.6, br;q=0.7"], Some("br")),
            (&["gzip, identity"], Some("gzip")),
            (&["identity;q=0.5, *;q=0.1"], None),
            (&["identity;q=0"], None),
            (&["identity;q=0, gzip;q=0.1"], Some("gzip")),
            (&["gzip;q=0"], None),
            (&["GZIP;Q=0.001"], Some("gzip")),
            (&["gzip;q=nonsense"], Some("gzip")),
            (&["compress, sdch"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(best(lines), coding, "{lines:?}");
        }
    }

    #[test]
    fn a_stream_that_stays_open_gets_a_small_encoder() {
        let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip, br, zstd"))]);
        assert_eq!(Wanted::of(&headers.get_all(ACCEPT_ENCODING)).best(true), Some(Coding::Gzip));
    }

    #[test]
    fn few_bytes_take_few_and_decode_to_what_they_were() {
        for length in [0_usize, 1, 5000, 3 << 20] {
            let plain: Vec<u8> = (0..length).map(|number| (number / 7) as u8).collect();
            let mut encoder = Coding::Zstd.encoder(Some(length as u64)).unwrap();
            encoder.write(&plain).unwrap();
            assert!(zstd::stream::decode_all(&*encoder.finish().unwrap()).unwrap() == plain, "{length}");
        }
    }
}
