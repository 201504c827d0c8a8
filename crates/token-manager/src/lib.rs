//! Entra ID access tokens for the relay: fetched at start, refreshed in the background long before they expire.
//!
//! One [`TokenManager`] serves one [`Application`] in one tenant. It knows nothing of mail, of configuration files or of
//! TLS: the relay gives it a credential, an HTTP client, a clock and a [`Ledger`]. Nothing here formats a secret, a token
//! or the body of a reply (design invariant 8), and no request leaves outside the [`Ledger`]'s budget.
//!
//! The road of a token: `schedule` says when, `ledger` whether (with `accounts` for whose sign-in serves many mailboxes), `credential` (with `rotation`, `certificate`, `assertion`,
//! `managed_identity`, and `kinship` for what mailboxes have in common) who we are, `holding` (with `vault`) by whose right;
//! `request` asks (with `form`, `http` and `reply`), `failure` and `advice` explain what went wrong, `state` holds what came of
//! it, `refresher` runs the loop and `manager` hands the token out. `sign_in` is how a right gets into the vault.

mod access_token;
mod accounts;
mod advice;
mod application;
mod assertion;
mod certificate;
mod credential;
mod expiry;
mod failure;
mod form;
mod holding;
mod http;
mod kinship;
mod ledger;
mod managed_identity;
mod manager;
mod refresher;
mod reply;
mod request;
mod rotation;
mod schedule;
mod secret;
mod sign_in;
mod state;
mod state_file;
mod status;
mod vault;
mod window;

pub use access_token::{AccessToken, BadToken};
pub use advice::code_advice;
pub use application::{Application, Endpoints, Grant};
pub use certificate::{Algorithm, BadCertificate, SigningCertificate};
pub use credential::Credential;
pub use expiry::Nearness;
pub use failure::{FailureClass, TokenFailure, TokenUnavailable};
pub use kinship::Kinship;
pub use ledger::{Ledger, MemoryLedger};
pub use managed_identity::ManagedIdentity;
pub use manager::TokenManager;
pub use secret::{Secret, SecretError, SecretSource};
pub use sign_in::{AuthorizationRequest, BadCallback, DeviceCode, DevicePrompt, SignIn, SignInError, SignedIn};
pub use status::{CredentialStatus, SignInStatus, TokenStatus};
pub use vault::{RefusedGrant, Stamp, StoredGrant, Vault, VaultError, VaultName};
pub use window::{REQUEST_LIMIT, REQUEST_PERIOD};
