//! The wire in: SMTP submission from old software (RFC 5321, RFC 6409), up to the point where somebody must decide.
//!
//! [`Server`] accepts connections and drives one [`Session`](session) each; what becomes of a sender, a recipient and a
//! body is asked of an [`Intake`]. This crate knows no storage, no OAuth and no Exchange, and reads no configuration.

mod admission;
mod arrivals;
mod client;
mod connection;
mod holding;
mod input;
mod intake;
mod notice;
mod progress;
mod sasl;
mod server;
pub mod session;
mod stream;
mod watch;

pub use admission::{SessionCounts, SessionWatch};
pub use client::Client;
pub use holding::Holding;
pub use intake::{Intake, MessageSink, Transaction};
pub use notice::Notice;
pub use progress::Pace;
pub use sasl::Credentials;
pub use server::{Gate, Limits, Server};
pub use stream::HandshakeError;
