//! The token manager and its sign-ins against `oidc-provider`, a certified `OpenID` provider that nobody here wrote.
//!
//! Each test has one of its own on loopback. Without Node.js or the library it says so and passes, unless
//! `REQUIRE_REAL_PEERS=1` is set, as in CI. What is particular to Entra ID is not shown here: `manager` and the sandbox's
//! tests do.

// clippy's own exception sees only `#[test]` functions, not the helpers beside them.
#![allow(clippy::print_stderr, clippy::unwrap_used, reason = "these are tests")]

mod authorization;
mod browser;
mod credentials;
mod device;
mod provider;
mod refresh;
mod stored;
mod world;
