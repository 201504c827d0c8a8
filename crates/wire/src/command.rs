//! One command line as a value, in either dialect. smtp-proto knows the verbs that are not offered; the argument of MAIL and
//! RCPT is split in `path_argument.rs`, their parameters are `parameters.rs`'s. Whether the command may come now is the
//! session's question.

use std::fmt;

use mail::{AddressError, Domain, ForwardPath, LocalPart, PathError, Recipient, ReversePath, is_acted_on};
use smtp_proto::Request;
use zeroize::Zeroizing;

use crate::dialect::Dialect;
use crate::parameters::{MAIL_SYNTAX, MailParameters, RCPT_SYNTAX, recipient_parameters, words};
use crate::path_argument;

/// A command that is right by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `EHLO` with whatever the client calls itself, at most 255 characters without control characters. In lenient it may be
    /// empty; in strict it is a domain or an address literal.
    Ehlo(String),
    /// `HELO`, as above.
    Helo(String),
    /// `MAIL FROM:<path> parameters`
    Mail(ReversePath, MailParameters),
    /// `MAIL FROM:<local-part> parameters`, without a domain; in lenient only. Which domain is meant the session knows.
    MailWithoutDomain(LocalPart, MailParameters),
    /// `RCPT TO:<path> parameters`
    Rcpt(Recipient),
    /// `DATA`
    Data,
    /// `RSET`
    Rset,
    /// `NOOP`
    Noop,
    /// `VRFY`
    Vrfy,
    /// `HELP`
    Help,
    /// `QUIT`
    Quit,
    /// `STARTTLS` (RFC 3207)
    StartTls,
    /// `AUTH mechanism [initial-response]` (RFC 4954)
    Auth(AuthCommand),
    /// A verb of SMTP that this server does not offer, by name.
    NotOffered(&'static str),
}

/// What follows `AUTH`. The response may hold a password: it is neither shown nor left behind in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthCommand {
    /// In upper case.
    pub mechanism: String,
    /// In base64, as it was sent; `=` stands for an empty one.
    pub initial_response: Option<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for AuthCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let response = if self.initial_response.is_some() { "hidden" } else { "none" };
        write!(f, "{} (initial response {response})", self.mechanism)
    }
}

/// Why a line is not a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No verb of SMTP.
    #[error("command not recognized")]
    Unrecognized,
    /// A line of an HTTP request, or a header field where a command belongs: not a mail client at all, or one that lost count,
    /// and its next lines are not to be read as commands. Ends the session.
    #[error("this is a mail port")]
    Http,
    /// The line does not have the form of its verb.
    #[error("syntax: {0}")]
    Syntax(&'static str),
    /// A control octet in the line.
    #[error("control characters are not allowed in commands")]
    Control,
    /// The sender in MAIL is none.
    #[error("the sender address is not valid: {0}")]
    Sender(PathError),
    /// The recipient in RCPT is none.
    #[error("the recipient address is not valid: {0}")]
    Recipient(PathError),
    /// A parameter that was not offered, in strict.
    #[error("parameter not recognized: {0}")]
    ParameterUnknown(String),
    /// A parameter with a wrong value, or given twice: one of those of delivery reports, in strict any.
    #[error("parameter value not valid: {0}")]
    ParameterValue(String),
}

/// Verbs of HTTP and the first word of HTTP/2. In any case of letters: browsers send `patch` as a page wrote it, and no verb
/// of SMTP is called so.
const HTTP_VERBS: [&[u8]; 10] =
    [b"GET", b"POST", b"HEAD", b"PUT", b"CONNECT", b"OPTIONS", b"DELETE", b"PATCH", b"TRACE", b"PRI"];

impl Command {
    /// Parses one line without its end, as closely as the dialect says. Whatever is taken in strict means the same in lenient.
    ///
    /// Blanks at the end are nothing in both (RFC 5321 section 4.1.1), control octets are refused in both. In strict a tab is
    /// one, and blanks are single.
    pub fn parse(line: &[u8], dialect: Dialect) -> Result<Self, CommandError> {
        let line = without_blanks_around(line, dialect);
        let (verb, rest) = split_verb(line, dialect);
        let verb = verb.to_ascii_uppercase();
        // First of all, since this ends the session and a wrong octet does not.
        if HTTP_VERBS.contains(&verb.as_slice()) {
            return Err(CommandError::Http);
        }
        if line.iter().any(|octet| octet.is_ascii_control() && (*octet != b'\t' || dialect == Dialect::Strict)) {
            return Err(CommandError::Control);
        }
        match verb.as_slice() {
            b"EHLO" => client_name(rest, dialect).map(Self::Ehlo).ok_or(CommandError::Syntax("EHLO domain")),
            b"HELO" => client_name(rest, dialect).map(Self::Helo).ok_or(CommandError::Syntax("HELO domain")),
            b"MAIL" => mail(rest, dialect),
            b"RCPT" => rcpt(rest, dialect),
            // These have no argument (RFC 5321 section 4.1.1), and clients that send one mean nothing by it.
            b"DATA" if rest.is_empty() || dialect == Dialect::Lenient => Ok(Self::Data),
            b"DATA" => Err(CommandError::Syntax("DATA")),
            b"RSET" if rest.is_empty() || dialect == Dialect::Lenient => Ok(Self::Rset),
            b"RSET" => Err(CommandError::Syntax("RSET")),
            b"QUIT" if rest.is_empty() || dialect == Dialect::Lenient => Ok(Self::Quit),
            b"QUIT" => Err(CommandError::Syntax("QUIT")),
            b"VRFY" if !rest.is_empty() || dialect == Dialect::Lenient => Ok(Self::Vrfy),
            b"VRFY" => Err(CommandError::Syntax("VRFY name")),
            b"NOOP" => Ok(Self::Noop),
            b"HELP" => Ok(Self::Help),
            b"STARTTLS" if rest.is_empty() => Ok(Self::StartTls),
            b"STARTTLS" => Err(CommandError::Syntax("STARTTLS")),
            b"AUTH" => auth(rest, dialect),
            // smtp-proto passes over blanks before a verb.
            b"" => Err(CommandError::Unrecognized),
            _ => other(line),
        }
    }
}

/// In strict only those at the end, so that a blank before the verb is none of it.
fn without_blanks_around(line: &[u8], dialect: Dialect) -> &[u8] {
    let is_not_blank = |octet: &u8| *octet != b' ' && *octet != b'\t';
    let end = line.iter().rposition(is_not_blank).map_or(0, |last| last + 1);
    let start = match dialect {
        Dialect::Lenient => line.iter().position(is_not_blank).unwrap_or(end),
        Dialect::Strict => 0,
    };
    &line[start..end]
}

fn split_verb(line: &[u8], dialect: Dialect) -> (&[u8], &[u8]) {
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let rest = match dialect {
        Dialect::Lenient => line[end..].trim_ascii_start(),
        Dialect::Strict => line[end..].strip_prefix(b" ").unwrap_or_default(),
    };
    (&line[..end], rest)
}

fn mail(rest: &[u8], dialect: Dialect) -> Result<Command, CommandError> {
    let (octets, parameters) = path_argument::split(rest, b"FROM", dialect).ok_or(CommandError::Syntax(MAIL_SYNTAX))?;
    let path = match ReversePath::parse(octets) {
        Err(error @ PathError::Mailbox(AddressError::NoDomain)) => {
            let before = &rest[..rest.len() - parameters.len()];
            let is_clear = before.ends_with(b">") || path_argument::is_alone(octets, parameters);
            if dialect == Dialect::Strict || !is_clear {
                return Err(CommandError::Sender(error));
            }
            let sender = LocalPart::parse(octets).map_err(|_| CommandError::Sender(error))?;
            return Ok(Command::MailWithoutDomain(sender, MailParameters::parse(parameters, dialect)?));
        }
        other => other.map_err(CommandError::Sender)?,
    };
    if dialect == Dialect::Strict {
        path_argument::check_to_the_letter(octets, path.mailbox()).map_err(CommandError::Sender)?;
    }
    Ok(Command::Mail(path, MailParameters::parse(parameters, dialect)?))
}

fn rcpt(rest: &[u8], dialect: Dialect) -> Result<Command, CommandError> {
    let (octets, parameters) = path_argument::split(rest, b"TO", dialect).ok_or(CommandError::Syntax(RCPT_SYNTAX))?;
    let path = ForwardPath::parse(octets).map_err(CommandError::Recipient)?;
    if dialect == Dialect::Strict {
        let mailbox = match &path {
            ForwardPath::Mailbox(mailbox) => Some(mailbox),
            ForwardPath::Postmaster => None,
        };
        path_argument::check_to_the_letter(octets, mailbox).map_err(CommandError::Recipient)?;
    }
    let mut recipient = Recipient::from(path);
    recipient_parameters(&mut recipient, parameters, dialect)?;
    Ok(Command::Rcpt(recipient))
}

fn auth(rest: &[u8], dialect: Dialect) -> Result<Command, CommandError> {
    const SYNTAX: CommandError = CommandError::Syntax("AUTH mechanism [initial-response]");
    let mut words = words(rest, dialect);
    let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
    // RFC 4422 section 3.1.
    let is_mechanism = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
    let initial_response = words.next().map(|word| Zeroizing::new(word.to_vec()));
    let is_empty = mechanism.is_empty() || initial_response.as_ref().is_some_and(|word| word.is_empty());
    if is_empty || words.next().is_some() || mechanism.len() > 20 || !mechanism.iter().all(is_mechanism) {
        return Err(SYNTAX);
    }
    Ok(Command::Auth(AuthCommand { mechanism: String::from_utf8_lossy(&mechanism).into_owned(), initial_response }))
}

/// All verbs that are not offered, and what is no verb.
fn other(line: &[u8]) -> Result<Command, CommandError> {
    let ended = [line, b"\r\n"].concat();
    match Request::parse(&mut ended.iter()) {
        Ok(request) => Ok(Command::NotOffered(request.name())),
        Err(smtp_proto::Error::SyntaxError { syntax }) => Err(CommandError::Syntax(syntax)),
        Err(_) if is_of_http(line) => Err(CommandError::Http),
        Err(_) => Err(CommandError::Unrecognized),
    }
}

/// A request with a verb that anybody may invent, or a field of its header: if the request was longer than any command, the
/// fields are what is seen first, and its body may be commands. Postfix ends the session at such fields too.
fn is_of_http(line: &[u8]) -> bool {
    let is_token = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
    let colon = line.iter().position(|octet| !is_token(octet)).filter(|at| line[*at] == b':');
    let protocol = line.rsplit(|octet| *octet == b' ').next().unwrap_or_default();
    colon.is_some_and(|at| at > 0) || protocol.starts_with(b"HTTP/")
}

/// Whatever the client calls itself. Old clients send nothing, underscores, Latin-1 or a whole sentence; none of that
/// is a reason to refuse their mail, and the Received field shows only what is a domain. None in strict for what is no domain
/// of RFC 5321 section 4.1.2, whose letters are ASCII because SMTPUTF8 is not agreed on yet.
fn client_name(rest: &[u8], dialect: Dialect) -> Option<String> {
    let name: String = String::from_utf8_lossy(rest).chars().filter(|c| !is_acted_on(*c)).take(255).collect();
    let is_to_the_letter =
        || rest.is_ascii() && !rest.contains(&b'_') && rest.len() == name.len() && Domain::parse(&name).is_ok();
    (dialect == Dialect::Lenient || is_to_the_letter()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::{AddressError, BodyType, Notify, Ret};
    use proptest::prelude::*;

    fn mail_from(path: &str, size: Option<u64>, body: BodyType, smtputf8: bool) -> Command {
        let parameters = MailParameters { size, body, smtputf8, ..Default::default() };
        Command::Mail(ReversePath::parse(path.as_bytes()).unwrap(), parameters)
    }

    fn rcpt_to(path: &str) -> Command {
        Command::Rcpt(ForwardPath::parse(path.as_bytes()).unwrap().into())
    }

    fn auth(mechanism: &str, initial_response: Option<&str>) -> Command {
        let initial_response = initial_response.map(|text| text.as_bytes().to_vec().into());
        Command::Auth(AuthCommand { mechanism: mechanism.into(), initial_response })
    }

    fn plain(path: &str) -> Command {
        mail_from(path, None, BodyType::SevenBit, false)
    }

    fn sized(size: u64) -> Command {
        mail_from("a@b.c", Some(size), BodyType::SevenBit, false)
    }

    fn parse(line: &str, dialect: Dialect) -> Result<Command, CommandError> {
        Command::parse(line.as_bytes(), dialect)
    }

    #[test]
    fn lines_that_are_commands_in_both_dialects() {
        let local_part = "x".repeat(64);
        let longest = format!("MAIL FROM:<{local_part}@b.c>");
        for (line, command) in [
            ("EHLO erp01", Command::Ehlo("erp01".into())),
            ("EHLO erp01.contoso.com ", Command::Ehlo("erp01.contoso.com".into())),
            ("EHLO [10.0.0.1]", Command::Ehlo("[10.0.0.1]".into())),
            ("EHLO [IPv6:2001:db8::1]", Command::Ehlo("[IPv6:2001:db8::1]".into())),
            ("helo 10.0.0.1", Command::Helo("10.0.0.1".into())),
            ("MAIL FROM:<a@b.c>", plain("a@b.c")),
            ("mail from:<a@b.c> \t ", plain("a@b.c")),
            ("MAIL FROM:<>", plain("")),
            ("MAIL FROM:<a@[192.0.2.1]>", plain("a@[192.0.2.1]")),
            ("MAIL FROM:<a@[IPv6:2001:db8::1]>", plain("a@[IPv6:2001:db8::1]")),
            ("MAIL FROM:<@x,@y:a@b.c>", plain("a@b.c")),
            ("MAIL FROM:<\"a> SIZE=1\"@c.d>", plain("\"a> SIZE=1\"@c.d")),
            ("MAIL FROM:<\"a\\\"> b\"@c.d>", plain("\"a\\\"> b\"@c.d")),
            (longest.as_str(), plain(&format!("{local_part}@b.c"))),
            ("MAIL FROM:<a@b.c> SIZE=1000", sized(1000)),
            ("MAIL FROM:<a@b.c> SIZE=99999999999999999999", sized(u64::MAX)),
            (
                "MAIL FROM:<a@b.c> body=8bitmime SMTPUTF8 size=7",
                mail_from("a@b.c", Some(7), BodyType::EightBitMime, true),
            ),
            ("MAIL FROM:<a@b.c> BODY=7BIT", plain("a@b.c")),
            ("MAIL FROM:<a@b.c> AUTH=<>", plain("a@b.c")),
            ("MAIL FROM:<a@b.c> AUTH=e+3Dmc2@b.c SIZE=7", sized(7)),
            ("MAIL FROM:<m\u{fc}ller@b.c> SMTPUTF8", mail_from("m\u{fc}ller@b.c", None, BodyType::SevenBit, true)),
            ("RCPT TO:<a@b.c>", rcpt_to("a@b.c")),
            ("rcpt to:<postmaster>", Command::Rcpt(ForwardPath::Postmaster.into())),
            ("DATA", Command::Data),
            ("data ", Command::Data),
            ("RSET", Command::Rset),
            ("NOOP", Command::Noop),
            ("NOOP anything \"at all", Command::Noop),
            ("VRFY someone", Command::Vrfy),
            ("HELP", Command::Help),
            ("HELP MAIL", Command::Help),
            ("QUIT", Command::Quit),
            ("QUIT\t", Command::Quit),
            ("STARTTLS", Command::StartTls),
            ("auth login", auth("LOGIN", None)),
            ("AUTH PLAIN AGEAYg==", auth("PLAIN", Some("AGEAYg=="))),
            ("BDAT 10 LAST", Command::NotOffered("BDAT")),
            ("EXPN list", Command::NotOffered("EXPN")),
        ] {
            assert_eq!(parse(line, Dialect::Lenient), Ok(command.clone()), "lenient: {line}");
            assert_eq!(parse(line, Dialect::Strict), Ok(command), "strict: {line}");
        }
    }

    /// What clients, printers and scripts write, what is understood, and why strict does not take it.
    #[test]
    fn lines_that_are_commands_in_lenient_only() {
        let (ehlo, helo) = (CommandError::Syntax("EHLO domain"), CommandError::Syntax("HELO domain"));
        for (line, command, error) in [
            ("EHLO", Command::Ehlo(String::new()), ehlo.clone()),
            ("ehlo  my printer ", Command::Ehlo("my printer".into()), ehlo.clone()),
            ("EHLO\tx", Command::Ehlo("x".into()), CommandError::Control),
            ("EHLO KM_C250i", Command::Ehlo("KM_C250i".into()), ehlo.clone()),
            ("EHLO m\u{fc}ller", Command::Ehlo("m\u{fc}ller".into()), ehlo.clone()),
            ("EHLO \u{202e}x\u{85}", Command::Ehlo("x".into()), ehlo.clone()),
            ("EHLO 2001:db8::1", Command::Ehlo("2001:db8::1".into()), ehlo.clone()),
            ("EHLO [10.0.0]", Command::Ehlo("[10.0.0]".into()), ehlo),
            ("HELO", Command::Helo(String::new()), helo.clone()),
            ("HELO <x>", Command::Helo("<x>".into()), helo),
            (" NOOP", Command::Noop, CommandError::Unrecognized),
            ("\tQUIT", Command::Quit, CommandError::Control),
            ("DATA now", Command::Data, CommandError::Syntax("DATA")),
            ("RSET x y", Command::Rset, CommandError::Syntax("RSET")),
            ("QUIT \u{fc}", Command::Quit, CommandError::Syntax("QUIT")),
            ("VRFY", Command::Vrfy, CommandError::Syntax("VRFY name")),
            ("AUTH  LOGIN", auth("LOGIN", None), CommandError::Syntax("AUTH mechanism [initial-response]")),
            ("AUTH PLAIN  =", auth("PLAIN", Some("=")), CommandError::Syntax("AUTH mechanism [initial-response]")),
        ] {
            assert_eq!(parse(line, Dialect::Lenient), Ok(command), "lenient: {line:?}");
            assert_eq!(parse(line, Dialect::Strict), Err(error), "strict: {line:?}");
        }
    }

    #[test]
    fn paths_that_are_taken_in_lenient_only() {
        let mail = CommandError::Syntax(MAIL_SYNTAX);
        let rcpt = CommandError::Syntax(RCPT_SYNTAX);
        let sender = |error: AddressError| CommandError::Sender(error.into());
        let long = "x".repeat(65);
        let longer = format!("MAIL FROM:<{long}@b.c>");
        for (line, command, error) in [
            ("MAIL FROM: <a@b.c>", plain("a@b.c"), mail.clone()),
            ("mail from : <a@b.c> ", plain("a@b.c"), mail.clone()),
            ("MAIL  FROM:<a@b.c>", plain("a@b.c"), mail.clone()),
            ("MAIL FROM:\t<a@b.c>", plain("a@b.c"), CommandError::Control),
            ("MAIL FROM:<a@b.c>\tSIZE=7", sized(7), CommandError::Control),
            ("MAIL FROM:<a@b.c>  SIZE=7", sized(7), mail.clone()),
            ("MAIL FROM:a@b.c", plain("a@b.c"), mail.clone()),
            ("MAIL FROM: a@b.c SIZE=7", sized(7), mail.clone()),
            ("MAIL FROM:a@b.c AUTH=<> SIZE=7", sized(7), mail.clone()),
            ("MAIL FROM:\"a b\"@c.d", plain("\"a b\"@c.d"), mail.clone()),
            ("MAIL FROM:< >", plain(""), sender(AddressError::LocalPart)),
            ("MAIL FROM:< a@b.c >", plain("a@b.c"), sender(AddressError::LocalPart)),
            ("MAIL FROM <a@b.c>", plain("a@b.c"), mail.clone()),
            ("MAIL FROM<a@b.c> SIZE=7", sized(7), mail.clone()),
            ("MAIL FROM <>", plain(""), mail.clone()),
            ("MAIL FROM:Scanner <a@b.c>", plain("a@b.c"), mail.clone()),
            ("MAIL FROM: Scan to mail <a@b.c> SIZE=7", sized(7), mail.clone()),
            ("MAIL FROM:\"Scanner\"<a@b.c>", plain("a@b.c"), mail.clone()),
            ("MAIL FROM:\"x@y.z <x@y.z>\" <a@b.c>", plain("a@b.c"), mail.clone()),
            ("MAIL FROM:B\u{fc}ro <a@b.c>", plain("a@b.c"), mail),
            ("MAIL FROM:<a@b_c.d>", plain("a@b_c.d"), sender(AddressError::Domain)),
            (longer.as_str(), plain(&format!("{long}@b.c")), sender(AddressError::LocalPart)),
            ("MAIL FROM:<@!:a@b.c>", plain("a@b.c"), CommandError::Sender(PathError::SourceRoute)),
            ("MAIL FROM:<@x,y:a@b.c>", plain("a@b.c"), CommandError::Sender(PathError::SourceRoute)),
            ("RCPT TO: a@b.c", rcpt_to("a@b.c"), rcpt.clone()),
            ("RCPT TO:\"M\u{fc}ller, A\" <a@b.c>", rcpt_to("a@b.c"), rcpt.clone()),
            ("RCPT TO:postmaster", Command::Rcpt(ForwardPath::Postmaster.into()), rcpt.clone()),
            ("RCPT TO:postmaster <a@b.c>", rcpt_to("a@b.c"), rcpt),
            ("RCPT TO:<a@b_c.d>", rcpt_to("a@b_c.d"), CommandError::Recipient(AddressError::Domain.into())),
        ] {
            assert_eq!(parse(line, Dialect::Lenient), Ok(command), "lenient: {line:?}");
            assert_eq!(parse(line, Dialect::Strict), Err(error), "strict: {line:?}");
        }
    }

    #[test]
    fn parameters_that_are_passed_over_in_lenient_only() {
        let eight_bit = mail_from("a@b.c", None, BodyType::EightBitMime, false);
        let unknown = |keyword: &str| CommandError::ParameterUnknown(keyword.into());
        let wrong = |parameter: &str| CommandError::ParameterValue(parameter.into());
        let long = format!("MAIL FROM:<a@b.c> {}=x", "X".repeat(1000));
        for (line, command, error) in [
            ("MAIL FROM:<a@b.c> SIZE=", plain("a@b.c"), wrong("SIZE=")),
            ("MAIL FROM:<a@b.c> SIZE", plain("a@b.c"), wrong("SIZE")),
            ("MAIL FROM:<a@b.c> SIZE=-1", plain("a@b.c"), wrong("SIZE=-1")),
            ("MAIL FROM:<a@b.c> SIZE=7kB", plain("a@b.c"), wrong("SIZE=7kB")),
            ("MAIL FROM:<a@b.c> SIZE=7 SIZE=", sized(7), wrong("SIZE=")),
            ("MAIL FROM:<a@b.c> SIZE=6 SIZE=7", sized(7), wrong("SIZE=7")),
            ("MAIL FROM:<a@b.c> SIZE=000000000000000000007", sized(7), wrong("SIZE=000000000000000000007")),
            (
                "MAIL FROM:<a@b.c> SIZE=99999999999999999999999999",
                sized(u64::MAX),
                wrong("SIZE=99999999999999999999999999"),
            ),
            ("MAIL FROM:<a@b.c> BODY=x", plain("a@b.c"), wrong("BODY=x")),
            ("MAIL FROM:<a@b.c> BODY", plain("a@b.c"), wrong("BODY")),
            ("MAIL FROM:<a@b.c> BODY=8BITMIME BODY=7BIT", eight_bit, wrong("BODY=7BIT")),
            ("MAIL FROM:<a@b.c> SMTPUTF8=1", mail_from("a@b.c", None, BodyType::SevenBit, true), wrong("SMTPUTF8=1")),
            ("MAIL FROM:<a@b.c> AUTH=", plain("a@b.c"), wrong("AUTH=")),
            ("MAIL FROM:<a@b.c> AUTH=a+3d", plain("a@b.c"), wrong("AUTH=a+3d")),
            ("MAIL FROM:<a@b.c> AUTH=a=b", plain("a@b.c"), wrong("AUTH=a=b")),
            ("MAIL FROM:<a@b.c> X-FOO=1 SIZE=7", sized(7), unknown("X-FOO")),
            ("MAIL FROM:<a@b.c> x_foo", plain("a@b.c"), unknown("X_FOO")),
            ("MAIL FROM:<a@b.c> TRANSID=<x@y>", plain("a@b.c"), unknown("TRANSID")),
            (long.as_str(), plain("a@b.c"), unknown(&"X".repeat(60))),
            ("RCPT TO:<a@b.c> SIZE=1", rcpt_to("a@b.c"), unknown("SIZE")),
        ] {
            assert_eq!(parse(line, Dialect::Lenient), Ok(command), "lenient: {line:?}");
            assert_eq!(parse(line, Dialect::Strict), Err(error), "strict: {line:?}");
        }
    }

    #[test]
    fn lines_that_are_none_in_both_dialects() {
        let mail = CommandError::Syntax(MAIL_SYNTAX);
        let rcpt = CommandError::Syntax(RCPT_SYNTAX);
        let sender = |error: AddressError| CommandError::Sender(error.into());
        let recipient = |error: AddressError| CommandError::Recipient(error.into());
        let binary = CommandError::ParameterValue("BODY=BINARYMIME".into());
        for (line, lenient, strict) in [
            (&b"FROB"[..], CommandError::Unrecognized, CommandError::Unrecognized),
            (b"", CommandError::Unrecognized, CommandError::Unrecognized),
            (b"  ", CommandError::Unrecognized, CommandError::Unrecognized),
            (b"\xc4HLO x", CommandError::Unrecognized, CommandError::Unrecognized),
            (b"DATA\xa0", CommandError::Unrecognized, CommandError::Unrecognized),
            (b"NOOP \x01", CommandError::Control, CommandError::Control),
            (b"NO\0OP", CommandError::Control, CommandError::Control),
            (b"NOOP\r", CommandError::Control, CommandError::Control),
            (b"RCPT TO:<a\r@b.c>", CommandError::Control, CommandError::Control),
            (b"EHLO x\x7f", CommandError::Control, CommandError::Control),
            (b"STARTTLS now", CommandError::Syntax("STARTTLS"), CommandError::Syntax("STARTTLS")),
            (b"MAIL", mail.clone(), mail.clone()),
            (b"MAIL FROM", mail.clone(), mail.clone()),
            (b"MAIL FROM:", mail.clone(), mail.clone()),
            (b"MAIL FROM a@b.c", mail.clone(), mail.clone()),
            (b"MAIL FROM:<a@b.c", mail.clone(), mail.clone()),
            (b"MAIL FROM:<\"a@b.c>", mail.clone(), mail.clone()),
            (b"MAIL FROM:<a@b.c>SIZE=1", mail.clone(), mail.clone()),
            (b"MAIL FROM:<a@b.c> =1", mail.clone(), mail.clone()),
            (b"MAIL TO:<a@b.c>", mail.clone(), mail.clone()),
            (b"MAIL FROM:a@b.c>", sender(AddressError::Domain), mail.clone()),
            // An address that was forgotten, not one without a domain; and a name before one, or of several words.
            (b"MAIL FROM:SIZE=7", sender(AddressError::NoDomain), mail.clone()),
            (b"MAIL FROM:Cron Daemon", sender(AddressError::NoDomain), mail.clone()),
            (b"MAIL FROM:root SIZE=7 Daemon", sender(AddressError::NoDomain), mail.clone()),
            (b"MAIL FROM:root =7", sender(AddressError::NoDomain), mail.clone()),
            (b"MAIL FROM:<@x:root>", sender(AddressError::NoDomain), sender(AddressError::NoDomain)),
            (b"MAIL FROM:<Cron Daemon>", sender(AddressError::LocalPart), sender(AddressError::LocalPart)),
            (b"MAIL FROM:<root@>", sender(AddressError::Domain), sender(AddressError::Domain)),
            // More than one thing could be the address: nobody guesses.
            (b"MAIL FROM:<a@b.c> <d@e.f>", mail.clone(), mail.clone()),
            (b"MAIL FROM:a@b.c <d@e.f>", mail.clone(), mail.clone()),
            (b"MAIL FROM:a@b.c d@e.f", mail.clone(), mail.clone()),
            (b"MAIL FROM:Scanner <a@b.c> <d@e.f>", mail.clone(), mail.clone()),
            (b"MAIL FROM:Scanner a@b.c", sender(AddressError::NoDomain), mail.clone()),
            (b"MAIL FROM:<Scanner <a@b.c>>", mail.clone(), mail.clone()),
            (b"MAIL FROM:<<a@b.c>>", mail.clone(), mail.clone()),
            (b"MAIL FROM:<a@b.c, d@e.f>", sender(AddressError::Domain), sender(AddressError::Domain)),
            (b"MAIL FROM:\"Scanner <a@b.c>", sender(AddressError::LocalPart), mail),
            (b"MAIL FROM:<m\xfcller@b.c>", sender(AddressError::NotUtf8), sender(AddressError::NotUtf8)),
            (b"MAIL FROM:<a@b.c> BODY=BINARYMIME", binary.clone(), binary.clone()),
            (b"MAIL FROM:<a@b.c> BODY=binarymime SIZE=7", binary.clone(), binary),
            (b"RCPT FROM:<a@b.c>", rcpt.clone(), rcpt.clone()),
            (b"RCPT TO:<a@b.c>,<d@e.f>", rcpt.clone(), rcpt.clone()),
            (b"RCPT TO:a@b.c, d@e.f", recipient(AddressError::Domain), rcpt.clone()),
            (b"RCPT TO:a, b <d@e.f>", recipient(AddressError::LocalPart), rcpt.clone()),
            (b"RCPT TO:postmaster NOTIFY=<x@y.z>", CommandError::ParameterValue("NOTIFY=<x@y.z>".into()), rcpt),
            (
                b"RCPT TO:<>",
                CommandError::Recipient(PathError::EmptyRecipient),
                CommandError::Recipient(PathError::EmptyRecipient),
            ),
            (b"RCPT TO:<root>", recipient(AddressError::NoDomain), recipient(AddressError::NoDomain)),
        ] {
            let shown = String::from_utf8_lossy(line);
            assert_eq!(Command::parse(line, Dialect::Lenient), Err(lenient), "lenient: {shown}");
            assert_eq!(Command::parse(line, Dialect::Strict), Err(strict), "strict: {shown}");
        }
    }

    #[test]
    fn a_sender_without_a_domain_is_taken_in_lenient_where_it_is_clear() {
        for (line, name, size) in [
            (&b"MAIL FROM:<root>"[..], "root", None),
            (b"MAIL FROM:< root >", "root", None),
            (b"MAIL FROM:root", "root", None),
            (b"MAIL FROM: root", "root", None),
            (b"MAIL FROM:root SIZE=7", "root", Some(7)),
            (b"MAIL FROM:root BODY=8BITMIME SIZE=7", "root", Some(7)),
            (b"MAIL FROM:root smtputf8", "root", None),
            (b"MAIL FROM:<root> SIZE=7 AUTH=<>", "root", Some(7)),
            (b"MAIL FROM:Cron Daemon <root>", "root", None),
            (b"MAIL FROM:<postmaster>", "postmaster", None),
            (b"MAIL FROM:<size=7>", "size=7", None),
            (b"MAIL FROM:<\"Cron Daemon\">", "\"Cron Daemon\"", None),
            (b"MAIL FROM:\"Cron Daemon\"", "\"Cron Daemon\"", None),
        ] {
            let shown = String::from_utf8_lossy(line);
            let parsed = Command::parse(line, Dialect::Lenient);
            let Ok(Command::MailWithoutDomain(sender, parameters)) = parsed else { panic!("{shown}: {parsed:?}") };
            assert_eq!((sender, parameters.size), (LocalPart::parse(name.as_bytes()).unwrap(), size), "{shown}");
            assert!(Command::parse(line, Dialect::Strict).is_err(), "{shown}");
        }
    }

    #[test]
    fn lines_of_http_in_both_dialects() {
        for dialect in [Dialect::Lenient, Dialect::Strict] {
            for line in [
                "GET / HTTP/1.1",
                "POST /x HTTP/1.1",
                "HEAD /",
                "PUT / HTTP/1.0",
                "DELETE / HTTP/1.1",
                "patch / HTTP/1.1",
                "TRACE / HTTP/1.1",
                "CONNECT x:25 HTTP/1.1",
                "OPTIONS * HTTP/1.1",
                "PRI * HTTP/2.0",
                "GET",
                "POST /\u{1} HTTP/1.1",
                "BREW /pot HTTP/1.1",
                "Host: 192.0.2.1:2525",
                "Content-Type:text/plain",
                "X_Y: MAIL FROM:<a@b.c>",
                "Subject: lost count",
            ] {
                assert_eq!(parse(line, dialect), Err(CommandError::Http), "{dialect:?}: {line}");
            }
            for line in [": x", "Ho st: x", "GETS / x", "HTTP/1.1 200 OK", "\u{fc}: x"] {
                assert_eq!(parse(line, dialect), Err(CommandError::Unrecognized), "{dialect:?}: {line}");
            }
        }
    }

    #[test]
    fn what_is_asked_of_reports_is_kept() {
        let Ok(Command::Mail(_, parameters)) =
            Command::parse(b"MAIL FROM:<a@b.c> ret=hdrs SIZE=7 ENVID=QQ+2B7", Dialect::Lenient)
        else {
            panic!("not taken")
        };
        assert_eq!((parameters.size, parameters.ret), (Some(7), Some(Ret::Headers)));
        assert_eq!(parameters.envelope_id.map(|id| id.to_string()).as_deref(), Some("QQ+2B7"));
        let Ok(Command::Rcpt(recipient)) =
            Command::parse(b"RCPT TO:<a@b.c> ORCPT=rfc822;A+2Bx@b.c notify=success,DELAY", Dialect::Lenient)
        else {
            panic!("not taken")
        };
        assert_eq!(recipient.path.to_string(), "a@b.c");
        assert_eq!(recipient.notify, Some(Notify { success: true, failure: false, delay: true }));
        assert_eq!(recipient.original.map(|original| original.to_string()).as_deref(), Some("rfc822;A+2Bx@b.c"));
    }

    #[test]
    fn what_is_asked_of_reports_is_right_and_said_once() {
        for (line, value) in [
            (&b"MAIL FROM:<a@b.c> ENVID=a+0D+0Ab"[..], "ENVID=a+0D+0Ab"),
            (b"MAIL FROM:<a@b.c> ENVID=", "ENVID="),
            (b"MAIL FROM:<a@b.c> ENVID", "ENVID"),
            (b"MAIL FROM:<a@b.c> ENVID=\xfc", "ENVID=\u{fffd}"),
            (b"MAIL FROM:<a@b.c> ENVID=a ENVID=a", "ENVID=a"),
            (b"MAIL FROM:<a@b.c> RET=BODY", "RET=BODY"),
            (b"MAIL FROM:<a@b.c> RET=FULL RET=HDRS", "RET=HDRS"),
            (b"RCPT TO:<a@b.c> NOTIFY=NEVER,DELAY", "NOTIFY=NEVER,DELAY"),
            (b"RCPT TO:<a@b.c> NOTIFY", "NOTIFY"),
            (b"RCPT TO:<a@b.c> NOTIFY=DELAY NOTIFY=DELAY", "NOTIFY=DELAY"),
            (b"RCPT TO:<a@b.c> ORCPT=a@b.c", "ORCPT=a@b.c"),
            (b"RCPT TO:<a@b.c> ORCPT=rfc822;a+0Ab", "ORCPT=rfc822;a+0Ab"),
            (b"RCPT TO:<a@b.c> ORCPT=rfc822;a ORCPT=rfc822;b", "ORCPT=rfc822;b"),
        ] {
            let error = CommandError::ParameterValue(value.into());
            let shown = String::from_utf8_lossy(line);
            assert_eq!(Command::parse(line, Dialect::Lenient), Err(error.clone()), "lenient: {shown}");
            assert_eq!(Command::parse(line, Dialect::Strict), Err(error), "strict: {shown}");
        }
    }

    /// Lines out of the pieces of which commands are made, most with the start of one.
    fn lines() -> impl Strategy<Value = Vec<u8>> {
        const STARTS: &[&str] = &[
            "MAIL FROM:<a@b.c>",
            "MAIL FROM:<",
            "mail from:",
            "RCPT TO:<a@b.c> ",
            "EHLO ",
            "AUTH ",
            "DATA",
            "NOOP",
            "",
        ];
        const PIECES: &[&str] = &[
            ":", "<", ">", "<a@b.c>", "a@b.c", "\"", "\"a b\"", "@", " ", " ", " ", "\t", "=", ",", "SIZE", " SIZE=7",
            " AUTH=<>", " BODY=", "7BIT", "NOTIFY", "NEVER", "x", "_", ".", "[::1]", "\u{fc}", "\r", "\0",
        ];
        let rest = proptest::collection::vec(proptest::sample::select(PIECES), 0..8);
        (proptest::sample::select(STARTS), rest)
            .prop_map(|(start, rest)| (start.to_owned() + &rest.concat()).into_bytes())
    }

    proptest! {
        #[test]
        fn octets_never_panic(line: Vec<u8>) {
            let _ = Command::parse(&line, Dialect::Lenient);
            let _ = Command::parse(&line, Dialect::Strict);
        }

        #[test]
        fn what_strict_takes_lenient_takes_alike(line in lines()) {
            if let Ok(command) = Command::parse(&line, Dialect::Strict) {
                prop_assert_eq!(Command::parse(&line, Dialect::Lenient), Ok(command));
            }
        }

        #[test]
        fn control_octets_are_taken_nowhere(line in lines(), at in 0usize..20, control in 0u8..32) {
            let (before, after) = line.split_at(at.min(line.len()));
            let with = [before, &[control], after].concat();
            if control != b'\t' {
                prop_assert_eq!(Command::parse(&with, Dialect::Lenient), Err(CommandError::Control));
                prop_assert_eq!(Command::parse(&with, Dialect::Strict), Err(CommandError::Control));
            }
        }

        #[test]
        fn a_path_that_was_taken_can_be_sent_again(local in "[\\x20-\\x7e]{1,20}") {
            if let Ok(Command::Mail(path, _)) = Command::parse(format!("MAIL FROM:<{local}@c.d>").as_bytes(), Dialect::Lenient) {
                let again = Command::parse(format!("MAIL FROM:<{path}> SIZE=5").as_bytes(), Dialect::Lenient);
                prop_assert_eq!(again, Ok(Command::Mail(path, MailParameters { size: Some(5), ..Default::default() })));
            }
        }

        #[test]
        fn a_recipient_that_was_taken_can_be_sent_again(original in "[ -~]{0,20}", notify in "[A-Z,]{0,20}") {
            let line = format!("RCPT TO:<a@b.c> ORCPT=rfc822;{original} NOTIFY=DELAY{notify}");
            if let Ok(Command::Rcpt(recipient)) = Command::parse(line.as_bytes(), Dialect::Lenient) {
                let original = recipient.original.as_ref().map(|original| format!(" ORCPT={original}"));
                let notify = recipient.notify.map(|notify| format!(" NOTIFY={notify}"));
                let again = format!("RCPT TO:<{recipient}>{}{}", notify.unwrap_or_default(), original.unwrap_or_default());
                prop_assert_eq!(Command::parse(again.as_bytes(), Dialect::Lenient), Ok(Command::Rcpt(recipient)));
            }
        }
    }
}
