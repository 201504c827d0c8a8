//! Senders' own mailboxes that Exchange let nobody log in to: mail of such a sender goes by the route's fallback at once,
//! instead of asking again and again. Remembered for a while only, since mailboxes are made and permissions are given.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::Monotonic;
use mail::LaneId;

/// How long one is remembered.
pub(crate) const REMEMBERED_FOR: Duration = Duration::from_hours(1);
/// How many are remembered; beyond it the oldest is asked again.
const MOST: usize = 10_000;

/// Those that are remembered.
#[derive(Debug, Default)]
pub(crate) struct UnknownMailboxes(Mutex<HashMap<LaneId, Monotonic>>);

impl UnknownMailboxes {
    /// Exchange let nobody log in to it; whether that is news.
    pub(crate) fn remember(&self, lane: &LaneId, now: Monotonic) -> bool {
        let mut since = self.lock();
        since.retain(|_, at| now.saturating_since(*at) < REMEMBERED_FOR);
        if since.len() >= MOST
            && !since.contains_key(lane)
            && let Some(oldest) = since.iter().min_by_key(|(_, at)| **at).map(|(lane, _)| lane.clone())
        {
            since.remove(&oldest);
        }
        since.insert(lane.clone(), now).is_none()
    }

    /// Whether it is remembered.
    pub(crate) fn contains(&self, lane: &LaneId, now: Monotonic) -> bool {
        self.lock().get(lane).is_some_and(|at| now.saturating_since(*at) < REMEMBERED_FOR)
    }

    /// All that are remembered, with how long ago that was.
    pub(crate) fn list(&self, now: Monotonic) -> Vec<(LaneId, Duration)> {
        let since = self.lock();
        let ages = since.iter().map(|(lane, at)| (lane.clone(), now.saturating_since(*at)));
        let mut list: Vec<_> = ages.filter(|(_, age)| *age < REMEMBERED_FOR).collect();
        list.sort();
        list
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LaneId, Monotonic>> {
        // Every change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_unknown_for_a_while_and_few_enough_are_kept() {
        let unknown = UnknownMailboxes::default();
        let at = |seconds| Monotonic::default() + Duration::from_secs(seconds);
        let lane = |number: usize| LaneId::new("t", &format!("{number}@contoso.com"));
        assert!(unknown.remember(&lane(0), at(0)));
        assert!(!unknown.remember(&lane(0), at(10)));
        assert!(unknown.contains(&lane(0), at(10)) && !unknown.contains(&lane(1), at(10)));
        assert!(!unknown.contains(&lane(0), at(10) + REMEMBERED_FOR));
        for number in 1..=MOST {
            unknown.remember(&lane(number), at(20));
        }
        assert!(!unknown.contains(&lane(0), at(20)), "the oldest made room");
        assert_eq!(unknown.list(at(20)).len(), MOST);
        assert_eq!(unknown.list(at(20) + REMEMBERED_FOR), []);
    }
}
