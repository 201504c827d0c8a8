//! Exchange's submission limits for each mailbox and Entra's guard against request loops (facts 2, 4.6). They count;
//! the texts are in `replies` and `entra`. Real tenants throttle in more ways than are documented.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::Monotonic;

/// Whether rates and quotas apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limits {
    /// As in Exchange Online and Entra: 3 connections, 30 messages a minute and 10,000 recipients a day for each
    /// mailbox (facts 2), 15 identical token requests in 5 minutes (facts 4.6).
    #[default]
    Exchange,
    /// None, for the benchmark: an instant upstream. Sizes and recipients of one message stay limited.
    Off,
}

/// Connections of one mailbox that may submit at the same time.
const CONNECTIONS: usize = 3;
const MESSAGES: usize = 30;
const MESSAGE_WINDOW: Duration = Duration::from_mins(1);
const RECIPIENTS: usize = 10_000;
const RECIPIENT_WINDOW: Duration = Duration::from_hours(24);
const TOKEN_REQUESTS: usize = 15;
const TOKEN_WINDOW: Duration = Duration::from_mins(5);

/// The counts of every mailbox. Whether they matter is a condition; connections are counted in any case.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    ledgers: Mutex<HashMap<String, Ledger>>,
}

/// The counts of one mailbox.
#[derive(Debug, Default)]
struct Ledger {
    /// Ordinals of its authenticated connections; the oldest submit, the others are refused.
    connections: BTreeSet<u64>,
    /// When its latest messages were begun, at most [`MESSAGES`].
    messages: VecDeque<Monotonic>,
    /// When how many recipients were accepted within the window, and their sum.
    recipients: VecDeque<(Monotonic, usize)>,
    recipient_sum: usize,
}

impl Limiter {
    /// A connection logged in. It counts from here until it ends, idle or not: a pooled connection counts (facts 1.7).
    pub(crate) fn enter(&self, login: &str, connection: u64) {
        self.ledgers().entry(login.to_owned()).or_default().connections.insert(connection);
    }

    pub(crate) fn leave(&self, login: &str, connection: u64) {
        if let Some(ledger) = self.ledgers().get_mut(login) {
            ledger.connections.remove(&connection);
        }
    }

    /// Counts a message at MAIL; false if the mailbox has begun too many within a minute.
    pub(crate) fn begin_message(&self, login: &str, now: Monotonic) -> bool {
        self.counted(login, |ledger| {
            let full = ledger.messages.len() >= MESSAGES;
            let within = ledger.messages.front().is_some_and(|&first| now.saturating_since(first) < MESSAGE_WINDOW);
            if full && within {
                return false;
            }
            if full {
                ledger.messages.pop_front();
            }
            ledger.messages.push_back(now);
            true
        })
    }

    /// True if the connection is among the mailbox's first three.
    pub(crate) fn may_submit(&self, login: &str, connection: u64) -> bool {
        self.counted(login, |ledger| ledger.connections.iter().take(CONNECTIONS).any(|&first| first == connection))
    }

    /// Charges the recipients of an accepted message; false, and nothing charged, if they exceed the day's.
    pub(crate) fn charge_recipients(&self, login: &str, count: usize, now: Monotonic) -> bool {
        self.counted(login, |ledger| {
            while let Some(&(at, earlier)) = ledger.recipients.front()
                && now.saturating_since(at) >= RECIPIENT_WINDOW
            {
                ledger.recipients.pop_front();
                ledger.recipient_sum -= earlier;
            }
            if ledger.recipient_sum + count > RECIPIENTS {
                return false;
            }
            ledger.recipient_sum += count;
            ledger.recipients.push_back((now, count));
            true
        })
    }

    fn counted(&self, login: &str, decide: impl FnOnce(&mut Ledger) -> bool) -> bool {
        decide(self.ledgers().entry(login.to_owned()).or_default())
    }

    fn ledgers(&self) -> MutexGuard<'_, HashMap<String, Ledger>> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kinds of requests remembered before those of the past are forgotten.
const KINDS: usize = 20_000;

/// Recent token requests by kind, for AADSTS50196. A kind is an application of the model with a known scope, and a user
/// of the model when it refreshes a person's token.
#[derive(Debug, Default)]
pub(crate) struct RequestLog {
    recent: Mutex<HashMap<String, VecDeque<Monotonic>>>,
}

impl RequestLog {
    /// Notes a request; false if it is at least the 16th of its kind within 5 minutes. Refused ones count too, so that
    /// a client in a loop stays refused until it pauses (U: stricter reading).
    pub(crate) fn note(&self, kind: &str, now: Monotonic) -> bool {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= KINDS {
            let is_recent = |times: &VecDeque<Monotonic>| {
                times.back().is_some_and(|&last| now.saturating_since(last) < TOKEN_WINDOW)
            };
            recent.retain(|_, times| is_recent(times));
        }
        let times = recent.entry(kind.to_owned()).or_default();
        let full = times.len() >= TOKEN_REQUESTS;
        let refused = full && times.front().is_some_and(|&first| now.saturating_since(first) < TOKEN_WINDOW);
        if full {
            times.pop_front();
        }
        times.push_back(now);
        !refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(secs))
    }

    #[test]
    fn only_the_three_oldest_connections_submit() {
        let limiter = Limiter::default();
        (1..=4).for_each(|connection| limiter.enter("a", connection));
        limiter.enter("b", 5);
        let may = |connection| limiter.may_submit("a", connection);
        assert_eq!([may(1), may(2), may(3), may(4)], [true, true, true, false]);
        assert!(limiter.may_submit("b", 5));
        limiter.leave("a", 2);
        assert!(limiter.may_submit("a", 4));
    }

    #[test]
    fn thirty_messages_in_any_minute() {
        let limiter = Limiter::default();
        (0..30).for_each(|second| assert!(limiter.begin_message("a", at(second))));
        assert!(!limiter.begin_message("a", at(59)));
        assert!(limiter.begin_message("b", at(59)));
        assert!(limiter.begin_message("a", at(60)));
        assert!(!limiter.begin_message("a", at(60)));
        assert!(limiter.begin_message("a", at(61)));
    }

    #[test]
    fn ten_thousand_recipients_in_any_day() {
        let limiter = Limiter::default();
        assert!(limiter.charge_recipients("a", 9_999, at(0)));
        assert!(!limiter.charge_recipients("a", 2, at(10)));
        assert!(limiter.charge_recipients("a", 1, at(10)));
        assert!(!limiter.charge_recipients("a", 1, at(86_399)));
        assert!(limiter.charge_recipients("a", 9_999, at(86_400)));
        assert!(!limiter.charge_recipients("a", 1, at(86_400)));
    }

    #[test]
    fn the_sixteenth_identical_request_is_a_loop_until_it_pauses() {
        let log = RequestLog::default();
        (0..15).for_each(|second| assert!(log.note("k", at(second))));
        assert!(!log.note("k", at(20)));
        assert!(log.note("other", at(20)));
        assert!(!log.note("k", at(299)));
        assert!(log.note("k", at(599)));
    }
}
