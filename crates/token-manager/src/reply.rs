//! The JSON bodies of Entra ID's endpoints: a token, a device code, or an error. Shapes only; `request` judges them.
//!
//! Whatever is secret in them is wiped when dropped, and Debug shows nothing.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// Longest name of an account: an address has 254 octets at most.
const LONGEST_ACCOUNT: usize = 320;

/// A successful reply, RFC 6749 section 5.1 and facts 4.2.
#[derive(Deserialize)]
pub(crate) struct TokenReply {
    access_token: Zeroizing<String>,
    token_type: String,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
    #[serde(default, deserialize_with = "seconds")]
    refresh_in: Option<u64>,
    /// How long the token still counts while Entra ID is down, for resources that agreed to it; logged, never relied on.
    #[serde(default, deserialize_with = "seconds")]
    ext_expires_in: Option<u64>,
    #[serde(default)]
    refresh_token: Option<Zeroizing<String>>,
    /// OIDC Core section 2; asked for to learn who signed in.
    #[serde(default)]
    id_token: Option<Zeroizing<String>>,
}

impl TokenReply {
    pub(crate) fn is_bearer(&self) -> bool {
        self.token_type.eq_ignore_ascii_case("bearer")
    }

    pub(crate) fn lifetime(&self) -> Option<Duration> {
        self.expires_in.map(Duration::from_secs)
    }

    pub(crate) fn refresh_in(&self) -> Option<Duration> {
        self.refresh_in.map(Duration::from_secs)
    }

    pub(crate) fn extended_lifetime(&self) -> Option<Duration> {
        self.ext_expires_in.map(Duration::from_secs)
    }

    /// Who signed in, as the id token says. Its signature is not verified: it came from the token endpoint by TLS (OIDC
    /// Core section 3.1.3.7, point 6), and upstream decides who may log in.
    pub(crate) fn account(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Claims {
            preferred_username: Option<String>,
            upn: Option<String>,
            email: Option<String>,
        }
        let payload = self.id_token.as_ref()?.split('.').nth(1)?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let account = claims.preferred_username.or(claims.upn).or(claims.email)?;
        let is_name = !account.is_empty() && account.len() <= LONGEST_ACCOUNT && !account.chars().any(char::is_control);
        is_name.then_some(account)
    }

    /// Moves the refresh token out; none when there is none or an empty one.
    pub(crate) fn take_refresh_token(&mut self) -> Option<Zeroizing<String>> {
        self.refresh_token.take().filter(|token| !token.is_empty())
    }

    /// Moves the token out, so that no copy is left behind.
    pub(crate) fn into_token(self) -> Zeroizing<String> {
        self.access_token
    }
}

impl fmt::Debug for TokenReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenReply(..)")
    }
}

/// A device authorization response, RFC 8628 section 3.2.
#[derive(Deserialize)]
pub(crate) struct DeviceReply {
    pub(crate) device_code: Zeroizing<String>,
    pub(crate) user_code: String,
    /// Older drafts and some providers say `verification_url`.
    #[serde(alias = "verification_url")]
    pub(crate) verification_uri: String,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
    #[serde(default, deserialize_with = "seconds")]
    interval: Option<u64>,
}

impl DeviceReply {
    pub(crate) fn lifetime(&self) -> Option<Duration> {
        self.expires_in.map(Duration::from_secs)
    }

    pub(crate) fn interval(&self) -> Option<Duration> {
        self.interval.map(Duration::from_secs)
    }
}

impl fmt::Debug for DeviceReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceReply(..)")
    }
}

/// A number of seconds, or the same in quotes as managed identities give it (facts 4.4). Anything else is as if absent:
/// a strange hint must not cost a good token.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Seconds {
        Number(u64),
        Text(String),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Seconds::deserialize(deserializer)? {
        Seconds::Number(number) => Some(number),
        Seconds::Text(text) => text.parse().ok(),
        Seconds::Other(_) => None,
    })
}

/// An error reply, RFC 6749 section 5.2 and facts 4.6. Only `error` is sure to be there.
#[derive(Deserialize)]
pub(crate) struct ErrorReply {
    pub(crate) error: String,
    #[serde(default)]
    pub(crate) error_description: Option<String>,
    #[serde(default)]
    pub(crate) error_codes: Vec<u32>,
    #[serde(default)]
    pub(crate) trace_id: Option<String>,
    #[serde(default)]
    pub(crate) correlation_id: Option<String>,
    #[serde(default)]
    pub(crate) suberror: Option<String>,
    #[serde(default)]
    pub(crate) claims: Option<String>,
}

// What the network said goes through `request`'s filter, never through here.
impl fmt::Debug for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ErrorReply(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(json: &str) -> Result<TokenReply, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn seconds_come_in_many_shapes() {
        for (json, expected) in [
            ("3599", Some(3599)),
            ("\"3599\"", Some(3599)),
            ("null", None),
            ("-1", None),
            ("1.5", None),
            ("{}", None),
            ("\"soon\"", None),
        ] {
            let json = format!(r#"{{"token_type":"bearer","access_token":"t","expires_in":{json}}}"#);
            assert_eq!(reply(&json).unwrap().lifetime(), expected.map(Duration::from_secs), "{json}");
        }
        assert_eq!(reply(r#"{"token_type":"BEARER","access_token":"t"}"#).unwrap().lifetime(), None);
    }

    #[test]
    fn only_bearer_is_bearer() {
        assert!(reply(r#"{"token_type":"Bearer","access_token":"t"}"#).unwrap().is_bearer());
        assert!(!reply(r#"{"token_type":"pop","access_token":"t"}"#).unwrap().is_bearer());
        assert!(reply(r#"{"access_token":"t"}"#).is_err());
    }

    #[test]
    fn debug_shows_neither_token_nor_text() {
        let token = reply(r#"{"token_type":"Bearer","access_token":"sesame"}"#).unwrap();
        assert!(!format!("{token:?}").contains("sesame"));
        let error: ErrorReply = serde_json::from_str(r#"{"error":"sesame","error_description":"sesame"}"#).unwrap();
        assert!(!format!("{error:?}").contains("sesame"));
    }

    #[test]
    fn who_signed_in_is_read_from_the_id_token() {
        let account = |claims: &str| {
            let id_token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
            reply(&format!(r#"{{"token_type":"Bearer","access_token":"t","id_token":"{id_token}"}}"#))
                .unwrap()
                .account()
        };
        assert_eq!(account(r#"{"preferred_username":"a@b.example","email":"c@d.example"}"#).unwrap(), "a@b.example");
        assert_eq!(account(r#"{"email":"c@d.example"}"#).unwrap(), "c@d.example");
        for odd in ["{}", "x", r#"{"upn":""}"#, r#"{"upn":"a\u001b[31m"}"#, r#"{"upn":1}"#] {
            assert_eq!(account(odd), None, "{odd}");
        }
        assert_eq!(reply(r#"{"token_type":"Bearer","access_token":"t","id_token":"x"}"#).unwrap().account(), None);
    }
}
