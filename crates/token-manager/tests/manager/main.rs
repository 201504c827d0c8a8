//! The token manager at its API, against a strict token endpoint on loopback. Time is a manual clock; nothing sleeps.

// clippy's own exception sees only `#[test]` functions, not the helpers beside them.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod accounts;
mod answers;
mod budget;
mod delegated;
mod endpoint;
mod entra;
mod flights;
mod proxy;
mod refresh;
mod rotation;
mod secrecy;
mod world;
