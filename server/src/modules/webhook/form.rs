//! Forms and queries: `application/x-www-form-urlencoded`, as the URL standard reads it.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Names and values, decoded, in their order.
pub(super) fn pairs(text: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = text.split(|it| *it == b'&').filter(|it| !it.is_empty());
    pairs
        .map(|pair| match pair.iter().position(|it| *it == b'=') {
            Some(at) => {
                let (name, value) = pair.split_at(at);
                (decode(name), decode(value.get(1..).unwrap_or_default()))
            }
            None => (decode(pair), Vec::new()),
        })
        .collect()
}

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
        let found: Vec<_> =
            pairs(b"a=1&&b=x%20y+z&c&d=%zz%4&e=1=2").iter().map(|(k, v)| (text(k), text(v))).collect();
        let expected = [("a", "1"), ("b", "x y z"), ("c", ""), ("d", "%zz%4"), ("e", "1=2")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
