//! The two JSON bodies of Entra ID's token endpoint: a token, or an error. Shapes only; `request` judges them.
//!
//! Own types instead of `oauth2`'s standard ones: its `StandardTokenResponse` gives no way to move the token out, so that
//! a copy would stay in memory unwiped, and its standard error knows neither codes nor trace ids.

use std::fmt;
use std::time::Duration;

use oauth2::basic::BasicTokenType;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

/// A successful reply, RFC 6749 section 5.1 and facts 4.2. Its Debug is redacted by `oauth2`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct TokenReply {
    access_token: oauth2::AccessToken,
    #[serde(deserialize_with = "oauth2::helpers::deserialize_untagged_enum_case_insensitive")]
    token_type: BasicTokenType,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
    #[serde(default, deserialize_with = "seconds")]
    refresh_in: Option<u64>,
    /// How long the token still counts while Entra ID is down, for resources that agreed to it; logged, never relied on.
    #[serde(default, deserialize_with = "seconds")]
    ext_expires_in: Option<u64>,
}

impl TokenReply {
    pub(crate) fn is_bearer(&self) -> bool {
        self.token_type == BasicTokenType::Bearer
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

    /// Moves the token out, so that no copy is left behind.
    pub(crate) fn into_token(self) -> Zeroizing<String> {
        Zeroizing::new(self.access_token.into_secret())
    }
}

impl oauth2::TokenResponse for TokenReply {
    type TokenType = BasicTokenType;

    fn access_token(&self) -> &oauth2::AccessToken {
        &self.access_token
    }

    fn token_type(&self) -> &BasicTokenType {
        &self.token_type
    }

    fn expires_in(&self) -> Option<Duration> {
        self.lifetime()
    }

    fn refresh_token(&self) -> Option<&oauth2::RefreshToken> {
        None
    }

    fn scopes(&self) -> Option<&Vec<oauth2::Scope>> {
        None
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
#[derive(Deserialize, Serialize)]
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

// `oauth2` wants both; neither repeats what the network said, for that goes through `request`'s filter.
impl fmt::Debug for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ErrorReply(..)")
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("error reply of the token endpoint")
    }
}

impl oauth2::ErrorResponse for ErrorReply {}

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
        assert!(!format!("{error:?}{error}").contains("sesame"));
    }
}
