//! What an operator sees of a token: times and reasons, no token.

use std::sync::Arc;

use clock::WallTime;

use crate::failure::TokenFailure;

/// The token of one tenant, or of one mailbox that somebody signed in for, as of the last event. Everything in it may be
/// shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenStatus {
    /// The tenant's name in the configuration.
    pub tenant: String,
    /// The mailbox's name in the configuration, where a user signed in for it; none for an application's own token.
    pub mailbox: Option<String>,
    /// What the application proves itself with.
    pub credential: CredentialStatus,
    /// The sign-in; none for an application's own token, and where nobody has signed in.
    pub sign_in: Option<SignInStatus>,
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

/// What an application proves itself with, as of the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialStatus {
    /// What it is and where it stands.
    pub description: String,
    /// When it ends: a certificate's own date, or what an administrator wrote of a secret; none when nobody knows.
    pub ends_at: Option<WallTime>,
    /// What is wrong with what stands there now, while the one before it goes on.
    pub trouble: Option<String>,
}

/// A user's sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInStatus {
    /// Who signed in, where the endpoint said so.
    pub account: Option<String>,
    /// The XOAUTH2 user that upstream took.
    pub user: String,
    /// When somebody signed in.
    pub signed_in_at: WallTime,
    /// When the refresh token came that is held now.
    pub renewed_at: WallTime,
    /// When it ends if it is not renewed.
    pub ends_at: WallTime,
    /// Since when, and why, the endpoint does not take it; none when it does.
    pub refused: Option<(WallTime, String)>,
}
