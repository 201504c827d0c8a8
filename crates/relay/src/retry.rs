//! When a delivery is tried again. Pure: outcome, counts, time and chance in; what the spool is to do, out.

use std::time::Duration;

use clock::{WallTime, jitter};
use mail::{Outcome, Scope};
use spool::Next;

/// Waits after the first, second and later failures; the last repeats.
const SCHEDULE: [Duration; 5] = [
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(15),
    Duration::from_mins(30),
    Duration::from_hours(1),
];
/// How soon a message is tried again that met trouble of its mailbox or tenant. The lane stands still by itself; this lets
/// the next probe go with another message, in case this one is the cause.
const LANE_TROUBLE: Duration = Duration::from_mins(5);
/// How often a message is tried whose sender may not be sent as: permissions take up to two hours to reach every server.
const REFUSED_SENDER: Duration = Duration::from_mins(15);
/// Wait after a reply was lost behind the final dot: long enough for a copy that did arrive to be noticed.
const UNCERTAIN_DELAY: Duration = Duration::from_hours(1);
/// Tries after an uncertain one; then the operator decides (invariant 5).
pub(crate) const UNCERTAIN_RESENDS: u32 = 2;
/// Share by which waits are spread, so that what failed together does not come back together.
const SPREAD: f64 = 0.2;

/// What is known of a delivery before the attempt that just ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct History {
    /// Attempts that counted.
    pub(crate) attempts: u32,
    /// How often upstream may have taken it unknown to us.
    pub(crate) uncertain: u32,
}

/// Where recipients with this outcome go.
pub(crate) fn next(outcome: &Outcome, history: History, now: WallTime, chance: f64) -> Next {
    match outcome {
        Outcome::Accepted(_) => Next::Finished,
        // Bounces are not built yet: until then what was refused waits where it can be seen.
        Outcome::Refused(_) => Next::Refused,
        Outcome::Deferred(_) => Next::Due(now + jitter(wait(history.attempts), SPREAD, chance)),
        Outcome::Held { scope: Scope::Message, .. } => Next::Due(now + jitter(REFUSED_SENDER, SPREAD, chance)),
        Outcome::Held { .. } => Next::Due(now + jitter(LANE_TROUBLE, SPREAD, chance)),
        // The lane slows down; the message itself has lost nothing.
        Outcome::Paced(_) => Next::Due(now),
        Outcome::Uncertain(_) if history.uncertain >= UNCERTAIN_RESENDS => Next::Held,
        Outcome::Uncertain(_) => Next::Due(now + UNCERTAIN_DELAY),
    }
}

fn wait(attempts: u32) -> Duration {
    let last = SCHEDULE.len() - 1;
    SCHEDULE[usize::try_from(attempts).map_or(last, |attempts| attempts.min(last))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::Diagnostic;

    fn minutes(outcome: &Outcome, attempts: u32, uncertain: u32) -> Option<u64> {
        match next(outcome, History { attempts, uncertain }, WallTime::default(), 0.5) {
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
    fn blind_resends_are_bounded() {
        let outcome = Outcome::Uncertain(Diagnostic::local("no reply"));
        let nexts = |uncertain| next(&outcome, History { attempts: 0, uncertain }, WallTime::default(), 0.5);
        assert!(matches!(nexts(0), Next::Due(_)));
        assert!(matches!(nexts(1), Next::Due(_)));
        assert_eq!(nexts(2), Next::Held);
    }

    #[test]
    fn what_is_over_is_over() {
        let history = History { attempts: 0, uncertain: 0 };
        let over = |outcome| next(&outcome, history, WallTime::default(), 0.5);
        assert_eq!(over(Outcome::Accepted(Diagnostic::local("ok"))), Next::Finished);
        assert_eq!(over(Outcome::Refused(Diagnostic::local("no"))), Next::Refused);
    }
}
