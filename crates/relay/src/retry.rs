//! What follows for recipients from an outcome: done, tried again and when, held for the operator, or given up. Pure: outcome,
//! what is behind them, time and chance in; a verdict out. Who hears of it is `reporting`'s.
//!
//! `max_age` counts the waits that follow a message's own failures and the attempts themselves. Time in which its lane stood
//! still, waited for its turn, or nothing ran at all costs it nothing.

use std::time::Duration;

use clock::{WallTime, jitter};
use mail::{Outcome, Scope};
use spool::Progress;

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
    /// How long a message is tried whose sender may not be sent as.
    refused_sender_for: Duration,
    /// Wait after a reply was lost behind the final dot: long enough for a copy that did arrive to be noticed.
    uncertain_delay: Duration,
    /// Tries after an uncertain one; then the operator decides (invariant 5).
    pub(crate) uncertain_resends: u32,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Upstream has them.
    Delivered,
    /// Tried again then, with this behind them.
    Again(WallTime, Progress),
    /// The operator decides.
    Held(Progress),
    /// Never; their sender should hear.
    GivenUp(Why),
}

/// Why recipients were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Upstream refused them for good.
    Refused,
    /// `refused_sender_for` is over.
    SenderRefused,
    /// `max_age` is over.
    TooOld,
    /// `max_hold` is over.
    HeldTooLong,
}

impl Why {
    /// For the log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused for good",
            Self::SenderRefused => "retry.refused_sender_for is over",
            Self::TooOld => "the route's max_age is over",
            Self::HeldTooLong => "retry.max_hold is over",
        }
    }
}

/// What an attempt was made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempted {
    /// What lay behind the recipients before.
    pub(crate) progress: Progress,
    /// How long it took.
    pub(crate) took: Duration,
    /// How long their route tries.
    pub(crate) max_age: Duration,
}

impl Plan {
    /// The plan that `[retry]` gives.
    pub(crate) fn new(retry: &Retry) -> Self {
        Self {
            schedule: retry.schedule.iter().map(|wait| wait.duration()).collect(),
            refused_sender_for: retry.refused_sender_for.duration(),
            uncertain_delay: retry.uncertain_delay.duration(),
            uncertain_resends: u32::try_from(retry.uncertain_resends.get()).unwrap_or(u32::MAX),
        }
    }

    /// The contract's defaults.
    #[cfg(test)]
    pub(crate) fn of_the_contract() -> Self {
        let minutes = |minutes: &[u64]| minutes.iter().copied().map(Duration::from_mins).collect();
        Self {
            schedule: minutes(&[1, 5, 15, 30, 60]),
            refused_sender_for: Duration::from_hours(24),
            uncertain_delay: Duration::from_hours(1),
            uncertain_resends: 2,
        }
    }

    /// No due time lies further ahead than this, jitter included, but one that waits for the day to have room.
    pub(crate) fn longest_wait(&self) -> Duration {
        let waits = self.schedule.iter().copied().chain([self.uncertain_delay, LANE_TROUBLE, REFUSED_SENDER.1]);
        waits.max().unwrap_or_default().mul_f64(1.0 + SPREAD)
    }

    fn wait(&self, attempts: u32) -> Duration {
        let at = usize::try_from(attempts).unwrap_or(usize::MAX);
        self.schedule.get(at).or(self.schedule.last()).copied().unwrap_or(LANE_TROUBLE)
    }

    /// What follows for recipients with this outcome.
    pub(crate) fn verdict(&self, outcome: &Outcome, attempted: Attempted, now: WallTime, chance: f64) -> Verdict {
        let Attempted { progress, .. } = attempted;
        match outcome {
            Outcome::Accepted(_) => Verdict::Delivered,
            // Upstream's own word on this very message, whatever became of an earlier try.
            Outcome::Refused(_) => Verdict::GivenUp(Why::Refused),
            Outcome::Deferred(_) => self.deferred(attempted, now, chance),
            Outcome::Held { scope: Scope::Message, .. } => self.sender_refused(attempted, now, chance),
            Outcome::Held { .. } => Verdict::Again(now + jitter(LANE_TROUBLE, SPREAD, chance), progress),
            // The lane slows down; the message itself has lost nothing.
            Outcome::Paced(_) => Verdict::Again(now, progress),
            Outcome::Uncertain(_) => self.uncertain(attempted, now),
        }
    }

    /// Each wait is cut at the end, so that the last attempt comes right then and not a wait later.
    fn deferred(&self, attempted: Attempted, now: WallTime, chance: f64) -> Verdict {
        let Attempted { progress, took, max_age } = attempted;
        let age = progress.age + took;
        let left = max_age.saturating_sub(age);
        let progress = Progress { attempts: progress.attempts.saturating_add(1), ..progress };
        if left.is_zero() {
            return given_up(Why::TooOld, progress);
        }
        let wait = jitter(self.wait(attempted.progress.attempts), SPREAD, chance).min(left);
        Verdict::Again(now + wait, Progress { age: age + wait, ..progress })
    }

    /// Costs no attempt and no age: nothing is wrong with the message that a permission would not mend.
    fn sender_refused(&self, attempted: Attempted, now: WallTime, chance: f64) -> Verdict {
        let Attempted { progress, took, .. } = attempted;
        let denied = progress.denied + took;
        let left = self.refused_sender_for.saturating_sub(denied);
        if left.is_zero() {
            return given_up(Why::SenderRefused, progress);
        }
        let (soonest, latest) = REFUSED_SENDER;
        // In proportion: after as long again as it has waited.
        let wait = jitter(denied.clamp(soonest, latest), SPREAD, chance).min(left);
        Verdict::Again(now + wait, Progress { denied: denied + wait, ..progress })
    }

    fn uncertain(&self, attempted: Attempted, now: WallTime) -> Verdict {
        let Attempted { progress, took, .. } = attempted;
        let after = Progress {
            attempts: progress.attempts.saturating_add(1),
            uncertain: progress.uncertain.saturating_add(1),
            age: progress.age + took + self.uncertain_delay,
            ..progress
        };
        if progress.uncertain >= self.uncertain_resends {
            Verdict::Held(after)
        } else {
            Verdict::Again(now + self.uncertain_delay, after)
        }
    }
}

/// What may have arrived is the operator's: a bounce would claim that it did not.
fn given_up(why: Why, progress: Progress) -> Verdict {
    if progress.uncertain > 0 { Verdict::Held(progress) } else { Verdict::GivenUp(why) }
}

/// How long a message has waited for others: its lane, its pace, or a daemon that did not run.
pub(crate) fn time_held(accepted_at: WallTime, progress: Progress, now: WallTime) -> Duration {
    now.saturating_since(accepted_at).saturating_sub(progress.age + progress.denied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::Diagnostic;
    use proptest::prelude::*;

    const NOW: WallTime = WallTime::from_unix_millis(1_800_000_000_000);
    const DAY: Duration = Duration::from_hours(24);

    fn plan() -> Plan {
        Plan::of_the_contract()
    }

    fn behind(progress: Progress) -> Attempted {
        Attempted { progress, took: Duration::ZERO, max_age: 5 * DAY }
    }

    fn said() -> Diagnostic {
        Diagnostic::local("said")
    }

    fn held(scope: Scope) -> Outcome {
        Outcome::Held { scope, diagnostic: said() }
    }

    /// The waits in minutes until the end, and the end.
    fn life(outcome: &Outcome, took: Duration, chance: f64) -> (Vec<u64>, Verdict) {
        let (mut progress, mut waits) = (Progress::default(), Vec::new());
        loop {
            let attempted = Attempted { progress, took, max_age: 5 * DAY };
            match plan().verdict(outcome, attempted, NOW, chance) {
                Verdict::Again(due, after) => {
                    waits.push(due.saturating_since(NOW).as_secs() / 60);
                    progress = after;
                }
                end => return (waits, end),
            }
            assert!(waits.len() < 10_000, "it never ends");
        }
    }

    #[test]
    fn failures_wait_longer_each_time_until_the_message_is_too_old() {
        let (waits, end) = life(&Outcome::Deferred(said()), Duration::ZERO, 0.5);
        assert_eq!(waits[..7], [1, 5, 15, 30, 60, 60, 60]);
        assert_eq!(waits.iter().sum::<u64>(), 5 * 24 * 60, "the last attempt comes exactly at the end");
        assert_eq!(end, Verdict::GivenUp(Why::TooOld));
    }

    #[test]
    fn attempts_that_take_long_count() {
        let (waits, _) = life(&Outcome::Deferred(said()), Duration::from_mins(10), 0.5);
        let minutes = waits.iter().sum::<u64>() + 10 * (waits.len() as u64 + 1);
        assert!((5 * 24 * 60..5 * 24 * 60 + 20).contains(&minutes), "{minutes}");
    }

    #[test]
    fn trouble_of_a_lane_costs_the_message_nothing() {
        let progress = Progress { attempts: 3, age: DAY, ..Progress::default() };
        for (outcome, minutes) in [(held(Scope::Mailbox), 5), (held(Scope::Tenant), 5), (Outcome::Paced(said()), 0)] {
            let verdict = plan().verdict(&outcome, behind(progress), NOW, 0.5);
            assert_eq!(verdict, Verdict::Again(NOW + Duration::from_mins(minutes), progress), "{}", outcome.name());
        }
    }

    #[test]
    fn a_refused_sender_is_tried_ever_more_seldom_and_given_up_at_its_end() {
        let (waits, end) = life(&held(Scope::Message), Duration::ZERO, 0.5);
        assert_eq!(waits[..7], [15, 15, 30, 60, 120, 120, 120]);
        assert_eq!(waits.iter().sum::<u64>(), 24 * 60);
        assert_eq!(end, Verdict::GivenUp(Why::SenderRefused));
        let strict = Plan { refused_sender_for: Duration::ZERO, ..plan() };
        let verdict = strict.verdict(&held(Scope::Message), behind(Progress::default()), NOW, 0.5);
        assert_eq!(verdict, Verdict::GivenUp(Why::SenderRefused));
    }

    #[test]
    fn blind_resends_are_bounded() {
        let uncertain = |uncertain| {
            let progress = Progress { uncertain, ..Progress::default() };
            plan().verdict(&Outcome::Uncertain(said()), behind(progress), NOW, 0.5)
        };
        let after =
            |uncertain| Progress { attempts: 1, uncertain, age: Duration::from_hours(1), ..Progress::default() };
        assert_eq!(uncertain(0), Verdict::Again(NOW + Duration::from_hours(1), after(1)));
        assert_eq!(uncertain(1), Verdict::Again(NOW + Duration::from_hours(1), after(2)));
        assert_eq!(uncertain(2), Verdict::Held(after(3)));
    }

    #[test]
    fn what_may_have_arrived_is_never_reported_as_lost() {
        let progress = Progress { uncertain: 1, age: 5 * DAY, ..Progress::default() };
        let verdict = plan().verdict(&Outcome::Deferred(said()), behind(progress), NOW, 0.5);
        assert_eq!(verdict, Verdict::Held(Progress { attempts: 1, ..progress }));
        let progress = Progress { denied: DAY, ..progress };
        assert_eq!(plan().verdict(&held(Scope::Message), behind(progress), NOW, 0.5), Verdict::Held(progress));
        let refused = plan().verdict(&Outcome::Refused(said()), behind(progress), NOW, 0.5);
        assert_eq!(refused, Verdict::GivenUp(Why::Refused), "which says that it was refused");
    }

    #[test]
    fn what_is_over_is_over() {
        let over = |outcome| plan().verdict(&outcome, behind(Progress::default()), NOW, 0.5);
        assert_eq!(over(Outcome::Accepted(said())), Verdict::Delivered);
        assert_eq!(over(Outcome::Refused(said())), Verdict::GivenUp(Why::Refused));
    }

    #[test]
    fn time_held_is_what_no_attempt_accounts_for() {
        let progress = Progress { age: DAY, denied: DAY, ..Progress::default() };
        assert_eq!(time_held(NOW, progress, NOW + 5 * DAY), 3 * DAY);
        assert_eq!(time_held(NOW, progress, NOW + DAY), Duration::ZERO);
    }

    proptest! {
        /// Whatever chance says: no wait longer than the longest, each attempt counted, and an end.
        #[test]
        fn every_life_has_its_bounds(chance in 0.0f64..=1.0, took in 0u64..900, denied: bool) {
            let outcome = if denied { held(Scope::Message) } else { Outcome::Deferred(said()) };
            let (waits, end) = life(&outcome, Duration::from_secs(took), chance);
            prop_assert!(matches!(end, Verdict::GivenUp(_)));
            prop_assert!(waits.iter().all(|wait| *wait <= plan().longest_wait().as_secs() / 60));
            prop_assert!(waits.iter().sum::<u64>() <= 5 * 24 * 60);
        }
    }
}
