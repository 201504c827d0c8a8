//! The subject of a stranger's message: read for a person (RFC 2047), and written again into a field of ours.
//!
//! What cannot be read is passed on in its encoded words, which the reader's own program may know.

use crate::encoded_word::{decoded, encoded_if_needed};
use crate::readable::{cut, one_line, text_of};

/// Most characters of a subject that a report repeats.
const MAX_SUBJECT: usize = 100;
/// Most octets of a subject that are read at all.
const MAX_READ: usize = 4000;

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
        let raw = one_line(&text_of(value));
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
    }
}
