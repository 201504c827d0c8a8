//! Who holds which delivery: the claims, in memory only, and for each lane the due deliveries that were looked up ahead.
//! Not here: the database. A list looked up ahead may be stale; a row is read again once it is claimed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mail::LaneId;
use tokio::sync::Notify;

use super::split::Progress;

/// When a delivery is due, in milliseconds; orders a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) at: i64,
    pub(super) delivery: i64,
}

/// All claims of a spool.
#[derive(Debug, Default)]
pub(super) struct Claims {
    state: Mutex<ClaimState>,
}

#[derive(Debug, Default)]
struct ClaimState {
    lanes: HashMap<LaneId, Lane>,
    /// How often a transfer of a delivery was cut in this boot: its claim was dropped after the mark.
    cut: HashMap<i64, u32>,
}

#[derive(Debug, Default)]
struct Lane {
    waker: Arc<Notify>,
    claimed: HashSet<i64>,
    /// Due deliveries in order, none of them claimed.
    ready: VecDeque<Due>,
}

impl Claims {
    pub(super) fn waker(&self, lane: &LaneId) -> Arc<Notify> {
        Arc::clone(&self.state().lanes.entry(lane.clone()).or_default().waker)
    }

    /// How many deliveries of `lane` are claimed.
    pub(super) fn claimed(&self, lane: &LaneId) -> usize {
        self.state().lanes.get(lane).map_or(0, |lane| lane.claimed.len())
    }

    /// Claims the first delivery known to be due at `now`.
    pub(super) fn take(&self, lane: &LaneId, now: i64) -> Option<Due> {
        let mut state = self.state();
        let lane = state.lanes.get_mut(lane)?;
        let due = *lane.ready.front().filter(|due| due.at <= now)?;
        lane.ready.pop_front();
        lane.claimed.insert(due.delivery);
        Some(due)
    }

    /// Replaces what is known to be due by `found` (in order) without what is claimed; gives how many remain.
    pub(super) fn refill(&self, lane: &LaneId, found: &[Due]) -> usize {
        let mut state = self.state();
        let lane = state.lanes.entry(lane.clone()).or_default();
        lane.ready = found.iter().filter(|due| !lane.claimed.contains(&due.delivery)).copied().collect();
        lane.ready.len()
    }

    /// The first of `found` that nobody holds.
    pub(super) fn first_unclaimed(&self, lane: &LaneId, found: &[Due]) -> Option<Due> {
        let state = self.state();
        let claimed = state.lanes.get(lane).map(|lane| &lane.claimed);
        found.iter().find(|due| claimed.is_none_or(|claimed| !claimed.contains(&due.delivery))).copied()
    }

    /// How often transfers of `delivery` were cut in this boot.
    pub(super) fn cuts(&self, delivery: i64) -> u32 {
        self.state().cut.get(&delivery).copied().unwrap_or(0)
    }

    /// Something of `lane` became due at `at`, or earlier than it was.
    pub(super) fn wake(&self, lane: &LaneId, at: i64) {
        let mut state = self.state();
        let Some(lane) = state.lanes.get_mut(lane) else { return };
        // The list looked up ahead would pass over it: look up anew.
        if lane.ready.back().is_some_and(|last| at < last.at) {
            lane.ready.clear();
        }
        lane.waker.notify_one();
    }

    /// After the store was reopened.
    pub(super) fn wake_all(&self) {
        for lane in self.state().lanes.values_mut() {
            lane.ready.clear();
            lane.waker.notify_one();
        }
    }

    fn release(&self, lane: &LaneId, due: Due, fate: Fate) {
        let mut state = self.state();
        match fate {
            Fate::Settled => drop(state.cut.remove(&due.delivery)),
            Fate::Cut => *state.cut.entry(due.delivery).or_default() += 1,
            Fate::Unused => {}
        }
        let Some(lane) = state.lanes.get_mut(lane) else { return };
        if !lane.claimed.remove(&due.delivery) || fate == Fate::Settled {
            return;
        }
        let at = lane.ready.partition_point(|other| *other < due);
        lane.ready.insert(at, due);
        lane.waker.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, ClaimState> {
        // Each change is one step: a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its row was written, or is gone.
    Settled,
    /// Dropped before upstream can have seen it.
    Unused,
    /// Dropped after its mark: upstream may have it (invariant 5).
    Cut,
}

/// Holds a delivery for one caller; dropped unsettled, the delivery is claimable again and its lane awake.
#[derive(Debug)]
pub struct ClaimGuard {
    claims: Arc<Claims>,
    lane: LaneId,
    due: Due,
    marked: AtomicBool,
    settled: bool,
    /// What the row said when it was claimed. Nobody else changes it meanwhile.
    pub(super) row: Row,
}

/// The columns that a settlement needs again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) version: i64,
    pub(super) route_epoch: i64,
    pub(super) stored: Progress,
    /// `stored` and what was cut in this boot.
    pub(super) progress: Progress,
    pub(super) diagnostic: Option<String>,
    pub(super) client: String,
}

impl ClaimGuard {
    /// For a delivery that [`Claims::take`] gave.
    pub(super) fn new(claims: Arc<Claims>, lane: LaneId, due: Due) -> Self {
        let none = Progress { attempts: 0, uncertain: 0 };
        let row =
            Row { version: 0, route_epoch: 0, stored: none, progress: none, diagnostic: None, client: String::new() };
        Self { claims, lane, due, marked: AtomicBool::new(false), settled: false, row }
    }

    pub(super) fn delivery(&self) -> i64 {
        self.due.delivery
    }

    /// Notes the mark; true the first time.
    pub(super) fn mark(&self) -> bool {
        !self.marked.swap(true, Ordering::Relaxed)
    }

    /// Its row was written, or is gone: claimable again only if the database says so.
    pub(super) fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        let fate = match (self.settled, *self.marked.get_mut()) {
            (true, _) => Fate::Settled,
            (false, true) => Fate::Cut,
            (false, false) => Fate::Unused,
        };
        self.claims.release(&self.lane, self.due, fate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(at: i64, delivery: i64) -> Due {
        Due { at, delivery }
    }

    fn lane() -> LaneId {
        LaneId::new("t", "a@b.c")
    }

    fn claim(claims: &Arc<Claims>, now: i64) -> Option<ClaimGuard> {
        claims.take(&lane(), now).map(|due| ClaimGuard::new(Arc::clone(claims), lane(), due))
    }

    #[test]
    fn a_delivery_has_one_holder() {
        let claims = Arc::new(Claims::default());
        assert_eq!(claims.refill(&lane(), &[due(1, 10), due(2, 20)]), 2);
        let first = claim(&claims, 5).unwrap();
        assert_eq!(first.delivery(), 10);
        assert_eq!(claims.refill(&lane(), &[due(1, 10), due(2, 20)]), 1);
        let second = claim(&claims, 5).unwrap();
        assert!(claim(&claims, 5).is_none());
        drop(second);
        drop(first);
        assert_eq!(claim(&claims, 5).unwrap().delivery(), 10, "back in its place");
    }

    #[test]
    fn what_is_not_due_is_not_taken() {
        let claims = Arc::new(Claims::default());
        claims.refill(&lane(), &[due(9, 10)]);
        assert!(claim(&claims, 8).is_none());
        assert!(claim(&claims, 9).is_some());
    }

    #[test]
    fn only_a_marked_claim_is_cut_and_only_until_settled() {
        let claims = Arc::new(Claims::default());
        claims.refill(&lane(), &[due(1, 10)]);
        drop(claim(&claims, 5));
        assert_eq!(claims.cuts(10), 0);
        let marked = claim(&claims, 5).unwrap();
        assert!(marked.mark());
        assert!(!marked.mark());
        drop(marked);
        assert_eq!(claims.cuts(10), 1);
        claim(&claims, 5).unwrap().settle();
        assert_eq!((claims.cuts(10), claims.claimed(&lane())), (0, 0));
        assert!(claim(&claims, 5).is_none());
    }

    #[test]
    fn an_earlier_arrival_empties_the_list() {
        let claims = Arc::new(Claims::default());
        claims.refill(&lane(), &[due(1, 10), due(5, 20)]);
        claims.wake(&lane(), 5);
        assert_eq!(claims.state().lanes[&lane()].ready.len(), 2);
        claims.wake(&lane(), 4);
        assert_eq!(claims.state().lanes[&lane()].ready.len(), 0);
    }
}
