//! Why there is no token: the class that decides what the relay does, and the words for an administrator.
//!
//! The class comes from the HTTP status and the `error` word alone; Microsoft says that codes and texts may change
//! (facts 4.6). Nothing here holds a request, a reply body, a secret or a token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clock::WallTime;

/// What kind of trouble stands between the relay and a token. None of them refuses mail: all hold the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// Network, time-out, HTTP 408 or 5xx, `temporarily_unavailable`: passes by itself.
    Transient,
    /// HTTP 429: passes by itself, after `Retry-After` where one came.
    Throttled,
    /// The secret cannot be read or is refused (`invalid_client`): an administrator must act.
    Credential,
    /// Tenant, client id, scope or application is wrong: an administrator must act.
    Configuration,
    /// An administrator of the tenant must consent.
    Consent,
    /// The grant itself no longer holds (`invalid_grant`, `interaction_required`).
    Grant,
    /// A rule of the tenant forbids it (Conditional Access and the like).
    Policy,
    /// Not an answer of a token endpoint: a proxy's page, a redirect, an unreadable or useless reply.
    Unexpected,
}

impl FailureClass {
    /// The word that logs, metrics and `--json` use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::Credential => "credential",
            Self::Configuration => "configuration",
            Self::Consent => "consent",
            Self::Grant => "grant",
            Self::Policy => "policy",
            Self::Unexpected => "unexpected",
        }
    }

    /// Whether it ends without anybody doing anything here.
    pub const fn passes(self) -> bool {
        matches!(self, Self::Transient | Self::Throttled)
    }

    /// Whether it is said of the grant that was shown, so that a refresh token is of no more use until somebody signs in
    /// anew or an administrator mends it. An answer that says anything else never costs a refresh token.
    pub const fn is_about_the_grant(self) -> bool {
        matches!(self, Self::Grant | Self::Consent | Self::Policy)
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What in an answer decides its class.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Grounds<'a> {
    pub(crate) http_status: Option<u16>,
    pub(crate) error: Option<&'a str>,
    pub(crate) suberror: Option<&'a str>,
    /// A claims challenge came along: Conditional Access wants something that this grant cannot show.
    pub(crate) claims: bool,
}

/// The class of an answer. Without a status nothing came back at all.
pub(crate) fn classify(grounds: Grounds<'_>) -> FailureClass {
    match grounds.http_status {
        None | Some(408 | 500..=599) => return FailureClass::Transient,
        Some(429) => return FailureClass::Throttled,
        Some(_) => {}
    }
    match grounds.error.unwrap_or_default() {
        "temporarily_unavailable" | "server_error" => FailureClass::Transient,
        "invalid_client" => FailureClass::Credential,
        "unauthorized_client"
        | "invalid_request"
        | "invalid_scope"
        | "invalid_resource"
        | "invalid_target"
        | "unsupported_grant_type" => FailureClass::Configuration,
        "consent_required" => FailureClass::Consent,
        "access_denied" => FailureClass::Policy,
        "invalid_grant" | "interaction_required" | "login_required" => grant_class(grounds),
        _ => FailureClass::Unexpected,
    }
}

fn grant_class(grounds: Grounds<'_>) -> FailureClass {
    if grounds.suberror == Some("consent_required") {
        FailureClass::Consent
    } else if grounds.claims {
        FailureClass::Policy
    } else {
        FailureClass::Grant
    }
}

/// One failed try to get a token, in full, without anything secret. Texts from the network are one line of at most 500
/// characters, without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFailure {
    /// What kind of trouble it is.
    pub class: FailureClass,
    /// HTTP status of the answer; none when nothing, or not even a header, came back.
    pub http_status: Option<u16>,
    /// The `error` word of RFC 6749 section 5.2.
    pub error: Option<String>,
    /// AADSTS numbers (`error_codes`), at most 8.
    pub codes: Vec<u32>,
    /// Microsoft support asks for it.
    pub trace_id: Option<String>,
    /// Microsoft support asks for it.
    pub correlation_id: Option<String>,
    /// How long the endpoint asked us to wait.
    pub retry_after: Option<Duration>,
    /// What an administrator should do, in one line.
    pub advice: String,
    /// What happened, in one line.
    pub text: String,
}

impl TokenFailure {
    /// All that is known of it but its class, in one line.
    pub(crate) fn words(&self) -> String {
        let status = self.http_status.map(|status| format!("HTTP {status}"));
        let codes = self.codes.iter().map(|code| format!("AADSTS{code}"));
        let trace = self.trace_id.as_ref().map(|id| format!("trace {id}"));
        let correlation = self.correlation_id.as_ref().map(|id| format!("correlation {id}"));
        let known = std::iter::once(self.text.clone()).chain(status).chain(self.error.clone()).chain(codes);
        known.chain(trace).chain(correlation).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for TokenFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.words())
    }
}

impl std::error::Error for TokenFailure {}

/// Why a caller gets no token now. Mail waits; none of these is an answer to a client.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenUnavailable {
    /// The last try failed and the next one is not due yet.
    #[error("no token: {failure}; next try at {next}")]
    Failed {
        /// What went wrong.
        failure: Arc<TokenFailure>,
        /// When it is tried again.
        next: WallTime,
    },
    /// A request would exceed [`crate::REQUEST_LIMIT`] in [`crate::REQUEST_PERIOD`].
    #[error("no token: the budget of token requests is used up until {next}")]
    Budget {
        /// When the budget allows the next request.
        next: WallTime,
    },
    /// The manager was stopped.
    #[error("no token: the token manager has stopped")]
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass::*;

    #[test]
    fn class_table() {
        for (http_status, error, class) in [
            (None, None, Transient),
            (Some(408), None, Transient),
            (Some(500), None, Transient),
            (Some(503), Some("invalid_client"), Transient),
            (Some(599), None, Transient),
            (Some(429), None, Throttled),
            (Some(429), Some("invalid_client"), Throttled),
            (Some(400), Some("temporarily_unavailable"), Transient),
            (Some(400), Some("server_error"), Transient),
            (Some(401), Some("invalid_client"), Credential),
            (Some(400), Some("invalid_client"), Credential),
            (Some(400), Some("unauthorized_client"), Configuration),
            (Some(400), Some("invalid_request"), Configuration),
            (Some(400), Some("invalid_scope"), Configuration),
            (Some(400), Some("invalid_resource"), Configuration),
            (Some(400), Some("unsupported_grant_type"), Configuration),
            (Some(400), Some("consent_required"), Consent),
            (Some(400), Some("access_denied"), Policy),
            (Some(400), Some("invalid_grant"), Grant),
            (Some(400), Some("interaction_required"), Grant),
            (Some(200), Some("invalid_client"), Credential),
            (Some(200), None, Unexpected),
            (Some(302), None, Unexpected),
            (Some(403), None, Unexpected),
            (Some(404), None, Unexpected),
            (Some(400), Some("INVALID_CLIENT"), Unexpected),
        ] {
            let grounds = Grounds { http_status, error, ..Grounds::default() };
            assert_eq!(classify(grounds), class, "{grounds:?}");
        }
    }

    #[test]
    fn a_refused_grant_is_told_apart_by_suberror_and_claims() {
        let grounds = Grounds { http_status: Some(400), error: Some("invalid_grant"), ..Grounds::default() };
        assert_eq!(classify(Grounds { suberror: Some("consent_required"), ..grounds }), Consent);
        assert_eq!(classify(Grounds { suberror: Some("bad_token"), ..grounds }), Grant);
        assert_eq!(classify(Grounds { claims: true, ..grounds }), Policy);
    }
}
