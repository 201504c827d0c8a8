//! The name beside an address: read from a field that is to be written anew, and written as RFC 5322 section 3.2.5 wants it.

use std::ops::Range;

use crate::address::Mailbox;
use crate::encoded_word::{decoded, encoded_if_needed};
use crate::readable::{cut, one_line, text_of};

/// Most characters of a name: what a reader shows.
const MAX_NAME: usize = 200;

/// What a value says besides the octets `left_out`, as a person reads it, in one line: quotes, angle brackets and the
/// separators at its ends are left out, encoded words are decoded. Empty if it says nothing.
pub fn name_in(value: &[u8], left_out: Range<usize>) -> String {
    let kept = [&value[..left_out.start], &b" "[..], &value[left_out.end..]].concat();
    let line = one_line(&text_of(&kept));
    let text = decoded(&line).map_or(line, |text| one_line(&text));
    let plain: String = text.chars().filter(|c| !"<>\"\\".contains(*c)).collect();
    cut(one_line(&plain).trim_matches([',', ';', ' ']), MAX_NAME)
}

/// `name <address>`, in ASCII if the address is. The name is text as a person reads it; what may not stand in a line is left
/// out, and a name that needs quotes or encoded words gets them. The address alone if there is no name.
pub fn named(name: &str, address: &Mailbox) -> String {
    let name = one_line(name);
    if name.is_empty() {
        address.to_string()
    } else if !name.is_ascii() || name.contains("=?") {
        format!("{} <{address}>", encoded_if_needed(&name))
    } else if name.bytes().all(|octet| octet == b' ' || octet.is_ascii_alphanumeric() || b"-_+/'&".contains(&octet)) {
        format!("{name} <{address}>")
    } else {
        format!("\"{}\" <{address}>", name.replace('\\', "\\\\").replace('"', "\\\""))
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
            (b"=?utf-8?Q?a=0D=0ABcc:_b?=", 0..0, "a Bcc: b"),
            (b"HP\x1b[1m\0,", 0..0, "HP [1m"),
            (b",;<>", 0..0, ""),
        ] {
            assert_eq!(name_in(value, left_out), name, "{}", String::from_utf8_lossy(value));
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
            assert_eq!(named(name, &address), written);
        }
    }

    proptest! {
        #[test]
        fn whatever_the_name_the_address_is_found_again(name in "\\PC{0,40}|[ -~\r\n\0\u{fc}]{0,40}") {
            let address: Mailbox = "\"x> y\"@b.c".parse().unwrap();
            let written = named(&name, &address);
            prop_assert!(written.is_ascii() && !written.chars().any(char::is_control));
            let list = AddressList::parse(written.as_bytes()).unwrap();
            prop_assert_eq!(list.grade(), Grade::Right, "{}", written);
            prop_assert_eq!(list.mailboxes().collect::<Vec<_>>(), vec![&address]);
        }

        #[test]
        fn names_are_one_line(value: Vec<u8>) {
            let name = name_in(&value, 0..0);
            prop_assert_eq!(&one_line(&name), &name);
        }
    }
}
