//! An access token as the rest of the relay sees it: opaque octets with an expiry.
//!
//! It never looks inside (a token is meant for Exchange, not for us) and has no form in which it could reach a log.

use std::fmt;
use std::sync::Arc;

use clock::WallTime;
use zeroize::Zeroizing;

/// A bearer token that can stand in a SASL XOAUTH2 response. Cheap to clone; the octets are wiped when the last clone is
/// dropped. Debug shows the expiry only; there is no Display, and equality is identity ([`AccessToken::same`]).
#[derive(Clone)]
pub struct AccessToken {
    inner: Arc<Inner>,
}

struct Inner {
    octets: Zeroizing<String>,
    expires_at: WallTime,
    user: Option<String>,
}

/// Why a text is no access token. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Nothing between the quotes; an error reply read as success looks like this.
    #[error("the access token is empty")]
    Empty,
    /// An octet outside 0x21-0x7E. RFC 6750 section 2.1 knows none, and 0x01 would end the XOAUTH2 field early.
    #[error("the access token holds an octet that is not printable ASCII")]
    NotPrintable,
}

impl AccessToken {
    /// Takes over `text`, which is wiped when it is refused. Fails unless it is one or more octets of 0x21-0x7E.
    pub fn new(text: impl Into<Zeroizing<String>>, expires_at: WallTime) -> Result<Self, BadToken> {
        let octets = text.into();
        if octets.is_empty() {
            return Err(BadToken::Empty);
        }
        if !octets.bytes().all(|octet| octet.is_ascii_graphic()) {
            return Err(BadToken::NotPrintable);
        }
        Ok(Self { inner: Arc::new(Inner { octets, expires_at, user: None }) })
    }

    /// The token itself, for the one place that writes it into the XOAUTH2 response (and wipes its copy).
    pub fn expose(&self) -> &str {
        &self.inner.octets
    }

    /// When Entra ID says that it ends, counted from before the request was sent, so never too late.
    pub fn expires_at(&self) -> WallTime {
        self.inner.expires_at
    }

    /// The same as the token of a user whom upstream knows as `user`; another token than before.
    #[must_use]
    pub(crate) fn of_user(self, user: String) -> Self {
        let Inner { octets, expires_at, .. } = &*self.inner;
        Self { inner: Arc::new(Inner { octets: octets.clone(), expires_at: *expires_at, user: Some(user) }) }
    }

    /// The XOAUTH2 user that it was proven with at sign-in; none for an application's own token.
    pub fn user(&self) -> Option<&str> {
        self.inner.user.as_deref()
    }

    /// Whether both are clones of one fetched token. Two fetches differ even if the endpoint repeats itself.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("expires_at", &self.inner.expires_at.rfc3339()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(text: &str) -> Result<AccessToken, BadToken> {
        AccessToken::new(text.to_owned(), WallTime::from_unix_millis(0))
    }

    #[test]
    fn only_printable_ascii_is_a_token() {
        assert_eq!(new("eyJ0.e-_~+/=.x").unwrap().expose(), "eyJ0.e-_~+/=.x");
        assert_eq!(new("").unwrap_err(), BadToken::Empty);
        for bad in ["a\u{1}auth=Bearer b", "a b", "a\r\nRCPT", "a\0", "a\u{7f}", "tök", " a", "a\n"] {
            assert_eq!(new(bad).unwrap_err(), BadToken::NotPrintable, "{bad:?}");
        }
    }

    #[test]
    fn identity_is_the_fetch_not_the_text() {
        let token = new("same").unwrap();
        assert!(token.same(&token.clone()));
        assert!(!token.same(&new("same").unwrap()));
    }

    #[test]
    fn debug_shows_no_token() {
        let shown = format!("{:#?}", new("sesame-token").unwrap());
        assert!(shown.contains("1970-01-01") && !shown.contains("sesame"), "{shown}");
    }
}
