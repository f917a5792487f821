//! The value of one header as it is put together: whatever goes in, it stays one line, and not a long one.

use std::fmt;

use http::HeaderValue;

/// Control characters are left out, what is not UTF-8 becomes U+FFFD, and nothing follows what had no room.
#[derive(Default)]
pub(super) struct Line {
    text: String,
    full: bool,
}

impl Line {
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn show(&mut self, value: impl fmt::Display) {
        // Writing to a line cannot fail.
        let _ = fmt::write(self, format_args!("{value}"));
    }

    pub(super) fn header(&mut self, value: &HeaderValue) {
        for chunk in value.as_bytes().utf8_chunks() {
            self.push(chunk.valid());
            if !chunk.invalid().is_empty() {
                self.push("\u{fffd}");
            }
        }
    }

    pub(super) fn push(&mut self, text: &str) {
        for piece in text.split(|c: char| c.is_control() && c != '\t') {
            if self.full {
                return;
            }
            self.push_clean(piece);
        }
    }

    fn push_clean(&mut self, piece: &str) {
        let piece = if self.text.is_empty() { piece.trim_start_matches(BLANKS) } else { piece };
        let end = piece.floor_char_boundary(MAX_VALUE.saturating_sub(self.text.len()));
        let (fits, left) = piece.split_at_checked(end).unwrap_or_default();
        self.text.push_str(fits);
        self.full = !left.is_empty();
    }

    pub(super) fn into_value(mut self) -> HeaderValue {
        self.text.truncate(self.text.trim_end_matches(BLANKS).len());
        HeaderValue::try_from(self.text).unwrap_or(HeaderValue::from_static(""))
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

/// They do not belong to a value at its ends (RFC 9110 §5.5).
const BLANKS: [char; 2] = [' ', '\t'];

/// Bytes of a value that was filled in: half of what many servers take for all headers.
pub(super) const MAX_VALUE: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pieces: &[&str]) -> HeaderValue {
        let mut line = Line::default();
        pieces.iter().for_each(|piece| line.push(piece));
        line.into_value()
    }

    #[test]
    fn control_characters_and_blanks_at_the_ends_go() {
        assert_eq!(line(&[" \r\n a", "\0b\tc\u{85}\x7f d ", "\t\n"]), "ab\tc d");
    }

    #[test]
    fn a_long_value_is_cut_within_no_letter_and_for_good() {
        assert_eq!(line(&[&"é".repeat(10_000)]).len(), MAX_VALUE);
        assert_eq!(line(&["a", &"é".repeat(10_000), "b"]).len(), MAX_VALUE - 1);
    }
}
