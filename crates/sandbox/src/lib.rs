//! A simulated Microsoft 365: Entra ID's endpoints over HTTPS, Azure's metadata service and Exchange Online's SMTP
//! front end, on loopback.
//!
//! It speaks with Microsoft's real texts and enforces Microsoft's real limits, so that what works here has a fair
//! chance out there. It is never easier than Exchange; where the public record is silent it takes the stricter reading.
//! It knows nothing of the relay and shares no protocol code with it: two readings of the same documents check each
//! other. It is not a mail server: nothing it takes goes anywhere.
//!
//! While it runs it can be disturbed: by a [`Fault`] at any [`Stage`], of which [`catalogue`] names those on record; by
//! its [`Conditions`]; and by whatever an administrator can change. All of that also goes by an [`Order`] of one line.
//! Where it guesses, [`unproven`] says so.
//!
//! The texts come from `facts/exchange-online.md`; documentation here names its sections ("facts 1.4").
//!
//! ```no_run
//! # async fn example() -> Result<(), sandbox::SandboxError> {
//! use std::time::Duration;
//!
//! let sandbox = sandbox::Sandbox::start(sandbox::SandboxOptions::default()).await?;
//! println!("authority {} upstream {}:{}", sandbox.authority(), sandbox.smtp_host(), sandbox.smtp_port());
//! let messages = sandbox.wait_for(1, Duration::from_secs(10)).await?;
//! println!("{} sent {:?}", messages[0].login, messages[0].message_id);
//! sandbox.stop().await;
//! # Ok(())
//! # }
//! ```

mod answer;
mod application;
mod authority;
mod body;
pub mod catalogue;
mod certificate;
mod command;
mod conditions;
mod counters;
mod directory;
mod endpoint;
mod entra;
mod error;
mod fault;
mod front_end;
mod header;
mod http_reply;
mod imds;
mod inbox;
mod limits;
mod listener;
mod mailstore;
mod options;
pub mod order;
mod replies;
mod sandbox;
mod sasl;
mod session;
mod sign_ins;
mod submission;
mod suggestion;
mod tenant;
mod token;
mod transaction;
pub mod unproven;
mod world;

pub use application::{Application, FederatedIdentity, TOKEN_EXCHANGE_AUDIENCE};
pub use conditions::{Conditions, RateMode, SharedLogin};
pub use counters::{Counters, SendAsDenial};
pub use error::SandboxError;
pub use fault::{Action, Fault, HttpFault, OddToken, Stage, Target, TokenFault};
pub use limits::Limits;
pub use mailstore::{Body, Duplicate, Message, Recipient};
pub use options::{BodyPolicy, SandboxOptions};
pub use order::{Order, OrderError};
pub use sandbox::Sandbox;
pub use sasl::AuthRefusal;
pub use tenant::{
    DEFAULT_CLIENT_ID, DEFAULT_MAILBOX, DEFAULT_SECRET, DEFAULT_TENANT_ID, Grant, Mailbox, ManagedIdentity, SmtpAuth,
    TenantModel, User,
};
pub use token::{EXCHANGE_SCOPE, GRAPH_SCOPE, SMTP_SEND_SCOPES, WORKLOAD_ISSUER};
pub use transaction::Parameter;
