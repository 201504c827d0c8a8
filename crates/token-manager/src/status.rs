//! What an operator sees of a token: times and reasons, no token.

use std::sync::Arc;

use clock::WallTime;

use crate::failure::TokenFailure;

/// The token of one tenant as of the last event. Everything in it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenStatus {
    /// The tenant's name in the configuration.
    pub tenant: String,
    /// When the last token ends or ended; none before the first.
    pub expires_at: Option<WallTime>,
    /// When the last token came.
    pub last_success: Option<WallTime>,
    /// When and why a try failed last; kept after a success.
    pub last_failure: Option<(WallTime, Arc<TokenFailure>)>,
    /// Failed tries since the last token.
    pub failures: u32,
    /// Whether a request is under way.
    pub fetching: bool,
    /// When the next request is due.
    pub next_attempt: WallTime,
}
