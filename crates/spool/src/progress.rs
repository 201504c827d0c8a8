//! What a delivery has behind it. The relay counts; the spool keeps the counts.

use std::time::Duration;

/// What a delivery has behind it. Durations are kept in whole milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Attempts that counted.
    pub attempts: u32,
    /// How often upstream may already have taken it without our knowing.
    pub uncertain: u32,
    /// Time that counts against the longest age.
    pub age: Duration,
    /// Time waited because upstream refuses the sender.
    pub denied: Duration,
    /// Whether its sender was told that it is late.
    pub delay_told: bool,
}

impl Progress {
    /// As it comes back from the database.
    pub(crate) fn in_millis(self) -> Self {
        let whole = |time: Duration| Duration::from_millis(u64::try_from(millis(time)).unwrap_or(0));
        Self { age: whole(self.age), denied: whole(self.denied), ..self }
    }
}

/// As the database stores it.
pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
