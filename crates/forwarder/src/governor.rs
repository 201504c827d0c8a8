//! Learns how much upstream really takes from a login, when that is less than configured: somebody shares the login, or
//! Microsoft has changed a limit. Pure: times come in.
//!
//! A limit that upstream refuses is lowered to just below what was refused, at once, and tried again one step higher only
//! after a long rest, which doubles with each refusal. So a lane settles below the true limit instead of meeting it again
//! and again, and comes back by itself when the limit does.

use std::time::Duration;

use clock::Monotonic;

/// First and longest rest before one step more is tried.
const REST: (Duration, Duration) = (Duration::from_hours(1), Duration::from_hours(24));
/// Between steps on the way back up, none of which was refused.
const STEP: Duration = Duration::from_mins(1);

/// Of what upstream has had too much, by its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pacing {
    /// Connections at a time (432).
    Connections,
    /// Messages in a minute (421 4.4.2).
    Rate,
    /// It does not say (4.7.500 and its kin).
    Busy,
}

/// How much upstream had at a refusal, what it refused included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    /// Connections that are open.
    pub(crate) connections: usize,
    /// Messages within the minute before it began.
    pub(crate) messages: usize,
}

/// What a login may do now, of what is configured.
#[derive(Debug)]
pub(crate) struct Governor {
    connections: Limit,
    rate: Limit,
}

impl Governor {
    /// Begins with what is configured.
    pub(crate) fn new(connections: usize, messages_per_minute: usize) -> Self {
        Self { connections: Limit::new(connections), rate: Limit::new(messages_per_minute) }
    }

    /// Connections at a time, at least one.
    pub(crate) fn connections(&mut self, now: Monotonic) -> usize {
        self.connections.allowed(now)
    }

    /// Messages in any minute, at least one.
    pub(crate) fn rate(&mut self, now: Monotonic) -> usize {
        self.rate.allowed(now)
    }

    /// Upstream refused what `begun` then: one too many.
    pub(crate) fn refused(&mut self, pacing: Pacing, level: Level, begun: Monotonic, now: Monotonic) {
        let Level { connections, messages } = level;
        match pacing {
            Pacing::Connections => self.connections.refused(connections, begun, now),
            Pacing::Rate => {
                self.rate.refused(messages, begun, now);
                // Of those that are refused together the first may be answered last.
                self.rate.lower(messages);
            }
            // Nothing is known but that it is too much: a quarter less of what was done.
            Pacing::Busy => self.rate.refused(messages - messages / 4, begun, now),
        }
    }
}

#[derive(Debug)]
struct Limit {
    configured: usize,
    allowed: usize,
    /// When one step more may be tried.
    step_at: Monotonic,
    /// How long the next refusal makes it rest.
    rest: Duration,
    refused_at: Option<Monotonic>,
}

impl Limit {
    fn new(configured: usize) -> Self {
        let configured = configured.max(1);
        Self { configured, allowed: configured, step_at: Monotonic::default(), rest: REST.0, refused_at: None }
    }

    fn allowed(&mut self, now: Monotonic) -> usize {
        while self.allowed < self.configured && now >= self.step_at {
            self.allowed += 1;
            self.step_at = self.step_at + STEP;
            if self.allowed == self.configured {
                self.rest = REST.0;
            }
        }
        self.allowed
    }

    /// What was under way when it was lowered last tells nothing new: refusals that come together are one.
    fn refused(&mut self, level: usize, begun: Monotonic, now: Monotonic) {
        if self.refused_at.is_some_and(|before| begun <= before) {
            return;
        }
        self.lower(level);
        self.step_at = now + self.rest;
        self.rest = self.rest.saturating_mul(2).min(REST.1);
        self.refused_at = Some(now);
    }

    fn lower(&mut self, level: usize) {
        self.allowed = self.allowed.min(level.saturating_sub(1)).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    const HOUR: u64 = 3600;

    /// With so many connections and messages, of something that began just now.
    fn refuse(governor: &mut Governor, pacing: Pacing, level: (usize, usize), now: Monotonic) {
        let (connections, messages) = level;
        governor.refused(pacing, Level { connections, messages }, now, now);
    }

    #[test]
    fn a_refusal_lowers_to_what_was_not_refused() {
        let mut governor = Governor::new(3, 30);
        refuse(&mut governor, Pacing::Connections, (3, 9), at(0));
        assert_eq!((governor.connections(at(0)), governor.rate(at(0))), (2, 30));
        refuse(&mut governor, Pacing::Rate, (1, 21), at(20));
        assert_eq!((governor.connections(at(20)), governor.rate(at(20))), (2, 20));
        refuse(&mut governor, Pacing::Busy, (1, 20), at(40));
        assert_eq!(governor.rate(at(40)), 14);
    }

    #[test]
    fn connections_refused_together_are_one_refusal() {
        let mut governor = Governor::new(5, 30);
        refuse(&mut governor, Pacing::Connections, (5, 9), at(3));
        governor.refused(Pacing::Connections, Level { connections: 4, messages: 9 }, at(2), at(4));
        assert_eq!(governor.connections(at(4)), 4);
    }

    #[test]
    fn what_began_after_a_refusal_and_is_refused_too_is_another_however_soon() {
        let mut governor = Governor::new(5, 30);
        refuse(&mut governor, Pacing::Connections, (5, 9), at(3));
        refuse(&mut governor, Pacing::Connections, (4, 10), at(4));
        assert_eq!(governor.connections(at(4)), 3);
    }

    #[test]
    fn never_less_than_one() {
        let mut governor = Governor::new(1, 1);
        refuse(&mut governor, Pacing::Connections, (0, 0), at(0));
        refuse(&mut governor, Pacing::Busy, (0, 0), at(0));
        assert_eq!((governor.connections(at(0)), governor.rate(at(0))), (1, 1));
    }

    #[test]
    fn it_comes_back_step_by_step_after_a_rest() {
        let mut governor = Governor::new(30, 30);
        refuse(&mut governor, Pacing::Rate, (1, 21), at(0));
        assert_eq!(governor.rate(at(HOUR - 1)), 20);
        assert_eq!(governor.rate(at(HOUR)), 21);
        assert_eq!(governor.rate(at(HOUR + 60)), 22);
        assert_eq!(governor.rate(at(2 * HOUR)), 30);
        refuse(&mut governor, Pacing::Rate, (1, 30), at(3 * HOUR));
        assert_eq!(governor.rate(at(4 * HOUR)), 30, "what came back whole rests no longer than the first time");
    }

    #[test]
    fn a_limit_that_stays_is_met_ever_more_seldom() {
        let mut governor = Governor::new(3, 30);
        let mut met = Vec::new();
        for minute in 0..60 * 24 * 7 {
            let now = at(minute * 60);
            if governor.rate(now) > 20 {
                met.push(minute / 60);
                refuse(&mut governor, Pacing::Rate, (1, 21), now);
            }
        }
        assert_eq!(met, [0, 1, 3, 7, 15, 31, 55, 79, 103, 127, 151]);
    }
}
