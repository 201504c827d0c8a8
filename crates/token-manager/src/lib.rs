//! Entra ID access tokens for the relay: fetched at start, refreshed in the background long before they expire.
//!
//! One [`TokenManager`] serves one [`Application`] in one tenant. It knows nothing of mail, of configuration files or of
//! TLS: the relay gives it a credential, an HTTP client, a clock and a [`Ledger`]. Nothing here formats a secret, a token
//! or the body of a reply (design invariant 8), and no request leaves outside the [`Ledger`]'s budget.
//!
//! The road of a token: `schedule` says when, `ledger` whether, `credential` with what, `request` asks, `failure` and
//! `advice` explain what went wrong, `state` holds what came of it, `manager` runs the loop.

mod access_token;
mod advice;
mod application;
mod failure;
mod http;
mod ledger;
mod manager;
mod reply;
mod request;
mod schedule;
mod secret;
mod state;
mod status;
mod window;

pub use access_token::{AccessToken, BadToken};
pub use application::{Application, Credential, Grant};
pub use failure::{FailureClass, TokenFailure, TokenUnavailable};
pub use ledger::Ledger;
pub use manager::TokenManager;
pub use secret::{Secret, SecretError, SecretSource};
pub use status::TokenStatus;
pub use window::{REQUEST_LIMIT, REQUEST_PERIOD};
