//! What the manager knows between two requests, and what follows from each event. Pure: time and chance are arguments.
//!
//! It sends nothing and sleeps nowhere; `refresher` does what [`TokenState::step`] says.

use std::sync::Arc;
use std::time::Duration;

use clock::WallTime;

use crate::access_token::AccessToken;
use crate::failure::{TokenFailure, TokenUnavailable};
use crate::request::Issued;
use crate::schedule::{Deadline, Now, next_look, refresh_after, retry_after};

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A request that was sent at `asked` gave a token.
    Issued { issued: Issued, asked: Now },
    /// A try failed; the next waits `least` at least.
    Failed { failure: Arc<TokenFailure>, least: Duration },
    /// The budget allows no request for this long.
    BudgetUsed(Duration),
    /// Other mailboxes of the same account have asked as often as it may: this one's turn comes after this long.
    Queued(Duration),
    /// Exchange refused this token.
    Rejected(AccessToken),
    /// What is asked with has changed: another credential or refresh token stands there.
    Changed,
    /// A new credential was refused; the one before it goes on.
    NewRefused,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask for a token.
    Fetch,
    /// Look again after this long, [`crate::schedule::LONGEST_SLEEP`] at most.
    Sleep(Duration),
}

/// Empty without a token, active with one; a failure leaves either as it is, so that a valid token outlives it.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenState {
    active: Option<Active>,
    hold: Option<Hold>,
    /// Failures since the last token.
    failures: u32,
}

#[derive(Clone, Debug)]
struct Active {
    token: AccessToken,
    refresh: Deadline,
    expiry: Deadline,
    /// Exchange refused it once, perhaps for one mailbox alone: it is replaced, and given out until it is.
    rejected: bool,
    /// What is asked with has changed since: it is replaced as soon as that can be.
    outdated: bool,
}

/// No request before `until`.
#[derive(Clone, Debug)]
struct Hold {
    until: Deadline,
    /// None: the budget.
    failure: Option<Arc<TokenFailure>>,
}

impl TokenState {
    /// The state after `event`.
    pub(crate) fn after(mut self, event: Event, now: Now, chance: f64) -> Self {
        match event {
            Event::Issued { issued, asked } => Self::active(issued, asked, chance),
            Event::Failed { failure, least } => {
                self.failures = self.failures.saturating_add(1);
                let wait = retry_after(self.failures, failure.http_status, failure.retry_after, chance);
                self.held(now, wait.max(least), Some(failure))
            }
            Event::BudgetUsed(wait) | Event::Queued(wait) => self.held(now, wait, None),
            Event::Rejected(token) => {
                if let Some(active) = self.active.as_mut().filter(|active| active.token.same(&token)) {
                    active.rejected = true;
                }
                self
            }
            Event::Changed => {
                // What passes by itself, and the budget, do not care.
                let is_cured = |hold: &Hold| hold.failure.as_ref().is_some_and(|failure| !failure.class.passes());
                self.hold = self.hold.filter(|hold| !is_cured(hold));
                self.mark_outdated(true)
            }
            Event::NewRefused => self.mark_outdated(false),
        }
    }

    fn mark_outdated(mut self, outdated: bool) -> Self {
        if let Some(active) = &mut self.active {
            active.outdated = outdated;
        }
        self
    }

    fn active(issued: Issued, asked: Now, chance: f64) -> Self {
        let refresh = refresh_after(issued.lifetime, issued.refresh_in, chance);
        let active = Active {
            token: issued.token,
            refresh: Deadline::after(asked, refresh),
            expiry: Deadline::after(asked, issued.lifetime),
            rejected: false,
            outdated: false,
        };
        Self { active: Some(active), ..Self::default() }
    }

    fn held(mut self, now: Now, wait: Duration, failure: Option<Arc<TokenFailure>>) -> Self {
        if let Some(active) = &mut self.active {
            // Whoever wanted it replaced has got an answer and asks again if it still matters.
            active.rejected = false;
        }
        self.hold = Some(Hold { until: Deadline::after(now, wait), failure });
        self
    }

    /// What to do at `now`.
    pub(crate) fn step(&self, now: Now) -> Step {
        let wait = self.wanted_in(now).max(self.held_for(now));
        if wait.is_zero() { Step::Fetch } else { Step::Sleep(wait.min(next_look(now))) }
    }

    fn wanted_in(&self, now: Now) -> Duration {
        match &self.active {
            Some(active) if !active.rejected && !active.outdated => active.refresh.remaining(now),
            _ => Duration::ZERO,
        }
    }

    fn held_for(&self, now: Now) -> Duration {
        self.hold.as_ref().map_or(Duration::ZERO, |hold| hold.until.remaining(now))
    }

    /// The token, unless it has expired on either clock.
    pub(crate) fn valid(&self, now: Now) -> Option<&AccessToken> {
        self.active.as_ref().filter(|active| !active.expiry.passed(now)).map(|active| &active.token)
    }

    /// Why no request may go out at `now`; none if one may.
    pub(crate) fn unavailable(&self, now: Now) -> Option<TokenUnavailable> {
        let hold = self.hold.as_ref().filter(|hold| !hold.until.passed(now))?;
        let next = hold.until.wall();
        Some(match &hold.failure {
            Some(failure) => TokenUnavailable::Failed { failure: Arc::clone(failure), next },
            None => TokenUnavailable::Budget { next },
        })
    }

    /// When the next request is due, as far as is known; for people.
    pub(crate) fn next_attempt(&self, now: Now) -> WallTime {
        now.wall + self.wanted_in(now).max(self.held_for(now))
    }

    /// When the token ends, also when it has ended.
    pub(crate) fn expires_at(&self) -> Option<WallTime> {
        self.active.as_ref().map(|active| active.token.expires_at())
    }

    /// Failed tries since the last token.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureClass;
    use crate::schedule::LONGEST_SLEEP;
    use clock::Monotonic;
    use proptest::prelude::*;

    const START: i64 = 1_800_000_000_000;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// Both clocks `seconds` after the start.
    fn at(seconds: u64) -> Now {
        Now { wall: WallTime::from_unix_millis(START) + secs(seconds), monotonic: Monotonic::from_start(secs(seconds)) }
    }

    fn issued(asked: Now) -> Event {
        let token = AccessToken::new("t".to_owned(), asked.wall + secs(3600)).unwrap();
        Event::Issued {
            issued: Issued { token, lifetime: secs(3600), refresh_in: None, extended_lifetime: None },
            asked,
        }
    }

    fn failed(http_status: Option<u16>, retry_after: Option<u64>) -> Event {
        failed_as(FailureClass::Transient, http_status, retry_after, 0)
    }

    fn failed_as(class: FailureClass, http_status: Option<u16>, retry_after: Option<u64>, least: u64) -> Event {
        let failure = Arc::new(TokenFailure {
            class,
            http_status,
            error: None,
            codes: Vec::new(),
            trace_id: None,
            correlation_id: None,
            retry_after: retry_after.map(secs),
            advice: String::new(),
            text: String::new(),
        });
        Event::Failed { failure, least: secs(least) }
    }

    /// How long after `now` the next request is due, beyond the capped sleeps.
    fn due_in(state: &TokenState, now: Now) -> u64 {
        state.next_attempt(now).saturating_since(now.wall).as_secs()
    }

    #[test]
    fn empty_fetches_at_once() {
        assert_eq!(TokenState::default().step(at(0)), Step::Fetch);
        assert!(TokenState::default().valid(at(0)).is_none());
        assert!(TokenState::default().unavailable(at(0)).is_none());
    }

    #[test]
    fn one_event_table() {
        // (had a token, event at 100 s, chance) -> due in, still valid, held back
        for (active, event, chance, due, valid, held) in [
            (false, issued(at(100)), 0.0, 2160, true, false),
            (true, issued(at(100)), 0.999_999, 2699, true, false),
            (false, failed(None, None), 0.5, 5, false, true),
            (true, failed(None, None), 0.5, 2330, true, true),
            (false, failed(Some(401), None), 0.5, 60, false, true),
            (false, failed(Some(429), Some(700)), 0.5, 700, false, true),
            (false, failed(Some(503), Some(90_000)), 0.5, 3600, false, true),
            (false, failed_as(FailureClass::Grant, Some(400), None, 3600), 0.5, 3600, false, true),
            (true, failed(Some(429), Some(3000)), 0.5, 3000, true, true),
            (false, Event::BudgetUsed(secs(200)), 0.5, 200, false, true),
            (true, Event::BudgetUsed(secs(200)), 0.5, 2330, true, true),
            (false, Event::Queued(secs(200)), 0.5, 200, false, true),
        ] {
            let before =
                if active { TokenState::default().after(issued(at(0)), at(0), 0.5) } else { TokenState::default() };
            let what = format!("{active} {event:?}");
            let state = before.after(event, at(100), chance);
            assert_eq!(due_in(&state, at(100)), due, "{what}");
            assert_eq!(state.valid(at(100)).is_some(), valid, "{what}");
            assert_eq!(state.unavailable(at(100)).is_some(), held, "{what}");
        }
    }

    #[test]
    fn failures_grow_and_a_token_forgets_them() {
        let mut state = TokenState::default();
        let mut now = 0;
        for expected in [5, 15, 45, 135, 300, 300] {
            state = state.after(failed(None, None), at(now), 0.5);
            assert_eq!(due_in(&state, at(now)), expected);
            now += expected;
            assert_eq!(state.step(at(now)), Step::Fetch);
        }
        assert_eq!(state.failures(), 6);
        state = state.after(issued(at(now)), at(now), 0.5).after(failed(None, None), at(now), 0.5);
        assert_eq!((state.failures(), state.held_for(at(now))), (1, secs(5)));
    }

    #[test]
    fn a_rejected_token_is_fetched_anew_and_given_out_meanwhile() {
        let state = TokenState::default().after(issued(at(0)), at(0), 0.5);
        let token = state.valid(at(1)).unwrap().clone();
        let other = AccessToken::new("t".to_owned(), token.expires_at()).unwrap();
        assert!(matches!(state.clone().after(Event::Rejected(other), at(1), 0.5).step(at(1)), Step::Sleep(_)));
        let state = state.after(Event::Rejected(token.clone()), at(1), 0.5);
        assert_eq!(state.step(at(1)), Step::Fetch);
        assert!(state.valid(at(1)).unwrap().same(&token));
        // A failed replacement does not discredit the token that others use.
        let state = state.after(failed(Some(500), None), at(2), 0.5);
        assert!(state.valid(at(10)).unwrap().same(&token));
        assert!(matches!(state.step(at(10)), Step::Sleep(_)));
    }

    #[test]
    fn an_expired_token_is_not_given_out_whichever_clock_says_so() {
        let state = TokenState::default().after(issued(at(0)), at(0), 0.5);
        let awake = |wall, monotonic| Now { wall: at(wall).wall, monotonic: at(monotonic).monotonic };
        assert!(state.valid(awake(3599, 3599)).is_some());
        assert!(state.valid(awake(3600, 0)).is_none(), "suspended");
        assert!(state.valid(awake(0, 3600)).is_none(), "clock set back");
        assert_eq!(state.step(awake(3600, 0)), Step::Fetch);
        assert_eq!(state.step(awake(0, 2430)), Step::Fetch);
    }

    #[test]
    fn every_sleep_is_bounded() {
        let state = TokenState::default().after(issued(at(0)), at(0), 0.5);
        assert_eq!(state.step(at(0)), Step::Sleep(LONGEST_SLEEP));
        // All managers look at the same moments, so that a thousand of them wake an idle machine as often as one.
        assert_eq!(state.step(at(7)), Step::Sleep(secs(23)));
        assert_eq!(state.step(at(2420)), Step::Sleep(secs(10)));
    }

    #[test]
    fn a_change_is_tried_at_once_unless_what_holds_it_passes_by_itself() {
        for (class, held) in [
            (FailureClass::Credential, false),
            (FailureClass::Grant, false),
            (FailureClass::Configuration, false),
            (FailureClass::Transient, true),
            (FailureClass::Throttled, true),
        ] {
            let state = TokenState::default().after(failed_as(class, Some(400), None, 3600), at(0), 0.5);
            let state = state.after(Event::Changed, at(1), 0.5);
            assert_eq!(state.unavailable(at(1)).is_some(), held, "{class}");
        }
        let state =
            TokenState::default().after(Event::BudgetUsed(secs(200)), at(0), 0.5).after(Event::Changed, at(1), 0.5);
        assert!(state.unavailable(at(1)).is_some(), "the budget");
    }

    #[test]
    fn a_change_outlives_a_failure() {
        let state = TokenState::default().after(issued(at(0)), at(0), 0.5);
        let state = state.after(Event::Changed, at(1), 0.5).after(failed(Some(503), None), at(1), 0.5);
        assert_eq!(due_in(&state, at(1)), 5);
    }

    #[test]
    fn a_change_replaces_a_good_token_and_a_refused_change_does_not_disturb_it() {
        let state = TokenState::default().after(issued(at(0)), at(0), 0.5);
        let due = due_in(&state, at(1));
        let state = state.after(Event::Changed, at(1), 0.5);
        assert_eq!(state.step(at(1)), Step::Fetch);
        assert!(state.valid(at(1)).is_some());
        let state = state.after(Event::NewRefused, at(1), 0.5);
        assert_eq!((due_in(&state, at(1)), state.failures()), (due, 0));
        // Without a token the one before is asked with at once.
        let state = TokenState::default().after(Event::NewRefused, at(1), 0.5);
        assert_eq!(state.step(at(1)), Step::Fetch);
    }

    fn any_event() -> impl Strategy<Value = u8> {
        0u8..8
    }

    proptest! {
        /// Whatever happens in whatever order: after a failure or refusal no request goes at once, a sleep is never
        /// empty, and a token that was valid before a failure is valid after it.
        #[test]
        fn never_busy_and_never_worse(events in prop::collection::vec((any_event(), 0u64..4000, 0.0f64..1.0), 1..60)) {
            let (mut state, mut now) = (TokenState::default(), 0);
            for (kind, pause, chance) in events {
                now += pause;
                let had = state.valid(at(now)).cloned();
                let event = match kind {
                    0 => issued(at(now)),
                    1 => failed(None, None),
                    2 => failed(Some(400), None),
                    3 => Event::BudgetUsed(secs(1)),
                    4 => failed_as(FailureClass::Credential, Some(401), None, 0),
                    5 => Event::NewRefused,
                    6 => Event::Changed,
                    _ => Event::Rejected(had.clone().unwrap_or_else(|| AccessToken::new("t".to_owned(), at(now).wall).unwrap())),
                };
                let was_held = state.unavailable(at(now)).is_some();
                state = state.after(event, at(now), chance);
                // What changed and what was refused are asked for at once, unless something holds that passes by itself.
                if kind < 5 || kind == 7 && was_held {
                    prop_assert!(state.step(at(now)) != Step::Fetch);
                }
                if let Step::Sleep(sleep) = state.step(at(now)) {
                    prop_assert!(!sleep.is_zero() && sleep <= LONGEST_SLEEP);
                }
                prop_assert!(had.is_none() || state.valid(at(now)).is_some());
            }
        }
    }
}
