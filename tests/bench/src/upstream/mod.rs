//! The instant upstream: takes mail as fast as it comes, over STARTTLS with AUTH PLAIN or XOAUTH2, and counts it.
//!
//! It runs as a process of its own, so that its CPU is told apart from the load's and the subject's, and is driven by
//! orders on its standard input ([`order`]). It is no Exchange: the sandbox imitates that one, this one must only be
//! cheaper than everything it measures. Tokens come from the sandbox's authority, which runs beside it.

mod distance;
mod ledger;
mod order;
mod process;
mod serve;
mod session;

pub(crate) use ledger::Account;
pub(crate) use process::UpstreamProcess;
pub(crate) use serve::{ROUND_TRIP, serve};
