//! How a sandbox is started. Everything has a default that makes a ready tenant as strict as Exchange Online; the
//! options loosen it only where a test or the benchmark must.

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, SystemClock};

use crate::{Limits, RateMode, TenantModel};

/// Options of [`Sandbox::start`](crate::Sandbox::start).
#[derive(Clone)]
pub struct SandboxOptions {
    /// Port of the SMTP front end on 127.0.0.1; 0 takes any.
    pub smtp_port: u16,
    /// Port of the HTTPS token endpoint on 127.0.0.1; 0 takes any.
    pub token_port: u16,
    /// Port of the plain HTTP metadata service on 127.0.0.1; 0 takes any.
    pub imds_port: u16,
    /// The tenants of this Microsoft 365. One ready tenant by default.
    pub tenants: Vec<TenantModel>,
    /// Whether Exchange's and Entra's rates and quotas apply (facts 2).
    pub limits: Limits,
    /// How the message rate is enforced.
    pub rate: RateMode,
    /// Wait before each 5xx reply to a command. Exchange waits about 5 s (facts 1.2); zero by default, for tests.
    pub tarpit: Duration,
    /// An idle session is closed after this. 5 minutes as a client saw it (facts 1.7). Real time, not [`Clock`].
    pub idle_timeout: Duration,
    /// A session is closed after this, however busy. 20 minutes as an MX host showed it (facts 1.7). Real time.
    pub session_limit: Duration,
    /// The session is closed when there were more syntax, sequence and AUTH errors than this (facts 1.5).
    pub protocol_errors: u32,
    /// Lifetime of issued tokens. `None` draws 3600 to 5399 s for each, as Entra does (facts 4.2).
    pub token_lifetime: Option<Duration>,
    /// How long a change of grants and switches takes until logins feel it. Up to two hours in Exchange (facts 0,
    /// point 15); at once by default, for tests.
    pub permission_delay: Duration,
    /// Which message bodies are kept in memory and which are only measured and hashed.
    pub bodies: BodyPolicy,
    /// How many message records are kept; the oldest are forgotten first.
    pub message_records: usize,
    /// SMTP connections beyond this are greeted with 421.
    pub max_connections: u64,
    /// Where times and chance come from.
    pub clock: Arc<dyn Clock>,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            smtp_port: 0,
            token_port: 0,
            imds_port: 0,
            tenants: vec![TenantModel::default()],
            limits: Limits::Exchange,
            rate: RateMode::Reject,
            tarpit: Duration::ZERO,
            idle_timeout: Duration::from_mins(5),
            session_limit: Duration::from_mins(20),
            // Exchange Server's documented default of MaxProtocolErrors.
            protocol_errors: 5,
            token_lifetime: None,
            permission_delay: Duration::ZERO,
            bodies: BodyPolicy::default(),
            message_records: 100_000,
            max_connections: 4_096,
            clock: Arc::new(SystemClock::new()),
        }
    }
}

/// Which bodies stay in memory. The others are read to their end all the same, and their length and SHA-256 kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyPolicy {
    /// A body of more octets than this is only hashed.
    pub keep_up_to: usize,
    /// Once all kept bodies together have this many octets, new ones are only hashed.
    pub keep_in_total: usize,
}

impl Default for BodyPolicy {
    fn default() -> Self {
        Self { keep_up_to: 1 << 20, keep_in_total: 256 << 20 }
    }
}
