//! `Mailbox` and `Domain` of RFC 5321 section 4.1.2, with the UTF-8 of RFC 6531.
//!
//! Parsed from raw octets, kept as written (quotes included), so that what is sent on is what came in. Not here: the
//! brackets and source routes around a mailbox in a command; those are `path.rs`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Longest local part we take: RFC 5321 says 64, mailing lists and VERP write longer ones.
const MAX_LOCAL_LEN: usize = 128;
/// RFC 5321 section 4.5.3.1.2.
const MAX_DOMAIN_LEN: usize = 255;

/// Why octets are not a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not UTF-8 (RFC 6531 allows nothing else beyond ASCII).
    #[error("it is not UTF-8")]
    NotUtf8,
    /// A control character, which could end the line it is later written to, or one that turns the direction of text.
    #[error("it holds a control character")]
    Control,
    /// No `@`.
    #[error("it has no @domain")]
    NoDomain,
    /// The part before `@` is empty, too long or holds what only a quoted string may.
    #[error("the part before @ is not valid")]
    LocalPart,
    /// The part after `@` is neither a domain name nor an address literal.
    #[error("the domain is not valid")]
    Domain,
}

/// A domain name or an address literal, kept as written. Equality ignores ASCII case.
#[derive(Clone, Debug, Eq)]
pub struct Domain(String);

impl Domain {
    /// Parses a domain name (`contoso.com`, underscores and U-labels included) or a literal (`[192.0.2.1]`, `[IPv6:::1]`).
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let right = match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => is_literal(inner),
            None => is_name(text),
        };
        if right && text.len() <= MAX_DOMAIN_LEN { Ok(Self(text.to_owned())) } else { Err(AddressError::Domain) }
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Domain {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Domain {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_' || is_international(c))
        })
}

fn is_literal(inner: &str) -> bool {
    match inner.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => address.parse::<Ipv6Addr>().is_ok(),
        _ => inner.parse::<Ipv4Addr>().is_ok(),
    }
}

fn is_international(c: char) -> bool {
    !c.is_ascii() && !is_acted_on(c)
}

/// Controls, line and paragraph separators, and what turns the direction of text (UAX #9): a terminal or a log would act
/// on these and show another address than the one that was used. Quotes do not help against that.
pub fn is_acted_on(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `local-part@domain`, kept as written. Equality ignores the case of the domain only (RFC 5321 section 2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    local_part: String,
    domain: Domain,
}

impl Mailbox {
    /// Parses the octets of `local-part "@" domain`, without brackets.
    pub fn parse(octets: &[u8]) -> Result<Self, AddressError> {
        let text = std::str::from_utf8(octets).map_err(|_| AddressError::NotUtf8)?;
        if text.chars().any(is_acted_on) {
            return Err(AddressError::Control);
        }
        let (local_part, domain) = split(text)?;
        if local_part.len() > MAX_LOCAL_LEN {
            return Err(AddressError::LocalPart);
        }
        Ok(Self { local_part: local_part.to_owned(), domain: Domain::parse(domain)? })
    }

    /// The part before `@`, with its quotes if it has some.
    pub fn local_part(&self) -> &str {
        &self.local_part
    }

    /// The part after `@`.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether it can be written without the SMTPUTF8 extension.
    pub fn is_ascii(&self) -> bool {
        self.local_part.is_ascii() && self.domain.0.is_ascii()
    }
}

/// What stands before the `@` of a [`Mailbox`], by itself: what a program sends as that knows a user and no domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPart(String);

impl LocalPart {
    /// Parses the octets of a local part without its `@`, quoted or not.
    pub fn parse(octets: &[u8]) -> Result<Self, AddressError> {
        // What is right before any domain is right by itself; an `@` of its own would leave a domain that is none.
        match Mailbox::parse(&[octets, b"@localhost"].concat()) {
            Ok(mailbox) => Ok(Self(mailbox.local_part)),
            Err(AddressError::Domain) => Err(AddressError::LocalPart),
            Err(error) => Err(error),
        }
    }

    /// The mailbox of this name at `domain`.
    pub fn at(&self, domain: &Domain) -> Mailbox {
        Mailbox { local_part: self.0.clone(), domain: domain.clone() }
    }
}

/// Splits at the `@` that ends the local part and checks the local part.
fn split(text: &str) -> Result<(&str, &str), AddressError> {
    let end = if text.starts_with('"') { quoted_string_len(text)? } else { dot_string_len(text)? };
    match text[end..].strip_prefix('@') {
        Some(domain) => Ok((&text[..end], domain)),
        None if text[end..].is_empty() => Err(AddressError::NoDomain),
        None => Err(AddressError::LocalPart),
    }
}

fn quoted_string_len(text: &str) -> Result<usize, AddressError> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Ok(at + 1),
            _ => {}
        }
    }
    Err(AddressError::LocalPart)
}

fn dot_string_len(text: &str) -> Result<usize, AddressError> {
    let end = text.find('@').unwrap_or(text.len());
    let local_part = &text[..end];
    let right = local_part.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext));
    if right { Ok(end) } else { Err(AddressError::LocalPart) }
}

/// `atext` of RFC 5322 section 3.2.3 and RFC 6531 section 3.3.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_international(c)
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local_part, self.domain)
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_that_are_right() {
        for text in [
            "a@b",
            "scanner@contoso.com",
            "o'neil+tag=x@sub.contoso.com",
            "root@erp_01.local",
            "\"a> SIZE=1\"@c.d",
            "\"with \\\" quote\"@c.d",
            "\"a@b\"@c.d",
            "user@[192.0.2.1]",
            "user@[IPv6:2001:db8::1]",
            "müller@bücher.example",
        ] {
            let mailbox = Mailbox::parse(text.as_bytes());
            assert_eq!(mailbox.map(|m| m.to_string()), Ok(text.to_owned()), "{text}");
        }
    }

    #[test]
    fn octets_that_are_no_mailbox() {
        for (octets, error) in [
            (&b"root"[..], AddressError::NoDomain),
            (b"", AddressError::LocalPart),
            (b"@contoso.com", AddressError::LocalPart),
            (b"a..b@c.d", AddressError::LocalPart),
            (b".a@c.d", AddressError::LocalPart),
            (b"a b@c.d", AddressError::LocalPart),
            (b"a>b@c.d", AddressError::LocalPart),
            (b"\"open@c.d", AddressError::LocalPart),
            (b"\"a\"b@c.d", AddressError::LocalPart),
            (b"a@", AddressError::Domain),
            (b"a@b@c", AddressError::Domain),
            (b"a@-b.c", AddressError::Domain),
            (b"a@b..c", AddressError::Domain),
            (b"a@[300.1.1.1]", AddressError::Domain),
            (b"a@b c", AddressError::Domain),
            (b"a@b\r\nRCPT", AddressError::Control),
            (b"\"a\0\"@c.d", AddressError::Control),
            ("\"\u{202e}moc\"@c.d".as_bytes(), AddressError::Control),
            ("a\u{2066}b@c.d".as_bytes(), AddressError::Control),
            ("a@\u{2028}c.d".as_bytes(), AddressError::Control),
            (b"m\xfcller@c.d", AddressError::NotUtf8),
        ] {
            assert_eq!(Mailbox::parse(octets), Err(error), "{:?}", String::from_utf8_lossy(octets));
        }
    }

    #[test]
    fn domains_are_equal_without_case_and_local_parts_are_not() {
        let parse = |text: &str| Mailbox::parse(text.as_bytes()).unwrap();
        assert_eq!(parse("a@Contoso.COM"), parse("a@contoso.com"));
        assert_ne!(parse("A@contoso.com"), parse("a@contoso.com"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_parsed_holds_no_octet_that_ends_a_line(octets: Vec<u8>) {
            if let Ok(mailbox) = Mailbox::parse(&octets) {
                let text = mailbox.to_string();
                proptest::prop_assert!(!text.chars().any(is_acted_on));
                proptest::prop_assert_eq!(text.as_bytes(), octets);
            }
        }
    }
}
