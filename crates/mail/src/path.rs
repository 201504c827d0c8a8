//! Reverse-path and forward-path of MAIL and RCPT (RFC 5321 section 4.1.1.2 and 4.1.1.3).
//!
//! `<>` and `<postmaster>` are different things here, as they are in the RFC. Source routes are read and dropped
//! (RFC 5321 appendix C). Brackets are the command parser's concern: these take what stands between them.

use std::fmt;

use crate::address::{AddressError, Domain, LocalPart, Mailbox};

/// Why octets are not a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `<>` where a recipient must stand.
    #[error("a recipient cannot be empty")]
    EmptyRecipient,
    /// The source route before the mailbox is broken.
    #[error("the source route is not valid")]
    SourceRoute,
    /// The mailbox is not one.
    #[error("{0}")]
    Mailbox(#[from] AddressError),
}

/// Who is told when a message cannot be delivered; nobody for `<>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReversePath {
    /// `<>`: a bounce, or mail that wants no answer.
    Null,
    /// A sender.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// Parses what stands between the brackets of `MAIL FROM:<...>`.
    pub fn parse(octets: &[u8]) -> Result<Self, PathError> {
        if octets.is_empty() {
            return Ok(Self::Null);
        }
        Ok(Self::Mailbox(Mailbox::parse(without_source_route(octets)?)?))
    }

    /// The reverse-path of a sender who wrote no domain: cron's `root` is `root@` the machine that takes its mail (RFC 6409
    /// section 8.1 lets a submission server complete it). `domain` is that machine's name.
    pub fn qualified(sender: &LocalPart, domain: &Domain) -> Self {
        Self::Mailbox(sender.at(domain))
    }

    /// The sender, if there is one.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Whether it can be written without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.mailbox().is_none_or(Mailbox::is_ascii)
    }
}

/// Without brackets; empty for the null path.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

/// A recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain, which every server must accept (RFC 5321 section 4.5.1).
    Postmaster,
    /// Everybody else.
    Mailbox(Mailbox),
}

impl ForwardPath {
    /// Parses what stands between the brackets of `RCPT TO:<...>`.
    pub fn parse(octets: &[u8]) -> Result<Self, PathError> {
        let octets = without_source_route(octets)?;
        if octets.is_empty() {
            Err(PathError::EmptyRecipient)
        } else if octets.eq_ignore_ascii_case(b"postmaster") {
            Ok(Self::Postmaster)
        } else {
            Ok(Self::Mailbox(Mailbox::parse(octets)?))
        }
    }

    /// The address; none for a bare `postmaster`.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Postmaster => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Whether it can be written without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        match self {
            Self::Postmaster => true,
            Self::Mailbox(mailbox) => mailbox.is_ascii(),
        }
    }
}

/// Without brackets.
impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("postmaster"),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

/// `@one,@two:user@three` is `user@three`.
fn without_source_route(octets: &[u8]) -> Result<&[u8], PathError> {
    if octets.first() != Some(&b'@') {
        return Ok(octets);
    }
    let colon = octets.iter().position(|octet| *octet == b':').ok_or(PathError::SourceRoute)?;
    Ok(&octets[colon + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_paths() {
        assert_eq!(ReversePath::parse(b""), Ok(ReversePath::Null));
        assert_eq!(ReversePath::parse(b"a@b.c").map(|p| p.to_string()), Ok("a@b.c".to_owned()));
        assert_eq!(ReversePath::parse(b"@x,@y:a@b.c").map(|p| p.to_string()), Ok("a@b.c".to_owned()));
        assert_eq!(ReversePath::parse(b"@x"), Err(PathError::SourceRoute));
        assert_eq!(ReversePath::parse(b"postmaster"), Err(PathError::Mailbox(AddressError::NoDomain)));
    }

    #[test]
    fn a_sender_without_a_domain_is_given_one() {
        let host = Domain::parse("relay01.example.com").unwrap();
        for (octets, wanted) in [
            (&b"root"[..], Ok("root@relay01.example.com")),
            (b"PostMaster", Ok("PostMaster@relay01.example.com")),
            (b"ups.card+1", Ok("ups.card+1@relay01.example.com")),
            (b"\"John Doe\"", Ok("\"John Doe\"@relay01.example.com")),
            ("j\u{f6}rg".as_bytes(), Ok("j\u{f6}rg@relay01.example.com")),
            (b"", Err(AddressError::LocalPart)),
            (b"root@erp01", Err(AddressError::LocalPart)),
            (b"root@", Err(AddressError::LocalPart)),
            (b"@x:root", Err(AddressError::LocalPart)),
            (b"HP Scanner", Err(AddressError::LocalPart)),
            (b"a..b", Err(AddressError::LocalPart)),
            (b"\"open", Err(AddressError::LocalPart)),
            (b"\"a\"b", Err(AddressError::LocalPart)),
            (b"a\r\nb", Err(AddressError::Control)),
            (b"\xff", Err(AddressError::NotUtf8)),
            (&[b'a'; 129], Err(AddressError::LocalPart)),
        ] {
            let path = LocalPart::parse(octets).map(|local| ReversePath::qualified(&local, &host));
            if let Ok(path) = &path {
                assert_eq!(ReversePath::parse(path.to_string().as_bytes()).as_ref(), Ok(path));
            }
            assert_eq!(path.map(|path| path.to_string()), wanted.map(str::to_owned), "{octets:?}");
        }
    }

    #[test]
    fn the_null_path_is_not_postmaster() {
        assert_eq!(ForwardPath::parse(b""), Err(PathError::EmptyRecipient));
        assert_eq!(ForwardPath::parse(b"PostMaster"), Ok(ForwardPath::Postmaster));
        assert_eq!(ForwardPath::parse(b"@x:"), Err(PathError::EmptyRecipient));
        assert_eq!(ForwardPath::parse(b"a@b.c").map(|p| p.to_string()), Ok("a@b.c".to_owned()));
    }
}
