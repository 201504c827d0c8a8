//! The XOAUTH2 initial response and what to answer to a challenge (Microsoft: authenticate an IMAP, POP or SMTP
//! application by using OAuth). Pure: the dialog's octets go through `connection.rs`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// What the client says next in the dialog.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Upstream did not take the inline response (two-step form): the response, on a line of its own.
    Response,
    /// Upstream explains its refusal in a JSON challenge, as Gmail does: an empty line brings the 535.
    EmptyLine,
}

/// The base64 of `user=` login, 0x01, `auth=Bearer ` token, 0x01 0x01. Wiped when dropped.
pub(crate) fn initial_response(user: &str, token: &str) -> Zeroizing<String> {
    let plain = Zeroizing::new(format!("user={user}\x01auth=Bearer {token}\x01\x01"));
    Zeroizing::new(STANDARD.encode(plain.as_bytes()))
}

/// What to answer to a 334 with this text.
pub(crate) fn answer(challenge: &str) -> Answer {
    if challenge.trim().is_empty() { Answer::Response } else { Answer::EmptyLine }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microsofts_own_example() {
        assert_eq!(
            *initial_response("test@contoso.onmicrosoft.com", "EwBAAl3BAAUFFpUAo7J3Ve0bjLBWZWCclRC3EoAA"),
            "dXNlcj10ZXN0QGNvbnRvc28ub25taWNyb3NvZnQuY29tAWF1dGg9QmVhcmVyIEV3QkFBbDNCQUFVRkZwVUFvN0ozVmUwYmpMQldaV0NjbFJDM0VvQUEBAQ=="
        );
    }

    #[test]
    fn challenges() {
        assert_eq!(answer(""), Answer::Response);
        assert_eq!(answer(" "), Answer::Response);
        assert_eq!(answer("eyJzdGF0dXMiOiI0MDAifQ=="), Answer::EmptyLine);
    }
}
