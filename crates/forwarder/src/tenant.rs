//! What the lanes of one application share: its health, and with the other applications of the same Entra tenant its external
//! recipients. A probe of one lane speaks for all, and its trouble is told once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::Monotonic;
use tokio::sync::Notify;

use crate::health::TroubleStatus;
use crate::turns::TenantTurns;

/// One application in one Entra tenant, shared by its lanes.
#[derive(Debug)]
pub struct Tenant {
    turns: Mutex<TenantTurns>,
    /// Its health changed, or a probe ended.
    pub(crate) changed: Notify,
}

impl Tenant {
    /// With at most so many external recipients a day, or as many as there are.
    pub fn new(external_recipients_per_day: Option<u64>) -> Self {
        Self { turns: Mutex::new(TenantTurns::new(external_recipients_per_day)), changed: Notify::new() }
    }

    /// That of another application in the same Entra tenant: its token's trouble is no matter of this one's, its external
    /// recipients are.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { turns: Mutex::new(self.turns().beside()), changed: Notify::new() }
    }

    /// Counts external recipients that an earlier run served `ago`; oldest first.
    pub fn assume_used(&self, external: u64, ago: Duration, now: Monotonic) {
        self.turns().assume_used(external, ago, now);
    }

    /// What is wrong with all of it, if anything is.
    pub fn trouble(&self, now: Monotonic) -> Option<TroubleStatus> {
        self.turns().trouble(now)
    }

    /// External recipients of the last day, and how many there may be.
    pub fn external(&self, now: Monotonic) -> (u64, Option<u64>) {
        self.turns().external(now)
    }

    /// Locked after a lane's own, never before.
    pub(crate) fn turns(&self) -> MutexGuard<'_, TenantTurns> {
        // Every change below the lock is complete before anything that may panic.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
