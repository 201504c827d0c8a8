//! What a client asks about delivery reports (RFC 3461): NOTIFY and ORCPT of a recipient, RET and ENVID of a message.
//!
//! Values are kept as written, in xtext, so that what is passed upstream is what came in; what they decode to holds no
//! control character, so that nothing breaks out of a report. The reports themselves are not here.

use crate::path::ForwardPath;
use std::fmt;

/// Longest ENVID (RFC 3461 section 4.4).
const MAX_ENVID_LEN: usize = 100;
/// Longest ORCPT (RFC 3461 section 4.2).
const MAX_ORCPT_LEN: usize = 500;

/// Why a value is not one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    /// NOTIFY is NEVER, or one or more of the others.
    #[error("NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY")]
    Notify,
    /// RET is one of two words.
    #[error("RET is FULL or HDRS")]
    Ret,
    /// Not xtext, too long, or of nothing.
    #[error("ENVID is xtext of 1 to 100 characters")]
    EnvelopeId,
    /// No type, not xtext, too long, or of nothing.
    #[error("ORCPT is an address type, a semicolon and xtext")]
    OriginalRecipient,
}

/// `NOTIFY=`: of what a recipient's sender wants to hear. All false is NEVER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify {
    /// That it arrived.
    pub success: bool,
    /// That it never will.
    pub failure: bool,
    /// That it is late.
    pub delay: bool,
}

impl Notify {
    /// Of nothing.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };
    /// What holds when a client says nothing (RFC 3461 section 4.1 leaves delays to the server).
    pub const UNSAID: Self = Self { success: false, failure: true, delay: true };

    /// Parses the value of `NOTIFY=`.
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        if text.eq_ignore_ascii_case("NEVER") {
            return Ok(Self::NEVER);
        }
        let mut notify = Self::NEVER;
        for word in text.split(',') {
            let wish = match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => &mut notify.success,
                "FAILURE" => &mut notify.failure,
                "DELAY" => &mut notify.delay,
                _ => return Err(DsnError::Notify),
            };
            *wish = true;
        }
        Ok(notify)
    }
}

/// As in the parameter.
impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wishes = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let words: Vec<_> = wishes.iter().filter(|(wanted, _)| *wanted).map(|(_, word)| *word).collect();
        f.write_str(&if words.is_empty() { "NEVER".to_owned() } else { words.join(",") })
    }
}

/// `RET=`: how much of the message a report of failure returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// All of it.
    Full,
    /// Its header.
    Headers,
}

impl Ret {
    /// Parses the value of `RET=`.
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        match text.to_ascii_uppercase().as_str() {
            "FULL" => Ok(Self::Full),
            "HDRS" => Ok(Self::Headers),
            _ => Err(DsnError::Ret),
        }
    }
}

/// As in the parameter.
impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        })
    }
}

/// `ENVID=`: the client's own name for the envelope, repeated in reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeId(String);

impl EnvelopeId {
    /// Parses the value of `ENVID=`.
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        match decode_xtext(text) {
            Some(_) if text.len() <= MAX_ENVID_LEN => Ok(Self(text.to_owned())),
            _ => Err(DsnError::EnvelopeId),
        }
    }

    /// What it stands for.
    pub fn decoded(&self) -> String {
        decode_xtext(&self.0).unwrap_or_default()
    }
}

/// In xtext, as written.
impl fmt::Display for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `ORCPT=`: the address that the client's own client gave, before any rewriting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRecipient(String);

impl OriginalRecipient {
    /// The address itself, for a recipient whose address is changed on its way (RFC 3461 section 5.2.1). None where it cannot
    /// be written so: beyond ASCII, or longer than ORCPT may be.
    pub fn of(path: &ForwardPath) -> Option<Self> {
        Self::parse(&format!("rfc822;{}", encode_xtext(&path.to_string())?)).ok()
    }

    /// Parses the value of `ORCPT=`: `rfc822;` or another type, then xtext.
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        let is_atom = |kind: &str| {
            !kind.is_empty() && kind.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.+".contains(&octet))
        };
        match text.split_once(';') {
            Some((kind, address))
                if text.len() <= MAX_ORCPT_LEN && is_atom(kind) && decode_xtext(address).is_some() =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(DsnError::OriginalRecipient),
        }
    }

    /// Type and decoded address, as a report names them: `rfc822;user@contoso.com`.
    pub fn decoded(&self) -> String {
        let (kind, address) = self.0.split_once(';').unwrap_or_default();
        format!("{kind};{}", decode_xtext(address).unwrap_or_default())
    }
}

/// In xtext, as written.
impl fmt::Display for OriginalRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// RFC 3461 section 4; none beyond ASCII.
fn encode_xtext(text: &str) -> Option<String> {
    let encoded = |octet: u8| match octet {
        b'+' | b'=' | b' ' => format!("+{octet:02X}"),
        octet => char::from(octet).to_string(),
    };
    text.is_ascii().then(|| text.bytes().map(encoded).collect())
}

/// RFC 3461 section 4: printable ASCII but `+` and `=`, and `+` with two upper-case hex digits for any other. None if it is
/// not that, is empty, or decodes to what is not printable ASCII.
fn decode_xtext(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let plain = match octet {
            b'+' => {
                let digits = [octets.next()?, octets.next()?];
                let is_hex = |digit: &u8| digit.is_ascii_digit() || (b'A'..=b'F').contains(digit);
                let text = std::str::from_utf8(&digits).ok().filter(|_| digits.iter().all(is_hex))?;
                u8::from_str_radix(text, 16).ok()?
            }
            b'=' => return None,
            octet if octet.is_ascii_graphic() => octet,
            _ => return None,
        };
        // Old clients put anything here; what would break a line of a report is no name of anything.
        if !(plain.is_ascii_graphic() || plain == b' ') {
            return None;
        }
        decoded.push(char::from(plain));
    }
    (!decoded.is_empty()).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn notify_reads_and_prints() {
        for (text, wanted) in [
            ("NEVER", Some("NEVER")),
            ("never", Some("NEVER")),
            ("delay,FAILURE", Some("FAILURE,DELAY")),
            ("SUCCESS,FAILURE,DELAY", Some("SUCCESS,FAILURE,DELAY")),
            ("", None),
            ("NEVER,FAILURE", None),
            ("FAILURE,", None),
            ("SOMETIMES", None),
        ] {
            assert_eq!(Notify::parse(text).ok().map(|notify| notify.to_string()).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn ret_reads_and_prints() {
        assert_eq!(Ret::parse("full").map(|ret| ret.to_string()).as_deref(), Ok("FULL"));
        assert_eq!(Ret::parse("HDRS"), Ok(Ret::Headers));
        assert_eq!(Ret::parse("BODY"), Err(DsnError::Ret));
    }

    #[test]
    fn xtext_never_decodes_to_another_line() {
        for (text, wanted) in [
            ("QQ314159", Some("QQ314159")),
            ("a+2Bb+3D", Some("a+b=")),
            ("two+20words", Some("two words")),
            ("a+0D+0Ab", None),
            ("a+2b", None),
            ("a+2", None),
            ("a=b", None),
            ("a b", None),
            ("+FF", None),
            ("", None),
        ] {
            assert_eq!(EnvelopeId::parse(text).ok().map(|id| id.decoded()).as_deref(), wanted, "{text}");
        }
        assert!(EnvelopeId::parse(&"a".repeat(101)).is_err());
    }

    #[test]
    fn an_original_recipient_has_a_type() {
        let known = OriginalRecipient::parse("rfc822;Bob+2Bx@contoso.com").unwrap();
        assert_eq!(known.decoded(), "rfc822;Bob+x@contoso.com");
        assert_eq!(known.to_string(), "rfc822;Bob+2Bx@contoso.com");
        for wrong in ["bob@contoso.com", ";bob", "rfc822;", "rf c;bob", "rfc822;a+0Ab"] {
            assert_eq!(OriginalRecipient::parse(wrong), Err(DsnError::OriginalRecipient), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_decodes_to_a_control_character(text in "[ -~+]{0,40}") {
            if let Ok(id) = EnvelopeId::parse(&text) {
                prop_assert!(!id.decoded().chars().any(char::is_control));
                prop_assert_eq!(EnvelopeId::parse(&id.to_string()), Ok(id));
            }
            if let Ok(original) = OriginalRecipient::parse(&text) {
                prop_assert!(!original.decoded().chars().any(char::is_control));
            }
        }
    }
}
