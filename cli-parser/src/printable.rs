//! What others wrote, made safe for a terminal or a log.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Escapes everything outside printable ASCII and cuts what is longer than 1,024 characters.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_SHOWN && text.bytes().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len().min(MAX_SHOWN));
    for character in text.chars() {
        if shown.len() >= MAX_SHOWN {
            shown.push_str("...");
            break;
        }
        if character.is_ascii() && is_printable(character as u8) {
            shown.push(character);
        } else {
            shown.extend(character.escape_default());
        }
    }
    Cow::Owned(shown)
}

/// As [`printable`], for bytes of no known encoding: what is not printable ASCII becomes `\xNN`.
pub fn printable_bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len().min(MAX_SHOWN));
    for byte in bytes {
        if shown.len() >= MAX_SHOWN {
            shown.push_str("...");
            break;
        }
        if is_printable(*byte) {
            shown.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

const fn is_printable(byte: u8) -> bool {
    byte == b' ' || byte.is_ascii_graphic()
}

const MAX_SHOWN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_other_scripts_are_escaped() {
        assert_eq!(printable("plain /path?a=b"), "plain /path?a=b");
        assert_eq!(printable("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("b\u{fc}cher\n"), "b\\u{fc}cher\\n");
        assert_eq!(printable_bytes(b"a\x1b\xffb"), "a\\x1b\\xffb");
    }

    #[test]
    fn long_text_is_cut() {
        assert!(printable(&"x".repeat(5000)).len() < 1100);
        assert!(printable_bytes(&[0; 5000]).len() < 1100);
    }
}
