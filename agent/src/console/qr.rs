//! A URL as a QR code of half blocks, two dots a character.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// Rows of equal width. `is_dark` says that characters are lighter than what is behind them. None where the text is
/// too long for any code.
pub(super) fn rows(url: &str, is_dark: bool) -> Option<Vec<String>> {
    // A screen is not scratched, and fewer dots fit on more screens.
    let code = QrCode::with_error_correction_level(url, EcLevel::L).ok()?;
    let mut renderer = code.render::<Dense1x2>();
    if is_dark {
        renderer.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark);
    }
    Some(renderer.build().lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_url_fits_on_a_small_terminal() {
        let rows = rows("https://brave-otter-7k3q9.tunnel.example.com", true).unwrap();
        assert!(rows.len() <= 21, "{}", rows.len());
        let width = rows[0].chars().count();
        assert!(width <= 41 && rows.iter().all(|row| row.chars().count() == width));
        // The quiet zone around the dots is light, which is lit on a dark screen.
        assert!(rows[0].chars().all(|dot| dot == '\u{2588}'));
    }

    #[test]
    fn what_no_code_can_hold_is_none() {
        assert_eq!(rows(&"x".repeat(5000), true), None);
    }
}
