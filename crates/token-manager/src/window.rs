//! The request budget as a value: how long until one more request keeps within it. Pure; `ledger` keeps it on disk.
//!
//! Entra ID answers AADSTS50196 (request loop) after some 15 like requests in 5 minutes; we stay far below, whatever
//! happens. Kept in monotonic time, so that setting the machine's clock neither frees nor locks what is known already.
//! What other processes asked is learnt from wall times, once for each request.

use std::time::Duration;

use clock::{Monotonic, WallTime};

use crate::schedule::Now;

/// At most this many token requests for one (tenant, client, scope) in any [`REQUEST_PERIOD`], across restarts and
/// processes.
pub const REQUEST_LIMIT: usize = 5;

/// At most this many by the refresh tokens of one account in the same time, for all mailboxes that it signed in for: Entra ID
/// counts a person's requests, not our mailboxes (facts 4.6).
pub(crate) const ACCOUNT_LIMIT: usize = 12;

/// And so many more by refresh tokens that somebody takes over from elsewhere: 15 together.
pub(crate) const TAKE_OVER_LIMIT: usize = 3;

/// The length of the window that [`REQUEST_LIMIT`] speaks of.
pub const REQUEST_PERIOD: Duration = Duration::from_mins(5);

/// How long a request counts: the period, and a second because the file keeps whole milliseconds of a clock that NTP slews.
pub(crate) const COUNTED: Duration = Duration::from_secs(5 * 60 + 1);

/// What the two clocks may differ in between two looks if nobody set one: both are slewed alike. Well below the second
/// in [`COUNTED`].
const STEADY: Duration = Duration::from_millis(100);

/// More than any limit, because processes may differ on when a request stops counting after the clock was set:
/// what one of them took for the oldest must not be lost to another.
const REMEMBERED: usize = 32;

/// One request among those of all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId {
    /// Who made it: a random number for each opened ledger; 0 for those of a file that did not tell.
    pub(crate) owner: u64,
    /// Which of the owner's it is.
    pub(crate) number: u64,
}

/// A request as processes tell each other of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) time: WallTime,
    pub(crate) id: RequestId,
}

/// The requests that still count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// The one that stops counting first comes first.
    requests: Vec<Request>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    id: RequestId,
    /// When it stops counting.
    end: Monotonic,
}

impl Window {
    /// The window of somebody who may have used up everything just now.
    pub(crate) fn full(now: Now, ids: impl IntoIterator<Item = RequestId>) -> Self {
        Self { requests: ids.into_iter().map(|id| Request { id, end: now.monotonic + COUNTED }).collect() }
    }

    /// Counts those of `records` that are not known yet. `looked` is when the records were looked at before: none that
    /// is new can be older, and if the clock was set since, it may be as new as now. One in the future counts as now, so
    /// that a clock set back locks for one period at most.
    pub(crate) fn learn(&mut self, records: &[Record], now: Now, looked: Option<Now>) {
        let oldest = looked.map_or(Duration::MAX, |looked| oldest_news(looked, now));
        for record in records {
            if self.requests.iter().any(|known| known.id == record.id) {
                continue;
            }
            let age = now.wall.saturating_since(record.time).min(oldest);
            let left = COUNTED.saturating_sub(age);
            if !left.is_zero() {
                self.insert(Request { id: record.id, end: now.monotonic + left });
            }
        }
    }

    /// The requests that still count at `now`, for others to learn.
    pub(crate) fn records(&self, now: Now) -> Vec<Record> {
        let counted = self.requests.iter().filter(|request| request.end > now.monotonic);
        let record = |request: &Request| {
            let left = request.end.saturating_since(now.monotonic);
            // Up to the next millisecond: however often it is told on, a request must not grow older by that.
            let left = Duration::from_millis(u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX));
            Record { time: now.wall + left - COUNTED, id: request.id }
        };
        counted.map(record).collect()
    }

    /// How long until one more request is within a budget of `limit`, at least 1; zero if it is now.
    pub(crate) fn wait(&self, now: Now, limit: usize) -> Duration {
        let frees = self.requests.iter().rev().nth(limit.saturating_sub(1));
        frees.map_or(Duration::ZERO, |request| request.end.saturating_since(now.monotonic))
    }

    /// Counts a request at `now`. The caller has waited for [`Window::wait`].
    pub(crate) fn record(&mut self, id: RequestId, now: Now) {
        self.insert(Request { id, end: now.monotonic + COUNTED });
    }

    fn insert(&mut self, request: Request) {
        let place = self.requests.partition_point(|other| other.end <= request.end);
        self.requests.insert(place, request);
        if self.requests.len() > REMEMBERED {
            self.requests.remove(0);
        }
    }
}

/// How old a request that was not there at `looked` may be taken for at `now`.
fn oldest_news(looked: Now, now: Now) -> Duration {
    let elapsed = now.monotonic.saturating_since(looked.monotonic);
    let clock_was_set = now.wall.saturating_since(looked.wall).abs_diff(elapsed) > STEADY;
    if clock_was_set { Duration::ZERO } else { elapsed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Now {
        let wall = WallTime::from_unix_millis(1_800_000_000_000 + i64::try_from(millis).unwrap());
        Now { wall, monotonic: Monotonic::from_start(Duration::from_millis(millis)) }
    }

    fn id(number: u64) -> RequestId {
        RequestId { owner: 1, number }
    }

    fn learnt(times: &[WallTime], now: Now) -> Window {
        let records: Vec<_> = (0..).zip(times).map(|(number, &time)| Record { time, id: id(number) }).collect();
        let mut window = Window::default();
        window.learn(&records, now, None);
        window
    }

    #[test]
    fn the_sixth_waits_for_the_first() {
        let mut window = Window::default();
        for second in 0..5 {
            assert_eq!(window.wait(at(second * 1000), REQUEST_LIMIT), Duration::ZERO);
            window.record(id(second), at(second * 1000));
        }
        assert_eq!(window.wait(at(10_000), REQUEST_LIMIT), Duration::from_secs(291));
        assert_eq!(window.wait(at(301_000), REQUEST_LIMIT), Duration::ZERO);
        window.record(id(5), at(301_000));
        assert_eq!(window.wait(at(301_000), REQUEST_LIMIT), Duration::from_secs(1));
    }

    #[test]
    fn times_in_the_future_count_as_now() {
        let year = WallTime::from_unix_millis(1_900_000_000_000);
        let window = learnt(&[year; 5], at(0));
        assert_eq!(window.wait(at(0), REQUEST_LIMIT), COUNTED);
        assert_eq!(window, Window::full(at(0), (0..5).map(id)));
    }

    #[test]
    fn absurd_times_do_no_harm() {
        for millis in [i64::MIN, i64::MAX, 0] {
            let time = WallTime::from_unix_millis(millis);
            assert!(learnt(&[time; 99], at(0)).wait(at(0), REQUEST_LIMIT) <= COUNTED);
        }
    }

    #[test]
    fn setting_the_clock_changes_nothing_while_it_runs() {
        let mut window = Window::default();
        for number in 0..5 {
            window.record(id(number), at(0));
        }
        let records = window.records(at(0));
        for wall in [0, 1_900_000_000_000] {
            let now = Now { wall: WallTime::from_unix_millis(wall), ..at(1_000) };
            assert_eq!(window.wait(now, REQUEST_LIMIT), Duration::from_mins(5));
            window.learn(&records, now, None);
            assert_eq!(window.wait(now, REQUEST_LIMIT), Duration::from_mins(5), "its own are known by their names");
        }
    }

    #[test]
    fn what_is_new_is_no_older_than_the_last_look_nor_than_the_clock_was_set() {
        let records: Vec<_> = (0..5).map(|number| Record { time: at(0).wall, id: id(number) }).collect();
        let looked = at(100_000);
        let set = |wall| Now { wall: at(wall).wall, ..at(250_000) };
        for (now, wait) in [(set(250_000), 151), (set(250_090), 151), (set(499_460), 301), (set(9_000_000), 301)] {
            let mut window = Window::default();
            window.learn(&records, now, Some(looked));
            assert_eq!(window.wait(now, REQUEST_LIMIT), Duration::from_secs(wait), "{now:?}");
        }
    }

    #[test]
    fn telling_on_makes_nothing_older() {
        let mut window = Window::default();
        for number in 0..5 {
            window.record(id(number), at(0));
        }
        let mut nanos = 0;
        for _ in 0..3_000 {
            nanos += 100_000_300;
            let elapsed = Duration::from_nanos(nanos);
            let now = Now { wall: at(0).wall + elapsed, monotonic: Monotonic::from_start(elapsed) };
            let mut restarted = Window::default();
            restarted.learn(&window.records(now), now, None);
            window = restarted;
            assert!(window.wait(now, REQUEST_LIMIT) + elapsed > REQUEST_PERIOD, "{elapsed:?}");
        }
    }

    /// Processes that share a file and make requests whenever the budget lets them, in true milliseconds.
    #[derive(Default)]
    struct Model {
        time: u64,
        wall_ahead: i64,
        file: Vec<Record>,
        processes: [Option<Process>; 4],
        started: u64,
        made: Vec<u64>,
        /// When, and after how many requests.
        set_forward: Vec<(u64, usize)>,
    }

    struct Process {
        started: u64,
        looked: Now,
        owner: u64,
        window: Window,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        SetClock(i64),
        Start(usize),
        Stop(usize),
        Ask(usize),
    }

    impl Model {
        fn now(&self, started: u64) -> Now {
            let wall = 1_800_000_000_000 + i64::try_from(self.time).unwrap() + self.wall_ahead;
            let monotonic = Monotonic::from_start(Duration::from_millis(self.time - started));
            Now { wall: WallTime::from_unix_millis(wall), monotonic }
        }

        fn take(&mut self, step: &Step) {
            match *step {
                Step::Pass(millis) => self.time += millis,
                Step::SetClock(by) => {
                    self.wall_ahead += by;
                    if by > 0 {
                        self.set_forward.push((self.time, self.made.len()));
                    }
                }
                Step::Start(place) => {
                    let now = self.now(self.time);
                    self.started += 1;
                    let mut window = Window::default();
                    window.learn(&self.file, now, None);
                    self.file = window.records(now);
                    let (started, owner) = (self.time, self.started);
                    self.processes[place] = Some(Process { started, looked: now, owner, window });
                }
                Step::Stop(place) => self.processes[place] = None,
                Step::Ask(place) => {
                    let Some(mut process) = self.processes[place].take() else { return };
                    let now = self.now(process.started);
                    process.window.learn(&self.file, now, Some(process.looked));
                    process.looked = now;
                    if process.window.wait(now, REQUEST_LIMIT).is_zero() {
                        let number = self.made.len() as u64;
                        process.window.record(RequestId { owner: process.owner, number }, now);
                        self.made.push(self.time);
                    }
                    self.file = process.window.records(now);
                    self.processes[place] = Some(process);
                }
            }
        }

        /// A start that has only wall times to go by, less than a period after the clock was set forward.
        fn is_deceived(&self, step: &Step) -> bool {
            let recent = |(time, _): &(u64, usize)| u128::from(self.time - time) <= COUNTED.as_millis();
            matches!(step, Step::Start(_)) && self.set_forward.last().is_some_and(recent)
        }
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..60_000u64).prop_map(Step::Pass),
            1 => (250_000..302_000u64).prop_map(Step::Pass),
            // So that steps to and fro do not cancel: that, between two looks, nobody could see.
            1 => (0..12i64).prop_map(|minutes| Step::SetClock(minutes * 60_000 + 600)),
            1 => (1..12i64).prop_map(|minutes| Step::SetClock(minutes * -60_000)),
            3 => (0..4usize).prop_map(Step::Start),
            1 => (0..4usize).prop_map(Step::Stop),
            9 => (0..4usize).prop_map(Step::Ask),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// The law. Left out are starts less than a period after the clock was set forward: for those, nothing on disk
        /// tells the step from time that has passed.
        #[test]
        fn no_five_minutes_hold_more_than_five(steps in steps()) {
            let mut model = Model::default();
            for step in &steps {
                if !model.is_deceived(step) {
                    model.take(step);
                }
            }
            for six in model.made.windows(REQUEST_LIMIT + 1) {
                prop_assert!(u128::from(six[REQUEST_LIMIT] - six[0]) > REQUEST_PERIOD.as_millis(), "{six:?}");
            }
        }

        /// What those starts can cost: one more budget for each time that the clock is set forward.
        #[test]
        fn a_clock_set_forward_costs_one_budget_at_most(steps in steps()) {
            let mut model = Model::default();
            for step in &steps {
                model.take(step);
            }
            let mut from = 0;
            for upto in model.set_forward.iter().map(|(_, made)| *made).chain([model.made.len()]) {
                for six in model.made[from..upto].windows(REQUEST_LIMIT + 1) {
                    prop_assert!(u128::from(six[REQUEST_LIMIT] - six[0]) > REQUEST_PERIOD.as_millis(), "{six:?}");
                }
                from = upto;
            }
        }

        /// Whatever the file says and wherever the clock stands, the budget comes back within one period.
        #[test]
        fn nothing_locks_for_ever(times in prop::collection::vec(any::<i64>(), 0..50), wall in any::<i64>()) {
            let times: Vec<_> = times.into_iter().map(WallTime::from_unix_millis).collect();
            let now = Now { wall: WallTime::from_unix_millis(wall), ..at(0) };
            prop_assert!(learnt(&times, now).wait(now, REQUEST_LIMIT) <= COUNTED);
        }
    }
}
