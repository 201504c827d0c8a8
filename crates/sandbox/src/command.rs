//! One command line into a command, strictly by RFC 5321 section 4.1: what a tolerant server would let pass is refused
//! here, so that a sloppy client is caught. Pure; the order of commands is `session`'s matter.

/// A command line as read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// EHLO with its domain, not yet checked.
    Ehlo(&'a str),
    Helo(&'a str),
    StartTls,
    /// Mechanism and initial response.
    Auth(&'a str, Option<&'a str>),
    /// What follows `FROM:` and `TO:`.
    Mail(&'a str),
    Rcpt(&'a str),
    Data,
    /// Octets of the chunk that follows.
    Bdat(u64),
    Rset,
    Noop,
    Quit,
    Vrfy,
    Help,
    /// A known verb with arguments that it cannot have.
    BadArguments,
    /// The verb in a form that is safe to repeat.
    Unknown(String),
}

/// Parses a line without its CRLF.
pub(crate) fn parse(line: &[u8]) -> Command<'_> {
    let Ok(text) = std::str::from_utf8(line) else {
        return Command::Unknown(printable(line));
    };
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    match verb.to_ascii_uppercase().as_str() {
        "EHLO" => Command::Ehlo(rest.trim()),
        "HELO" => Command::Helo(rest.trim()),
        "STARTTLS" => bare(rest, Command::StartTls),
        "AUTH" => auth(rest),
        "MAIL" => keyword(rest, "FROM:").map_or(Command::BadArguments, Command::Mail),
        "RCPT" => keyword(rest, "TO:").map_or(Command::BadArguments, Command::Rcpt),
        "DATA" => bare(rest, Command::Data),
        "BDAT" => chunk_size(rest).map_or(Command::BadArguments, Command::Bdat),
        "RSET" => bare(rest, Command::Rset),
        "NOOP" => Command::Noop,
        "QUIT" => bare(rest, Command::Quit),
        "VRFY" => Command::Vrfy,
        "HELP" => Command::Help,
        _ => Command::Unknown(printable(verb.as_bytes())),
    }
}

fn bare<'a>(rest: &str, command: Command<'a>) -> Command<'a> {
    // RFC 5321 section 4.1.1: trailing white space is tolerated.
    if rest.trim().is_empty() { command } else { Command::BadArguments }
}

fn keyword<'a>(rest: &'a str, keyword: &str) -> Option<&'a str> {
    let (head, tail) = rest.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then_some(tail)
}

fn auth(rest: &str) -> Command<'_> {
    let mut words = rest.trim_end().split(' ');
    match (words.next(), words.next(), words.next()) {
        (None | Some(""), ..) | (.., Some(_)) => Command::BadArguments,
        (Some(mechanism), initial, None) => Command::Auth(mechanism, initial),
    }
}

fn chunk_size(rest: &str) -> Option<u64> {
    rest.split(' ').next()?.parse().ok()
}

/// What of an unknown verb is repeated in the reply.
fn printable(verb: &[u8]) -> String {
    let words = verb.split(|&octet| octet == b' ').next().unwrap_or_default();
    words.iter().take(40).map(|&octet| if octet.is_ascii_graphic() { char::from(octet) } else { '?' }).collect()
}

/// True for a domain or an address literal as EHLO must name (facts 1.2: anything else is `501 5.5.4`). Letters,
/// digits and hyphens only; an underscore is a classic refusal.
pub(crate) fn is_hello_domain(domain: &str) -> bool {
    match domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(literal) => is_address_literal(literal),
        None => is_domain(domain),
    }
}

fn is_address_literal(literal: &str) -> bool {
    match literal.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => address.parse::<std::net::Ipv6Addr>().is_ok(),
        _ => literal.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

fn is_domain(domain: &str) -> bool {
    domain.len() <= 255
        && domain.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// Splits what follows `FROM:` or `TO:` into the path within its angle brackets and the parameters behind it.
/// No space before the bracket, brackets always (RFC 5321 section 3.3).
pub(crate) fn split_path(rest: &str) -> Option<(&str, &str)> {
    let inner = rest.strip_prefix('<')?;
    let mut quoted = false;
    let mut escaped = false;
    for (at, octet) in inner.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some((&inner[..at], &inner[at + 1..])),
            _ => {}
        }
    }
    None
}

/// What is wrong with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressFault {
    Syntax,
    /// Not ASCII, and SMTPUTF8 was not asked for (RFC 6531 section 3.5).
    NeedsSmtpUtf8,
}

/// Checks an address (`local@domain`) of a path. Source routes, literals and bare local parts are refused: none of
/// them can be submitted to Exchange Online.
pub(crate) fn check_address(address: &str, utf8: bool) -> Result<(), AddressFault> {
    let (local, domain) = address.rsplit_once('@').ok_or(AddressFault::Syntax)?;
    // RFC 5321 section 4.5.3.1: local part 64 octets, path 256 with its brackets.
    if address.len() > 254 || local.len() > 64 || address.chars().any(char::is_control) {
        return Err(AddressFault::Syntax);
    }
    if !address.is_ascii() && !utf8 {
        return Err(AddressFault::NeedsSmtpUtf8);
    }
    let domain_is_good =
        if domain.is_ascii() { is_domain(domain) } else { domain.split('.').all(|label| !label.is_empty()) };
    if domain_is_good && is_local_part(local) { Ok(()) } else { Err(AddressFault::Syntax) }
}

fn is_local_part(local: &str) -> bool {
    match local.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').is_some_and(is_quoted_content),
        None => local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom_character)),
    }
}

fn is_quoted_content(content: &str) -> bool {
    let mut characters = content.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return false,
            '\\' if characters.next().is_none() => return false,
            _ => {}
        }
    }
    true
}

fn is_atom_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(character) || !character.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_commands() {
        let table = [
            ("EHLO host.example", Command::Ehlo("host.example")),
            ("ehlo", Command::Ehlo("")),
            ("STARTTLS", Command::StartTls),
            ("STARTTLS now", Command::BadArguments),
            ("AUTH XOAUTH2", Command::Auth("XOAUTH2", None)),
            ("auth xoauth2 abc=", Command::Auth("xoauth2", Some("abc="))),
            ("AUTH XOAUTH2 abc def", Command::BadArguments),
            ("AUTH", Command::BadArguments),
            ("mail from:<a@b.c> SIZE=1", Command::Mail("<a@b.c> SIZE=1")),
            ("MAIL <a@b.c>", Command::BadArguments),
            ("MAIL", Command::BadArguments),
            ("RCPT TO:<a@b.c>", Command::Rcpt("<a@b.c>")),
            ("RCPT FROM:<a@b.c>", Command::BadArguments),
            ("DATA ", Command::Data),
            ("BDAT 10 LAST", Command::Bdat(10)),
            ("BDAT", Command::BadArguments),
            ("NOOP anything", Command::Noop),
            ("unknown word", Command::Unknown("unknown".to_owned())),
            ("", Command::Unknown(String::new())),
            ("NO\rOP", Command::Unknown("NO?OP".to_owned())),
        ];
        for (line, expected) in table {
            assert_eq!(parse(line.as_bytes()), expected, "{line:?}");
        }
        assert_eq!(parse(b"\xff\xfe x"), Command::Unknown("??".to_owned()));
    }

    #[test]
    fn hello_domains_are_strict() {
        for good in ["localhost", "a-b.example.com", "[127.0.0.1]", "[IPv6:::1]"] {
            assert!(is_hello_domain(good), "{good}");
        }
        for bad in ["", "my_host", "a..b", "-a", "host name", "[1.2.3]", "[::1]", "h\u{e9}", "a.", "[IPv6:x]"] {
            assert!(!is_hello_domain(bad), "{bad}");
        }
    }

    #[test]
    fn paths_end_at_their_own_bracket() {
        assert_eq!(split_path("<>"), Some(("", "")));
        assert_eq!(split_path("<a@b.c> SIZE=1"), Some(("a@b.c", " SIZE=1")));
        assert_eq!(split_path("<\"a> SIZE=1\"@c.d> BODY=7BIT"), Some(("\"a> SIZE=1\"@c.d", " BODY=7BIT")));
        for bad in ["a@b.c", " <a@b.c>", "<a@b.c", "<\"a@b.c>"] {
            assert_eq!(split_path(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_are_strict() {
        for good in ["a@b", "a.b+c@d.e", "\"a b\"@c.d", "\"a\\\"@\"@c.d"] {
            assert_eq!(check_address(good, false), Ok(()), "{good}");
        }
        for bad in ["a", "@b", "a@", ".a@b", "a..b@c", "a b@c", "a@b c", "a@[1.2.3.4]", "@x:a@b", "\"a\"b\"@c", "a@b\0"]
        {
            assert_eq!(check_address(bad, false), Err(AddressFault::Syntax), "{bad}");
        }
        assert_eq!(check_address("gr\u{fc}n@b.c", false), Err(AddressFault::NeedsSmtpUtf8));
        assert_eq!(check_address("gr\u{fc}n@b\u{fc}ro.c", true), Ok(()));
    }
}
