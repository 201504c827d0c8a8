//! The wire out at its API: a lane with a token source of the test's, and an upstream that plays a script over real TLS
//! on loopback. What single replies mean is `classify`'s own table; here is what needs a dialog.

// clippy's own exception sees only `#[test]` functions, not the helpers beside them.
#![allow(clippy::unwrap_used, reason = "these are tests")]
#![allow(clippy::large_futures, reason = "they hold upstream's sessions, which no daemon has")]

mod bounds;
mod idle;
mod live;
mod live_breaks;
mod live_turns;
mod login;
mod losses;
mod paths;
mod proxy;
mod road;
mod secrecy;
mod timeouts;
mod tls;
mod transfers;
mod trouble;
mod upstream;
