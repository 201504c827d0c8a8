//! The running sums that make `counts` and the start cheap: kept in `meta` in each transaction, never counted anew.

use std::ops::AddAssign;

use rusqlite::{Connection, params};

use super::schema::State;
use crate::Counts;

/// What is stored, or by how much a transaction changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) messages: i64,
    pub(super) bytes: i64,
    pub(super) queued: i64,
    pub(super) held: i64,
    pub(super) quarantined: i64,
    /// Queued deliveries with an uncertainty.
    pub(super) uncertain: i64,
}

impl Totals {
    /// Counts `by` deliveries in `state` whose uncertainties are `uncertain` each.
    pub(super) fn count(&mut self, state: State, uncertain: u32, by: i64) {
        match state {
            State::Queued => {
                self.queued += by;
                self.uncertain += if uncertain > 0 { by } else { 0 };
            }
            State::Held | State::Unrouted => self.held += by,
            State::Quarantined => self.quarantined += by,
        }
    }

    /// As the contract's counts, without the oldest.
    pub(super) fn counts(self) -> Counts {
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        Counts {
            messages: number(self.messages),
            bytes: number(self.bytes),
            queued: number(self.queued),
            held: number(self.held),
            quarantined: number(self.quarantined),
            uncertain: number(self.uncertain),
            oldest: None,
        }
    }

    /// Reads the sums.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        connection.query_row(
            "SELECT messages, bytes, queued, held, quarantined, uncertain FROM meta WHERE one = 1",
            [],
            |row| {
                Ok(Self {
                    messages: row.get(0)?,
                    bytes: row.get(1)?,
                    queued: row.get(2)?,
                    held: row.get(3)?,
                    quarantined: row.get(4)?,
                    uncertain: row.get(5)?,
                })
            },
        )
    }

    /// Adds this change to the stored sums, inside the caller's transaction.
    pub(super) fn save_change(&self, connection: &Connection) -> rusqlite::Result<()> {
        if *self == Self::default() {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(
            "UPDATE meta SET messages = messages + ?1, bytes = bytes + ?2, queued = queued + ?3, held = held + ?4,
             quarantined = quarantined + ?5, uncertain = uncertain + ?6 WHERE one = 1",
        )?;
        statement.execute(params![
            self.messages,
            self.bytes,
            self.queued,
            self.held,
            self.quarantined,
            self.uncertain
        ])?;
        Ok(())
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.queued += other.queued;
        self.held += other.held;
        self.quarantined += other.quarantined;
        self.uncertain += other.uncertain;
    }
}
