//! What would be logged again and again, told at most once a minute: a stranger's port scan or a full disk must not fill the
//! log. Pure: the time is given. Not here: the words of what is told.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clock::Monotonic;

/// How long a thing that was told is not told again.
const EVERY: Duration = Duration::from_mins(1);
/// Things told apart; what comes beyond them within a minute is told as if it were one.
const MAX_KEYS: usize = 1000;

/// When what was told last.
#[derive(Debug)]
pub(crate) struct Repeats<K>(Mutex<Table<K>>);

#[derive(Debug)]
struct Table<K> {
    told: HashMap<K, Told>,
    others: Told,
    swept: Option<Monotonic>,
    /// Left out, and forgotten of whom.
    forgotten: u64,
}

#[derive(Debug, Default)]
struct Told {
    at: Option<Monotonic>,
    left_out: u64,
}

impl<K> Default for Repeats<K> {
    fn default() -> Self {
        let table = Table { told: HashMap::new(), others: Told::default(), swept: None, forgotten: 0 };
        Self(Mutex::new(table))
    }
}

impl<K: Eq + Hash> Repeats<K> {
    /// Whether `key` is to be told at `now`, and then how many were left out since the last time.
    pub(crate) fn tell(&self, key: K, now: Monotonic) -> Option<u64> {
        // Plain counts: a panic elsewhere leaves nothing half-done in them.
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = table.place(key, now).tell(now)?;
        Some(left_out + std::mem::take(&mut table.forgotten))
    }
}

impl<K: Eq + Hash> Table<K> {
    fn place(&mut self, key: K, now: Monotonic) -> &mut Told {
        if self.told.len() >= MAX_KEYS && !self.told.contains_key(&key) {
            self.sweep(now);
            if self.told.len() >= MAX_KEYS {
                return &mut self.others;
            }
        }
        self.told.entry(key).or_default()
    }

    /// Forgets whoever would be told anew. Looks at all of them, so it does that seldom.
    fn sweep(&mut self, now: Monotonic) {
        if self.swept.is_some_and(|swept| now.saturating_since(swept) < EVERY) {
            return;
        }
        self.swept = Some(now);
        let forgotten = &mut self.forgotten;
        self.told.retain(|_, told| {
            let is_kept = !told.is_over(now);
            *forgotten += if is_kept { 0 } else { told.left_out };
            is_kept
        });
    }
}

impl Told {
    fn is_over(&self, now: Monotonic) -> bool {
        self.at.is_none_or(|at| now.saturating_since(at) >= EVERY)
    }

    fn tell(&mut self, now: Monotonic) -> Option<u64> {
        if !self.is_over(now) {
            self.left_out += 1;
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn a_thing_is_told_once_a_minute_with_how_many_were_left_out() {
        let repeats = Repeats::default();
        for (key, seconds, told) in [
            ("a", 0, Some(0)),
            ("a", 1, None),
            ("b", 2, Some(0)),
            ("a", 59, None),
            ("a", 60, Some(2)),
            ("a", 61, None),
            ("b", 62, Some(0)),
            ("a", 500, Some(1)),
            ("a", 560, Some(0)),
        ] {
            assert_eq!(repeats.tell(key, at(seconds)), told, "{key} at {seconds} s");
        }
    }

    #[test]
    fn whatever_comes_the_table_is_bounded_and_so_are_the_lines() {
        let repeats = Repeats::default();
        let flood = |from: usize, seconds| {
            (from..from + 2 * MAX_KEYS).filter_map(|key| repeats.tell(key, at(seconds))).collect::<Vec<_>>()
        };
        // One line stands for all that found no place.
        assert_eq!(flood(0, 0).len(), MAX_KEYS + 1);
        assert_eq!(flood(10 * MAX_KEYS, 30), Vec::<u64>::new());
        assert_eq!(repeats.0.lock().unwrap().told.len(), MAX_KEYS);
        assert_eq!(repeats.tell(0, at(31)), None);
        // A minute later there is place again, and what was left out before is told with the next line.
        assert_eq!(repeats.tell(usize::MAX, at(61)), Some(1));
        assert_eq!(repeats.0.lock().unwrap().told.len(), 1);
        let told = flood(20 * MAX_KEYS, 62);
        assert_eq!((told.len(), told.iter().sum::<u64>()), (MAX_KEYS, 3 * MAX_KEYS as u64 - 1));
    }
}
