//! Forms and queries: `application/x-www-form-urlencoded`, as the URL standard reads it.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// A name and a value, decoded.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// In their order; `None` where there are more than any provider sends. Each takes many times its bytes.
pub(super) fn pairs(text: &[u8]) -> Option<Vec<Pair>> {
    let pairs = || text.split(|it| *it == b'&').filter(|it| !it.is_empty());
    if pairs().nth(MAX_PAIRS).is_some() {
        return None;
    }
    let decoded = pairs().map(|pair| match pair.iter().position(|it| *it == b'=') {
        Some(at) => {
            let (name, value) = pair.split_at(at);
            (decode(name), decode(value.get(1..).unwrap_or_default()))
        }
        None => (decode(pair), Vec::new()),
    });
    Some(decoded.collect())
}

const MAX_PAIRS: usize = 2000;

pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// What is not an escape stays as it is.
pub(super) fn decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match (first, behind) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high << 4 | low);
                    rest = after;
                }
                _ => decoded.push(b'%'),
            },
            (other, _) => decoded.push(*other),
        }
    }
    decoded
}

fn digit(letter: u8) -> Option<u8> {
    char::from(letter).to_digit(16).and_then(|it| u8::try_from(it).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_one_by_one() {
        let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
        let found: Vec<_> = pairs(b"a=1&&b=x%20y+z&c&d=%zz%4&e=1=2")
            .unwrap()
            .iter()
            .map(|(k, v)| (text(k), text(v)))
            .collect();
        let expected = [("a", "1"), ("b", "x y z"), ("c", ""), ("d", "%zz%4"), ("e", "1=2")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert!(pairs("&a=1".repeat(MAX_PAIRS).as_bytes()).is_some());
        assert!(pairs("&a=1".repeat(MAX_PAIRS + 1).as_bytes()).is_none());
    }
}
