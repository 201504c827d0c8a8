//! How often it is said that something stays wrong: when it is new, and then once a day for as long as it lasts. Pure.
//! What is wrong, and in which words it is told, is the caller's.

use std::collections::BTreeSet;

use clock::WallTime;

use super::validity::DAY;

/// Why something is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It is new.
    First,
    /// It has lasted for a day more.
    Again,
}

/// Something that is wrong until somebody mends it.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// The causes that were told since the files changed last. Few: they are what reading the same files can end with.
    told: BTreeSet<String>,
    /// Since when a day is counted; none while all is well.
    since: Option<WallTime>,
}

impl Standing {
    /// Whether it is to be said at `now` that it is wrong, and `cause` is why: each cause once, again when files `changed`,
    /// and once a day whatever came between, so that files that are written every day and never fit do not hide it.
    pub(crate) fn word(&mut self, cause: &str, changed: bool, now: WallTime) -> Option<Word> {
        if changed {
            self.told.clear();
        }
        let is_new = self.told.insert(cause.to_owned());
        // A clock that went back counts anew: how long it has lasted is not known.
        let since = self.since.filter(|since| *since <= now).unwrap_or(now);
        let is_again = now.saturating_since(since) >= DAY;
        self.since = Some(if is_again { now } else { since });
        if is_again { Some(Word::Again) } else { is_new.then_some(Word::First) }
    }

    /// All is well.
    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    const NOON: WallTime = WallTime::from_unix_millis(1_800_000_000_000);

    #[test]
    fn a_cause_is_told_once_anew_with_each_change_and_once_a_day() {
        let mut standing = Standing::default();
        for (cause, changed, hours, word) in [
            (Some("a"), true, 0, Some(Word::First)),
            (Some("a"), false, 1, None),
            // Two causes by turns, as when there is room for one more open file and then for none.
            (Some("b"), false, 2, Some(Word::First)),
            (Some("a"), false, 3, None),
            (Some("b"), false, 4, None),
            (Some("a"), true, 5, Some(Word::First)),
            (Some("a"), false, 23, None),
            // A day after it began, whatever came between.
            (Some("a"), true, 24, Some(Word::Again)),
            (Some("a"), false, 47, None),
            (Some("a"), false, 48, Some(Word::Again)),
            // The clock was set back: a day is counted from there.
            (Some("a"), false, 10, None),
            (Some("a"), false, 33, None),
            (Some("a"), false, 34, Some(Word::Again)),
            (None, false, 35, None),
            (Some("a"), false, 36, Some(Word::First)),
            (Some("a"), false, 59, None),
            (Some("a"), false, 60, Some(Word::Again)),
        ] {
            let now = NOON + Duration::from_hours(hours);
            let Some(cause) = cause else {
                standing.end();
                continue;
            };
            assert_eq!(standing.word(cause, changed, now), word, "{cause} {changed} {hours}");
        }
    }

    proptest! {
        #[test]
        fn no_day_without_a_word_however_often_files_change(
            looks in proptest::collection::vec((1u64..7200, any::<bool>(), 0u8..3), 1..200),
        ) {
            let mut standing = Standing::default();
            let (mut now, mut last) = (NOON, None);
            for (seconds, changed, cause) in looks {
                now = now + Duration::from_secs(seconds);
                let since = last.get_or_insert(now);
                if standing.word(&cause.to_string(), changed, now) == Some(Word::Again) {
                    prop_assert!(now.saturating_since(*since) >= DAY);
                    *since = now;
                }
                prop_assert!(now.saturating_since(*since) < DAY);
            }
        }
    }
}
