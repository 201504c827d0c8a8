//! The seam to whoever has tokens. This crate needs one for a login, and a fresh one when upstream rejects it; where
//! they come from is no concern of it.

use std::future::Future;

use clock::WallTime;

/// An access token, opaque.
pub trait BearerToken: Clone + Send + Sync + 'static {
    /// The token as it goes into XOAUTH2; never to be logged.
    fn expose(&self) -> &str;
    /// When it ends.
    fn expires_at(&self) -> WallTime;
}

/// Why there is no token now. The text is for the log and tells what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TokenTrouble(pub String);

/// Gives tokens for one tenant.
pub trait TokenSource: Send + Sync + 'static {
    /// What it gives.
    type Token: BearerToken;

    /// A valid token, at once when there is one.
    fn token(&self) -> impl Future<Output = Result<Self::Token, TokenTrouble>> + Send;

    /// Upstream rejected this token: another one, fetched anew unless that has happened already.
    fn replace(&self, rejected: &Self::Token) -> impl Future<Output = Result<Self::Token, TokenTrouble>> + Send;
}
