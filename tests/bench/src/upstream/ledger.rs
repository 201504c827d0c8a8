//! Which messages have come, how often and when: the proof that nothing was lost or doubled.
//!
//! Of a message's content it knows the length alone.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::bench::rate;

/// Counts the messages of one epoch.
#[derive(Debug)]
pub(super) struct Ledger {
    epoch: u32,
    body: usize,
    copies: Vec<u8>,
    account: Account,
    begun: Instant,
}

/// What has come in an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Different messages.
    pub(crate) messages: usize,
    /// Further copies of them.
    pub(crate) duplicates: usize,
    /// Messages of another epoch, or without a mark.
    pub(crate) strays: usize,
    /// Messages whose body has another length than it had.
    pub(crate) damaged: usize,
    /// When the first and the last message came, in microseconds since the epoch began.
    pub(crate) first: u64,
    /// See `first`.
    pub(crate) last: u64,
    /// A digit for each number given out: how many copies came, 9 for more.
    pub(crate) copies: String,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self { epoch: 0, body: 0, copies: Vec::new(), account: Account::default(), begun: Instant::now() }
    }

    /// Forgets what came.
    pub(super) fn begin(&mut self, epoch: u32, body: usize, now: Instant) {
        *self = Self { epoch, body, copies: Vec::new(), account: Account::default(), begun: now };
    }

    /// Notes a message by its mark, if it had one, and the length of its body.
    pub(super) fn take(&mut self, mark: Option<(u32, u32)>, body: usize, now: Instant) {
        let Some((_, number)) = mark.filter(|(epoch, _)| *epoch == self.epoch) else {
            self.account.strays += 1;
            return;
        };
        let number = number as usize;
        if self.copies.len() <= number {
            self.copies.resize(number + 1, 0);
        }
        self.copies[number] = self.copies[number].saturating_add(1);
        if body != self.body {
            self.account.damaged += 1;
        }
        if self.copies[number] > 1 {
            self.account.duplicates += 1;
            return;
        }
        let since = u64::try_from(now.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX);
        if self.account.messages == 0 {
            self.account.first = since;
        }
        self.account.messages += 1;
        self.account.last = since;
    }

    /// Different messages so far.
    pub(super) fn messages(&self) -> usize {
        self.account.messages
    }

    /// All that is known.
    pub(super) fn account(&self) -> Account {
        let copies = self.copies.iter().map(|count| char::from(b'0' + (*count).min(9))).collect();
        Account { copies, ..self.account.clone() }
    }
}

impl Account {
    /// Messages a second from the first to the last, so that what went before counts for nothing. As many as can be on the
    /// way at a time come first together, and their way is not in that time: they are not counted. None where none is left.
    pub(crate) fn rate(&self, at_a_time: usize) -> Option<f64> {
        let between = Duration::from_micros(self.last.saturating_sub(self.first));
        (self.messages > at_a_time && !between.is_zero()).then(|| rate(self.messages - at_a_time, between))
    }

    /// How many copies came of a message.
    pub(crate) fn copies_of(&self, number: u32) -> u8 {
        self.copies.as_bytes().get(number as usize).map_or(0, |digit| digit - b'0')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_counted_once() {
        let begun = Instant::now();
        let at = |micros| begun + Duration::from_micros(micros);
        let mut ledger = Ledger::new();
        ledger.begin(7, 100, begun);
        ledger.take(Some((7, 2)), 100, at(5));
        ledger.take(Some((7, 0)), 100, at(9));
        ledger.take(Some((7, 2)), 100, at(11));
        ledger.take(Some((7, 1)), 99, at(12));
        ledger.take(Some((6, 1)), 100, at(13));
        ledger.take(None, 100, at(14));
        let account = ledger.account();
        let expected =
            Account { messages: 3, duplicates: 1, strays: 2, damaged: 1, first: 5, last: 12, copies: "112".to_owned() };
        assert_eq!(account, expected);
        assert_eq!((account.copies_of(2), account.copies_of(3)), (2, 0));
        let expected = 2.0 / 7e-6;
        assert!(account.rate(1).is_some_and(|rate| (rate - expected).abs() < 1.0), "{:?}", account.rate(1));
        ledger.begin(8, 100, begun);
        assert_eq!(ledger.account().rate(1), None);
        assert_eq!(ledger.account(), Account::default());
    }
}
