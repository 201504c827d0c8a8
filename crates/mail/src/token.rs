//! The lexical tokens of a structured field's value (RFC 5322 section 3.2), with whatever old software writes between them.
//! Every octet is in exactly one token, and each is looked at a bounded number of times. Not here: what they mean together.

use std::ops::Range;

/// Comments within comments are read as one comment only so deep.
const MAX_DEPTH: usize = 32;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Blanks and folds.
    Blank,
    /// With its brackets.
    Comment,
    /// With its quotes.
    Quoted,
    /// `[...]`, an address literal if it is right.
    Literal,
    /// A run of what needs no quotes, 8-bit octets included.
    Atom,
    /// One octet that separates others, or that has no place here.
    Special(u8),
}

/// A token and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) range: Range<usize>,
}

impl Token {
    /// Whether it is a comment or blanks (CFWS).
    pub(crate) fn is_filling(&self) -> bool {
        matches!(self.kind, Kind::Blank | Kind::Comment)
    }

    pub(crate) fn is(&self, octet: u8) -> bool {
        self.kind == Kind::Special(octet)
    }
}

/// The tokens of `octets`, in order.
pub(crate) struct Tokens<'a> {
    octets: &'a [u8],
    at: usize,
    /// A comment or a string was never closed: what would open another one is an octet like any. Whoever looked for the
    /// end each time would look at all octets each time.
    comments_are_broken: bool,
    strings_are_broken: bool,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self { octets, at: 0, comments_are_broken: false, strings_are_broken: false }
    }

    fn comment(&mut self) -> Option<(Kind, usize)> {
        if self.comments_are_broken {
            return None;
        }
        let len = comment_len(&self.octets[self.at..]);
        self.comments_are_broken = len.is_none();
        len.map(|len| (Kind::Comment, len))
    }

    fn string(&mut self) -> Option<(Kind, usize)> {
        if self.strings_are_broken {
            return None;
        }
        let len = string_len(&self.octets[self.at..]);
        self.strings_are_broken = len.is_none();
        len.map(|len| (Kind::Quoted, len))
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let rest = &self.octets[self.at..];
        let first = *rest.first()?;
        let token = match first {
            b'(' => self.comment(),
            b'"' => self.string(),
            b'[' => literal_len(rest).map(|len| (Kind::Literal, len)),
            octet if is_blank(octet) => Some((Kind::Blank, run(rest, is_blank))),
            octet if is_atom(octet) => Some((Kind::Atom, run(rest, is_atom))),
            _ => None,
        };
        let (kind, len) = token.unwrap_or((Kind::Special(first), 1));
        let start = self.at;
        self.at += len;
        Some(Token { kind, range: start..self.at })
    }
}

fn is_blank(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_atom(octet: u8) -> bool {
    !octet.is_ascii_control() && !b" ()<>[]:;@\\,.\"".contains(&octet)
}

fn run(octets: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    octets.iter().position(|octet| !belongs(*octet)).unwrap_or(octets.len())
}

fn comment_len(octets: &[u8]) -> Option<usize> {
    let (mut depth, mut escaped) = (0, false);
    for (at, octet) in octets.iter().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'(' if depth == MAX_DEPTH => return None,
            b'(' => depth += 1,
            b')' if depth == 1 => return Some(at + 1),
            b')' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn string_len(octets: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (at, octet) in octets.iter().enumerate().skip(1) {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// An address literal holds neither blanks nor another bracket, so that nobody looks far for its end.
fn literal_len(octets: &[u8]) -> Option<usize> {
    let inner = run(&octets[1..], |octet| is_atom(octet) || matches!(octet, b'.' | b':'));
    (octets.get(inner + 1) == Some(&b']')).then_some(inner + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds(text: &str) -> Vec<Kind> {
        Tokens::new(text.as_bytes()).map(|token| token.kind).collect()
    }

    #[test]
    fn values_fall_into_tokens() {
        use Kind::{Atom, Blank, Comment, Literal, Quoted, Special};
        for (text, wanted) in [
            ("a.b@c", &[Atom, Special(b'.'), Atom, Special(b'@'), Atom][..]),
            ("\"a\\\"b\" (c(d)\\)) <", &[Quoted, Blank, Comment, Blank, Special(b'<')]),
            ("x@[IPv6:::1]", &[Atom, Special(b'@'), Literal]),
            ("[a b]", &[Special(b'['), Atom, Blank, Atom, Special(b']')]),
            // What is never closed opens nothing, nor does what follows.
            ("\"a\\\"", &[Special(b'"'), Atom, Special(b'\\'), Special(b'"')]),
            ("(a(b)", &[Special(b'('), Atom, Special(b'('), Atom, Special(b')')]),
            ("a\r\n\tb", &[Atom, Blank, Atom]),
            ("M\u{fc}\0", &[Atom, Special(0)]),
        ] {
            assert_eq!(kinds(text), wanted, "{text}");
        }
    }

    #[test]
    fn comments_are_nested_only_so_deep() {
        let nested = |depth: usize| format!("{}{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(kinds(&nested(MAX_DEPTH)), [Kind::Comment]);
        assert_eq!(kinds(&nested(MAX_DEPTH + 1)).len(), 2 * (MAX_DEPTH + 1));
    }

    proptest! {
        #[test]
        fn every_octet_is_in_one_token(octets in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(&b"()<>[]:;@\\,.\" ab\r\n"[..])], 0..80)) {
            let mut end = 0;
            for token in Tokens::new(&octets) {
                prop_assert_eq!(token.range.start, end);
                prop_assert!(token.range.end > end);
                end = token.range.end;
            }
            prop_assert_eq!(end, octets.len());
        }
    }
}
