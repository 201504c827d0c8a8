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

/// Which user a delegate of a shared mailbox names in XOAUTH2. Microsoft's text and what people report differ (facts 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharedLogin {
    /// The shared mailbox, as Microsoft's text has it.
    #[default]
    Mailbox,
    /// Himself; the shared mailbox is refused like everything else, with `535 5.7.3`.
    Delegate,
}

/// How the services are at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// `refresh_in` of token answers; none by default, as in most (facts 4.2).
    pub refresh_in: Option<Duration>,
    /// Which user of a shared mailbox counts at AUTH.
    pub shared_login: SharedLogin,
    /// The user who signs in and consents at once when a browser comes to `/authorize`; `None` shows it a page.
    pub browser_user: Option<String>,
    /// `interval` of device codes from now on (facts 4.5).
    pub device_interval: Duration,
    /// `expires_in` of device codes from now on (facts 4.5).
    pub device_lifetime: Duration,
}

/// RFC 8628 section 3.2, and what Entra says.
const DEVICE_INTERVAL: Duration = Duration::from_secs(5);
/// Entra's default (facts 4.5).
const DEVICE_LIFETIME: Duration = Duration::from_mins(15);

impl Conditions {
    pub(crate) fn of(options: &SandboxOptions) -> Self {
        Self {
            limits: options.limits,
            rate: options.rate,
            tarpit: options.tarpit,
            token_lifetime: options.token_lifetime,
            permission_delay: options.permission_delay,
            refresh_in: None,
            shared_login: SharedLogin::default(),
            browser_user: None,
            device_interval: DEVICE_INTERVAL,
            device_lifetime: DEVICE_LIFETIME,
        }
    }
}
