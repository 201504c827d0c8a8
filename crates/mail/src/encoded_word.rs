//! Encoded words (RFC 2047): read for a person, and written where a field of ours needs more than ASCII.
//!
//! No more character sets are here than old software writes.

use std::fmt::Write as _;

use crate::readable::western;

/// Longest encoded word (RFC 2047 section 2).
const MAX_ENCODED_WORD: usize = 75;

/// `text` with its encoded words decoded, or none if one of them cannot be.
pub(crate) fn decoded(text: &str) -> Option<String> {
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

/// Longest encoded word that is kept without knowing its character set: a line of a field cannot be folded within it. Old
/// software writes longer ones than RFC 2047 section 2 allows.
const MAX_KEPT_WORD: usize = 500;

/// The encoded word as a phrase may hold it (RFC 2047 section 5 (3)), whatever its character set. None if it is none.
pub(crate) fn for_phrase(word: &str) -> Option<String> {
    let mut parts = word.strip_prefix("=?")?.strip_suffix("?=")?.splitn(3, '?');
    let (charset, encoding, text) = (parts.next()?, parts.next()?, parts.next()?);
    let is_token = |octet: u8| octet.is_ascii_alphanumeric() || b"-_+*".contains(&octet);
    if charset.is_empty() || !charset.bytes().all(is_token) || !text.is_ascii() {
        return None;
    }
    let text = match encoding {
        "B" | "b" => base64(text).map(|_| text.to_owned())?,
        "Q" | "q" => q_encoding(text)?.into_iter().fold(String::new(), |mut text, octet| {
            let _ = match octet {
                b' ' => write!(text, "_"),
                octet if octet.is_ascii_alphanumeric() || b"!*+-/".contains(&octet) => {
                    write!(text, "{}", char::from(octet))
                }
                octet => write!(text, "={octet:02X}"),
            };
            text
        }),
        _ => return None,
    };
    let word = format!("=?{charset}?{encoding}?{text}?=");
    (word.len() <= MAX_KEPT_WORD).then_some(word)
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

/// `text` as it stands if an unstructured field may hold it (one line, no controls: the caller's matter), else in encoded
/// words. Text that only looks encoded is encoded too: a reader would decode it once more.
pub fn encoded_if_needed(text: &str) -> String {
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
    use crate::readable::one_line;
    use proptest::prelude::*;

    #[test]
    fn text_is_written_in_ascii() {
        for (text, field) in [
            ("Invoice 4711", "Invoice 4711"),
            ("Grün 1", "=?utf-8?Q?Gr=C3=BCn_1?="),
            ("=?utf-8?Q?x?=", "=?utf-8?Q?=3D=3Futf=2D8=3FQ=3Fx=3F=3D?="),
        ] {
            assert_eq!(encoded_if_needed(text), field);
        }
    }

    #[test]
    fn encoded_words_are_made_fit_for_a_phrase() {
        for (word, fit) in [
            ("=?windows-1250?Q?Nov=E1k,_Jan?=", Some("=?windows-1250?Q?Nov=E1k=2C_Jan?=")),
            ("=?ISO-8859-2?q?a@b.c?=", Some("=?ISO-8859-2?q?a=40b=2Ec?=")),
            ("=?gb2312?B?1cXI/Q==?=", Some("=?gb2312?B?1cXI/Q==?=")),
            ("=?big5*zh?Q?_=_?=", None),
            ("=?koi8-r?Q?\u{fc}?=", None),
            ("=?koi8-r?B?a,b?=", None),
            ("=?a b?Q?a?=", None),
            ("=??Q?a?=", None),
            ("=?koi8-r?X?a?=", None),
        ] {
            assert_eq!(for_phrase(word).as_deref(), fit, "{word}");
        }
        assert_eq!(for_phrase(&format!("=?koi8-r?B?{}?=", "a".repeat(MAX_KEPT_WORD))), None);
    }

    proptest! {
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
