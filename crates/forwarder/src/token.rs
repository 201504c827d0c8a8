//! The seam to whoever has tokens. This crate needs one for a login, and a fresh one when upstream rejects it; where
//! they come from is no concern of it.

use std::future::Future;

use clock::WallTime;
use mail::Scope;

/// An access token, opaque.
pub trait BearerToken: Clone + Send + Sync + 'static {
    /// The token as it goes into XOAUTH2; never to be logged.
    fn expose(&self) -> &str;
    /// When it ends.
    fn expires_at(&self) -> WallTime;
    /// The XOAUTH2 user that it is good for, where that is not the lane's login.
    fn user(&self) -> Option<&str>;
}

/// Why there is no token now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct TokenTrouble {
    /// For the log; it tells what to do.
    pub text: String,
    /// Whom it is about: the tenant, whose token all its mailboxes share, or one mailbox that a user signed in for.
    pub scope: Scope,
}

/// Gives tokens for one tenant, or for one mailbox of it.
pub trait TokenSource: Send + Sync + 'static {
    /// What it gives.
    type Token: BearerToken;

    /// A valid token, at once when there is one.
    fn token(&self) -> impl Future<Output = Result<Self::Token, TokenTrouble>> + Send;

    /// Upstream rejected this token: another one, fetched anew unless that has happened already.
    fn replace(&self, rejected: &Self::Token) -> impl Future<Output = Result<Self::Token, TokenTrouble>> + Send;
}
