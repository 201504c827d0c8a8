//! The request budget in memory: for a relay without a state directory. It ends with the process; within it, whoever asks
//! within the same budget has the same one, so that a configuration taken up anew is no fresh budget.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Kept, Ledger};
use crate::schedule::Now;
use crate::window::{REQUEST_LIMIT, RequestId, Window};

/// A record of recent token requests that keeps [`crate::REQUEST_LIMIT`] for as long as it or a clone of it lives. Clones,
/// and the ledgers that they give, count together.
#[derive(Clone, Debug, Default)]
pub struct MemoryLedger(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    window: Window,
    /// The number of the next request.
    number: u64,
}

impl Counted {
    fn wait(&self, now: Now, left: usize) -> Duration {
        self.window.wait(now, REQUEST_LIMIT.saturating_sub(left))
    }

    fn record(&mut self, now: Now) {
        // One owner: no other process learns of it.
        let id = RequestId { owner: 0, number: self.number };
        self.number += 1;
        self.window.record(id, now);
    }
}

impl MemoryLedger {
    /// A ledger that counts in it.
    pub fn ledger(&self) -> Ledger {
        Ledger { kept: Kept::InMemory(self.clone()) }
    }

    pub(super) fn wait(&self, now: Now, left: usize) -> Duration {
        self.counted().wait(now, left)
    }

    pub(super) fn take(&self, now: Now, left: usize) -> Result<(), Duration> {
        let mut counted = self.counted();
        let wait = counted.wait(now, left);
        if !wait.is_zero() {
            return Err(wait);
        }
        counted.record(now);
        Ok(())
    }

    pub(super) fn note(&self, now: Now) {
        self.counted().record(now);
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        // Every change is complete before anything that may panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use clock::{ManualClock, WallTime};

    use super::*;

    #[tokio::test]
    async fn all_ledgers_in_one_memory_share_its_budget_whatever_the_wall_clock_does() {
        let clock = ManualClock::at(WallTime::from_unix_millis(1_800_000_000_000));
        let memory = MemoryLedger::default();
        for turn in 0..REQUEST_LIMIT {
            // Each of them is gone when the next begins, as after a reload.
            let mut ledger = memory.ledger();
            assert_eq!(ledger.wait(Now::of(&clock)), Duration::ZERO, "{turn}");
            assert_eq!(ledger.take(Now::of(&clock)).await, Ok(()));
            clock.advance(Duration::from_secs(1));
        }
        let (mut one, mut other) = (memory.ledger(), memory.clone().ledger());
        for hours in [1, 48] {
            clock.set_wall(WallTime::from_unix_millis(1_800_000_000_000) + Duration::from_hours(hours));
            assert_eq!(one.take(Now::of(&clock)).await, Err(Duration::from_secs(296)));
        }
        clock.advance(Duration::from_secs(296));
        assert_eq!(other.take(Now::of(&clock)).await, Ok(()));
        assert_eq!(one.take(Now::of(&clock)).await, Err(Duration::from_secs(1)));
        assert_eq!(MemoryLedger::default().ledger().take(Now::of(&clock)).await, Ok(()), "another one's is its own");
    }
}
