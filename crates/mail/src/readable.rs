//! What strangers wrote, as one line that may be shown to a person, a terminal or a log. Not here: the encoded words that
//! may stand in it.

use std::borrow::Cow;

use crate::address::is_acted_on;

/// At most `most` characters of `octets` in one printable line: UTF-8 where it is that, else Windows-1252, which whoever
/// writes undeclared octets means most often.
pub fn readable(octets: &[u8], most: usize) -> String {
    cut(&one_line(&text_of(octets)), most)
}

/// The text of undeclared octets.
pub(crate) fn text_of(octets: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(octets).map_or_else(|_| western(octets, &[]).into(), Into::into)
}

/// `text` as one line: every run of blanks, controls and what turns the direction of text is one space.
pub(crate) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || is_acted_on(c)).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// At most `most` characters of `text`; a cut is shown.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", text[..end].trim_end()),
    }
}

/// What Windows-1252 has at 0x80 to 0x9f; a space where it has nothing.
const WINDOWS: [char; 32] = [
    '€', ' ', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', ' ', 'Ž', ' ', //
    ' ', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', ' ', 'ž', 'Ÿ',
];

pub(crate) fn western(octets: &[u8], others: &[(u8, char)]) -> String {
    let character = |octet: u8| match (others.iter().find(|(other, _)| *other == octet), octet) {
        (Some((_, character)), _) => *character,
        (None, 0x80..=0x9f) => WINDOWS[usize::from(octet - 0x80)],
        (None, octet) => char::from(octet),
    };
    octets.iter().copied().map(character).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_one_line() {
        for (text, line) in [
            ("a\r\nBcc: b", "a Bcc: b"),
            ("  a \t b ", "a b"),
            ("\u{202e}moc\u{2028}x\0y\u{85}z", "moc x y z"),
            ("\r\n", ""),
            ("grün", "grün"),
        ] {
            assert_eq!(one_line(text), line, "{text:?}");
        }
        assert_eq!(cut("grün weiß", 5), "grün...");
        assert_eq!(cut("grün", 4), "grün");
    }

    #[test]
    fn undeclared_octets_are_read() {
        assert_eq!(readable("  Empf\u{e4}nger\r\n\t1".as_bytes(), 99), "Empf\u{e4}nger 1");
        assert_eq!(readable(b"Empf\xe4nger \x80\x1b[1m\r\n", 99), "Empf\u{e4}nger \u{20ac} [1m");
        assert_eq!(readable(b"abcdef", 3), "abc...");
    }
}
