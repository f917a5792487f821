//! An exec line into words.
//!
//! ssh joins its arguments with blanks, so the publisher's shell has already eaten one layer of quotes:
//! `--request-header-add='host: localhost'` arrives as `--request-header-add=host: localhost`. The grammar has no
//! positionals, so a value reaches to the next ` --`. Quotes that did survive are honoured; nothing else is special:
//! no comments, no backslashes, or a password with a `#` in it would end the line and publish without it.

/// The command, then one word for each flag with its value as `--flag=value`.
pub(crate) fn split(line: &str) -> Vec<String> {
    let line = line.trim();
    let (command, mut rest) = line.split_at(line.find(char::is_whitespace).unwrap_or(line.len()));
    let mut words = Vec::new();
    if !command.is_empty() {
        words.push(command.to_owned());
    }
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return words;
        }
        let (word, left) = next_word(rest);
        words.push(word);
        rest = left;
    }
}

/// Takes one flag with its value, or one bare word.
fn next_word(text: &str) -> (String, &str) {
    if text.starts_with(QUOTES)
        && let Some((word, left)) = quoted(text)
    {
        return (word, left);
    }
    let end = text.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(text.len());
    let (name, left) = text.split_at(end);
    if !name.starts_with('-') {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (word, left) = text.split_at(end);
        return (word.to_owned(), left);
    }
    match left.strip_prefix('=') {
        Some(left) => {
            let (value, left) = value(left);
            (format!("{name}={value}"), left)
        }
        None => {
            let left = left.trim_start();
            if left.is_empty() || starts_flag(left) {
                return (name.to_owned(), left);
            }
            let (value, left) = value(left);
            (format!("{name}={value}"), left)
        }
    }
}

/// Takes a value: what a surviving pair of quotes encloses, otherwise everything up to the next flag.
fn value(text: &str) -> (String, &str) {
    if text.starts_with(QUOTES)
        && let Some(taken) = quoted(text)
    {
        return taken;
    }
    let end = flag_starts(text).next().unwrap_or(text.len());
    let (value, left) = text.split_at(end);
    (value.trim().to_owned(), left)
}

/// A text that starts with a quote, if the matching quote ends the word and a flag or nothing follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (word, left) = text.split_at(shell_word_end(text)?);
    if !word.ends_with(QUOTES) || !(left.trim().is_empty() || left.trim_start().starts_with("--")) {
        return None;
    }
    match shell_words::split(word).ok()?.as_slice() {
        [only] => Some((only.clone(), left)),
        _ => None,
    }
}

/// Where the first word of a text ends by the rules of a shell; `None` if a quote is left open. One pass, however
/// many quotes there are.
fn shell_word_end(text: &str) -> Option<usize> {
    let mut open = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match (open, character) {
            (Some(quote), _) if quote == character => open = None,
            (None | Some('"'), '\\') => {
                characters.next()?;
            }
            (None, '\'' | '"') => open = Some(character),
            (None, _) if character.is_whitespace() => return Some(at),
            _ => {}
        }
    }
    open.is_none().then_some(text.len())
}

/// Where whitespace is followed by `--`.
fn flag_starts(text: &str) -> impl Iterator<Item = usize> {
    let after_blank = |at: &usize| {
        let before = text.get(..*at).and_then(|before| before.chars().next_back());
        before.is_some_and(char::is_whitespace)
    };
    let of_flag = |at: &usize| text.get(*at..).is_some_and(starts_flag);
    text.match_indices("--").map(|(at, _)| at).filter(after_blank).filter(of_flag)
}

/// Two hyphens begin a flag. More of them belong to a value: `-----BEGIN CERTIFICATE-----`.
fn starts_flag(text: &str) -> bool {
    text.starts_with("--") && !text.starts_with("---")
}

/// A value as it must be written so that [`split`] gives it back.
pub(crate) fn quote(value: &str) -> String {
    let plain = !value.is_empty()
        && value.trim() == value
        && !value.starts_with(QUOTES)
        && flag_starts(value).next().is_none()
        && !value.starts_with("--");
    if plain { value.to_owned() } else { format!("'{}'", value.replace('\'', r"'\''")) }
}

const QUOTES: [char; 2] = ['\'', '"'];

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line)
    }

    #[test]
    fn quotes_eaten_by_the_shell_are_made_up_for() {
        assert_eq!(
            words("http --basic-auth u1:password1 --basic-auth u2:password2"),
            ["http", "--basic-auth=u1:password1", "--basic-auth=u2:password2"]
        );
        assert_eq!(
            words("http --request-header-add=is-hithe: 1 --compression"),
            ["http", "--request-header-add=is-hithe: 1", "--compression"]
        );
        assert_eq!(
            words("http --basic-auth ada:correct horse battery"),
            ["http", "--basic-auth=ada:correct horse battery"]
        );
    }

    #[test]
    fn quotes_that_survived_are_honoured() {
        assert_eq!(
            words("http --basic-auth 'ada:correct horse'"),
            ["http", "--basic-auth=ada:correct horse"]
        );
        assert_eq!(words(r#"http --basic-auth="a:b --c d""#), ["http", "--basic-auth=a:b --c d"]);
        assert_eq!(
            words("http '--basic-auth=ada:correct horse'"),
            ["http", "--basic-auth=ada:correct horse"]
        );
    }

    #[test]
    fn nothing_else_is_special() {
        assert_eq!(
            words(r"http --basic-auth a:#comment? --basic-auth b:\d\\it's  two"),
            ["http", "--basic-auth=a:#comment?", r"--basic-auth=b:\d\\it's  two"]
        );
        assert_eq!(words("http --x 'it"), ["http", "--x='it"]);
    }

    #[test]
    fn two_hyphens_end_a_value_unless_it_is_quoted() {
        assert_eq!(words("http --x a:b -- 80"), ["http", "--x=a:b", "--=80"]);
        assert_eq!(words("http --x a:b --5 c"), ["http", "--x=a:b", "--5=c"]);
        assert_eq!(words("http --x 'a:b -- --5 c'"), ["http", "--x=a:b -- --5 c"]);
        assert_eq!(words("http --x a--b -c"), ["http", "--x=a--b -c"]);
    }

    #[test]
    fn quotes_that_do_not_enclose_the_whole_value_belong_to_it() {
        assert_eq!(words("http --x 'a b' c --y"), ["http", "--x='a b' c", "--y"]);
        assert_eq!(words("http --x 'a b'c --y"), ["http", "--x='a b'c", "--y"]);
        assert_eq!(words("http --x 'a b --y 'c'"), ["http", "--x='a b", "--y=c"]);
        assert_eq!(words(r#"http --x "a\"b --c" --y"#), ["http", r#"--x=a"b --c"#, "--y"]);
    }

    #[test]
    fn pem_is_a_value_with_its_lines() {
        let pem = "-----BEGIN X-----\nAA==\n-----END X-----";
        for line in [format!("http --crt {pem} --key {pem}\n"), format!("http --crt={pem}\n --key={pem}")] {
            assert_eq!(words(&line), ["http".to_owned(), format!("--crt={pem}"), format!("--key={pem}")]);
        }
    }

    #[test]
    fn bare_words_stay_words() {
        assert_eq!(words("  http   80  "), ["http", "80"]);
        assert_eq!(words("http -h"), ["http", "-h"]);
        assert!(words(" ").is_empty());
    }
}
