//! Wall time, monotonic time and randomness as values.
//!
//! Everything that decides by time or chance takes these as arguments, so that a test can own them. The only place
//! that asks the operating system is [`SystemClock`]. Nothing here sleeps.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A point in wall time, in whole milliseconds since 1970-01-01T00:00:00Z. It jumps when the machine's clock is set;
/// use it for what must survive a restart (due times, expiries), [`Monotonic`] for everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(i64);

impl WallTime {
    /// From milliseconds since the Unix epoch.
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch, the form in which the spool stores it.
    pub const fn unix_millis(self) -> i64 {
        self.0
    }

    /// How much later `self` is than `earlier`; zero if it is not.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 5322 section 3.3 date in UTC, as in `Sat, 21 Nov 2026 07:54:00 +0000`.
    pub fn rfc5322(self) -> String {
        self.timestamp().to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
    }

    /// RFC 3339 with milliseconds in UTC, as in `2026-11-21T07:54:00.123Z`.
    pub fn rfc3339(self) -> String {
        self.timestamp().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
    }

    /// Reads what [`Self::rfc3339`] writes, and any other RFC 3339 time with an offset. None if it is not one.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        text.parse::<Timestamp>().ok().map(|time| Self(time.as_millisecond()))
    }

    fn timestamp(self) -> Timestamp {
        Timestamp::from_millisecond(self.0).unwrap_or(if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX })
    }
}

impl Add<Duration> for WallTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for WallTime {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// A point in monotonic time: the duration since the clock was made. It never jumps and means nothing after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// From the time passed since the clock was made.
    pub const fn from_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How much later `self` is than `earlier`; zero if it is not.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Where time and chance come from. Cheap to call; shared between tasks.
pub trait Clock: Send + Sync + 'static {
    /// The machine's wall time.
    fn wall(&self) -> WallTime;
    /// Time since this clock was made.
    fn monotonic(&self) -> Monotonic;
    /// A number drawn evenly from `[0, 1)`; for jitter and spreading, never for secrets.
    fn chance(&self) -> f64;
}

/// The operating system's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> WallTime {
        // A clock before 1970 is a machine without a battery; its earliest time is good enough until it is set.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.start.elapsed())
    }

    fn chance(&self) -> f64 {
        fastrand::f64()
    }
}

/// A clock that moves only when told to, for tests.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<ManualState>,
}

#[derive(Debug)]
struct ManualState {
    wall: WallTime,
    monotonic: Monotonic,
    chance: f64,
}

impl ManualClock {
    /// A clock that stands at `wall`, with monotonic time zero and chance 0.5.
    pub fn at(wall: WallTime) -> Self {
        Self { state: Mutex::new(ManualState { wall, monotonic: Monotonic::default(), chance: 0.5 }) }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        self.change(|state| {
            state.wall = state.wall + by;
            state.monotonic = state.monotonic + by;
        });
    }

    /// Sets the wall time as an administrator or NTP would; monotonic time stays.
    pub fn set_wall(&self, wall: WallTime) {
        self.change(|state| state.wall = wall);
    }

    /// What [`Clock::chance`] gives from now on.
    pub fn set_chance(&self, chance: f64) {
        self.change(|state| state.chance = chance);
    }

    fn change<T>(&self, change: impl FnOnce(&mut ManualState) -> T) -> T {
        // A panic between two assignments of plain values leaves nothing half-done worth refusing.
        change(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> WallTime {
        self.change(|state| state.wall)
    }

    fn monotonic(&self) -> Monotonic {
        self.change(|state| state.monotonic)
    }

    fn chance(&self) -> f64 {
        self.change(|state| state.chance)
    }
}

/// Spreads `base` evenly over `base * (1 - spread) ..= base * (1 + spread)`. `chance` is in `[0, 1)`, `spread` in `[0, 1]`.
pub fn jitter(base: Duration, spread: f64, chance: f64) -> Duration {
    base.mul_f64((1.0 - spread + 2.0 * spread * chance).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_utc_in_both_forms() {
        let time = WallTime::from_unix_millis(1_795_247_640_123);
        assert_eq!(time.rfc5322(), "Sat, 21 Nov 2026 07:54:00 +0000");
        assert_eq!(time.rfc3339(), "2026-11-21T07:54:00.123Z");
        assert_eq!(WallTime::default().rfc5322(), "Thu, 01 Jan 1970 00:00:00 +0000");
    }

    #[test]
    fn written_times_read_back() {
        let time = WallTime::from_unix_millis(1_795_247_640_123);
        assert_eq!(WallTime::parse_rfc3339(&time.rfc3339()), Some(time));
        assert_eq!(WallTime::parse_rfc3339("2026-11-21T08:54:00.123+01:00"), Some(time));
        for wrong in ["", "yesterday", "2026-11-21", "2026-13-21T07:54:00Z"] {
            assert_eq!(WallTime::parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn absurd_times_do_not_panic() {
        for millis in [i64::MIN, -1, i64::MAX] {
            let time = WallTime::from_unix_millis(millis);
            assert!(!time.rfc5322().is_empty());
            assert!(!time.rfc3339().is_empty());
        }
        assert_eq!(WallTime::from_unix_millis(i64::MAX) + Duration::MAX, WallTime::from_unix_millis(i64::MAX));
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(WallTime::from_unix_millis(1_000));
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.wall(), WallTime::from_unix_millis(3_000));
        assert_eq!(clock.monotonic(), Monotonic::from_start(Duration::from_secs(2)));
        clock.set_wall(WallTime::from_unix_millis(500));
        assert_eq!(clock.wall().saturating_since(WallTime::from_unix_millis(900)), Duration::ZERO);
        assert_eq!(clock.monotonic(), Monotonic::from_start(Duration::from_secs(2)));
    }

    #[test]
    fn jitter_stays_within_its_spread() {
        let base = Duration::from_secs(100);
        assert_eq!(jitter(base, 0.1, 0.0), Duration::from_secs(90));
        assert_eq!(jitter(base, 0.1, 0.5), Duration::from_secs(100));
        assert!(jitter(base, 0.1, 0.999_999) < Duration::from_secs(110));
    }
}
