//! The control socket: how the commands of the command line ask a running daemon, by one JSON object a line each way.
//!
//! A [`Service`] answers at a path with whatever [`Handler`] it is given; [`ask`] is the other end. Nothing here knows
//! what is asked: requests are words and parameters to it, and it knows no mail.

mod client;
mod framing;
mod protocol;
mod server;
mod service;
mod socket;

pub(crate) use client::{AskError, ask};
pub(crate) use protocol::{Refusal, RefusalCode, Request};
pub(crate) use server::{Handler, Peer};
pub(crate) use service::Service;
pub(crate) use socket::SocketError;
