//! The name beside an address: read from a field that is to be written anew, and written as RFC 5322 section 3.2.5 wants it.

use std::ops::Range;

use crate::address::Mailbox;
use crate::encoded_word::{decoded, encoded_if_needed, for_phrase};
use crate::readable::{cut, one_line, text_of};

/// Most characters of a name: what a reader shows.
const MAX_NAME: usize = 200;

/// Most octets of a name that stays encoded.
const MAX_PHRASE: usize = 1000;

/// A name beside an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// As a person reads it, in one line; may be empty.
    Text(String),
    /// With encoded words in a character set that is not known here, as a phrase of RFC 5322 in ASCII.
    Phrase(String),
}

/// What a value says besides the octets `left_out`: quotes, angle brackets, the separators at its ends, and the brackets of
/// a comment that is all of it are left out; encoded words are decoded, or kept if one of them cannot be.
pub fn name_in(value: &[u8], left_out: Range<usize>) -> Name {
    let kept = [&value[..left_out.start], &b" "[..], &value[left_out.end..]].concat();
    let line = apart(&one_line(&text_of(&kept)));
    match decoded(&line) {
        Some(text) => Name::Text(cut(&uncommented(&plain(&one_line(&text))), MAX_NAME)),
        None => phrase_of(&line).map_or_else(|| Name::Text(cut(&plain(&line), MAX_NAME)), Name::Phrase),
    }
}

/// Encoded words stand between blanks, also where a program put quotes, brackets or separators at them.
fn apart(line: &str) -> String {
    if !line.contains("=?") {
        return line.to_owned();
    }
    let mut line = line.replace("?==?", "?= =?");
    for c in "\"(<,;".chars() {
        line = line.replace(&format!("{c}=?"), &format!("{c} =?"));
    }
    for c in "\")>,;".chars() {
        line = line.replace(&format!("?={c}"), &format!("?= {c}"));
    }
    line
}

fn plain(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !"<>\"\\".contains(*c)).collect();
    one_line(&plain).trim_matches([',', ';', ' ']).to_owned()
}

fn uncommented(text: &str) -> String {
    let inner =
        text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).filter(|inner| !inner.contains(['(', ')']));
    inner.map_or_else(|| text.to_owned(), |inner| inner.trim().to_owned())
}

/// The words of `line`, those that are encoded as they are; none if there are none of these.
fn phrase_of(line: &str) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut before = Vec::new();
    let mut is_encoded = false;
    for word in line.split(' ') {
        if let Some(word) = for_phrase(word) {
            parts.extend(between(&before, is_encoded, true));
            before.clear();
            parts.push(word);
            is_encoded = true;
        } else {
            before.push(word);
        }
    }
    parts.extend(between(&before, is_encoded, false));
    let mut len = 0;
    parts.retain(|part| {
        len += part.len() + 1;
        len <= MAX_PHRASE
    });
    is_encoded.then(|| parts.join(" "))
}

/// Words that are not encoded, between encoded ones or beside them.
fn between(words: &[&str], is_after: bool, is_before: bool) -> Option<String> {
    let text = plain(&words.join(" "));
    let text = text.trim_matches(['(', ')', ' ']);
    if text.is_empty() {
        None
    } else if text.is_ascii() && !text.contains("=?") {
        Some(written(text))
    } else {
        // A reader shows no blank between two encoded words but one that is in them.
        let blank = |is_there| if is_there { " " } else { "" };
        Some(encoded_if_needed(&format!("{}{}{}", blank(is_after), cut(text, MAX_NAME), blank(is_before))))
    }
}

/// `name <address>`, in ASCII if the address is. What may not stand in a line is left out of a name in text, and one that
/// needs quotes or encoded words gets them. The address alone if there is no name.
pub fn named(name: &Name, address: &Mailbox) -> String {
    let phrase = match name {
        Name::Text(text) => written(&one_line(text)),
        Name::Phrase(phrase) => phrase.clone(),
    };
    if phrase.is_empty() { address.to_string() } else { format!("{phrase} <{address}>") }
}

/// `name`, which is one line, as a phrase.
fn written(name: &str) -> String {
    if !name.is_ascii() || name.contains("=?") {
        encoded_if_needed(name)
    } else if name.bytes().all(|octet| octet == b' ' || octet.is_ascii_alphanumeric() || b"-_+/'&".contains(&octet)) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address_list::{AddressList, Grade};
    use proptest::prelude::*;

    #[test]
    fn names_are_read() {
        for (value, left_out, name) in [
            (&b" HP Scanner\r\n"[..], 0..0, "HP Scanner"),
            (b" \"HP Scanner\" <>\r\n", 0..0, "HP Scanner"),
            (b"M\xfcller, Hans <h@b.c>", 14..19, "M\u{fc}ller, Hans"),
            (b"=?utf-8?Q?M=C3=BCller,?= Hans", 0..0, "M\u{fc}ller, Hans"),
            (b"\"A?=,a\"", 0..0, "A?=,a"),
            (b"=?utf-8?Q?a=0D=0ABcc:_b?=", 0..0, "a Bcc: b"),
            (b"HP\x1b[1m\0,", 0..0, "HP [1m"),
            (b",;<>", 0..0, ""),
            (b"(Anna)", 0..0, "Anna"),
            (b"\"=?utf-8?Q?M=C3=BCller?=\" ;", 0..0, "M\u{fc}ller"),
        ] {
            assert_eq!(name_in(value, left_out), Name::Text(name.to_owned()), "{}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn names_in_unknown_character_sets_stay_encoded() {
        for (value, phrase) in [
            ("=?windows-1250?Q?Nov=E1k,_Jan?= <>", "=?windows-1250?Q?Nov=E1k=2C_Jan?="),
            ("\"=?gb2312?B?1cXI/Q==?=\" <>;", "=?gb2312?B?1cXI/Q==?="),
            ("=?gb2312?B?1cXI/Q==?= =?utf-8?Q?=C3=BC?=", "=?gb2312?B?1cXI/Q==?= =?utf-8?Q?=C3=BC?="),
            ("=?koi8-r?Q?=CE?==?koi8-r?Q?=CF?=,", "=?koi8-r?Q?=CE?= =?koi8-r?Q?=CF?="),
            ("(=?big5?B?pKQ=?=)", "=?big5?B?pKQ=?="),
            ("Dr. =?big5?B?pKQ=?= M\u{fc}ller, x", "\"Dr.\" =?big5?B?pKQ=?= =?utf-8?Q?_M=C3=BCller=2C_x?="),
        ] {
            assert_eq!(name_in(value.as_bytes(), 0..0), Name::Phrase(phrase.to_owned()), "{value}");
        }
    }

    #[test]
    fn names_are_written() {
        let address = "s@b.c".parse().unwrap();
        for (name, written) in [
            ("", "s@b.c"),
            ("HP Scanner", "HP Scanner <s@b.c>"),
            ("root@", "\"root@\" <s@b.c>"),
            ("a \"b\" \\", "\"a \\\"b\\\" \\\\\" <s@b.c>"),
            ("M\u{fc}ller", "=?utf-8?Q?M=C3=BCller?= <s@b.c>"),
            ("a\r\nBcc: b", "\"a Bcc: b\" <s@b.c>"),
        ] {
            assert_eq!(named(&Name::Text(name.to_owned()), &address), written);
        }
    }

    proptest! {
        #[test]
        fn whatever_the_name_the_address_is_found_again(name in "\\PC{0,40}|[ -~\r\n\0\u{fc}]{0,40}") {
            let address: Mailbox = "\"x> y\"@b.c".parse().unwrap();
            let written = named(&Name::Text(name), &address);
            prop_assert!(written.is_ascii() && !written.chars().any(char::is_control));
            let list = AddressList::parse(written.as_bytes()).unwrap();
            prop_assert_eq!(list.grade(), Grade::Right, "{}", written);
            prop_assert_eq!(list.mailboxes().collect::<Vec<_>>(), vec![&address]);
        }

        #[test]
        fn whatever_is_beside_it_the_address_is_found_again(value in "(=[?](koi8-r|utf-8)[?]Q[?][=A-F0-9 @,<>\"]{0,6}[?]=|[ -~\u{fc}]| ){0,8}") {
            let address: Mailbox = "a@b.c".parse().unwrap();
            let list = named(&name_in(value.as_bytes(), 0..0), &address);
            let list = AddressList::parse(list.as_bytes()).unwrap();
            prop_assert_eq!(list.grade(), Grade::Right);
            prop_assert_eq!(list.mailboxes().collect::<Vec<_>>(), vec![&address]);
        }

        #[test]
        fn names_are_one_line(value: Vec<u8>) {
            let (Name::Text(name) | Name::Phrase(name)) = name_in(&value, 0..0);
            prop_assert_eq!(&one_line(&name), &name);
        }
    }
}
