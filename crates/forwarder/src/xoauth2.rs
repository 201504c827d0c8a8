//! The XOAUTH2 initial response and what to answer to a challenge (Microsoft: authenticate an IMAP, POP or SMTP
//! application by using OAuth). Pure: the dialog's octets go through `connection.rs`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use wire::Reply;
use zeroize::Zeroizing;

/// Octets of base64 in a row that may be a piece of a token; names, session ids and addresses are shorter.
const SUSPICIOUS_RUN: usize = 32;
/// What stands for what is not shown.
const WITHHELD: &str = "(withheld)";

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

/// `text` of upstream's without the token: servers quote the command that they did not understand, and what they say
/// goes into logs (invariant 8). Anything that looks like a piece of a token goes with it.
pub(crate) fn without_secrets(text: &str, token: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for part in text.replace(token, WITHHELD).split_inclusive(|c| !is_base64(c)) {
        let run = part.trim_end_matches(|c| !is_base64(c));
        kept.push_str(if run.len() < SUSPICIOUS_RUN { run } else { WITHHELD });
        kept.push_str(&part[run.len()..]);
    }
    kept
}

/// A reply to AUTH, its text without the token.
pub(crate) fn reply_without_secrets(reply: &Reply, token: &str) -> Reply {
    let text = without_secrets(&reply.text(), token);
    match reply.enhanced() {
        Some(code) => Reply::new(reply.code(), (code.class, code.subject, code.detail), text),
        None => Reply::plain(reply.code(), vec![text.into()]),
    }
}

fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_')
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
    fn pieces_of_a_token_are_withheld_and_nothing_else() {
        let token = "eyJ0eXAi.abc";
        let coded = initial_response("a@b", "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9");
        for (said, shown) in [
            (
                "Authentication unsuccessful [BYAPR05CA0099.NAMPRD05.PROD.OUTLOOK.COM 2024-02-14T14:50:26.590Z 08DC2D0F2A6C4B1E]",
                "Authentication unsuccessful [BYAPR05CA0099.NAMPRD05.PROD.OUTLOOK.COM 2024-02-14T14:50:26.590Z 08DC2D0F2A6C4B1E]",
            ),
            ("Visit https://aka.ms/smtp_auth_disabled for more", "Visit https://aka.ms/smtp_auth_disabled for more"),
            ("bad token eyJ0eXAi.abc!", "bad token (withheld)!"),
            (&format!("no command '{}'", *coded), "no command '(withheld)'"),
            (&format!("no command AUTH XOAUTH2 {}", &coded[..40]), "no command AUTH XOAUTH2 (withheld)"),
            ("gr\u{fc}n", "gr\u{fc}n"),
        ] {
            assert_eq!(without_secrets(said, token), shown);
        }
    }

    #[test]
    fn challenges() {
        assert_eq!(answer(""), Answer::Response);
        assert_eq!(answer(" "), Answer::Response);
        assert_eq!(answer("eyJzdGF0dXMiOiI0MDAifQ=="), Answer::EmptyLine);
    }
}
