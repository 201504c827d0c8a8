//! How strangers' text becomes lines of a report: cleaned, cut, wrapped, folded and encoded. Nothing reaches a report but
//! through here, so that no reply, address or header value can begin a line of its own. It knows nothing of what is said.

use std::fmt::Write as _;

use crate::address::is_acted_on;
use crate::readable::{cut, one_line};

/// Longest line of prose, in characters.
const PROSE_WIDTH: usize = 76;
/// Longest line of a field where that can be helped, in octets (RFC 5322 section 2.1.1).
const FIELD_WIDTH: usize = 76;
/// Longest piece of a field that stays whole, in octets: with what stands before it, it fits a line of 998.
const MAX_PIECE: usize = 900;
/// Longest line of any message, in octets without its end (RFC 5321 section 4.5.3.1.6).
const MAX_LINE: usize = 998;
/// Longest line of quoted-printable, with the `=` that continues it (RFC 2045 section 6.7).
const QUOTED_WIDTH: usize = 76;
/// Most characters of a value of which more tells nobody anything.
pub(super) const MAX_TEXT: usize = 2000;

/// `text` in ASCII, other characters as RFC 6533 section 3 writes them in a 7-bit report: `\x{FC}`.
fn ascii(text: &str) -> String {
    escaped(text, |c| c.is_ascii())
}

/// An address of type `utf-8` as RFC 6533 section 3 wants it in a 7-bit report (`utf-8-addr-xtext`).
pub(super) fn unicode_address(address: &str) -> String {
    escaped(address, |c| c.is_ascii_graphic() && !"\\+=".contains(c))
}

fn escaped(text: &str, is_plain: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            let _ = write!(out, "\\x{{{:02X}}}", u32::from(c));
        }
    }
    out
}

/// Header fields, or a block of fields of a delivery status.
#[derive(Debug, Default)]
pub(super) struct Fields(String);

impl Fields {
    /// Adds a field of free text, in ASCII; none if there is no text.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        let value = ascii(&cut(&one_line(value), MAX_TEXT));
        if !value.is_empty() {
            self.exact(name, &value);
        }
    }

    /// Adds a field whose blanks count, as those of a quoted local part do, and that may hold UTF-8 (RFC 6532). Folded at spaces, which stay (RFC 5322
    /// section 2.2.3).
    pub(super) fn exact(&mut self, name: &str, value: &str) {
        self.0.push_str(name);
        self.0.push(':');
        let mut line_len = name.len() + 1;
        let value: String = value.chars().map(|c| if is_acted_on(c) { ' ' } else { c }).collect();
        for (at, piece) in pieces(&format!(" {}", value.trim())).enumerate() {
            // The first piece never gets a line of its own: some readers take `Name:` CRLF for an empty field.
            if at > 0 && line_len + piece.len() > FIELD_WIDTH {
                self.0.push_str("\r\n");
                line_len = 0;
            }
            for (at, part) in parts(piece).enumerate() {
                if at > 0 {
                    self.0.push_str("\r\n ");
                    line_len = 1;
                }
                self.0.push_str(part);
                line_len += part.len();
            }
        }
        self.0.push_str("\r\n");
    }

    /// The empty line after a block.
    pub(super) fn end_block(&mut self) {
        self.0.push_str("\r\n");
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

/// Each word with the spaces before it.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let word = rest.find(|c| c != ' ')?;
        let end = rest[word..].find(' ').map_or(rest.len(), |at| word + at);
        let (piece, others) = rest.split_at(end);
        rest = others;
        Some(piece)
    })
}

/// A piece in parts that fit a line.
fn parts(piece: &str) -> impl Iterator<Item = &str> {
    let mut rest = piece;
    std::iter::from_fn(move || {
        let (part, others) = rest.split_at(rest.floor_char_boundary(MAX_PIECE));
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

/// Text for a person, wrapped.
#[derive(Debug, Default)]
pub(super) struct Prose(String);

impl Prose {
    /// A paragraph and the empty line after it.
    pub(super) fn paragraph(&mut self, text: &str) {
        self.wrapped("", "", text);
        self.gap();
    }

    /// Text under an indent.
    pub(super) fn indented(&mut self, indent: &str, text: &str) {
        self.wrapped(indent, indent, text);
    }

    /// `first` with the text beside it, and its further lines below the text.
    pub(super) fn beside(&mut self, first: &str, text: &str) {
        self.wrapped(first, &" ".repeat(first.chars().count()), text);
    }

    /// An empty line.
    pub(super) fn gap(&mut self) {
        self.0.push_str("\r\n");
    }

    fn wrapped(&mut self, first: &str, others: &str, text: &str) {
        let room = PROSE_WIDTH - others.chars().count();
        let mut used = 0;
        self.0.push_str(first);
        for word in one_line(text).split(' ').flat_map(|word| chunks(word, room)) {
            let len = word.chars().count();
            if used > 0 && used + 1 + len > room {
                self.gap();
                self.0.push_str(others);
                used = 0;
            } else if used > 0 {
                self.0.push(' ');
                used += 1;
            }
            self.0.push_str(word);
            used += len;
        }
        self.gap();
    }

    /// How it is encoded and its octets: as it is where ASCII is enough, else quoted-printable, so that the part is 7-bit.
    pub(super) fn encoded(self) -> (&'static str, Vec<u8>) {
        encoded(self.0.as_bytes())
    }
}

/// A word in pieces of at most `most` characters.
fn chunks(word: &str, most: usize) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let end = rest.char_indices().nth(most).map_or(rest.len(), |(at, _)| at);
        let (chunk, others) = rest.split_at(end);
        rest = others;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Lines with CRLF as 7-bit text: the name of the encoding and the octets. Anything can be given.
pub(super) fn encoded(octets: &[u8]) -> (&'static str, Vec<u8>) {
    let is_plain =
        |line: &[u8]| line.len() <= MAX_LINE && line.iter().all(|octet| matches!(octet, b'\t' | b' '..=b'~'));
    if lines(octets).all(is_plain) {
        ("7bit", joined(lines(octets).map(<[u8]>::to_vec)))
    } else {
        ("quoted-printable", joined(lines(octets).map(quoted)))
    }
}

/// A header block that any server takes: what no line may hold is a space, and lines too long are folded.
pub(super) fn sendable(header: &[u8]) -> Vec<u8> {
    let folded = |line: &[u8]| {
        let line: Vec<u8> =
            line.iter().map(|octet| if matches!(octet, 0 | b'\r' | b'\n') { b' ' } else { *octet }).collect();
        let (first, others) = line.split_at(line.len().min(MAX_LINE));
        let mut folded = first.to_vec();
        for part in others.chunks(MAX_LINE - 1) {
            folded.extend_from_slice(b"\r\n ");
            folded.extend_from_slice(part);
        }
        folded
    };
    joined(lines(header).map(folded))
}

/// The lines without their CRLF. What stands after the last one is a line too.
fn lines(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.windows(2).position(|two| two == b"\r\n");
        let line = &rest[..end.unwrap_or(rest.len())];
        rest = end.map_or(&[][..], |at| &rest[at + 2..]);
        Some(line)
    })
}

fn joined(lines: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    lines.flat_map(|line| line.into_iter().chain(*b"\r\n")).collect()
}

/// A line in quoted-printable (RFC 2045 section 6.7).
fn quoted(line: &[u8]) -> Vec<u8> {
    let mut out = String::with_capacity(line.len());
    let mut line_len = 0;
    for (at, octet) in line.iter().enumerate() {
        let is_last = at + 1 == line.len();
        let plain = match octet {
            b' ' | b'\t' => !is_last,
            b'=' => false,
            octet => octet.is_ascii_graphic(),
        };
        let len = if plain { 1 } else { 3 };
        if line_len + len + usize::from(!is_last) > QUOTED_WIDTH {
            out.push_str("=\r\n");
            line_len = 0;
        }
        if plain {
            out.push(char::from(*octet));
        } else {
            let _ = write!(out, "={octet:02X}");
        }
        line_len += len;
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_ascii_is_written_in_ascii() {
        assert_eq!(ascii("a ü=\u{1f600}"), "a \\x{FC}=\\x{1F600}");
        assert_eq!(unicode_address("\"ü +\"@x.y"), "\"\\x{FC}\\x{20}\\x{2B}\"@x.y");
    }

    fn field(value: &str) -> String {
        let mut fields = Fields::default();
        fields.exact("Name", value);
        String::from_utf8(fields.into_bytes()).unwrap()
    }

    #[test]
    fn fields_are_folded_at_their_spaces_and_keep_them() {
        assert_eq!(field("\"a  b\"@c.d"), "Name: \"a  b\"@c.d\r\n");
        let (long, word) = ("x".repeat(80), "y".repeat(2000));
        assert_eq!(field(&format!("{long}  b")), format!("Name: {long}\r\n  b\r\n"));
        assert!(field(&word).lines().all(|line| line.len() <= MAX_LINE));
        assert_eq!(field("a\r\nBcc: b"), "Name: a  Bcc: b\r\n");
        let mut fields = Fields::default();
        fields.text("Name", " \r\n ");
        assert!(fields.into_bytes().is_empty());
    }

    #[test]
    fn prose_is_wrapped_and_long_words_are_cut() {
        let mut prose = Prose::default();
        prose.beside("  To:  ", &["word"; 20].join(" "));
        prose.indented("    ", &"x".repeat(100));
        let (encoding, octets) = prose.encoded();
        let text = String::from_utf8(octets).unwrap();
        assert_eq!(encoding, "7bit");
        assert!(text.lines().all(|line| line.chars().count() <= PROSE_WIDTH), "{text}");
        assert!(text.starts_with("  To:  word word") && text.contains("\r\n       word"), "{text}");
    }

    #[test]
    fn octets_that_are_not_plain_are_quoted() {
        for (octets, encoding, text) in [
            (&b"a\tb\r\nc\r\n"[..], "7bit", "a\tb\r\nc\r\n"),
            (b"a", "7bit", "a\r\n"),
            (b"", "7bit", ""),
            (b"\xfc=\r\nb \r\n", "quoted-printable", "=FC=3D\r\nb=20\r\n"),
            (b"a\rb\nc\0\r\n", "quoted-printable", "a=0Db=0Ac=00\r\n"),
        ] {
            assert_eq!(encoded(octets), (encoding, text.as_bytes().to_vec()));
        }
        assert_eq!(encoded(&[b'x'; 999]).0, "quoted-printable");
    }

    fn unquoted(text: &[u8]) -> Vec<u8> {
        let text = String::from_utf8(text.to_vec()).unwrap().replace("=\r\n", "");
        let mut octets = Vec::new();
        let mut rest = text.bytes();
        while let Some(octet) = rest.next() {
            if octet == b'=' {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                octets.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            } else {
                octets.push(octet);
            }
        }
        octets
    }

    proptest! {
        #[test]
        fn quoted_printable_gives_back_every_octet(mut octets: Vec<u8>) {
            octets.extend_from_slice(b"\xff\r\n");
            let (encoding, text) = encoded(&octets);
            prop_assert_eq!(encoding, "quoted-printable");
            prop_assert!(text.split(|octet| *octet == b'\n').all(|line| line.len() <= 77));
            prop_assert_eq!(unquoted(&text), octets);
        }

        #[test]
        fn a_sendable_header_has_only_lines_that_are_taken(octets in "[a\r\n\0 ü]{0,30}", long in 0usize..3000) {
            let header = [octets.as_bytes(), &vec![b'y'; long], b"\r\n"].concat();
            let sent = sendable(&header);
            let text = String::from_utf8_lossy(&sent).replace("\r\n", "\n");
            prop_assert!(sent.split(|octet| *octet == b'\n').all(|line| line.len() <= MAX_LINE + 1));
            prop_assert!(!text.contains(['\r', '\0']));
        }

        #[test]
        fn a_field_is_one_field_and_unfolds_to_its_value(value in "[ -~ü]{1,40}( [!-~]{1,40}){0,8}") {
            let text = field(&value);
            let unfolded = text.replace("\r\n ", " ");
            prop_assert_eq!(unfolded, format!("Name: {}\r\n", value.trim()));
        }

        #[test]
        fn prose_never_passes_its_width(text: String, indent in 0usize..20) {
            let mut prose = Prose::default();
            prose.indented(&" ".repeat(indent), &text);
            prop_assert!(prose.0.split("\r\n").all(|line| line.chars().count() <= PROSE_WIDTH));
            prop_assert!(!prose.0.replace("\r\n", "").chars().any(char::is_control));
        }
    }
}
