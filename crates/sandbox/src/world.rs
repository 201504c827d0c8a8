//! What all connections share. Every lock in it is held for a lookup or a count, never across I/O.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use clock::Clock;

use crate::counters::Tally;
use crate::directory::Directory;
use crate::fault::Faults;
use crate::limits::{Limiter, RequestLog};
use crate::mailstore::MailStore;
use crate::token::TokenMint;
use crate::{SandboxError, SandboxOptions};

/// The state of the simulated Microsoft 365.
pub(crate) struct World {
    directory: RwLock<Directory>,
    pub(crate) mint: TokenMint,
    pub(crate) limiter: Limiter,
    pub(crate) requests: RequestLog,
    pub(crate) faults: Faults,
    pub(crate) mail: MailStore,
    pub(crate) tally: Tally,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tarpit: Duration,
    pub(crate) token_lifetime: Option<Duration>,
    pub(crate) idle_timeout: Duration,
    pub(crate) session_limit: Duration,
    pub(crate) protocol_errors: u32,
    pub(crate) max_connections: u64,
}

impl World {
    pub(crate) fn new(options: SandboxOptions) -> Result<Self, SandboxError> {
        Ok(Self {
            directory: RwLock::new(Directory::new(options.tenants)),
            mint: TokenMint::new()?,
            limiter: Limiter::new(options.limits),
            requests: RequestLog::new(options.limits),
            faults: Faults::default(),
            mail: MailStore::new(options.bodies, options.message_records),
            tally: Tally::default(),
            clock: options.clock,
            tarpit: options.tarpit,
            token_lifetime: options.token_lifetime,
            idle_timeout: options.idle_timeout,
            session_limit: options.session_limit,
            protocol_errors: options.protocol_errors,
            max_connections: options.max_connections,
        })
    }

    pub(crate) fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn directory_mut(&self) -> RwLockWriteGuard<'_, Directory> {
        self.directory.write().unwrap_or_else(PoisonError::into_inner)
    }
}
