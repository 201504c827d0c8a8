//! When to ask: refresh before expiry, back-off after failure, and the two clocks that both count. Pure.
//!
//! Wall time alone fails when an administrator or NTP sets it back; monotonic time alone stops while the machine is
//! suspended. A [`Deadline`] therefore carries both and has passed as soon as either says so.

use std::time::Duration;

use clock::{Clock, Monotonic, WallTime};

/// The longest sleep between two looks at the clock: timers do not run on through a suspend, and nothing tells us that
/// the clock was set, so a token may be this much late in being noticed as due.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// The least wait after a refresh token was refused first: AADSTS50196 and a locked account look like that, and pass.
pub(crate) const FIRST_REFUSED_GRANT_RETRY: Duration = Duration::from_mins(5);

/// And after it has been refused for so long: it rarely comes back to life, and a sign-in is noticed at once.
pub(crate) const REFUSED_GRANT_RETRY: Duration = Duration::from_hours(1);

/// Exchange's High Volume Email refuses a token with less than ten minutes to live (`501 5.5.127`).
pub(crate) const LEAST_LIFE_LEFT: Duration = Duration::from_mins(10);

/// A `refresh_in` below this would spend the request budget on refreshes; it is taken as absent.
const SHORTEST_REFRESH: Duration = Duration::from_mins(1);

const FIRST_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_mins(5);
/// Five tries at 0, 5, 20, 65 and 200 s, the sixth beyond 5 minutes: an outage alone never meets the request budget.
const RETRY_GROWTH: u32 = 3;
const RETRY_SPREAD: f64 = 0.25;

/// The least wait after HTTP 400 or 401, as MSAL does: the same request meets the same answer.
const REFUSED_RETRY: Duration = Duration::from_mins(1);

/// The longest `Retry-After` that is honoured, as in MSAL.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) wall: WallTime,
    pub(crate) monotonic: Monotonic,
}

impl Now {
    pub(crate) fn of(clock: &dyn Clock) -> Self {
        Self { wall: clock.wall(), monotonic: clock.monotonic() }
    }
}

/// A moment to come on both clocks; passed as soon as one of them has reached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    wall: WallTime,
    monotonic: Monotonic,
}

impl Deadline {
    pub(crate) fn after(now: Now, wait: Duration) -> Self {
        Self { wall: now.wall + wait, monotonic: now.monotonic + wait }
    }

    pub(crate) fn passed(self, now: Now) -> bool {
        self.remaining(now).is_zero()
    }

    pub(crate) fn remaining(self, now: Now) -> Duration {
        self.wall.saturating_since(now.wall).min(self.monotonic.saturating_since(now.monotonic))
    }

    /// For people; decisions use both clocks.
    pub(crate) fn wall(self) -> WallTime {
        self.wall
    }
}

/// How long until all managers look at the clock, their credentials and the vault: at the same moments, [`LONGEST_SLEEP`]
/// apart, so that many of them wake an idle machine no more often than one does.
pub(crate) fn next_look(now: Now) -> Duration {
    let period = LONGEST_SLEEP.as_nanos();
    let into = now.monotonic.saturating_since(Monotonic::from_start(Duration::ZERO)).as_nanos() % period;
    Duration::from_nanos(u64::try_from(period - into).unwrap_or(u64::MAX))
}

/// How long after it was asked for a token that lives `lifetime` is refreshed: at 60 to 75 % of its life, or shortly
/// after the endpoint's `refresh_in`, and with [`LEAST_LIFE_LEFT`] to spare where that leaves it half its life.
pub(crate) fn refresh_after(lifetime: Duration, refresh_in: Option<Duration>, chance: f64) -> Duration {
    let latest = lifetime.saturating_sub(LEAST_LIFE_LEFT).max(lifetime / 2);
    let wished = match refresh_in.filter(|wish| *wish >= SHORTEST_REFRESH) {
        Some(wish) => wish.mul_f64(1.0 + 0.1 * chance),
        None => lifetime.mul_f64(0.60 + 0.15 * chance),
    };
    wished.min(latest)
}

/// How long to wait after the `failures`-th failure in a row (counted from 1) that came with `http_status`.
pub(crate) fn retry_after(failures: u32, http_status: Option<u16>, asked: Option<Duration>, chance: f64) -> Duration {
    let growth = RETRY_GROWTH.saturating_pow(failures.saturating_sub(1).min(9));
    let backoff = FIRST_RETRY.saturating_mul(growth).min(LONGEST_RETRY);
    let backoff = clock::jitter(backoff, RETRY_SPREAD, chance);
    let refused = if matches!(http_status, Some(400 | 401)) { REFUSED_RETRY } else { Duration::ZERO };
    let asked = asked.map_or(Duration::ZERO, |asked| asked.min(LONGEST_RETRY_AFTER));
    backoff.max(refused).max(asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn refresh_table() {
        for (lifetime, refresh_in, chance, expected) in [
            (3600, None, 0.0, 2160),
            (3600, None, 1.0, 2700),
            (5400, None, 0.5, 3645),
            // Ten minutes before the end.
            (1800, None, 1.0, 1200),
            (1200, None, 1.0, 600),
            // Too short for ten minutes: half the life.
            (900, None, 0.0, 450),
            (60, None, 0.5, 30),
            // `refresh_in`, with jitter upward, never too late, never absurdly early.
            (86_400, Some(43_200), 0.0, 43_200),
            (86_400, Some(43_200), 1.0, 47_520),
            (3600, Some(3599), 0.0, 3000),
            (3600, Some(0), 0.0, 2160),
            (3600, Some(1_000_000), 0.0, 3000),
        ] {
            let after = refresh_after(secs(lifetime), refresh_in.map(secs), chance);
            assert_eq!(after.as_secs(), expected, "{lifetime} {refresh_in:?} {chance}");
        }
    }

    #[test]
    fn retry_table() {
        let even = |failures, status, asked: Option<u64>| retry_after(failures, status, asked.map(secs), 0.5).as_secs();
        for (failures, expected) in [(1, 5), (2, 15), (3, 45), (4, 135), (5, 300), (6, 300), (u32::MAX, 300)] {
            assert_eq!(even(failures, None, None), expected, "{failures}");
        }
        assert_eq!(even(1, Some(400), None), 60);
        assert_eq!(even(1, Some(401), None), 60);
        assert_eq!(even(4, Some(401), None), 135);
        assert_eq!(even(1, Some(503), None), 5);
        assert_eq!(even(1, Some(429), Some(120)), 120);
        assert_eq!(even(5, Some(429), Some(1)), 300);
        assert_eq!(even(1, Some(429), Some(u64::MAX)), 3600);
        assert_eq!(retry_after(1, None, None, 0.0).as_millis(), 3750);
    }

    #[test]
    fn either_clock_ends_a_wait() {
        let start = Now { wall: WallTime::from_unix_millis(1_000_000), monotonic: Monotonic::from_start(secs(50)) };
        let deadline = Deadline::after(start, secs(100));
        let at =
            |wall, mono| Now { wall: WallTime::from_unix_millis(wall), monotonic: Monotonic::from_start(secs(mono)) };
        for (wall, mono, left) in [
            (1_000_000, 50, 100),
            (1_040_000, 90, 60),
            (1_100_000, 150, 0),
            // Suspended: wall time went on alone.
            (1_100_000, 51, 0),
            // Set back: monotonic time alone goes on.
            (0, 120, 30),
            (0, 150, 0),
        ] {
            assert_eq!(deadline.remaining(at(wall, mono)), secs(left), "{wall} {mono}");
            assert_eq!(deadline.passed(at(wall, mono)), left == 0);
        }
    }

    proptest! {
        #[test]
        fn a_refresh_leaves_ten_minutes_or_half_the_life(lifetime in 60u64..200_000, wish in prop::option::of(any::<u32>()), chance in 0.0f64..1.0) {
            let after = refresh_after(secs(lifetime), wish.map(|wish| secs(wish.into())), chance);
            let left = secs(lifetime).checked_sub(after).expect("before the end");
            prop_assert!(left >= LEAST_LIFE_LEFT.min(secs(lifetime) / 2));
            prop_assert!(after >= secs(lifetime.min(120) / 2));
        }

        #[test]
        fn a_retry_waits_seconds_to_an_hour(failures in 1u32.., status in prop::option::of(100u16..600), asked in prop::option::of(any::<u64>()), chance in 0.0f64..1.0) {
            let wait = retry_after(failures, status, asked.map(secs), chance);
            prop_assert!(wait >= secs(3) && wait <= LONGEST_RETRY_AFTER);
        }
    }
}
