//! Recipients of a rolling day: how many a login, or a tenant, has used and may still use. Pure, over monotonic time.
//!
//! What is sent is reserved before and counted after, so that however many messages are under way, upstream never sees
//! more than the limit in any day. Uses of one minute are one entry, which bounds the memory; an entry counts a minute too
//! long rather than too short.

use std::collections::VecDeque;
use std::time::Duration;

use clock::Monotonic;

/// The window over which Exchange counts.
const DAY: Duration = Duration::from_hours(24);
/// Uses this close together are one entry.
const GRAIN: Duration = Duration::from_mins(1);

/// A limit of recipients in any 24 hours.
#[derive(Debug)]
pub(crate) struct Quota {
    /// None: not limited, and still counted.
    limit: Option<u64>,
    reserved: u64,
    used: VecDeque<Entry>,
    sum: u64,
}

#[derive(Debug)]
struct Entry {
    since: Monotonic,
    until: Monotonic,
    count: u64,
}

impl Quota {
    /// At most `limit` in any 24 hours, or as many as there are.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, reserved: 0, used: VecDeque::new(), sum: 0 }
    }

    /// Counts what was used `ago` before `now`, as when an earlier run has used it. To be told in order, oldest first.
    pub(crate) fn assume_used(&mut self, count: u64, ago: Duration, now: Monotonic) {
        let until = now + (DAY + GRAIN).saturating_sub(ago);
        self.used.push_back(Entry { since: now, until, count });
        self.sum += count;
    }

    /// How many may be reserved now.
    pub(crate) fn left(&mut self, now: Monotonic) -> u64 {
        self.forget(now);
        self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.sum + self.reserved))
    }

    /// How many were used within the day before `now`.
    pub(crate) fn used(&self, now: Monotonic) -> u64 {
        self.used.iter().filter(|entry| now < entry.until).map(|entry| entry.count).sum()
    }

    /// The limit, if there is one.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// How long until some that were used come free; none when none were, but are reserved.
    pub(crate) fn wait(&mut self, now: Monotonic) -> Option<Duration> {
        self.forget(now);
        self.used.front().map(|entry| entry.until.saturating_since(now))
    }

    /// Sets `count` aside for a message that is about to go.
    pub(crate) fn reserve(&mut self, count: u64) {
        self.reserved += count;
    }

    /// A message has ended for which `reserved` were set aside and of which upstream counts `used`.
    pub(crate) fn settle(&mut self, reserved: u64, used: u64, now: Monotonic) {
        self.reserved = self.reserved.saturating_sub(reserved);
        if used == 0 {
            return;
        }
        self.sum += used;
        match self.used.back_mut() {
            Some(last) if now < last.since + GRAIN && last.until > now + DAY => last.count += used,
            _ => self.used.push_back(Entry { since: now, until: now + (DAY + GRAIN), count: used }),
        }
    }

    fn forget(&mut self, now: Monotonic) {
        while let Some(entry) = self.used.front()
            && now >= entry.until
        {
            self.sum -= entry.count;
            self.used.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    const DAY_SECONDS: u64 = 24 * 3600;

    #[test]
    fn what_was_used_comes_free_after_a_day() {
        let mut quota = Quota::new(Some(100));
        quota.reserve(60);
        assert_eq!((quota.left(at(0)), quota.wait(at(0))), (40, None));
        quota.settle(60, 50, at(10));
        assert_eq!((quota.left(at(10)), quota.used(at(10))), (50, 50));
        assert_eq!(quota.wait(at(10)), Some(DAY + GRAIN));
        assert_eq!(quota.left(at(10 + DAY_SECONDS)), 50, "an entry counts a minute too long");
        assert_eq!(quota.left(at(10 + DAY_SECONDS + 60)), 100);
    }

    #[test]
    fn what_an_earlier_run_used_counts() {
        let mut quota = Quota::new(Some(100));
        quota.assume_used(70, Duration::from_hours(23), at(0));
        quota.assume_used(20, Duration::from_hours(1), at(0));
        assert_eq!(quota.left(at(0)), 10);
        assert_eq!(quota.left(at(3660)), 80);
    }

    #[test]
    fn no_limit_is_counted_all_the_same() {
        let mut quota = Quota::new(None);
        quota.settle(0, 7, at(0));
        assert_eq!((quota.left(at(1)), quota.used(at(1)), quota.limit()), (u64::MAX, 7, None));
    }

    #[test]
    fn uses_of_a_minute_are_one_entry() {
        let mut quota = Quota::new(Some(1_000_000));
        for second in 0..3600 {
            quota.settle(0, 1, at(second));
        }
        assert_eq!((quota.used.len(), quota.used(at(3600))), (60, 3600));
    }

    proptest! {
        /// Upstream counts a message's recipients at some moment between reservation and settlement.
        #[test]
        fn no_day_holds_more_than_the_limit(
            limit in 1u64..50,
            steps in proptest::collection::vec((0u64..9_000, any::<bool>(), 1u64..30, 0.0f64..=1.0), 1..200),
        ) {
            let mut quota = Quota::new(Some(limit));
            let (mut now, mut open, mut counted) = (0u64, Vec::new(), Vec::<(f64, u64)>::new());
            for (wait, begin, wanted, share) in steps {
                now += wait;
                if begin {
                    let count = wanted.min(quota.left(at(now)));
                    quota.reserve(count);
                    open.push((now, count, share));
                } else if let Some((begun, count, share)) = open.pop() {
                    quota.settle(count, count, at(now));
                    #[allow(clippy::cast_precision_loss, reason = "seconds of a test")]
                    counted.push((begun as f64 + share * (now - begun) as f64, count));
                }
            }
            for (first, _) in &counted {
                let day: u64 = counted.iter().filter(|(when, _)| *when >= *first && *when < *first + 86_400.0).map(|(_, count)| count).sum();
                prop_assert!(day <= limit, "{day} of {limit}");
            }
        }
    }
}
