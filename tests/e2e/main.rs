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
mod disk;
mod durability;
mod faults;
mod harness;
mod kill;
mod lanes;
mod listeners;
mod logins;
mod paths;
mod postfix;
mod reports;
mod secrets;
mod sign_ins;
mod small_disk;
mod stop;
mod systemd;
mod trouble;
mod upstream;
