//! How many reports one address has had lately: beyond a few an hour they are gathered. Pure, and only in memory: after a
//! restart somebody may get a few more.

use std::collections::HashMap;
use std::time::Duration;

use clock::Monotonic;

/// Reports of their own that one address gets within an hour. Exchange counts each against the login's pace and day.
const AN_HOUR: u32 = 10;
const HOUR: Duration = Duration::from_hours(1);
/// Addresses remembered; beyond them those whose hour is over are forgotten, then all.
const MAX_REMEMBERED: usize = 10_000;

/// The addresses that have had a report within the hour.
#[derive(Debug, Default)]
pub(super) struct Flood(HashMap<String, Count>);

#[derive(Debug)]
struct Count {
    since: Monotonic,
    reports: u32,
}

impl Flood {
    /// Whether `address` may get one more by itself now; it is then counted.
    pub(super) fn admits(&mut self, address: &str, now: Monotonic) -> bool {
        if self.0.len() >= MAX_REMEMBERED && !self.0.contains_key(address) {
            self.0.retain(|_, count| now < count.since + HOUR);
            if self.0.len() >= MAX_REMEMBERED {
                self.0.clear();
            }
        }
        let count = self.0.entry(address.to_owned()).or_insert(Count { since: now, reports: 0 });
        if now >= count.since + HOUR {
            *count = Count { since: now, reports: 0 };
        }
        let admits = count.reports < AN_HOUR;
        count.reports += u32::from(admits);
        admits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_mins(minutes))
    }

    #[test]
    fn an_address_gets_a_few_an_hour() {
        let mut flood = Flood::default();
        let admitted = (0..50).filter(|minute| flood.admits("a@b", at(*minute))).count();
        assert_eq!(admitted, 10);
        assert!(flood.admits("c@d", at(50)));
        assert!(flood.admits("a@b", at(60)));
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let mut flood = Flood::default();
        for number in 0..MAX_REMEMBERED + 5 {
            flood.admits(&number.to_string(), at(0));
        }
        assert!(flood.0.len() <= MAX_REMEMBERED);
    }
}
