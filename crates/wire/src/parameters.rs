//! The parameters of MAIL and RCPT. BODY and SMTPUTF8 are read by smtp-proto, which sees nothing else: it stops at the first
//! parameter it does not know, reads a SIZE of 26 digits as another number, and decodes `ENVID=a+0D+0Ab` to a line's end.

use std::borrow::Cow;

use mail::{BodyType, DsnError, EnvelopeId, Notify, OriginalRecipient, Recipient, Ret, is_acted_on};
use smtp_proto::{MAIL_BODY_8BITMIME, MAIL_BODY_BINARYMIME, MAIL_SMTPUTF8, Request};

use crate::command::CommandError;
use crate::dialect::Dialect;

pub(crate) const MAIL_SYNTAX: &str =
    "MAIL FROM:<address> [SIZE=octets] [BODY=7BIT|8BITMIME] [SMTPUTF8] [RET=FULL|HDRS] [ENVID=id]";
pub(crate) const RCPT_SYNTAX: &str = "RCPT TO:<address> [NOTIFY=NEVER|SUCCESS,FAILURE,DELAY] [ORCPT=type;address]";

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

impl MailParameters {
    /// Reads what follows the path, with the blank before it. In lenient a parameter that is unknown, or that only helps us
    /// and is broken, counts as not there; what somebody relies on must be right in both.
    pub(crate) fn parse(parameters: &[u8], dialect: Dialect) -> Result<Self, CommandError> {
        let mut for_smtp_proto = b"MAIL FROM:<>".to_vec();
        let mut known = Self::default();
        let mut seen = Vec::new();
        for parameter in words(parameters, dialect).skip(1) {
            let keyword = keyword(parameter).ok_or(CommandError::Syntax(MAIL_SYNTAX))?;
            match keyword.as_str() {
                "SIZE" => known.size = octet_count(parameter, dialect)?.or(known.size),
                "RET" => once(&mut known.ret, parameter, Ret::parse)?,
                "ENVID" => once(&mut known.envelope_id, parameter, EnvelopeId::parse)?,
                // Who authenticated somewhere before (RFC 4954 section 5): nobody's word is taken for that here.
                "AUTH" if dialect == Dialect::Lenient || is_auth_identity(parameter) => {}
                "BODY" if is_body_type(parameter) => pass_on(parameter, &mut for_smtp_proto),
                "SMTPUTF8" if dialect == Dialect::Lenient || parameter.len() == keyword.len() => {
                    pass_on(b"SMTPUTF8", &mut for_smtp_proto);
                }
                "BODY" if dialect == Dialect::Lenient => {}
                "AUTH" | "BODY" | "SMTPUTF8" => return Err(wrong_value(parameter)),
                _ if dialect == Dialect::Lenient => {}
                _ => return Err(CommandError::ParameterUnknown(keyword)),
            }
            // RFC 1870 section 3, RFC 6152 section 2 and RFC 6531 section 3.4 each speak of one parameter.
            if dialect == Dialect::Strict && seen.contains(&keyword) {
                return Err(wrong_value(parameter));
            }
            seen.push(keyword);
        }
        for_smtp_proto.extend_from_slice(b"\r\n");
        let Ok(Request::Mail { from }) = Request::parse(&mut for_smtp_proto.iter()) else {
            return Err(wrong_value(parameters));
        };
        // Only BDAT can carry it (RFC 3030), and BDAT is not offered.
        if from.flags & MAIL_BODY_BINARYMIME != 0 {
            return Err(CommandError::ParameterValue("BODY=BINARYMIME".into()));
        }
        let body = if from.flags & MAIL_BODY_8BITMIME == 0 { BodyType::SevenBit } else { BodyType::EightBitMime };
        Ok(Self { body, smtputf8: from.flags & MAIL_SMTPUTF8 != 0, ..known })
    }
}

/// Reads what follows the path of RCPT into the recipient.
pub(crate) fn recipient_parameters(
    recipient: &mut Recipient,
    parameters: &[u8],
    dialect: Dialect,
) -> Result<(), CommandError> {
    for parameter in words(parameters, dialect).skip(1) {
        let keyword = keyword(parameter).ok_or(CommandError::Syntax(RCPT_SYNTAX))?;
        match keyword.as_str() {
            "NOTIFY" => once(&mut recipient.notify, parameter, Notify::parse)?,
            "ORCPT" => once(&mut recipient.original, parameter, OriginalRecipient::parse)?,
            _ if dialect == Dialect::Lenient => {}
            _ => return Err(CommandError::ParameterUnknown(keyword)),
        }
    }
    Ok(())
}

/// Words between blanks, the one before the first blank included. In strict two blanks have an empty one between them, which
/// is none of anything.
pub(crate) fn words(octets: &[u8], dialect: Dialect) -> impl Iterator<Item = &[u8]> {
    let (before, after) = octets.split_at(octets.iter().position(u8::is_ascii_whitespace).unwrap_or(octets.len()));
    let rest = after.split(u8::is_ascii_whitespace).skip(1);
    std::iter::once(before).chain(rest.filter(move |word| dialect == Dialect::Strict || !word.is_empty()))
}

fn pass_on(parameter: &[u8], line: &mut Vec<u8>) {
    line.push(b' ');
    line.extend_from_slice(parameter);
}

/// The value of a parameter that may be given once.
fn once<T>(
    known: &mut Option<T>,
    parameter: &[u8],
    parse: impl Fn(&str) -> Result<T, DsnError>,
) -> Result<(), CommandError> {
    let value = value(parameter).and_then(|value| std::str::from_utf8(value).ok());
    let parsed = value.and_then(|value| parse(value).ok()).ok_or_else(|| wrong_value(parameter))?;
    match known.replace(parsed) {
        None => Ok(()),
        Some(_) => Err(wrong_value(parameter)),
    }
}

/// The value of `SIZE=`: up to twenty digits (RFC 1870 section 4). More than fits is more than anybody takes. Only a hint,
/// so that lenient does without one that is no number; what comes is counted anyway.
fn octet_count(parameter: &[u8], dialect: Dialect) -> Result<Option<u64>, CommandError> {
    let digits = value(parameter).unwrap_or_default();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    match dialect {
        Dialect::Strict if !is_number || digits.len() > 20 => Err(wrong_value(parameter)),
        Dialect::Lenient if !is_number => Ok(None),
        _ => Ok(Some(String::from_utf8_lossy(digits).parse().unwrap_or(u64::MAX))),
    }
}

fn is_body_type(parameter: &[u8]) -> bool {
    let types = [&b"7BIT"[..], b"8BITMIME", b"BINARYMIME"];
    value(parameter).is_some_and(|value| types.iter().any(|known| value.eq_ignore_ascii_case(known)))
}

/// `<>`, or a mailbox in xtext (RFC 4954 section 5, RFC 3461 section 4).
fn is_auth_identity(parameter: &[u8]) -> bool {
    let value = value(parameter).unwrap_or_default();
    let is_upper_hex = |octet: &u8| octet.is_ascii_digit() || (b'A'..=b'F').contains(octet);
    let mut parts = value.split(|octet| *octet == b'+');
    let is_plain = |part: &[u8]| part.iter().all(|octet| octet.is_ascii_graphic() && *octet != b'=');
    value == b"<>"
        || !value.is_empty()
            && parts.next().is_some_and(is_plain)
            && parts.all(|part| {
                part.split_at_checked(2).is_some_and(|(hex, rest)| hex.iter().all(is_upper_hex) && is_plain(rest))
            })
}

fn value(parameter: &[u8]) -> Option<&[u8]> {
    parameter.iter().position(|octet| *octet == b'=').map(|at| &parameter[at + 1..])
}

/// In upper case. None if it is no `esmtp-keyword` (RFC 5321 section 4.1.2; underscores are seen in the wild): a second
/// address is not to be passed over as an unknown parameter.
fn keyword(parameter: &[u8]) -> Option<String> {
    let end = parameter.iter().position(|octet| *octet == b'=').unwrap_or(parameter.len());
    let is_keyword = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
    (end > 0 && parameter[..end].iter().all(is_keyword)).then(|| shown(&parameter[..end]).to_ascii_uppercase())
}

fn wrong_value(parameter: &[u8]) -> CommandError {
    CommandError::ParameterValue(shown(parameter))
}

/// For errors: bounded, and without what a terminal or a log would act on.
fn shown(octets: &[u8]) -> String {
    let text: Cow<'_, str> = String::from_utf8_lossy(octets);
    text.trim().chars().filter(|c| !is_acted_on(*c)).take(60).collect()
}
