//! What ends one day, and when a person is told: 30, 7 and 1 days before, and when it is over. Pure.
//!
//! In which words, and where, is the caller's matter.

use std::time::Duration;

use clock::WallTime;

const DAY: Duration = Duration::from_hours(24);

/// How near an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// 30 days or less.
    Month,
    /// 7 days or less.
    Week,
    /// A day or less.
    Day,
    /// It is over.
    Over,
}

impl Nearness {
    /// How near `end` is at `now`; none while it is farther than 30 days.
    pub fn of(end: WallTime, now: WallTime) -> Option<Self> {
        if now >= end {
            return Some(Self::Over);
        }
        let left = end.saturating_since(now);
        [(DAY, Self::Day), (7 * DAY, Self::Week), (30 * DAY, Self::Month)]
            .into_iter()
            .find(|(within, _)| left <= *within)
            .map(|(_, nearness)| nearness)
    }
}

/// What of one end has been told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    last: Option<(WallTime, Nearness)>,
}

impl Told {
    /// What is to be told now of `end`; each nearness once. An end that moved is another one.
    pub(crate) fn news(&mut self, end: WallTime, now: WallTime) -> Option<Nearness> {
        let nearness = Nearness::of(end, now)?;
        let is_told = self.last.is_some_and(|(of, told)| of == end && told >= nearness);
        self.last = Some((end, nearness)).filter(|_| !is_told).or(self.last);
        (!is_told).then_some(nearness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: WallTime = WallTime::from_unix_millis(1_800_000_000_000);

    #[test]
    fn each_nearness_is_told_once() {
        let mut told = Told::default();
        let mut news = |hours_left: u64| told.news(END, END - Duration::from_hours(hours_left));
        for (hours_left, expected) in [
            (31 * 24, None),
            (30 * 24 + 1, None),
            (30 * 24, Some(Nearness::Month)),
            (29 * 24, None),
            (7 * 24, Some(Nearness::Week)),
            (48, None),
            (24, Some(Nearness::Day)),
            (1, None),
            (0, Some(Nearness::Over)),
            (0, None),
            // The clock was set back: it was told already.
            (24, None),
        ] {
            assert_eq!(news(hours_left), expected, "{hours_left}");
        }
    }

    #[test]
    fn a_late_look_tells_what_is_true_now_and_a_new_end_is_new() {
        let mut told = Told::default();
        assert_eq!(told.news(END, END - Duration::from_hours(3)), Some(Nearness::Day));
        let later = END + Duration::from_hours(24 * 20);
        assert_eq!(told.news(later, END), Some(Nearness::Month));
        assert_eq!(told.news(later, END), None);
        assert_eq!(Nearness::of(END, END + Duration::from_hours(1)), Some(Nearness::Over));
    }
}
