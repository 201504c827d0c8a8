//! Notices that the machine's clock was set back: wall time against monotonic time. Pure.

use std::time::Duration;

use clock::{Monotonic, WallTime};

/// Less than this is a clock being disciplined, and harms no schedule.
const TOLERANCE: Duration = Duration::from_mins(1);

/// The two times as they were when last looked at.
#[derive(Debug)]
pub(crate) struct ClockWatch {
    wall: WallTime,
    monotonic: Monotonic,
}

impl ClockWatch {
    /// Starts watching.
    pub(crate) fn new(wall: WallTime, monotonic: Monotonic) -> Self {
        Self { wall, monotonic }
    }

    /// Whether wall time has gone back since the last look.
    pub(crate) fn was_set_back(&mut self, wall: WallTime, monotonic: Monotonic) -> bool {
        let expected = self.wall + monotonic.saturating_since(self.monotonic);
        *self = Self { wall, monotonic };
        expected.saturating_since(wall) > TOLERANCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::{Clock, ManualClock};

    #[test]
    fn only_a_clock_that_goes_back_is_noticed_and_only_once() {
        let clock = ManualClock::at(WallTime::from_unix_millis(1_000_000_000_000));
        let mut watch = ClockWatch::new(clock.wall(), clock.monotonic());
        let mut look = || watch.was_set_back(clock.wall(), clock.monotonic());
        clock.advance(Duration::from_hours(1));
        assert!(!look());
        clock.set_wall(clock.wall() + Duration::from_hours(5));
        assert!(!look(), "forward");
        clock.advance(Duration::from_secs(30));
        clock.set_wall(clock.wall() - Duration::from_hours(6));
        assert!(look(), "back");
        clock.advance(Duration::from_secs(30));
        assert!(!look(), "told once");
        clock.set_wall(clock.wall() - Duration::from_secs(5));
        assert!(!look(), "a small correction");
    }
}
