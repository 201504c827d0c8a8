//! A mail transaction while it is being made: reverse-path, recipients and their parameters, and what Exchange refuses
//! already at MAIL and RCPT. What it decides only after the final dot is in `submission`.

use std::collections::HashMap;

use crate::command::{AddressFault, check_address, split_path};
use crate::mailstore::Recipient;
use crate::replies;

/// More envelope recipients of one domain than this in a message are answered with `452 4.5.3` (facts 1.6).
const SAME_DOMAIN_LIMIT: usize = 200;

/// A parameter of MAIL or RCPT as it was given, `NAME` or `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The keyword in upper case.
    pub name: String,
    /// The value as it was given.
    pub value: Option<String>,
}

/// Why a MAIL or RCPT is refused: the reply without its suffix.
pub(crate) type Refusal = &'static str;

/// The transaction that MAIL opened.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// Without brackets; empty for the null reverse-path.
    pub(crate) reverse_path: String,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) recipients: Vec<Recipient>,
    /// What SIZE announced.
    pub(crate) announced: u64,
    pub(crate) binary: bool,
    utf8: bool,
    by_domain: HashMap<String, usize>,
}

impl Transaction {
    /// Reads what follows `MAIL FROM:`.
    pub(crate) fn open(rest: &str) -> Result<Self, Refusal> {
        let (path, tail) = split_path(rest).ok_or(replies::INVALID_ARGUMENTS)?;
        let parameters = parameters(tail, is_mail_parameter).ok_or(replies::INVALID_ARGUMENTS)?;
        let utf8 = find(&parameters, "SMTPUTF8").is_some();
        if !path.is_empty() {
            check_address(path, utf8).map_err(|fault| refusal(fault, replies::SENDER_INVALID))?;
        }
        let announced = find(&parameters, "SIZE").map_or(0, size);
        if announced > replies::ADVERTISED_SIZE {
            return Err(replies::SIZE_EXCEEDED);
        }
        let binary = find(&parameters, "BODY").is_some_and(|body| body.eq_ignore_ascii_case("BINARYMIME"));
        Ok(Self {
            reverse_path: path.to_owned(),
            parameters,
            recipients: Vec::new(),
            announced,
            binary,
            utf8,
            by_domain: HashMap::new(),
        })
    }

    /// Reads what follows `RCPT TO:`. `is_unknown` tells whether the tenant knows that there is no such recipient.
    pub(crate) fn add_recipient(
        &mut self,
        rest: &str,
        limit: usize,
        is_unknown: impl FnOnce(&str) -> bool,
    ) -> Result<(), Refusal> {
        let (address, tail) = split_path(rest).ok_or(replies::INVALID_ARGUMENTS)?;
        let parameters = parameters(tail, is_rcpt_parameter).ok_or(replies::INVALID_ARGUMENTS)?;
        check_address(address, self.utf8).map_err(|fault| refusal(fault, replies::RECIPIENT_INVALID))?;
        if is_unknown(address) {
            return Err(replies::USER_UNKNOWN);
        }
        let domain = address.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        let same_domain = self.by_domain.entry(domain).or_default();
        if self.recipients.len() >= limit || *same_domain >= SAME_DOMAIN_LIMIT {
            return Err(replies::TOO_MANY_RECIPIENTS);
        }
        *same_domain += 1;
        self.recipients.push(Recipient { address: address.to_owned(), parameters });
        Ok(())
    }
}

fn refusal(fault: AddressFault, syntax: Refusal) -> Refusal {
    match fault {
        AddressFault::Syntax => syntax,
        AddressFault::NeedsSmtpUtf8 => replies::NEEDS_SMTPUTF8,
    }
}

fn find<'a>(parameters: &'a [Parameter], name: &str) -> Option<&'a str> {
    let parameter = parameters.iter().find(|parameter| parameter.name == name)?;
    Some(parameter.value.as_deref().unwrap_or_default())
}

/// A size too long for 64 bits is larger than anything.
fn size(digits: &str) -> u64 {
    digits.parse().unwrap_or(u64::MAX)
}

/// Parses ` NAME=VALUE NAME ...`; `None` if one is malformed, doubled or not allowed here.
fn parameters(tail: &str, is_allowed: fn(&str, Option<&str>) -> bool) -> Option<Vec<Parameter>> {
    let tail = tail.trim_end();
    let mut found: Vec<Parameter> = Vec::new();
    if tail.is_empty() {
        return Some(found);
    }
    for word in tail.strip_prefix(' ')?.split(' ') {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_ascii_uppercase(), Some(value)),
            None => (word.to_ascii_uppercase(), None),
        };
        if !is_allowed(&name, value) || found.iter().any(|earlier| earlier.name == name) {
            return None;
        }
        found.push(Parameter { name, value: value.map(str::to_owned) });
    }
    Some(found)
}

/// The parameters of the extensions that EHLO advertises: RFC 1870, 6152, 3030, 3461, 6531, 4954.
fn is_mail_parameter(name: &str, value: Option<&str>) -> bool {
    match (name, value) {
        ("SIZE", Some(digits)) => !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit()),
        ("BODY", Some(body)) => is_one_of(body, &["7BIT", "8BITMIME", "BINARYMIME"]),
        ("RET", Some(ret)) => is_one_of(ret, &["FULL", "HDRS"]),
        // RFC 3461 section 4.4: at most 100 characters.
        ("ENVID", Some(id)) => id.len() <= 100 && is_xtext(id),
        ("AUTH", Some(path)) => is_xtext(path),
        ("SMTPUTF8", None) => true,
        _ => false,
    }
}

fn is_rcpt_parameter(name: &str, value: Option<&str>) -> bool {
    match (name, value) {
        ("NOTIFY", Some(list)) => {
            list.eq_ignore_ascii_case("NEVER")
                || list.split(',').all(|word| is_one_of(word, &["SUCCESS", "FAILURE", "DELAY"]))
        }
        // RFC 3461 section 4.2: at most 500 characters.
        ("ORCPT", Some(value)) => value.len() <= 500 && value.split_once(';').is_some_and(|(_, text)| is_xtext(text)),
        _ => false,
    }
}

fn is_one_of(value: &str, words: &[&str]) -> bool {
    words.iter().any(|word| word.eq_ignore_ascii_case(value))
}

/// RFC 3461 section 4: printable, without `=`, and `+` only before two upper-case hexadecimal digits.
fn is_xtext(text: &str) -> bool {
    let mut octets = text.bytes();
    let hex = |octet: Option<u8>| matches!(octet, Some(b'0'..=b'9' | b'A'..=b'F'));
    while let Some(octet) = octets.next() {
        let good = match octet {
            b'+' => hex(octets.next()) && hex(octets.next()),
            b'=' => false,
            // RFC 6533 lets utf-8-addr-xtext carry octets above ASCII.
            _ => octet.is_ascii_graphic() || !octet.is_ascii(),
        };
        if !good {
            return false;
        }
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_is_read_strictly() {
        let table: &[(&str, Option<Refusal>)] = &[
            ("<>", None),
            ("<a@b.c>", None),
            ("<a@b.c> SIZE=157286400 BODY=8BITMIME RET=HDRS ENVID=x+2B SMTPUTF8 AUTH=<>", None),
            ("<a@b.c> SIZE=157286401", Some(replies::SIZE_EXCEEDED)),
            ("<a@b.c> SIZE=99999999999999999999999999", Some(replies::SIZE_EXCEEDED)),
            ("<a@b.c> SIZE=", Some(replies::INVALID_ARGUMENTS)),
            ("<a@b.c> SIZE=1 SIZE=1", Some(replies::INVALID_ARGUMENTS)),
            ("<a@b.c> ENVID=a+0", Some(replies::INVALID_ARGUMENTS)),
            ("<a@b.c> FOO=1", Some(replies::INVALID_ARGUMENTS)),
            ("<a@b.c>SIZE=1", Some(replies::INVALID_ARGUMENTS)),
            ("<a@b.c>  SIZE=1", Some(replies::INVALID_ARGUMENTS)),
            ("a@b.c", Some(replies::INVALID_ARGUMENTS)),
            ("<a>", Some(replies::SENDER_INVALID)),
            ("<gr\u{fc}n@b.c>", Some(replies::NEEDS_SMTPUTF8)),
            ("<gr\u{fc}n@b.c> SMTPUTF8", None),
        ];
        for &(rest, expected) in table {
            assert_eq!(Transaction::open(rest).err(), expected, "{rest}");
        }
    }

    #[test]
    fn rcpt_is_read_strictly_and_counted_by_domain() {
        let mut transaction = Transaction::open("<a@b.c>").unwrap();
        let mut add = |rest: &str| transaction.add_recipient(rest, 300, |address| address == "unknown@b.c").err();
        assert_eq!(add("<x@y.z> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;x@y.z"), None);
        assert_eq!(add("<x@y.z> NOTIFY=NEVER,FAILURE"), Some(replies::INVALID_ARGUMENTS));
        assert_eq!(add("<>"), Some(replies::RECIPIENT_INVALID));
        assert_eq!(add("<unknown@b.c>"), Some(replies::USER_UNKNOWN));
        for i in 0..200 {
            assert_eq!(add(&format!("<{i}@many.example>")), None);
        }
        assert_eq!(add("<200@MANY.example>"), Some(replies::TOO_MANY_RECIPIENTS));
        for i in 0..99 {
            assert_eq!(add(&format!("<{i}@other.example>")), None);
        }
        assert_eq!(add("<last@another.example>"), Some(replies::TOO_MANY_RECIPIENTS));
        assert_eq!(transaction.recipients.len(), 300);
    }
}
