//! AUTH's exchanges (RFC 4954, RFC 4616, and the LOGIN that every device speaks) as pure state: a response goes in, the
//! next challenge or the credentials come out. Whether those are right is the intake's question.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use mail::is_acted_on;
use zeroize::Zeroizing;

/// The mechanisms offered, in the order of EHLO's line: devices take the first they know.
pub(crate) const MECHANISMS: &str = "PLAIN LOGIN";
/// Longest name, in octets: an address at its longest.
const MAX_NAME_LEN: usize = 320;

/// Devices leave out the padding, or write it where none belongs.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What a client logs in with, not verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who it says it is: one to 320 octets of UTF-8 that no log or terminal acts on.
    pub name: String,
    /// Any octets; wiped when dropped.
    pub password: Zeroizing<Vec<u8>>,
}

/// The name alone.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with a password", self.name)
    }
}

/// An exchange under way: what the next response must be. Its Debug shows no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// PLAIN, after an empty challenge.
    Plain,
    /// LOGIN, after `Username:`.
    LoginName,
    /// LOGIN, after `Password:`.
    LoginPassword {
        /// What the client answered before.
        name: String,
    },
}

/// What follows from a response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another challenge: the text in base64, as it stands behind 334.
    Challenge(Exchange),
    /// The exchange is over.
    Done(Credentials),
}

/// Why an exchange ends without credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// A mechanism that is not offered.
    #[error("the mechanism is not offered")]
    Mechanism,
    /// `*` (RFC 4954 section 4).
    #[error("the client cancelled")]
    Cancelled,
    /// Not base64, no name in it, or a name that is none.
    #[error("the response is not one of this mechanism")]
    Response,
    /// PLAIN asks to act for somebody else.
    #[error("nobody acts for somebody else here")]
    OnBehalf,
}

/// Begins an exchange: `AUTH mechanism [initial-response]`.
pub(crate) fn begin(mechanism: &str, initial_response: Option<&[u8]>) -> Result<Next, ExchangeError> {
    let exchange = match mechanism {
        "PLAIN" => Exchange::Plain,
        "LOGIN" => Exchange::LoginName,
        _ => return Err(ExchangeError::Mechanism),
    };
    match initial_response {
        // `=` is an empty response (RFC 4954 section 4): nobody has an empty name, so the device is asked for it.
        None | Some(b"=") => Ok(Next::Challenge(exchange)),
        Some(response) => exchange.respond(response),
    }
}

impl Exchange {
    /// What stands behind 334, in base64. Devices compare LOGIN's two prompts to the letter.
    pub(crate) fn challenge(&self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::LoginName => "VXNlcm5hbWU6",
            Self::LoginPassword { .. } => "UGFzc3dvcmQ6",
        }
    }

    /// Takes the client's response: a line without its end.
    pub(crate) fn respond(self, line: &[u8]) -> Result<Next, ExchangeError> {
        let line = line.trim_ascii();
        if line == b"*" {
            return Err(ExchangeError::Cancelled);
        }
        let response = Zeroizing::new(BASE64.decode(line).map_err(|_| ExchangeError::Response)?);
        match self {
            Self::Plain => plain(&response).map(Next::Done),
            // Some devices send their field's whole width, filled with blanks or NUL.
            Self::LoginName => {
                let end = response.iter().rposition(|octet| *octet != 0 && !octet.is_ascii_whitespace());
                let name = name(response[..end.map_or(0, |last| last + 1)].trim_ascii_start())?;
                Ok(Next::Challenge(Self::LoginPassword { name }))
            }
            Self::LoginPassword { name } => Ok(Next::Done(Credentials { name, password: response })),
        }
    }
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 section 2).
fn plain(message: &[u8]) -> Result<Credentials, ExchangeError> {
    let mut fields = message.splitn(3, |octet| *octet == 0);
    let (Some(authorization), Some(authentication), Some(password)) = (fields.next(), fields.next(), fields.next())
    else {
        return Err(ExchangeError::Response);
    };
    if !authorization.is_empty() && authorization != authentication {
        return Err(ExchangeError::OnBehalf);
    }
    Ok(Credentials { name: name(authentication)?, password: Zeroizing::new(password.to_vec()) })
}

fn name(octets: &[u8]) -> Result<String, ExchangeError> {
    let text = std::str::from_utf8(octets).map_err(|_| ExchangeError::Response)?;
    let right = !text.is_empty() && text.len() <= MAX_NAME_LEN && !text.chars().any(is_acted_on);
    if right { Ok(text.to_owned()) } else { Err(ExchangeError::Response) }
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;

    use super::*;

    /// What becomes of an exchange; the responses are given as they are before base64.
    fn play(mechanism: &str, initial: Option<&str>, responses: &[&str]) -> Result<Next, ExchangeError> {
        let encode = |text: &str| BASE64_STANDARD.encode(text).into_bytes();
        let mut next = begin(mechanism, initial.map(encode).as_deref())?;
        for response in responses {
            let Next::Challenge(exchange) = next else { panic!("nothing was asked") };
            next = exchange.respond(&encode(response))?;
        }
        Ok(next)
    }

    fn done(name: &str, password: &str) -> Next {
        Next::Done(Credentials { name: name.into(), password: password.as_bytes().to_vec().into() })
    }

    #[test]
    fn exchanges() {
        for (mechanism, initial, responses, outcome) in [
            ("PLAIN", Some("\0erp\0secret"), &[][..], Ok(done("erp", "secret"))),
            ("PLAIN", None, &["\0erp\0secret"], Ok(done("erp", "secret"))),
            ("PLAIN", Some("erp\0erp\0secret"), &[], Ok(done("erp", "secret"))),
            // A password may hold anything but the end of the line.
            ("PLAIN", Some("\0erp\0se\0cret "), &[], Ok(done("erp", "se\0cret "))),
            ("PLAIN", Some("\0erp\0"), &[], Ok(done("erp", ""))),
            ("PLAIN", Some("admin\0erp\0secret"), &[], Err(ExchangeError::OnBehalf)),
            ("PLAIN", Some("erp\0secret"), &[], Err(ExchangeError::Response)),
            ("PLAIN", Some("\0\0secret"), &[], Err(ExchangeError::Response)),
            ("PLAIN", Some("\0e\r\nrp\0secret"), &[], Err(ExchangeError::Response)),
            ("LOGIN", None, &["erp", "secret"], Ok(done("erp", "secret"))),
            ("LOGIN", Some("erp"), &["secret"], Ok(done("erp", "secret"))),
            ("LOGIN", None, &["erp@contoso.com  ", "secret "], Ok(done("erp@contoso.com", "secret "))),
            ("LOGIN", None, &["erp\0\0 ", ""], Ok(done("erp", ""))),
            ("LOGIN", None, &[""], Err(ExchangeError::Response)),
            ("LOGIN", None, &["e\0rp"], Err(ExchangeError::Response)),
            ("CRAM-MD5", None, &[], Err(ExchangeError::Mechanism)),
            ("XOAUTH2", Some("user=x"), &[], Err(ExchangeError::Mechanism)),
        ] {
            assert_eq!(play(mechanism, initial, responses), outcome, "{mechanism} {initial:?} {responses:?}");
        }
    }

    #[test]
    fn what_stands_on_the_line_may_be_odd() {
        let name = |next: Result<Next, ExchangeError>| match next {
            Ok(Next::Challenge(Exchange::LoginPassword { name })) => Ok(name),
            Ok(next) => panic!("{next:?}"),
            Err(error) => Err(error),
        };
        for (line, expected) in [
            (&b"ZXJw"[..], Ok("erp".to_owned())),
            // "erp0" without its padding, with blanks around it, and with bits that say nothing.
            (b"ZXJwMA==", Ok("erp0".into())),
            (b"ZXJwMA", Ok("erp0".into())),
            (b" ZXJwMA== ", Ok("erp0".into())),
            (b"ZXJwMB==", Ok("erp0".into())),
            (b"*", Err(ExchangeError::Cancelled)),
            (b"erp!", Err(ExchangeError::Response)),
            (b"", Err(ExchangeError::Response)),
            (b"/w==", Err(ExchangeError::Response)),
        ] {
            assert_eq!(name(Exchange::LoginName.respond(line)), expected, "{:?}", String::from_utf8_lossy(line));
        }
        // RFC 4954 section 4: `=` is an empty initial response.
        assert_eq!(begin("LOGIN", Some(b"=")), Ok(Next::Challenge(Exchange::LoginName)));
    }

    #[test]
    fn the_prompts_of_login_are_the_ones_that_devices_wait_for() {
        let decoded = |exchange: &Exchange| String::from_utf8(BASE64_STANDARD.decode(exchange.challenge()).unwrap());
        assert_eq!(decoded(&Exchange::LoginName).unwrap(), "Username:");
        assert_eq!(decoded(&Exchange::LoginPassword { name: String::new() }).unwrap(), "Password:");
    }

    #[test]
    fn nothing_shows_a_password() {
        let Ok(Next::Done(credentials)) = play("PLAIN", Some("\0erp\0secret"), &[]) else { panic!("no credentials") };
        assert_eq!(format!("{credentials:?}"), "\"erp\" with a password");
    }

    proptest! {
        #[test]
        fn a_name_that_comes_out_ends_no_line_of_a_log(octets: Vec<u8>) {
            let line = BASE64_STANDARD.encode(&octets).into_bytes();
            for exchange in [Exchange::Plain, Exchange::LoginName] {
                let name = match exchange.respond(&line) {
                    Ok(Next::Challenge(Exchange::LoginPassword { name }) | Next::Done(Credentials { name, .. })) => name,
                    Ok(Next::Challenge(_)) | Err(_) => continue,
                };
                prop_assert!(!name.is_empty() && !name.chars().any(char::is_control));
            }
        }
    }
}
