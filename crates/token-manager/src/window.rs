//! The request budget as a value: how long until one more request keeps within it. Pure; `ledger` keeps it on disk.
//!
//! Entra ID answers AADSTS50196 (request loop) after some 15 like requests in 5 minutes; we stay far below, whatever
//! happens. Kept in monotonic time, so that setting the machine's clock neither frees nor locks the budget.

use std::collections::VecDeque;
use std::time::Duration;

use clock::WallTime;

use crate::schedule::Now;

/// At most this many token requests for one (tenant, client, scope) in any [`REQUEST_PERIOD`], across restarts.
pub const REQUEST_LIMIT: usize = 5;

/// The length of the window that [`REQUEST_LIMIT`] speaks of.
pub const REQUEST_PERIOD: Duration = Duration::from_mins(5);

/// How long a request counts: the period, and a second because the file keeps whole milliseconds of a clock that NTP slews.
const COUNTED: Duration = Duration::from_secs(5 * 60 + 1);

/// The requests that still count, oldest first, each as the moment at which it stops counting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    // Never more than REQUEST_LIMIT: older ones cannot change the answer.
    ends: VecDeque<clock::Monotonic>,
}

impl Window {
    /// The window of somebody who may have used up everything just now.
    pub(crate) fn full(now: Now) -> Self {
        Self::from_times(&[now.wall; REQUEST_LIMIT], now)
    }

    /// From wall times of earlier requests. One in the future counts as now, so that a clock set back locks for one
    /// period at most.
    pub(crate) fn from_times(times: &[WallTime], now: Now) -> Self {
        let mut ends: Vec<_> = times
            .iter()
            .map(|time| COUNTED.saturating_sub(now.wall.saturating_since(*time)))
            .filter(|left| !left.is_zero())
            .map(|left| now.monotonic + left)
            .collect();
        ends.sort_unstable();
        Self { ends: ends.split_off(ends.len().saturating_sub(REQUEST_LIMIT)).into() }
    }

    /// The wall times of the requests that still count at `now`.
    pub(crate) fn times(&self, now: Now) -> Vec<WallTime> {
        let left = self.ends.iter().map(|end| end.saturating_since(now.monotonic));
        left.filter(|left| !left.is_zero()).map(|left| now.wall + left - COUNTED).collect()
    }

    /// How long until one more request is within the budget; zero if it is now.
    pub(crate) fn wait(&self, now: Now) -> Duration {
        if self.ends.len() < REQUEST_LIMIT {
            return Duration::ZERO;
        }
        self.ends.front().map_or(Duration::ZERO, |oldest| oldest.saturating_since(now.monotonic))
    }

    /// Counts a request at `now`. The caller has waited for [`Window::wait`].
    pub(crate) fn record(&mut self, now: Now) {
        if self.ends.len() >= REQUEST_LIMIT {
            self.ends.pop_front();
        }
        self.ends.push_back(now.monotonic + COUNTED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::Monotonic;
    use proptest::prelude::*;

    fn at(millis: u64) -> Now {
        let wall = WallTime::from_unix_millis(1_800_000_000_000 + i64::try_from(millis).unwrap());
        Now { wall, monotonic: Monotonic::from_start(Duration::from_millis(millis)) }
    }

    #[test]
    fn the_sixth_waits_for_the_first() {
        let mut window = Window::default();
        for second in 0..5 {
            assert_eq!(window.wait(at(second * 1000)), Duration::ZERO);
            window.record(at(second * 1000));
        }
        assert_eq!(window.wait(at(10_000)), Duration::from_secs(291));
        assert_eq!(window.wait(at(301_000)), Duration::ZERO);
        window.record(at(301_000));
        assert_eq!(window.wait(at(301_000)), Duration::from_secs(1));
    }

    #[test]
    fn times_in_the_future_count_as_now() {
        let year = WallTime::from_unix_millis(1_900_000_000_000);
        let window = Window::from_times(&[year; 5], at(0));
        assert_eq!(window.wait(at(0)), COUNTED);
        assert_eq!(window, Window::full(at(0)));
    }

    #[test]
    fn absurd_times_do_no_harm() {
        for millis in [i64::MIN, i64::MAX, 0] {
            let time = WallTime::from_unix_millis(millis);
            assert!(Window::from_times(&[time; 9], at(0)).wait(at(0)) <= COUNTED);
        }
    }

    #[test]
    fn setting_the_clock_changes_nothing_while_it_runs() {
        let mut window = Window::default();
        for _ in 0..REQUEST_LIMIT {
            window.record(at(0));
        }
        for wall in [0, 1_900_000_000_000] {
            let now = Now { wall: WallTime::from_unix_millis(wall), ..at(1_000) };
            assert_eq!(window.wait(now), Duration::from_mins(5));
        }
    }

    proptest! {
        /// Each step tries after some time; some steps restart first, which goes through the stored wall times and
        /// starts a new monotonic clock.
        #[test]
        fn no_five_minutes_hold_more_than_five(steps in prop::collection::vec((0u64..200_000, any::<bool>()), 1..200)) {
            let mut window = Window::default();
            let (mut true_time, mut started) = (0, 0);
            let mut made: Vec<u64> = Vec::new();
            for (pause, restart) in steps {
                true_time += pause;
                let now = |started| Now { monotonic: Monotonic::from_start(Duration::from_millis(true_time - started)), ..at(true_time) };
                if restart {
                    let times = window.times(now(started));
                    started = true_time;
                    window = Window::from_times(&times, now(started));
                }
                if window.wait(now(started)).is_zero() {
                    window.record(now(started));
                    made.push(true_time);
                }
            }
            for six in made.windows(REQUEST_LIMIT + 1) {
                prop_assert!(u128::from(six[REQUEST_LIMIT] - six[0]) > REQUEST_PERIOD.as_millis());
            }
        }

        /// Whatever the file says and wherever the clock stands, the budget comes back within one period.
        #[test]
        fn nothing_locks_for_ever(times in prop::collection::vec(any::<i64>(), 0..20), wall in any::<i64>()) {
            let times: Vec<_> = times.into_iter().map(WallTime::from_unix_millis).collect();
            let now = Now { wall: WallTime::from_unix_millis(wall), ..at(0) };
            prop_assert!(Window::from_times(&times, now).wait(now) <= COUNTED);
        }
    }
}
