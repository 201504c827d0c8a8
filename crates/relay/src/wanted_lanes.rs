//! Lanes of wildcard mailboxes that mail has come for: told by the intake, opened by whoever keeps the lanes. Bounded, since
//! the queue knows them all the same.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use mail::LaneId;
use tokio::sync::Notify;

/// Most that are told at a time; the rest is found in the queue.
const MOST: usize = 10_000;

/// Those that nobody has looked at yet.
#[derive(Debug, Default)]
pub(crate) struct WantedLanes {
    lanes: Mutex<BTreeSet<LaneId>>,
    told: Notify,
}

impl WantedLanes {
    /// Mail waits for `lane`.
    pub(crate) fn want(&self, lane: LaneId) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() < MOST {
            lanes.insert(lane);
        }
        drop(lanes);
        self.told.notify_one();
    }

    /// Waits until there are some; takes them. Safe to drop.
    pub(crate) async fn next(&self) -> BTreeSet<LaneId> {
        loop {
            let told = self.told.notified();
            let lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
            if !lanes.is_empty() {
                return lanes;
            }
            told.await;
        }
    }
}
