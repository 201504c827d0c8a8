//! The sandbox as its clients see it: real sockets, STARTTLS, HTTPS. Nothing here sleeps; time is a manual clock, and
//! waiting is for conditions.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod assertions;
mod auth;
mod conditions;
mod entra;
mod faults;
mod greeting;
mod imds;
mod limits;
mod orders;
mod replies;
mod senders;
mod sign_ins;
mod submission;
mod support;
