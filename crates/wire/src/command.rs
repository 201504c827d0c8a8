//! One command line as a value. Verbs, BODY and SMTPUTF8 are read by smtp-proto; paths, EHLO names, the parameters of
//! delivery reports (RFC 3461) and the checks that keep its surprises out (design section 4) are ours. Whether the
//! command may come now is the session's question.

use std::borrow::Cow;
use std::fmt;

use mail::{
    BodyType, DsnError, EnvelopeId, ForwardPath, Notify, OriginalRecipient, PathError, Recipient, Ret, ReversePath,
};
use smtp_proto::{MAIL_BODY_8BITMIME, MAIL_SMTPUTF8, Request};
use zeroize::Zeroizing;

use crate::dialect::Dialect;

/// A command that is right by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `EHLO` with whatever the client calls itself, bounded and without control characters; may be empty.
    Ehlo(String),
    /// `HELO`, as above.
    Helo(String),
    /// `MAIL FROM:<path> parameters`
    Mail(ReversePath, MailParameters),
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

/// The parameters of MAIL that are offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// `SIZE=` (RFC 1870): octets the client means to send.
    pub size: Option<u64>,
    /// `BODY=` (RFC 6152).
    pub body: BodyType,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
    /// `RET=` (RFC 3461).
    pub ret: Option<Ret>,
    /// `ENVID=` (RFC 3461).
    pub envelope_id: Option<EnvelopeId>,
}

/// Why a line is not a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No verb of SMTP.
    #[error("command not recognized")]
    Unrecognized,
    /// The start of an HTTP request: not a mail client at all, and never to be answered as one.
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
    /// A parameter that was not offered.
    #[error("parameter not recognized: {0}")]
    ParameterUnknown(String),
    /// A parameter with a wrong value, or one of those of delivery reports given twice.
    #[error("parameter value not valid: {0}")]
    ParameterValue(String),
}

const MAIL_SYNTAX: &str =
    "MAIL FROM:<address> [SIZE=octets] [BODY=7BIT|8BITMIME] [SMTPUTF8] [RET=FULL|HDRS] [ENVID=id]";
const RCPT_SYNTAX: &str = "RCPT TO:<address> [NOTIFY=NEVER|SUCCESS,FAILURE,DELAY] [ORCPT=type;address]";
const HTTP_VERBS: [&[u8]; 6] = [b"GET", b"POST", b"HEAD", b"PUT", b"CONNECT", b"OPTIONS"];

impl Command {
    /// Parses one line without its end.
    pub fn parse(line: &[u8], dialect: Dialect) -> Result<Self, CommandError> {
        let _ = dialect;
        if line.iter().any(|octet| octet.is_ascii_control() && *octet != b'\t') {
            return Err(CommandError::Control);
        }
        let line = line.trim_ascii();
        let (verb, rest) = split_word(line);
        match verb.to_ascii_uppercase().as_slice() {
            b"EHLO" => Ok(Self::Ehlo(client_name(rest))),
            b"HELO" => Ok(Self::Helo(client_name(rest))),
            b"MAIL" => mail(rest),
            b"RCPT" => rcpt(rest),
            b"VRFY" => Ok(Self::Vrfy),
            b"STARTTLS" if rest.is_empty() => Ok(Self::StartTls),
            b"STARTTLS" => Err(CommandError::Syntax("STARTTLS")),
            b"AUTH" => auth(rest),
            upper if HTTP_VERBS.contains(&upper) => Err(CommandError::Http),
            _ => other(line),
        }
    }
}

fn mail(rest: &[u8]) -> Result<Command, CommandError> {
    let (path, parameters) = path_and_parameters(rest, b"FROM").ok_or(CommandError::Syntax(MAIL_SYNTAX))?;
    let path = ReversePath::parse(path).map_err(CommandError::Sender)?;
    Ok(Command::Mail(path, mail_parameters(parameters)?))
}

fn rcpt(rest: &[u8]) -> Result<Command, CommandError> {
    let (path, parameters) = path_and_parameters(rest, b"TO").ok_or(CommandError::Syntax(RCPT_SYNTAX))?;
    let mut recipient = Recipient::from(ForwardPath::parse(path).map_err(CommandError::Recipient)?);
    for parameter in words(parameters) {
        match keyword(parameter).as_str() {
            "NOTIFY" => once(&mut recipient.notify, parameter, Notify::parse)?,
            "ORCPT" => once(&mut recipient.original, parameter, OriginalRecipient::parse)?,
            unknown => return Err(CommandError::ParameterUnknown(unknown.to_owned())),
        }
    }
    Ok(Command::Rcpt(recipient))
}

/// The value of a parameter that may be given once. smtp-proto never sees these: it would decode `ENVID=a+0D+0Ab` to a
/// line's end.
fn once<T>(
    known: &mut Option<T>,
    parameter: &[u8],
    parse: impl Fn(&str) -> Result<T, DsnError>,
) -> Result<(), CommandError> {
    let wrong = || CommandError::ParameterValue(shown(parameter));
    let at = parameter.iter().position(|octet| *octet == b'=').ok_or_else(wrong)?;
    let value = std::str::from_utf8(&parameter[at + 1..]).map_err(|_| wrong())?;
    match known.replace(parse(value).map_err(|_| wrong())?) {
        None => Ok(()),
        Some(_) => Err(wrong()),
    }
}

fn auth(rest: &[u8]) -> Result<Command, CommandError> {
    const SYNTAX: CommandError = CommandError::Syntax("AUTH mechanism [initial-response]");
    let mut words = words(rest);
    let mechanism = words.next().ok_or(SYNTAX)?.to_ascii_uppercase();
    // RFC 4422 section 3.1.
    let is_mechanism = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
    let initial_response = words.next().map(|word| Zeroizing::new(word.to_vec()));
    if words.next().is_some() || mechanism.len() > 20 || !mechanism.iter().all(is_mechanism) {
        return Err(SYNTAX);
    }
    Ok(Command::Auth(AuthCommand { mechanism: String::from_utf8_lossy(&mechanism).into_owned(), initial_response }))
}

/// All verbs without a path.
fn other(line: &[u8]) -> Result<Command, CommandError> {
    let line = [line, b"\r\n"].concat();
    match Request::parse(&mut line.iter()) {
        Ok(Request::Data) => Ok(Command::Data),
        Ok(Request::Rset) => Ok(Command::Rset),
        Ok(Request::Noop { .. }) => Ok(Command::Noop),
        Ok(Request::Help { .. }) => Ok(Command::Help),
        Ok(Request::Quit) => Ok(Command::Quit),
        Ok(request) => Ok(Command::NotOffered(request.name())),
        Err(smtp_proto::Error::SyntaxError { syntax }) => Err(CommandError::Syntax(syntax)),
        Err(_) => Err(CommandError::Unrecognized),
    }
}

/// Whatever the client calls itself. Old clients send nothing, underscores, Latin-1 or a whole sentence; none of that
/// is a reason to refuse their mail, and the Received field shows only what is a domain.
fn client_name(rest: &[u8]) -> String {
    String::from_utf8_lossy(rest).chars().filter(|c| !c.is_control()).take(255).collect()
}

/// Splits `FROM:<path> parameters` after the keyword. Spaces around the colon and missing brackets are old clients' ways
/// and unambiguous; a quoted local part may hold brackets and spaces.
fn path_and_parameters<'a>(rest: &'a [u8], keyword: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (found, rest) = rest.split_at_checked(keyword.len())?;
    let rest = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    if !found.eq_ignore_ascii_case(keyword) {
        return None;
    }
    match rest.strip_prefix(b"<") {
        Some(inner) => {
            let end = outside_quotes(inner, |octet| octet == b'>')?;
            let after = &inner[end + 1..];
            (after.is_empty() || after[0].is_ascii_whitespace()).then_some((&inner[..end], after))
        }
        None if rest.is_empty() => None,
        None => {
            let end = outside_quotes(rest, |octet| octet.is_ascii_whitespace()).unwrap_or(rest.len());
            Some((&rest[..end], &rest[end..]))
        }
    }
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

/// Filters before smtp-proto sees them, since it stops at the first parameter it does not know and reads a SIZE of 26
/// digits as another number.
fn mail_parameters(parameters: &[u8]) -> Result<MailParameters, CommandError> {
    let mut line = b"MAIL FROM:<>".to_vec();
    let mut known = MailParameters::default();
    for parameter in words(parameters) {
        match keyword(parameter).as_str() {
            "SIZE" => known.size = Some(octet_count(parameter)?),
            "RET" => once(&mut known.ret, parameter, Ret::parse)?,
            "ENVID" => once(&mut known.envelope_id, parameter, EnvelopeId::parse)?,
            "BODY" | "SMTPUTF8" => {
                line.push(b' ');
                line.extend_from_slice(parameter);
            }
            unknown => return Err(CommandError::ParameterUnknown(unknown.to_owned())),
        }
    }
    line.extend_from_slice(b"\r\n");
    let wrong = || CommandError::ParameterValue(shown(parameters));
    let Ok(Request::Mail { from }) = Request::parse(&mut line.iter()) else { return Err(wrong()) };
    if from.flags & smtp_proto::MAIL_BODY_BINARYMIME != 0 {
        return Err(wrong());
    }
    let body = if from.flags & MAIL_BODY_8BITMIME == 0 { BodyType::SevenBit } else { BodyType::EightBitMime };
    Ok(MailParameters { body, smtputf8: from.flags & MAIL_SMTPUTF8 != 0, ..known })
}

/// The value of `SIZE=`: up to twenty digits (RFC 1870 section 4). More than fits is more than anybody takes.
fn octet_count(parameter: &[u8]) -> Result<u64, CommandError> {
    let digits = parameter.get(5..).unwrap_or_default();
    if digits.is_empty() || digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(CommandError::ParameterValue(shown(parameter)));
    }
    Ok(String::from_utf8_lossy(digits).parse().unwrap_or(u64::MAX))
}

fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    (&line[..end], line[end..].trim_ascii_start())
}

fn words(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    octets.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn keyword(parameter: &[u8]) -> String {
    let end = parameter.iter().position(|octet| *octet == b'=').unwrap_or(parameter.len());
    shown(&parameter[..end]).to_ascii_uppercase()
}

fn shown(octets: &[u8]) -> String {
    let text: Cow<'_, str> = String::from_utf8_lossy(octets);
    text.trim().chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::AddressError;
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

    #[test]
    fn lines_that_are_commands() {
        let plain = |path| mail_from(path, None, BodyType::SevenBit, false);
        for (line, command) in [
            ("EHLO erp01", Command::Ehlo("erp01".into())),
            ("ehlo  my printer ", Command::Ehlo("my printer".into())),
            ("EHLO", Command::Ehlo(String::new())),
            ("HELO", Command::Helo(String::new())),
            ("HELO [10.0.0.1]", Command::Helo("[10.0.0.1]".into())),
            ("MAIL FROM:<a@b.c>", plain("a@b.c")),
            ("mail from: <a@b.c>", plain("a@b.c")),
            ("MAIL FROM : <a@b.c> ", plain("a@b.c")),
            ("MAIL FROM:a@b.c", plain("a@b.c")),
            ("MAIL FROM:<>", plain("")),
            ("MAIL FROM:<@x,@y:a@b.c>", plain("a@b.c")),
            ("MAIL FROM:<\"a> SIZE=1\"@c.d>", plain("\"a> SIZE=1\"@c.d")),
            ("MAIL FROM:<\"a\\\"> b\"@c.d>", plain("\"a\\\"> b\"@c.d")),
            ("MAIL FROM:<a@b.c> SIZE=1000", mail_from("a@b.c", Some(1000), BodyType::SevenBit, false)),
            (
                "MAIL FROM:<a@b.c> body=8bitmime SMTPUTF8 size=7",
                mail_from("a@b.c", Some(7), BodyType::EightBitMime, true),
            ),
            ("MAIL FROM:<a@b.c> BODY=7BIT", plain("a@b.c")),
            (
                "MAIL FROM:<a@b.c> SIZE=99999999999999999999",
                mail_from("a@b.c", Some(u64::MAX), BodyType::SevenBit, false),
            ),
            ("RCPT TO:<a@b.c>", rcpt_to("a@b.c")),
            ("RCPT TO: a@b.c", rcpt_to("a@b.c")),
            ("RCPT TO:<postmaster>", Command::Rcpt(ForwardPath::Postmaster.into())),
            ("DATA", Command::Data),
            ("data ", Command::Data),
            ("RSET", Command::Rset),
            ("NOOP", Command::Noop),
            ("NOOP anything at all", Command::Noop),
            ("VRFY someone", Command::Vrfy),
            ("HELP", Command::Help),
            ("HELP MAIL", Command::Help),
            ("QUIT", Command::Quit),
            ("STARTTLS", Command::StartTls),
            ("auth login", auth("LOGIN", None)),
            ("AUTH PLAIN AGEAYg==", auth("PLAIN", Some("AGEAYg=="))),
            ("BDAT 10 LAST", Command::NotOffered("BDAT")),
            ("EXPN list", Command::NotOffered("EXPN")),
        ] {
            assert_eq!(Command::parse(line.as_bytes(), Dialect::Lenient), Ok(command), "{line}");
        }
    }

    #[test]
    fn lines_that_are_not() {
        let syntax_mail = CommandError::Syntax(MAIL_SYNTAX);
        for (line, error) in [
            (&b"FROB"[..], CommandError::Unrecognized),
            (b"", CommandError::Unrecognized),
            (b"GET / HTTP/1.1", CommandError::Http),
            (b"NOOP \x01", CommandError::Control),
            (b"MAIL", syntax_mail.clone()),
            (b"MAIL FROM", syntax_mail.clone()),
            (b"MAIL FROM:", syntax_mail.clone()),
            (b"MAIL FROM:<a@b.c", syntax_mail.clone()),
            (b"MAIL FROM:<a@b.c>SIZE=1", syntax_mail.clone()),
            (b"MAIL TO:<a@b.c>", syntax_mail),
            (b"RCPT FROM:<a@b.c>", CommandError::Syntax(RCPT_SYNTAX)),
            (b"RCPT TO:<>", CommandError::Recipient(PathError::EmptyRecipient)),
            (b"RCPT TO:<root>", CommandError::Recipient(AddressError::NoDomain.into())),
            (b"MAIL FROM:<m\xfcller@b.c>", CommandError::Sender(AddressError::NotUtf8.into())),
            (b"MAIL FROM:<a@b.c> AUTH=<>", CommandError::ParameterUnknown("AUTH".into())),
            (b"RCPT TO:<a@b.c> SIZE=1", CommandError::ParameterUnknown("SIZE".into())),
            (b"MAIL FROM:<a@b.c> SIZE=", CommandError::ParameterValue("SIZE=".into())),
            (b"MAIL FROM:<a@b.c> SIZE", CommandError::ParameterValue("SIZE".into())),
            (b"MAIL FROM:<a@b.c> SIZE=-1", CommandError::ParameterValue("SIZE=-1".into())),
            (
                b"MAIL FROM:<a@b.c> SIZE=99999999999999999999999999",
                CommandError::ParameterValue("SIZE=99999999999999999999999999".into()),
            ),
            (b"MAIL FROM:<a@b.c> BODY=BINARYMIME", CommandError::ParameterValue("BODY=BINARYMIME".into())),
            (b"MAIL FROM:<a@b.c> BODY=x", CommandError::ParameterValue("BODY=x".into())),
        ] {
            assert_eq!(Command::parse(line, Dialect::Lenient), Err(error), "{}", String::from_utf8_lossy(line));
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
            assert_eq!(Command::parse(line, Dialect::Lenient), Err(error), "{}", String::from_utf8_lossy(line));
        }
    }

    proptest! {
        #[test]
        fn octets_never_panic(line: Vec<u8>) {
            let _ = Command::parse(&line, Dialect::Lenient);
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
