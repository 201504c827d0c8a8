//! What XOAUTH2 carries (facts 1.3), and why Exchange refuses an AUTH although its reply rarely says so. Decoding only;
//! the token is checked in `token`, the mailbox in `directory`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::replies;

/// The true reason behind a refused AUTH. Exchange hides it behind `535 5.7.3`; the sandbox tells whoever runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum AuthRefusal {
    /// Not base64, or not `user=..^Aauth=Bearer ..^A^A`.
    #[error("the XOAUTH2 response is malformed")]
    Malformed,
    /// Not a token of this sandbox, or changed on the way.
    #[error("the token was not issued here")]
    ForeignToken,
    /// The token's time is over.
    #[error("the token has expired")]
    Expired,
    /// The token's time has not come; a clock is wrong.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A token for something else, as for Graph (facts 5.4).
    #[error("the token is for another audience than Exchange Online")]
    WrongAudience,
    /// No tenant has the mailbox that `user=` names.
    #[error("there is no such mailbox")]
    UnknownMailbox,
    /// The mailbox belongs to another tenant than the token.
    #[error("the token is of another tenant than the mailbox")]
    OtherTenant,
    /// The application is no longer in the tenant.
    #[error("the application is not in the tenant")]
    UnknownApplication,
    /// `Set-TransportConfig -SmtpClientAuthenticationDisabled $true`, and the mailbox inherits.
    #[error("SMTP AUTH is disabled for the tenant")]
    DisabledForTenant,
    /// `Set-CASMailbox -SmtpClientAuthenticationDisabled $true`.
    #[error("SMTP AUTH is disabled for the mailbox")]
    DisabledForMailbox,
    /// No grant of the path that the token's roles call for (facts 5).
    #[error("the mailbox is not granted to the application")]
    NotGranted,
    /// A user's token without the scope `SMTP.Send` (facts 4.1).
    #[error("the token has not the scope SMTP.Send")]
    NoScope,
    /// A token of a user who neither owns the mailbox nor has full access to it (facts 5.4).
    #[error("the token is of a user who may not open the mailbox")]
    NotTheUser,
    /// A delegate named the shared mailbox where the condition wants his own address ([`SharedLogin`](crate::SharedLogin)).
    #[error("the login names the shared mailbox and not its delegate")]
    NotTheDelegate,
    /// AUTH LOGIN with whatever password.
    #[error("basic authentication is disabled")]
    BasicDisabled,
    /// The client sent `*`; Exchange answers 535, not RFC 4954's 501 (facts 1.3).
    #[error("the client cancelled")]
    Cancelled,
    /// A [`Fault`](crate::Fault) answered.
    #[error("a fault was injected")]
    Injected,
}

impl AuthRefusal {
    /// The reply, without its suffix.
    pub(crate) fn reply(self) -> &'static str {
        match self {
            Self::DisabledForTenant => replies::TENANT_SWITCH,
            Self::DisabledForMailbox => replies::MAILBOX_SWITCH,
            Self::BasicDisabled => replies::BASIC_DISABLED,
            _ => replies::AUTH_FAILED,
        }
    }
}

/// The two parts of an XOAUTH2 response.
#[derive(PartialEq, Eq)]
pub(crate) struct Xoauth2 {
    pub(crate) user: String,
    pub(crate) token: String,
}

impl Xoauth2 {
    /// Decodes the base64 of `user=` user ^A `auth=Bearer ` token ^A ^A, to the letter.
    pub(crate) fn decode(response: &str) -> Result<Self, AuthRefusal> {
        let octets = STANDARD.decode(response).map_err(|_| AuthRefusal::Malformed)?;
        let text = String::from_utf8(octets).map_err(|_| AuthRefusal::Malformed)?;
        Self::split(&text).ok_or(AuthRefusal::Malformed)
    }

    fn split(text: &str) -> Option<Self> {
        let (user, rest) = text.strip_prefix("user=")?.split_once('\x01')?;
        let token = rest.strip_prefix("auth=Bearer ")?.strip_suffix("\x01\x01")?;
        let is_whole = !user.is_empty() && !token.is_empty() && !token.contains('\x01');
        is_whole.then(|| Self { user: user.to_owned(), token: token.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microsofts_vector_decodes() {
        let response = "dXNlcj10ZXN0QGNvbnRvc28ub25taWNyb3NvZnQuY29tAWF1dGg9QmVhcmVyIEV3QkFBbDNCQUFVRkZwVUFvN0ozVmUwYmpMQldaV0NjbFJDM0VvQUEBAQ==";
        let decoded = Xoauth2::decode(response).map_err(|_| ()).unwrap();
        assert_eq!(decoded.user, "test@contoso.onmicrosoft.com");
        assert_eq!(decoded.token, "EwBAAl3BAAUFFpUAo7J3Ve0bjLBWZWCclRC3EoAA");
    }

    #[test]
    fn anything_else_is_malformed() {
        for plain in [
            "",
            "user=a@b.c",
            "user=a@b.c\x01auth=Bearer t\x01",
            "user=a@b.c\x01auth=bearer t\x01\x01",
            "user=a@b.c\x01auth=Bearer \x01\x01",
            "user=\x01auth=Bearer t\x01\x01",
            "User=a@b.c\x01auth=Bearer t\x01\x01",
            "user=a@b.c\x01auth=Bearer t\x01\x01\x01",
            "user=a@b.c\x01auth=Bearer t\x01\x01\r\n",
        ] {
            assert!(Xoauth2::decode(&STANDARD.encode(plain)).is_err(), "{plain:?}");
        }
        let unpadded = STANDARD.encode("user=a@b.c\x01auth=Bearer toke\x01\x01");
        assert!(unpadded.ends_with('='));
        for encoded in ["=", "*", "a", unpadded.trim_end_matches('=')] {
            assert!(Xoauth2::decode(encoded).is_err(), "{encoded:?}");
        }
    }
}
