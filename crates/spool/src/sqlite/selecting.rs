//! The next delivery of a selection: a walk by id over the rows, bounded like a page of the list, that reads nothing of a row
//! it passes by but what stands in front. Not here: what a claim needs, nor which rows a lane's turn gives.

use std::sync::Arc;

use mail::LaneSet;
use rusqlite::{Connection, OptionalExtension, params};

use super::body::SqliteSource;
use super::claims::{ClaimGuard, Claims};
use super::fetch::{Fetch, Wanted, is_damage};
use super::schema::State;
use super::turns::Due;
use crate::claim::Claim;
use crate::id::DeliveryId;
use crate::selection::{Selected, Selection};

/// Rows looked at in one look: some milliseconds.
const LOOKED_AT: u32 = 10_000;

/// Both read columns in front of the recipients only, so that no overflow page is walked.
const ALL: &str = "SELECT id, state, route_epoch FROM delivery WHERE id > ?1 ORDER BY id LIMIT ?2";
const OF_MESSAGE: &str =
    "SELECT id, state, route_epoch FROM delivery WHERE message = ?3 AND id > ?1 ORDER BY id LIMIT ?2";

impl Selection {
    /// Whether a row that stands so is meant; that it is of the message is the query's.
    pub(super) fn takes(&self, state: i64, epoch: u64) -> bool {
        let is = |wanted: State| wanted as i64 == state;
        match self {
            Self::OtherEpoch(now) => epoch != *now && (is(State::Queued) || is(State::Unrouted)),
            Self::Unrouted => is(State::Unrouted),
            Self::Message(_) => is(State::Queued) || is(State::Held) || is(State::Unrouted),
        }
    }
}

/// How far a look has come.
struct Look {
    /// The last row looked at.
    at: i64,
    /// Rows that may still be looked at.
    left: u32,
    /// Rows that somebody holds.
    passed_over: u32,
}

/// Where a walk ended.
enum Walked {
    /// At one that nobody seems to hold.
    Met,
    /// It looked at as many as it may.
    Tired,
    /// At the last row.
    End,
}

impl Fetch {
    /// Claims the next of `selection` behind `after`.
    pub(super) fn claim_selected(
        &self,
        connection: &Connection,
        selection: Selection,
        after: Option<DeliveryId>,
    ) -> rusqlite::Result<Selected<SqliteSource>> {
        let mut look = Look { at: after.map_or(i64::MIN, |after| after.0), left: LOOKED_AT, passed_over: 0 };
        loop {
            let (claim, is_end) = match walk(connection, &self.claims, selection, &mut look)? {
                Walked::Met => (self.take_selected(connection, selection, &mut look)?, false),
                Walked::Tired => (None, false),
                Walked::End => (None, true),
            };
            if claim.is_some() || is_end || look.left == 0 {
                let next = (!is_end).then_some(DeliveryId(look.at));
                return Ok(Selected { claim, next, passed_over: look.passed_over });
            }
        }
    }

    /// Claims the row that a walk ended at. The walk is over, so that this reads what is there now.
    fn take_selected(
        &self,
        connection: &Connection,
        selection: Selection,
        look: &mut Look,
    ) -> rusqlite::Result<Option<Claim<SqliteSource>>> {
        let Some((lanes, client, due, state)) = standing(connection, look.at)? else { return Ok(None) };
        if !self.claims.take(&lanes, due.delivery) {
            look.passed_over += 1;
            return Ok(None);
        }
        let guard = ClaimGuard::new(Arc::clone(&self.claims), lanes, client, due).standing(state);
        let claim = self.hand_out(connection, Wanted::Selected(selection), guard)?;
        if claim.is_none() {
            // It changed in between: whether it is still meant is looked at anew. A damaged one is held by the writer now.
            look.at -= 1;
        }
        Ok(claim)
    }
}

fn walk(connection: &Connection, claims: &Claims, selection: Selection, look: &mut Look) -> rusqlite::Result<Walked> {
    let mut statement;
    let mut rows = match selection {
        Selection::Message(message) => {
            statement = connection.prepare_cached(OF_MESSAGE)?;
            statement.query(params![look.at, look.left, message.to_i64()])?
        }
        Selection::OtherEpoch(_) | Selection::Unrouted => {
            statement = connection.prepare_cached(ALL)?;
            statement.query(params![look.at, look.left])?
        }
    };
    while let Some(row) = rows.next()? {
        look.at = row.get(0)?;
        look.left -= 1;
        if selection.takes(row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned()) {
            if !claims.is_claimed(look.at) {
                return Ok(Walked::Met);
            }
            look.passed_over += 1;
        }
    }
    Ok(if look.left == 0 { Walked::Tired } else { Walked::End })
}

const STANDING: &str = "SELECT lane, client, due, state FROM delivery WHERE id = ?1";

/// Where a delivery stands; none if it is gone, or out of reach: its lane sets it aside then, and nothing behind it waits.
fn standing(connection: &Connection, delivery: i64) -> rusqlite::Result<Option<(LaneSet, String, Due, State)>> {
    let mut statement = connection.prepare_cached(STANDING)?;
    let read = |row: &rusqlite::Row<'_>| {
        let due = Due { at: row.get(2)?, delivery };
        Ok((LaneSet::from_stored(row.get(0)?), row.get(1)?, due, State::from_stored(row.get(3)?)))
    };
    match statement.query_row([delivery], read).optional() {
        Ok(found) => Ok(found.and_then(|(lanes, client, due, state)| Some((lanes, client, due, state?)))),
        Err(error) if is_damage(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::QueueId;
    use crate::sqlite::fetch::tests::plan;

    #[test]
    fn a_selection_takes_what_it_names_and_nothing_damaged() {
        let message = Selection::Message(QueueId::new(1, 1));
        let states = [State::Queued, State::Held, State::Quarantined, State::Unrouted];
        for (selection, epoch, wanted) in [
            (Selection::OtherEpoch(7), 7, [false; 4]),
            (Selection::OtherEpoch(7), 8, [true, false, false, true]),
            (Selection::Unrouted, 7, [false, false, false, true]),
            (message, 7, [true, true, false, true]),
        ] {
            assert_eq!(states.map(|state| selection.takes(state as i64, epoch)), wanted, "{selection:?} {epoch}");
        }
        assert!(!message.takes(2, 7), "a state of the first format");
    }

    #[test]
    fn a_walk_goes_by_id_and_a_message_by_its_index() {
        assert_eq!(plan(ALL), "SEARCH delivery USING INTEGER PRIMARY KEY (rowid>?)");
        let of_message = plan(OF_MESSAGE);
        assert!(of_message.contains("USING INDEX delivery_message (message=? AND rowid>?)"), "{of_message}");
        assert!(!of_message.contains("TEMP B-TREE"), "{of_message}");
    }
}
