//! The words of a line of ssh_config, and what stands in them for something else (ssh_config(5), TOKENS and ENVIRONMENT
//! VARIABLES).

use std::iter::Peekable;
use std::str::Chars;
use std::time::Duration;

/// What follows a keyword, up to a comment. `"` and `'` keep blanks; a backslash keeps a quote, a backslash or, outside of
/// quotes, a blank, and is itself before anything else. None where a quote is not closed.
pub(super) fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| is_blank(*c)).is_some() {}
        match chars.peek() {
            None | Some('#') => return Some(words),
            Some(_) => words.push(word(&mut chars)?),
        }
    }
}

fn word(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let (mut word, mut quote) = (String::new(), None);
    while let Some(c) = chars.next_if(|c| quote.is_some() || !is_blank(*c)) {
        match c {
            '\\' => {
                let kept = |c: &char| matches!(c, '\'' | '"' | '\\') || (*c == ' ' && quote.is_none());
                word.push(chars.next_if(kept).unwrap_or('\\'));
            }
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            c => word.push(c),
        }
    }
    quote.is_none().then_some(word)
}

pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// `90`, `1m30` or `1h 30m` without the blank (TIME FORMATS of sshd_config(5)). None if it is no time, or a far too long one.
pub(super) fn time(text: &str) -> Option<Duration> {
    let (mut seconds, mut number) = (0_u64, None);
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            let before: u64 = number.unwrap_or(0);
            number = Some(before.checked_mul(10)?.checked_add(digit.into())?);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            'w' => 7 * 24 * 60 * 60,
            _ => return None,
        };
        seconds = number.take()?.checked_mul(unit)?.checked_add(seconds)?;
    }
    seconds = seconds.checked_add(number.unwrap_or(0))?;
    let fits = !text.is_empty() && i32::try_from(seconds).is_ok();
    fits.then(|| Duration::from_secs(seconds))
}

/// Replaces `%h` and its like, of which `tokens` says some. Others stay.
pub(in crate::connect) fn expand(text: &str, tokens: &[(char, &str)]) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            expanded.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => expanded.push('%'),
            Some(name) => match tokens.iter().find(|(token, _)| *token == name) {
                Some((_, value)) => expanded.push_str(value),
                None => expanded.extend(['%', name]),
            },
            None => expanded.push('%'),
        }
    }
    expanded
}

/// Replaces `${NAME}` too. What a variable holds is taken as it is.
///
/// # Errors
/// A variable is not set, or it is not said where its name ends.
pub(in crate::connect) fn expand_all(
    text: &str,
    tokens: &[(char, &str)],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let (mut expanded, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) =
            after.split_once('}').ok_or_else(|| format!("there is no }} behind ${{ in `{text}`"))?;
        let value = variable(name).ok_or_else(|| format!("the environment has no {name}"))?;
        expanded += &expand(before, tokens);
        expanded += &value;
        rest = after;
    }
    Ok(expanded + &expand(rest, tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_replaced_and_unknown_ones_stay() {
        assert_eq!(expand("%h.x%%%q%", &[('h', "host")]), "host.x%%q%");
    }

    #[test]
    fn variables_are_replaced_once_and_must_be_set() {
        let variable = |name: &str| match name {
            "A" => Some("%h${B}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let expand = |text| expand_all(text, &[('h', "host")], variable);
        assert_eq!(expand("%h/${A}/${EMPTY}$A%%").as_deref(), Ok("host/%h${B}/$A%"));
        for text in ["${B}", "${", "${A", "${}"] {
            assert!(expand(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_with_and_without_units() {
        for (text, seconds) in [("0", 0), ("90", 90), ("1m30", 90), ("1H1s", 3601), ("1w", 604_800)] {
            assert_eq!(time(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "m", "1x", "-1", "99999999999999999999", "9999999999w", "2147483648", "none"] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
