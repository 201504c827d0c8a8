//! When a delivery is tried again. Pure: outcome, counts, time and chance in; what the spool is to do, out.

use std::time::Duration;

use clock::{WallTime, jitter};
use mail::{Outcome, Scope};
use spool::Next;

use crate::config::Retry;

/// How soon a message is tried again that met trouble of its mailbox or tenant. The lane stands still by itself; this lets
/// the next probe go with another message, in case this one is the cause.
const LANE_TROUBLE: Duration = Duration::from_mins(5);
/// How often a message is tried whose sender may not be sent as: soon at first, since permissions take up to two hours to
/// reach every server; then seldom, since each try costs the lane a turn.
const REFUSED_SENDER: (Duration, Duration) = (Duration::from_mins(15), Duration::from_hours(2));
/// Share by which waits are spread, so that what failed together does not come back together.
const SPREAD: f64 = 0.2;

/// When to try again, as configured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Waits after the first, second and later failures; the last repeats.
    schedule: Vec<Duration>,
    /// Wait after a reply was lost behind the final dot: long enough for a copy that did arrive to be noticed.
    uncertain_delay: Duration,
    /// Tries after an uncertain one; then the operator decides (invariant 5).
    pub(crate) uncertain_resends: u32,
}

impl Plan {
    /// The plan that `[retry]` gives.
    pub(crate) fn new(retry: &Retry) -> Self {
        Self {
            schedule: retry.schedule.iter().map(|wait| wait.duration()).collect(),
            uncertain_delay: retry.uncertain_delay.duration(),
            uncertain_resends: u32::try_from(retry.uncertain_resends.get()).unwrap_or(u32::MAX),
        }
    }

    /// No due time lies further ahead than this, jitter included.
    pub(crate) fn longest_wait(&self) -> Duration {
        let waits = self.schedule.iter().copied().chain([self.uncertain_delay, LANE_TROUBLE, REFUSED_SENDER.1]);
        waits.max().unwrap_or_default().mul_f64(1.0 + SPREAD)
    }

    fn wait(&self, attempts: u32) -> Duration {
        let at = usize::try_from(attempts).unwrap_or(usize::MAX);
        self.schedule.get(at).or(self.schedule.last()).copied().unwrap_or(LANE_TROUBLE)
    }

    /// Where recipients with this outcome go.
    pub(crate) fn next(&self, outcome: &Outcome, history: History, now: WallTime, chance: f64) -> Next {
        match outcome {
            Outcome::Accepted(_) => Next::Finished,
            // Bounces are not built yet: until then what was refused waits where it can be seen.
            Outcome::Refused(_) => Next::Refused,
            Outcome::Deferred(_) => Next::Due(now + jitter(self.wait(history.attempts), SPREAD, chance)),
            Outcome::Held { scope: Scope::Message, .. } => {
                let (soonest, latest) = REFUSED_SENDER;
                // In proportion to its age: after as long again as it has waited.
                let wait = now.saturating_since(history.accepted_at).clamp(soonest, latest);
                Next::Due(now + jitter(wait, SPREAD, chance))
            }
            Outcome::Held { .. } => Next::Due(now + jitter(LANE_TROUBLE, SPREAD, chance)),
            // The lane slows down; the message itself has lost nothing.
            Outcome::Paced(_) => Next::Due(now),
            Outcome::Uncertain(_) if history.uncertain >= self.uncertain_resends => Next::Held,
            Outcome::Uncertain(_) => Next::Due(now + self.uncertain_delay),
        }
    }
}

/// What is known of a delivery before the attempt that just ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct History {
    /// Attempts that counted.
    pub(crate) attempts: u32,
    /// How often upstream may have taken it unknown to us.
    pub(crate) uncertain: u32,
    /// When the message was accepted.
    pub(crate) accepted_at: WallTime,
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::Diagnostic;

    /// The contract's defaults.
    fn plan() -> Plan {
        let minutes = |minutes: &[u64]| minutes.iter().copied().map(Duration::from_mins).collect();
        Plan { schedule: minutes(&[1, 5, 15, 30, 60]), uncertain_delay: Duration::from_hours(1), uncertain_resends: 2 }
    }

    fn minutes(outcome: &Outcome, attempts: u32, uncertain: u32) -> Option<u64> {
        match plan().next(
            outcome,
            History { attempts, uncertain, accepted_at: WallTime::default() },
            WallTime::default(),
            0.5,
        ) {
            Next::Due(due) => Some(due.saturating_since(WallTime::default()).as_secs() / 60),
            _ => None,
        }
    }

    #[test]
    fn failures_wait_longer_each_time() {
        let outcome = Outcome::Deferred(Diagnostic::local("later"));
        let waits: Vec<_> = (0..7).filter_map(|attempts| minutes(&outcome, attempts, 0)).collect();
        assert_eq!(waits, [1, 5, 15, 30, 60, 60, 60]);
    }

    #[test]
    fn trouble_of_a_lane_costs_the_message_no_attempt() {
        let held = |scope| Outcome::Held { scope, diagnostic: Diagnostic::local("held") };
        assert_eq!(minutes(&held(Scope::Mailbox), 3, 0), Some(5));
        assert_eq!(minutes(&held(Scope::Tenant), 3, 0), Some(5));
        assert_eq!(minutes(&held(Scope::Message), 3, 0), Some(15));
        assert_eq!(minutes(&Outcome::Paced(Diagnostic::local("slow")), 3, 0), Some(0));
    }

    #[test]
    fn a_refused_sender_is_tried_ever_more_seldom_and_never_too_far_ahead() {
        let outcome = Outcome::Held { scope: Scope::Message, diagnostic: Diagnostic::local("SendAsDenied") };
        let accepted_at = WallTime::default();
        let mut now = accepted_at;
        let mut waits = Vec::new();
        for _ in 0..7 {
            let Next::Due(due) = plan().next(&outcome, History { attempts: 0, uncertain: 0, accepted_at }, now, 0.5)
            else {
                panic!("it is tried again")
            };
            waits.push(due.saturating_since(now).as_secs() / 60);
            now = due;
        }
        assert_eq!(waits, [15, 15, 30, 60, 120, 120, 120]);
        let Next::Due(latest) = plan().next(&outcome, History { attempts: 0, uncertain: 0, accepted_at }, now, 1.0)
        else {
            panic!("it is tried again")
        };
        assert!(latest < now + plan().longest_wait() + Duration::from_secs(1));
    }

    #[test]
    fn blind_resends_are_bounded() {
        let outcome = Outcome::Uncertain(Diagnostic::local("no reply"));
        let nexts = |uncertain| {
            plan().next(
                &outcome,
                History { attempts: 0, uncertain, accepted_at: WallTime::default() },
                WallTime::default(),
                0.5,
            )
        };
        assert!(matches!(nexts(0), Next::Due(_)));
        assert!(matches!(nexts(1), Next::Due(_)));
        assert_eq!(nexts(2), Next::Held);
    }

    #[test]
    fn what_is_over_is_over() {
        let history = History { attempts: 0, uncertain: 0, accepted_at: WallTime::default() };
        let over = |outcome| plan().next(&outcome, history, WallTime::default(), 0.5);
        assert_eq!(over(Outcome::Accepted(Diagnostic::local("ok"))), Next::Finished);
        assert_eq!(over(Outcome::Refused(Diagnostic::local("no"))), Next::Refused);
    }
}
