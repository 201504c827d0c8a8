//! Message-ID (RFC 5322 section 3.6.4) as it may be written into a field of ours. Clients put anything there; what is no
//! identifier is no value of this type, and a report then refers to nothing.

use std::fmt;

/// Longest identifier: what fits a line of a header (RFC 5322 section 2.1.1) and is no attack.
const MAX_LEN: usize = 250;

/// `<left@right>`, brackets included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageId(String);

impl MessageId {
    /// Parses the identifier with its brackets; blanks around it are dropped. None if it is not one: printable ASCII
    /// without blanks, one `@`, no brackets within.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_ascii();
        let (left, right) = text.strip_prefix('<')?.strip_suffix('>')?.split_once('@')?;
        let is_side = |side: &str| {
            !side.is_empty() && side.bytes().all(|octet| octet.is_ascii_graphic() && !b"<>@,;()\"\\".contains(&octet))
        };
        (text.len() <= MAX_LEN && is_side(left) && is_side(right)).then(|| Self(text.to_owned()))
    }
}

/// With its brackets.
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_what_is_none() {
        for (text, right) in [
            ("<1@b>", true),
            (" <CAF=x+y.1@mail.contoso.com>\r\n", true),
            ("<1@[192.0.2.1]>", true),
            ("<1@b> <2@b>", false),
            ("<1@b@c>", false),
            ("<1>", false),
            ("1@b", false),
            ("<1@>", false),
            ("<1 2@b>", false),
            ("<1\r\n@b>", false),
            ("<ü@b>", false),
            ("", false),
        ] {
            assert_eq!(MessageId::parse(text).is_some(), right, "{text}");
        }
        assert!(MessageId::parse(&format!("<{}@b>", "a".repeat(MAX_LEN))).is_none());
    }
}
