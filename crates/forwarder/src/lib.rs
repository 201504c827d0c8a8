//! The wire out: takes one message over one lane to Exchange Online by STARTTLS and AUTH XOAUTH2, and says for each
//! recipient what became of it.
//!
//! A [`Lane`] is one login's road: its pace, its warm connections, its health. A [`Slot`] of it delivers a message of the queue,
//! or carries one live while its client waits ([`Live`]). [`classify`] is the one table from reply to outcome. This crate knows no queue and no grant; it never speaks without verified TLS or with another mechanism.

mod advice;
mod batch;
mod classify;
mod connection;
mod content;
mod dial;
mod dialog;
mod endpoint;
mod governor;
mod health;
mod lane;
mod live;
mod pacer;
mod prove;
mod proxy;
mod quota;
mod tenant;
mod token;
mod transfer;
mod tunnel;
mod turns;
mod xoauth2;

pub use advice::sender_advice;
pub use batch::Spent;
pub use classify::{Stage, classify};
pub use endpoint::{AddressFamily, Endpoint, Timeouts};
pub use health::{Pause, Trouble, TroubleKind, TroubleStatus};
pub use lane::{Attempt, ConnectionLimits, Lane, LaneParts, LaneStatus, Slot, Told};
pub use live::{Ending, Live, LiveContent, LiveTold, NoTurn};
pub use prove::{Unproven, prove};
pub use proxy::{Authorization, Proxy};
pub use tenant::Tenant;
pub use token::{BearerToken, TokenSource, TokenTrouble};
pub use transfer::{Body, Message};
pub use turns::{Allowance, Hindrance, Lesson, Mode, Moment, NoRoom, TenantTurns, Turn, Turns};
