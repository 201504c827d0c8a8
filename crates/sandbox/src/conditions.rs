//! The conditions of the simulated services that are no fault and no tenant's setting: how strict, how slow, how long
//! lived. Plain values; they may change at any time and count from the next command or request on.

use std::time::Duration;

use crate::{Limits, SandboxOptions};

/// What Exchange does with a mailbox's 31st message within a minute. Microsoft says both (facts 2, facts 8b.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RateMode {
    /// `421 4.4.2` at MAIL, and the connection is closed.
    #[default]
    Reject,
    /// MAIL is answered when the minute has room again.
    Delay,
}

/// How the services are at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Whether rates and quotas apply (facts 2). Counting starts anew when they come back.
    pub limits: Limits,
    /// How the message rate is enforced.
    pub rate: RateMode,
    /// Wait before each 5xx reply.
    pub tarpit: Duration,
    /// Lifetime of issued tokens; `None` draws it (facts 4.2).
    pub token_lifetime: Option<Duration>,
    /// How long logins and senders are judged by what grants and switches were before a change (facts 0, point 15).
    pub permission_delay: Duration,
}

impl Conditions {
    pub(crate) fn of(options: &SandboxOptions) -> Self {
        Self {
            limits: options.limits,
            rate: options.rate,
            tarpit: options.tarpit,
            token_lifetime: options.token_lifetime,
            permission_delay: options.permission_delay,
        }
    }
}
