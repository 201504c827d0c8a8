//! The subject of a stranger's message: read for a person (RFC 2047), and written again into a field of ours.
//!
//! What cannot be read is passed on in its encoded words, which the reader's own program may know. No more character sets
//! are here than old software writes.

use std::fmt::Write as _;

use super::text::{cut, one_line};

/// Most characters of a subject that a report repeats.
const MAX_SUBJECT: usize = 100;
/// Most octets of a subject that are read at all.
const MAX_READ: usize = 4000;
/// Longest encoded word (RFC 2047 section 2).
const MAX_ENCODED_WORD: usize = 75;

/// A subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// As a person reads it; never empty.
    Readable(String),
    /// Encoded in a way that is not known here, in ASCII.
    Encoded(String),
}

impl Subject {
    /// Reads the octets after `Subject:`. None if they say nothing.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        let value = &value[..value.len().min(MAX_READ)];
        let raw = match std::str::from_utf8(value) {
            Ok(text) => one_line(text),
            Err(_) => one_line(&western(value, &[])),
        };
        let subject = match decoded(&raw) {
            Some(text) => Self::Readable(cut(&one_line(&text), MAX_SUBJECT)),
            None if raw.is_ascii() => Self::Encoded(whole_words(&raw)),
            None => Self::Readable(cut(&raw, MAX_SUBJECT)),
        };
        (!subject.text().is_empty()).then_some(subject)
    }

    /// As it can be shown to a person.
    pub(super) fn readable(&self) -> Option<&str> {
        match self {
            Self::Readable(text) => Some(text),
            Self::Encoded(_) => None,
        }
    }

    /// As the value of a field, in ASCII.
    pub(super) fn field(&self) -> String {
        match self {
            Self::Readable(text) => encoded_if_needed(text),
            Self::Encoded(words) => words.clone(),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Readable(text) | Self::Encoded(text) => text,
        }
    }
}

/// The first words of `text` that fit; an encoded word is never cut.
fn whole_words(text: &str) -> String {
    let mut kept = String::new();
    for word in text.split(' ') {
        // As octets, four of these are about a character of a subject in any encoding.
        if kept.len() + word.len() > 4 * MAX_SUBJECT {
            break;
        }
        if !kept.is_empty() {
            kept.push(' ');
        }
        kept.push_str(word);
    }
    kept
}

/// `text` with its encoded words decoded, or none if one of them cannot be.
fn decoded(text: &str) -> Option<String> {
    let mut out = String::new();
    // A character may be split between two encoded words, whatever RFC 2047 says: they are joined as octets.
    let mut open: Option<(Charset, Vec<u8>)> = None;
    for word in text.split(' ') {
        if !(word.starts_with("=?") && word.ends_with("?=") && word.len() > 4) {
            close(&mut open, &mut out);
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(word);
            continue;
        }
        let (charset, octets) = encoded_word(word)?;
        match &mut open {
            Some((known, before)) if *known == charset => before.extend(octets),
            Some(_) => {
                close(&mut open, &mut out);
                open = Some((charset, octets));
            }
            None => {
                if !out.is_empty() {
                    out.push(' ');
                }
                open = Some((charset, octets));
            }
        }
    }
    close(&mut open, &mut out);
    Some(out)
}

fn close(open: &mut Option<(Charset, Vec<u8>)>, out: &mut String) {
    if let Some((charset, octets)) = open.take() {
        out.push_str(&charset.decode(&octets));
    }
}

fn encoded_word(word: &str) -> Option<(Charset, Vec<u8>)> {
    let mut parts = word.strip_prefix("=?")?.strip_suffix("?=")?.splitn(3, '?');
    let (charset, encoding, text) = (parts.next()?, parts.next()?, parts.next()?);
    let octets = match encoding {
        "B" | "b" => base64(text)?,
        "Q" | "q" => q_encoding(text)?,
        _ => return None,
    };
    Some((Charset::named(charset)?, octets))
}

/// A character set that can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Charset {
    Utf8,
    Western,
    WesternWithEuro,
}

impl Charset {
    fn named(name: &str) -> Option<Self> {
        // RFC 2231 section 5 lets a language follow.
        let name = name.split('*').next().unwrap_or_default().to_ascii_lowercase();
        match name.as_str() {
            "utf-8" | "utf8" | "us-ascii" => Some(Self::Utf8),
            // Windows programs call their own set by the standard's name.
            "iso-8859-1" | "latin1" | "windows-1252" | "cp1252" => Some(Self::Western),
            "iso-8859-15" => Some(Self::WesternWithEuro),
            _ => None,
        }
    }

    fn decode(self, octets: &[u8]) -> String {
        match self {
            Self::Utf8 => String::from_utf8_lossy(octets).into_owned(),
            Self::Western => western(octets, &[]),
            Self::WesternWithEuro => western(octets, &LATIN_9),
        }
    }
}

/// Where ISO-8859-15 is another than ISO-8859-1.
const LATIN_9: [(u8, char); 8] =
    [(0xa4, '€'), (0xa6, 'Š'), (0xa8, 'š'), (0xb4, 'Ž'), (0xb8, 'ž'), (0xbc, 'Œ'), (0xbd, 'œ'), (0xbe, 'Ÿ')];

/// What Windows-1252 has at 0x80 to 0x9f; a space where it has nothing.
const WINDOWS: [char; 32] = [
    '€', ' ', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', ' ', 'Ž', ' ', //
    ' ', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', ' ', 'ž', 'Ÿ',
];

fn western(octets: &[u8], others: &[(u8, char)]) -> String {
    let character = |octet: u8| match (others.iter().find(|(other, _)| *other == octet), octet) {
        (Some((_, character)), _) => *character,
        (None, 0x80..=0x9f) => WINDOWS[usize::from(octet - 0x80)],
        (None, octet) => char::from(octet),
    };
    octets.iter().copied().map(character).collect()
}

fn q_encoding(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'_' => b' ',
            b'=' => {
                let digits = [rest.next()?, rest.next()?];
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            octet => octet,
        });
    }
    Some(octets)
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0u32, 0u32);
    for digit in text.trim_end_matches('=').bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            octets.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(octets)
}

/// `text` as it stands if a field may hold it, else in encoded words. Text that only looks encoded is encoded too: a
/// reader would decode it once more.
pub(super) fn encoded_if_needed(text: &str) -> String {
    if text.is_ascii() && !text.contains("=?") {
        return text.to_owned();
    }
    let room = MAX_ENCODED_WORD - "=?utf-8?Q??=".len();
    let mut words = vec![String::new()];
    for c in text.chars() {
        let encoded = q_encoded(c);
        match words.last_mut() {
            Some(word) if word.len() + encoded.len() <= room => word.push_str(&encoded),
            _ => words.push(encoded),
        }
    }
    words.iter().map(|word| format!("=?utf-8?Q?{word}?=")).collect::<Vec<_>>().join(" ")
}

fn q_encoded(c: char) -> String {
    let mut out = String::new();
    let mut buffer = [0; 4];
    for octet in c.encode_utf8(&mut buffer).bytes() {
        let _ = match octet {
            b' ' => write!(out, "_"),
            octet if octet.is_ascii_alphanumeric() => write!(out, "{c}"),
            octet => write!(out, "={octet:02X}"),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn subjects_are_read() {
        for (value, text) in [
            (&b" Invoice 4711\r\n"[..], "Invoice 4711"),
            (b" Invoice\r\n\t4711\r\n", "Invoice 4711"),
            (b" =?utf-8?B?R3LDvG4=?=\r\n", "Grün"),
            (b"=?UTF-8?q?Gr=C3=BCn_und?= =?utf-8?Q?_wei=C3=9F?=", "Grün und weiß"),
            (b"Re: =?iso-8859-1?Q?Gr=FCn?= x", "Re: Grün x"),
            (b"=?iso-8859-15?Q?5_=A4?=", "5 €"),
            (b"=?windows-1252*de?Q?=845_=80=93?=", "„5 €“"),
            // A character in two words.
            (b"=?utf-8?B?R3LD?= =?utf-8?B?vG4=?=", "Grün"),
            ("grün".as_bytes(), "grün"),
            (b"gr\xfcn", "grün"),
            (b"=?utf-8?Q?a=0D=0ABcc:_b?=", "a Bcc: b"),
            (b"=?utf-8?Q?=E2=80=AEgnp.exe?=", "gnp.exe"),
            (b"=?= x ?=", "=?= x ?="),
        ] {
            let subject = Subject::read(value);
            assert_eq!(subject.as_ref().and_then(Subject::readable), Some(text), "{}", String::from_utf8_lossy(value));
        }
        assert_eq!(Subject::read(b" \r\n"), None);
        assert_eq!(Subject::read(b"=?utf-8?Q??="), None);
        let long = Subject::read("ü".repeat(300).as_bytes()).unwrap();
        assert_eq!(long.readable(), Some(format!("{}...", "ü".repeat(100)).as_str()));
    }

    #[test]
    fn what_cannot_be_read_stays_encoded() {
        for value in ["=?gb2312?B?xOO6ww==?= x", "=?utf-8?X?a?=", "=?utf-8?Q?=4?=", "=?utf-8?B?*?="] {
            let subject = Subject::read(value.as_bytes()).unwrap();
            assert_eq!((subject.readable(), subject.field().as_str()), (None, value));
        }
        let long = ["=?gb2312?B?xOO6ww==?="; 200].join(" ");
        let field = Subject::read(long.as_bytes()).unwrap().field();
        assert!(field.len() < 500 && field.ends_with("?="), "{field}");
    }

    #[test]
    fn subjects_are_written_in_ascii() {
        for (text, field) in [
            ("Invoice 4711", "Invoice 4711"),
            ("Grün 1", "=?utf-8?Q?Gr=C3=BCn_1?="),
            ("=?utf-8?Q?x?=", "=?utf-8?Q?=3D=3Futf=2D8=3FQ=3Fx=3F=3D?="),
        ] {
            assert_eq!(encoded_if_needed(text), field);
        }
    }

    proptest! {
        #[test]
        fn octets_become_one_line_or_none(value: Vec<u8>) {
            if let Some(subject) = Subject::read(&value) {
                prop_assert!(!subject.text().chars().any(char::is_control));
                prop_assert!(subject.field().bytes().all(|octet| octet == b' ' || octet.is_ascii_graphic()));
                if let Subject::Readable(text) = &subject {
                    prop_assert_eq!(decoded(&subject.field()), Some(text.clone()));
                }
            }
        }

        #[test]
        fn encoded_words_are_short_and_read_again(text in "[ -~äß€😀]{1,120}") {
            let text = one_line(&text);
            let field = encoded_if_needed(&text);
            if field != text {
                prop_assert!(field.split(' ').all(|word| word.len() <= MAX_ENCODED_WORD));
            }
            prop_assert_eq!(decoded(&field), Some(text));
        }
    }
}
