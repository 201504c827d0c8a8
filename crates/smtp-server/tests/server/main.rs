//! The wire in at its API: a real listener on loopback, an intake that writes down what reaches it, and clients that
//! play a dialog. Sequence and wording of single replies are the session's unit tests; here is what needs a socket.

// clippy's own exception sees only `#[test]` functions, not the helpers beside them.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod bodies;
mod client;
mod dialogs;
mod encryption;
mod holding;
mod intake;
mod leaving;
mod limits;
mod listener;
mod logins;
mod patient;
mod proxies;
mod renewing;
mod stopping;
