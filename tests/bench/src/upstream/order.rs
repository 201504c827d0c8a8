//! What the benchmark and its upstream say to each other: a JSON value a line, an order in and an answer out.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ledger::Account;

/// An order to the upstream.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Forget what came, and expect messages of this epoch.
    Begin {
        /// Written into each message; others are strays of an earlier experiment.
        epoch: u32,
        /// Octets of each body.
        body: usize,
        /// How long a final reply takes, in milliseconds.
        dot: u64,
    },
    /// Answer when so many different messages have come, or so much time has passed.
    Wait {
        /// How many.
        messages: usize,
        /// The bound.
        bound: Duration,
    },
}

/// An answer of the upstream.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The first line: it listens.
    Open(Doors),
    /// The order to begin was carried out.
    Begun,
    /// What has come so far.
    Account(Account),
}

/// Where the upstream and the authority beside it can be reached, and with what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Doors {
    /// STARTTLS and AUTH required.
    pub(crate) near: u16,
    /// The same, 30 ms away.
    pub(crate) far: u16,
    /// Neither TLS nor AUTH: the bottom of what SMTP costs.
    pub(crate) bare: u16,
    /// Both certificate authorities, in PEM.
    pub(crate) ca_file: PathBuf,
    /// The token authority.
    pub(crate) authority: String,
}
