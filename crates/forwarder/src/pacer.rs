//! Keeps a login within its messages per minute: a pure sliding window over monotonic time.
//!
//! A message counts from the moment its turn is given until a whole window after it has ended. Upstream counts at some
//! point in between, so however late the wire delivers, it never sees more than the limit in any window.

use std::collections::VecDeque;
use std::time::Duration;

use clock::Monotonic;

/// The window over which Exchange counts.
const WINDOW: Duration = Duration::from_mins(1);

/// Turns given and messages ended within the last minute.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    under_way: usize,
    ended: VecDeque<Monotonic>,
}

impl Pacer {
    /// Counts messages that ended before this pacer was made, as if they ended at `now`.
    pub(crate) fn assume_ended(&mut self, messages: usize, now: Monotonic) {
        self.ended.extend(std::iter::repeat_n(now, messages));
    }

    /// Gives a turn where there is room for one.
    pub(crate) fn begin(&mut self, limit: usize, now: Monotonic) -> Result<(), Option<Duration>> {
        self.room(limit, now)?;
        self.under_way += 1;
        Ok(())
    }

    /// Whether there is room for a turn, with at most `limit` in any minute, or how long until the next may come free. With all
    /// turns under way that is unknown (none): ask again when one ends.
    pub(crate) fn room(&mut self, limit: usize, now: Monotonic) -> Result<(), Option<Duration>> {
        while self.ended.front().is_some_and(|ended| now >= *ended + WINDOW) {
            self.ended.pop_front();
        }
        if self.under_way + self.ended.len() < limit.max(1) {
            return Ok(());
        }
        // So many must end their minute before one more may begin.
        let surplus = self.ended.len() + self.under_way - limit.max(1);
        Err(self.ended.get(surplus).map(|ended| (*ended + WINDOW).saturating_since(now)))
    }

    /// Turns given that have not ended.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Messages that ended within the minute before `now`.
    pub(crate) fn in_last_minute(&self, now: Monotonic) -> usize {
        // In the order of their ends: a search, however many there are.
        self.ended.len() - self.ended.partition_point(|ended| now >= *ended + WINDOW)
    }

    /// A turn ended. It counts for the next minute if upstream may have seen the message.
    pub(crate) fn end(&mut self, now: Monotonic, seen: bool) {
        self.under_way = self.under_way.saturating_sub(1);
        if seen {
            self.ended.push_back(now);
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

    #[test]
    fn turns_come_back_a_minute_after_the_message_ended() {
        let mut pacer = Pacer::default();
        assert_eq!(pacer.begin(2, at(0)), Ok(()));
        assert_eq!(pacer.begin(2, at(0)), Ok(()));
        assert_eq!(pacer.begin(2, at(1)), Err(None));
        pacer.end(at(10), true);
        assert_eq!(pacer.begin(2, at(11)), Err(Some(Duration::from_secs(59))));
        assert_eq!(pacer.begin(2, at(69)), Err(Some(Duration::from_secs(1))));
        assert_eq!((pacer.under_way(), pacer.in_last_minute(at(69))), (1, 1));
        assert_eq!((pacer.under_way(), pacer.in_last_minute(at(70))), (1, 0), "looking changes nothing");
        assert_eq!(pacer.begin(2, at(70)), Ok(()));
    }

    #[test]
    fn what_was_sent_before_a_restart_counts() {
        let mut pacer = Pacer::default();
        pacer.assume_ended(2, at(0));
        assert_eq!(pacer.begin(3, at(0)), Ok(()));
        assert_eq!(pacer.begin(3, at(1)), Err(Some(Duration::from_secs(59))));
        assert_eq!(pacer.begin(3, at(60)), Ok(()));
    }

    #[test]
    fn a_turn_that_was_not_used_costs_nothing() {
        let mut pacer = Pacer::default();
        assert_eq!(pacer.begin(1, at(0)), Ok(()));
        pacer.end(at(0), false);
        assert_eq!(pacer.begin(1, at(0)), Ok(()));
    }

    #[test]
    fn a_limit_that_is_lowered_holds_until_the_window_has_room() {
        let mut pacer = Pacer::default();
        for second in 0..4 {
            assert_eq!(pacer.begin(4, at(second)), Ok(()));
            pacer.end(at(second), true);
        }
        assert_eq!(pacer.begin(2, at(10)), Err(Some(Duration::from_secs(52))));
        assert_eq!(pacer.begin(2, at(61)), Err(Some(Duration::from_secs(1))));
        assert_eq!(pacer.begin(2, at(62)), Ok(()));
    }

    proptest! {
        /// Upstream sees each message somewhere between its turn's begin and end; no window of it holds more than the limit.
        #[test]
        fn no_window_holds_more_than_the_limit(
            limit in 1usize..5,
            steps in proptest::collection::vec((0u64..40, any::<bool>(), 0.0f64..=1.0), 1..120),
        ) {
            let mut pacer = Pacer::default();
            let (mut now, mut open, mut seen) = (0u64, Vec::new(), Vec::new());
            for (wait, begin, share) in steps {
                now += wait;
                if begin {
                    if pacer.begin(limit, at(now)).is_ok() {
                        open.push((now, share));
                    }
                } else if let Some((begun, share)) = open.pop() {
                    pacer.end(at(now), true);
                    #[allow(clippy::cast_precision_loss, reason = "seconds of a test")]
                    seen.push(begun as f64 + share * (now - begun) as f64);
                }
            }
            seen.sort_by(f64::total_cmp);
            for window in seen.windows(limit + 1) {
                prop_assert!(window[limit] - window[0] >= 60.0 - 1e-6, "{window:?}");
            }
        }
    }
}
