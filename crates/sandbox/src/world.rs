//! What all connections share. Every lock in it is held for a lookup or a count, never across I/O.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use clock::Clock;

use crate::conditions::Conditions;
use crate::counters::Tally;
use crate::directory::Directory;
use crate::fault::Faults;
use crate::limits::{Limiter, RequestLog};
use crate::mailstore::MailStore;
use crate::sign_ins::SignIns;
use crate::token::TokenMint;
use crate::{Limits, SandboxError, SandboxOptions};

/// The state of the simulated Microsoft 365.
pub(crate) struct World {
    directory: RwLock<Directory>,
    conditions: RwLock<Conditions>,
    pub(crate) mint: TokenMint,
    pub(crate) limiter: Limiter,
    pub(crate) requests: RequestLog,
    pub(crate) sign_ins: SignIns,
    /// `https://localhost:PORT`.
    pub(crate) authority: String,
    pub(crate) faults: Faults,
    pub(crate) mail: MailStore,
    pub(crate) tally: Tally,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) idle_timeout: Duration,
    pub(crate) session_limit: Duration,
    pub(crate) protocol_errors: u32,
    pub(crate) max_connections: u64,
}

impl World {
    pub(crate) fn new(options: SandboxOptions, authority: String) -> Result<Self, SandboxError> {
        Ok(Self {
            conditions: RwLock::new(Conditions::of(&options)),
            directory: RwLock::new(Directory::new(options.tenants)),
            mint: TokenMint::new()?,
            limiter: Limiter::default(),
            requests: RequestLog::default(),
            sign_ins: SignIns::default(),
            authority,
            faults: Faults::default(),
            mail: MailStore::new(options.bodies, options.message_records),
            tally: Tally::default(),
            clock: options.clock,
            idle_timeout: options.idle_timeout,
            session_limit: options.session_limit,
            protocol_errors: options.protocol_errors,
            max_connections: options.max_connections,
        })
    }

    pub(crate) fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the directory. With a permission delay, a change of permissions leaves logins judged by what it was.
    pub(crate) fn change_directory<T>(&self, change: impl FnOnce(&mut Directory) -> T) -> T {
        let delay = self.conditions().permission_delay;
        let mut directory = self.directory.write().unwrap_or_else(PoisonError::into_inner);
        if delay.is_zero() {
            return change(&mut directory);
        }
        let past = directory.past();
        let done = change(&mut directory);
        let now = self.clock.monotonic();
        directory.remember(past, now, now + delay);
        done
    }

    pub(crate) fn conditions(&self) -> Conditions {
        self.conditions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the conditions. Without a permission delay every change of permissions is in effect.
    pub(crate) fn change_conditions(&self, change: impl FnOnce(&mut Conditions)) {
        let mut conditions = self.conditions.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut conditions);
        let is_immediate = conditions.permission_delay.is_zero();
        drop(conditions);
        if is_immediate {
            self.directory.write().unwrap_or_else(PoisonError::into_inner).forget();
        }
    }

    /// Whether rates and quotas apply.
    pub(crate) fn has_limits(&self) -> bool {
        self.conditions().limits == Limits::Exchange
    }
}
