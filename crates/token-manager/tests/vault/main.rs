//! The vault at its API, on real directories: what is stored comes back, and what is damaged is said.

// clippy's own exception sees only `#[test]` functions, not the helpers beside them.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod damage;
mod files;
mod keys;
mod room;
mod secrecy;
