//! End-to-end tests: the real binary against the simulated Microsoft 365, over real sockets, disks and signals.
//!
//! One behaviour a test. What needs a program that is not installed says so in one line and passes, unless
//! `REQUIRE_REAL_PEERS=1` is set, as in CI.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

mod campaign;
mod clients;
mod commands;
mod conditions;
mod control;
mod credentials;
mod crowd;
mod delivery;
mod dialogs;
mod direct;
mod disk;
mod durability;
mod examples;
mod explain;
mod faults;
mod harness;
mod kill;
mod lanes;
mod limits;
mod listeners;
mod logins;
mod own_mailboxes;
mod paths;
mod postfix;
mod reload;
mod reports;
mod routes;
mod secrets;
mod senders;
mod sign_ins;
mod small_disk;
mod stateless;
mod stop;
mod systemd;
mod tenants;
mod trouble;
mod upstream;
