//! The load: clients that hand in messages as old software does, one command at a time, and time each answer.
//!
//! It counts what was promised and what was refused; what became of the promises is the upstream's account.

mod client;
mod message;
mod plan;

pub(crate) use client::{Line, Security, greeted};
pub(crate) use message::{MARK, Message};
pub(crate) use plan::{Crowd, Load, Outcome, TO, idle};
