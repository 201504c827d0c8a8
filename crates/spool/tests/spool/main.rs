//! The spool as its users see it: real files, real threads, no sleeping. One binary, a module a concern.

// Clippy knows `unwrap` to be a test's own only inside test functions; these are their helpers.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod claiming;
mod damage;
mod durability;
mod harness;
mod limits;
mod listing;
mod migrating;
mod model;
mod opening;
mod passing;
mod rerouting;
mod settling;
