//! The errors of Entra's endpoints in their exact form (facts 4.6). Codes and words that several grants share are made
//! here; the others where they are given.

use clock::WallTime;
use serde::Serialize;

use crate::fault::TokenFault;
use crate::token::guid;

/// An error of the endpoint (facts 4.6).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EntraError {
    pub(crate) status: u16,
    pub(crate) error: String,
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) retry_after: Option<u32>,
}

impl EntraError {
    pub(crate) fn new(status: u16, error: &str, code: u32, message: impl Into<String>) -> Self {
        Self { status, error: error.to_owned(), code, message: message.into(), retry_after: None }
    }

    pub(super) fn missing(parameter: &str) -> Self {
        let text = format!("The request body must contain the following parameter: '{parameter}'.");
        Self::new(400, "invalid_request", 900_144, text)
    }

    /// `invalid_client`.
    pub(super) fn client(code: u32, message: impl Into<String>) -> Self {
        Self::new(401, "invalid_client", code, message)
    }

    /// `invalid_grant`.
    pub(super) fn grant(code: u32, message: impl Into<String>) -> Self {
        Self::new(400, "invalid_grant", code, message)
    }

    pub(super) fn malformed() -> Self {
        Self::new(400, "invalid_request", 90_023, "The authentication service request isn't valid.")
    }

    /// What Entra calls a code or refresh token that it cannot read, or that is another client's.
    pub(super) fn unreadable_grant() -> Self {
        Self::grant(9_002_313, "Invalid request. Request is malformed or invalid.")
    }

    pub(super) fn unknown_user(user: &str, tenant: &str) -> Self {
        let text = format!("The user account '{user}' does not exist in the directory '{tenant}'.");
        Self::grant(50_034, text)
    }

    pub(super) fn unknown_application(client_id: &str, tenant: &str) -> Self {
        let text = format!(
            "Application with identifier '{client_id}' was not found in the directory '{tenant}'. This can happen if \
             the application has not been installed by the administrator of the tenant or consented to by any user in \
             the tenant. You may have sent your authentication request to the wrong tenant."
        );
        Self::new(400, "unauthorized_client", 700_016, text)
    }

    pub(super) fn bad_scope(scope: &str) -> Self {
        let text = format!(
            "The provided request must include a 'scope' input parameter. The provided value for the input parameter \
             'scope' is not valid. The scope {scope} is not valid."
        );
        Self::new(400, "invalid_scope", 70_011, text)
    }

    /// `AADSTSnnnn: ...`, without the lines that only the JSON has.
    pub(crate) fn description(&self) -> String {
        format!("AADSTS{}: {}", self.code, self.message)
    }

    /// The JSON body, with fresh trace and correlation ids.
    pub(crate) fn json(&self, now: WallTime) -> Vec<u8> {
        let (trace, correlation, time) = (guid(), guid(), entra_time(now));
        let description = format!(
            "{}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {time}",
            self.description()
        );
        let body = ErrorBody {
            error: &self.error,
            error_description: description,
            error_codes: [self.code],
            timestamp: time,
            trace_id: trace,
            correlation_id: correlation,
            error_uri: format!("https://login.microsoftonline.com/error?code={}", self.code),
        };
        serde_json::to_vec(&body).expect("a struct of strings and integers always serialises")
    }
}

impl From<TokenFault> for EntraError {
    fn from(fault: TokenFault) -> Self {
        let TokenFault { status, error, code, message, retry_after } = fault;
        Self { status, error, code, message, retry_after }
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    error_description: String,
    error_codes: [u32; 1],
    timestamp: String,
    trace_id: String,
    correlation_id: String,
    error_uri: String,
}

/// `2026-11-21 08:34:00Z`, Entra's own form.
fn entra_time(now: WallTime) -> String {
    let time = now.rfc3339();
    let (date, time) = time.split_once('T').unwrap_or((&time, ""));
    format!("{date} {}Z", time.split('.').next().unwrap_or_default())
}
