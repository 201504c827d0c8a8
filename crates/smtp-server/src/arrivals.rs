//! How fast one client may connect: pure, the time is passed in. Nobody is refused for it; who is too fast waits for the
//! banner, as long as it takes to come back to the rate, so that a script with one connection a message loses nothing and a
//! flood costs the others nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Clients remembered: more at a time than any network of printers has. The rest goes unpaced.
const MAX_CLIENTS: usize = 65_536;
/// Those that could be forgotten are looked for once there are so many.
const TIDY_FROM: usize = 1_024;
/// A look at all of them costs a millisecond.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// The generic cell rate algorithm, by client: when each would have nothing left to work off.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// What one connection costs.
    interval: Duration,
    /// How far ahead of the rate a client may be without waiting.
    burst: Duration,
    clear_at: HashMap<IpAddr, Instant>,
    tidy_at: usize,
    tidied: Option<Instant>,
}

impl Arrivals {
    /// A rate of two connections a second for each session that a client may have at a time, after a burst of ten each.
    pub(crate) fn new(max_connections_per_client: usize) -> Self {
        let interval = interval(max_connections_per_client);
        Self { interval, burst: Duration::from_secs(5), clear_at: HashMap::new(), tidy_at: TIDY_FROM, tidied: None }
    }

    /// Another rate from now on; what each client has to work off stays.
    pub(crate) fn set_rate(&mut self, max_connections_per_client: usize) {
        self.interval = interval(max_connections_per_client);
    }

    /// A connection came; how long it waits.
    pub(crate) fn arrive(&mut self, client: IpAddr, now: Instant) -> Duration {
        self.tidy(now);
        if self.clear_at.len() >= MAX_CLIENTS && !self.clear_at.contains_key(&client) {
            return Duration::ZERO;
        }
        let clear_at = self.clear_at.entry(client).or_insert(now);
        *clear_at = (*clear_at).max(now) + self.interval;
        clear_at.saturating_duration_since(now + self.burst)
    }

    /// Forgets who has nothing to work off, each time that the table has doubled, and at most once a second.
    fn tidy(&mut self, now: Instant) {
        let is_due = self.tidied.is_none_or(|at| now.saturating_duration_since(at) >= TIDY_EVERY);
        if self.clear_at.len() >= self.tidy_at && is_due {
            self.clear_at.retain(|_, clear_at| *clear_at > now);
            self.tidy_at = (self.clear_at.len() * 2).clamp(TIDY_FROM, MAX_CLIENTS);
            self.tidied = Some(now);
        }
    }
}

/// What one connection costs where a client may have so many sessions at a time.
fn interval(max_connections_per_client: usize) -> Duration {
    Duration::from_millis(500) / u32::try_from(max_connections_per_client).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_waits_for_the_rate() {
        let (mut arrivals, start) = (Arrivals::new(50), Instant::now());
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for number in 0..500 {
            assert_eq!(arrivals.arrive(one, start), Duration::ZERO, "connection {number}");
        }
        assert_eq!(arrivals.arrive(one, start), Duration::from_millis(10));
        assert_eq!(arrivals.arrive(one, start), Duration::from_millis(20));
        assert_eq!(arrivals.arrive(other, start), Duration::ZERO);
        // A hundred a second are worked off.
        assert_eq!(arrivals.arrive(one, start + Duration::from_secs(1)), Duration::ZERO);
        // One connection after the other, each as soon as it may, is never far behind the rate.
        let mut now = start + Duration::from_mins(1);
        let longest = (0..10_000).map(|_| {
            let wait = arrivals.arrive(one, now);
            now += wait;
            wait
        });
        assert_eq!(longest.max(), Some(Duration::from_millis(10)));
    }

    #[test]
    fn another_rate_holds_for_who_is_known_too() {
        let (mut arrivals, start) = (Arrivals::new(1), Instant::now());
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..10 {
            assert_eq!(arrivals.arrive(client, start), Duration::ZERO);
        }
        assert_eq!(arrivals.arrive(client, start), Duration::from_millis(500));
        arrivals.set_rate(50);
        assert_eq!(arrivals.arrive(client, start), Duration::from_millis(510));
    }

    #[test]
    fn the_table_has_a_bound_and_forgets() {
        let (mut arrivals, start) = (Arrivals::new(1), Instant::now());
        for number in 0..200_000u32 {
            arrivals.arrive(IpAddr::from(number.to_be_bytes()), start);
        }
        assert_eq!(arrivals.clear_at.len(), MAX_CLIENTS);
        // Whoever comes when all of those have nothing to work off has a place again.
        arrivals.arrive("192.0.2.1".parse().unwrap(), start + Duration::from_mins(1));
        assert_eq!(arrivals.clear_at.len(), 1);
    }
}
