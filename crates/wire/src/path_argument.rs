//! Finds the path in the argument of MAIL and RCPT and splits it from the parameters, as each dialect writes it. What stands
//! in the path is read by `mail`; only what RFC 5321 says more narrowly than `mail` does is checked here, for strict.

use mail::{AddressError, Domain, Mailbox, PathError};

use crate::dialect::Dialect;

/// RFC 5321 section 4.5.3.1.1; `mail` takes longer ones.
const STRICT_LOCAL_LEN: usize = 64;
/// RFC 5321 section 4.5.3.1.3, without the brackets.
const STRICT_PATH_LEN: usize = 254;

/// Splits `FROM:<path> parameters` after the keyword: what stands within the brackets, and what follows with the blank before
/// it. None if no path can be told without guessing.
pub(crate) fn split<'a>(argument: &'a [u8], keyword: &[u8], dialect: Dialect) -> Option<(&'a [u8], &'a [u8])> {
    let (found, rest) = argument.split_at_checked(keyword.len())?;
    if !found.eq_ignore_ascii_case(keyword) {
        return None;
    }
    match dialect {
        Dialect::Strict => bracketed(rest.strip_prefix(b":<")?),
        Dialect::Lenient => lenient(rest.trim_ascii_start()),
    }
}

/// Blanks around the colon and within the brackets, missing brackets, a missing colon before brackets and a name before them
/// are old clients' ways, and leave one thing only that can be the path.
fn lenient(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(rest) = rest.strip_prefix(b":").map(<[u8]>::trim_ascii_start) else {
        return bracketed(rest.strip_prefix(b"<")?).map(trimmed);
    };
    if let Some(inner) = rest.strip_prefix(b"<") {
        return bracketed(inner).map(trimmed);
    }
    if rest.is_empty() {
        return None;
    }
    if let Some(bracket) = outside_quotes(rest, |octet| octet == b'<')
        && is_display_name(&rest[..bracket])
    {
        return bracketed(&rest[bracket + 1..]).map(trimmed);
    }
    let end = outside_quotes(rest, |octet| octet.is_ascii_whitespace()).unwrap_or(rest.len());
    Some((&rest[..end], &rest[end..]))
}

/// `inner` starts after the opening bracket. A quoted local part may hold brackets and blanks.
fn bracketed(inner: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = outside_quotes(inner, |octet| octet == b'>')?;
    let after = &inner[end + 1..];
    (after.is_empty() || after[0].is_ascii_whitespace()).then_some((&inner[..end], after))
}

fn trimmed<'a>((path, after): (&'a [u8], &'a [u8])) -> (&'a [u8], &'a [u8]) {
    (path.trim_ascii(), after)
}

/// Whether `path`, which stood without brackets and has no domain, is a whole address and not the first word of a name, or a
/// parameter behind an address that was forgotten: all that follows must look like parameters.
pub(crate) fn is_alone(path: &[u8], after: &[u8]) -> bool {
    let is_parameter = |word: &[u8]| {
        let keyword = word.split(|octet| *octet == b'=').next().unwrap_or_default();
        let is_keyword =
            !keyword.is_empty() && keyword.iter().all(|octet| octet.is_ascii_alphanumeric() || *octet == b'-');
        is_keyword && (keyword.len() < word.len() || word.eq_ignore_ascii_case(b"SMTPUTF8"))
    };
    let mut words = after.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    !path.contains(&b'=') && words.all(is_parameter)
}

/// Whether what stands before a bracket is a name as mail programs show it, quoted or not. With an `@` or a separator it may
/// be an address or several, and with `=` a parameter: then the bracket says nothing.
fn is_display_name(octets: &[u8]) -> bool {
    outside_quotes(octets, |octet| b"@<>=:;,()[]\\".contains(&octet)).is_none()
}

/// Position of the first octet that is wanted and not within a quoted string.
fn outside_quotes(octets: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    octets.iter().position(|octet| {
        let found = !quoted && wanted(*octet);
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        found
    })
}

/// What RFC 5321 forbids and `mail` takes, because Exchange and old clients write it: long local parts and paths, underscores
/// in domains, anything at all as a source route.
pub(crate) fn check_to_the_letter(path: &[u8], mailbox: Option<&Mailbox>) -> Result<(), PathError> {
    if path.starts_with(b"@") && !is_source_route(path) {
        return Err(PathError::SourceRoute);
    }
    match mailbox {
        Some(mailbox) if mailbox.local_part().len() > STRICT_LOCAL_LEN || path.len() > STRICT_PATH_LEN => {
            Err(AddressError::LocalPart.into())
        }
        Some(mailbox) if mailbox.domain().as_str().contains('_') => Err(AddressError::Domain.into()),
        _ => Ok(()),
    }
}

/// `@one,@two:`, names only (`A-d-l` of RFC 5321 section 4.1.2).
fn is_source_route(path: &[u8]) -> bool {
    let route = path.split(|octet| *octet == b':').next().unwrap_or_default();
    let is_name = |text: &str| !text.starts_with('[') && !text.contains('_') && Domain::parse(text).is_ok();
    route
        .split(|octet| *octet == b',')
        .all(|hop| hop.strip_prefix(b"@").and_then(|name| std::str::from_utf8(name).ok()).is_some_and(is_name))
}
