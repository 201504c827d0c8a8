//! How a certificate's dates stand to the time of day, and when that is said again. Pure. Nothing is refused for it:
//! devices rarely look at dates, and mail that stops on one would be the greater harm.

use std::time::Duration;

use clock::WallTime;

/// How often what is wrong is said.
pub(super) const DAY: Duration = Duration::from_hours(24);
/// How long before its end a certificate is warned of, each once.
const NOTICES: [Duration; 3] = [DAY, DAY.saturating_mul(7), DAY.saturating_mul(30)];
/// A notice that takes more than this part of a certificate's life would come with every renewal that is in time:
/// certificates of 90 days are renewed 30 days before their end.
const PART_OF_LIFE: u32 = 4;

/// How a certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    /// Its time has not begun: the machine's clock is behind, or it was made for later.
    NotYet,
    /// Nothing to say.
    Good,
    /// It ends within this time, the shortest notice that holds.
    EndsWithin(Duration),
    /// Its time is over.
    Expired,
}

impl Validity {
    /// Of a certificate that is good from `not_before` to `not_after`, both included (RFC 5280 section 4.1.2.5).
    pub(crate) fn at(not_before: WallTime, not_after: WallTime, now: WallTime) -> Self {
        if now > not_after {
            return Self::Expired;
        }
        if now < not_before {
            return Self::NotYet;
        }
        let (life, left) = (not_after.saturating_since(not_before), not_after.saturating_since(now));
        let notice = NOTICES.into_iter().find(|notice| left <= *notice && *notice <= life / PART_OF_LIFE);
        notice.map_or(Self::Good, Self::EndsWithin)
    }
}

/// Whether what was said at `at` is to be said again at `now`: a day later, or when the clock went back, since nobody
/// knows then how long ago it was.
fn is_a_day_after(at: WallTime, now: WallTime) -> bool {
    now < at || now.saturating_since(at) >= DAY
}

/// What was last said of a certificate's dates.
#[derive(Debug, Default)]
pub(crate) struct Reminder {
    told: Option<(Validity, WallTime)>,
}

impl Reminder {
    /// Whether `validity` is to be said now: a notice once, what is wrong once a day.
    pub(crate) fn is_due(&mut self, validity: Validity, now: WallTime) -> bool {
        let again = match (self.told, validity) {
            (_, Validity::Good) => {
                // What was told is over, perhaps because a wrong clock was set right: it is news if it comes again.
                self.told = None;
                false
            }
            (Some((told, at)), Validity::NotYet | Validity::Expired) => told != validity || is_a_day_after(at, now),
            (Some((told, _)), Validity::EndsWithin(_)) => told != validity,
            (None, _) => true,
        };
        if again {
            self.told = Some((validity, now));
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    const NOON: WallTime = WallTime::from_unix_millis(1_800_000_000_000);

    fn days(days: u32) -> Duration {
        DAY * days
    }

    #[test]
    fn dates() {
        let year = (NOON - days(300), NOON + days(65));
        let quarter = (NOON - days(45), NOON + days(45));
        let day = (NOON - days(1) / 2, NOON + days(1) / 2);
        let second = Duration::from_secs(1);
        for ((not_before, not_after), now, expected) in [
            (year, NOON, Validity::Good),
            (year, year.0, Validity::Good),
            (year, year.0 - second, Validity::NotYet),
            (year, year.1 - days(30) - second, Validity::Good),
            (year, year.1 - days(30), Validity::EndsWithin(days(30))),
            (year, year.1 - days(7) - second, Validity::EndsWithin(days(30))),
            (year, year.1 - days(7), Validity::EndsWithin(days(7))),
            (year, year.1 - days(1) - second, Validity::EndsWithin(days(7))),
            (year, year.1 - days(1), Validity::EndsWithin(days(1))),
            (year, year.1, Validity::EndsWithin(days(1))),
            (year, year.1 + second, Validity::Expired),
            // Renewed 30 days before its end, which is no news.
            (quarter, quarter.1 - days(30), Validity::Good),
            (quarter, quarter.1 - days(7), Validity::EndsWithin(days(7))),
            (day, day.1, Validity::Good),
            (day, day.1 + second, Validity::Expired),
            // Turned round: never good, and nothing overflows.
            ((NOON, NOON - second), NOON, Validity::Expired),
            ((NOON + second, NOON), NOON, Validity::NotYet),
        ] {
            assert_eq!(Validity::at(not_before, not_after, now), expected, "{not_before} {not_after} {now}");
        }
    }

    #[test]
    fn what_is_said_and_how_often() {
        let mut reminder = Reminder::default();
        let thirty = Validity::EndsWithin(days(30));
        for (validity, hours, due) in [
            (Validity::Good, 0, false),
            (thirty, 1, true),
            (thirty, 400, false),
            (Validity::EndsWithin(days(7)), 401, true),
            (Validity::EndsWithin(days(7)), 402, false),
            (Validity::Expired, 500, true),
            (Validity::Expired, 523, false),
            (Validity::Expired, 524, true),
            (Validity::Expired, 547, false),
            // The clock was set back before its time, and forth again.
            (Validity::NotYet, 10, true),
            (Validity::NotYet, 33, false),
            (Validity::NotYet, 34, true),
            (Validity::Expired, 548, true),
            // The clock was years ahead and was set right: the real end is told when it comes.
            (Validity::Expired, 90_000, true),
            (Validity::Good, 560, false),
            (Validity::Expired, 600, true),
            (Validity::Expired, 623, false),
            // The same, set right to a time at which it had expired too.
            (Validity::Expired, 90_000, true),
            (Validity::Expired, 624, true),
            (Validity::Expired, 625, false),
            // A notice comes once, and anew after a time in which there was none.
            (thirty, 300, true),
            (Validity::Good, 1, false),
            (thirty, 301, true),
            (thirty, 300, false),
        ] {
            assert_eq!(reminder.is_due(validity, NOON + Duration::from_hours(hours)), due, "{validity:?} {hours}");
        }
    }

    proptest! {
        #[test]
        fn no_day_without_a_word_of_an_expired_one_and_not_two(looks in proptest::collection::vec(1u64..7200, 1..200)) {
            let mut reminder = Reminder::default();
            let (mut now, mut told) = (NOON, None);
            for seconds in looks {
                now = now + Duration::from_secs(seconds);
                if reminder.is_due(Validity::Expired, now) {
                    prop_assert!(told.is_none_or(|told| now.saturating_since(told) >= DAY));
                    told = Some(now);
                }
                prop_assert!(told.is_some_and(|told| now.saturating_since(told) < DAY));
            }
        }
    }
}
