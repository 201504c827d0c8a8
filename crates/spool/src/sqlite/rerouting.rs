//! How a rerouting parts a delivery, a pure function from places to rows, and those rows written. Recipients that go to the
//! same place stay one delivery. Not here: the transaction, nor what a settlement does.

use mail::LaneSet;
use rusqlite::params;

use super::apply::{Applier, Effects, Event};
use super::claims::Row;
use super::job::Reroute;
use super::recipients;
use super::schema::State;
use crate::rerouting::{Place, Placed};

/// History's word for it.
const EVENT: &str = "rerouted";

/// A delivery that a rerouting leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Left<'a> {
    /// Positions in the claim's recipients.
    recipients: Vec<usize>,
    /// None if it stays where it stands.
    moved: Option<Moved<'a>>,
}

/// What changes of a delivery that does not stay.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moved<'a> {
    tenant: &'a str,
    route: &'a str,
    lanes: &'a LaneSet,
    state: State,
    due: i64,
    diagnostic: Option<&'a str>,
}

/// What is left of `reroute`'s delivery: those who stay first, since they keep the row.
fn left(reroute: &Reroute) -> Vec<Left<'_>> {
    let mut left: Vec<Left<'_>> = Vec::new();
    for part in reroute.rerouting.parts.iter().filter(|part| !part.recipients.is_empty()) {
        let moved = moved(reroute, &part.place);
        match left.iter_mut().find(|left| left.moved == moved) {
            Some(left) => left.recipients.extend(&part.recipients),
            None => left.push(Left { recipients: part.recipients.clone(), moved }),
        }
    }
    left.sort_by_key(|left| left.moved.is_some());
    left
}

fn moved<'a>(reroute: &'a Reroute, place: &'a Place) -> Option<Moved<'a>> {
    let Row { state, diagnostic, .. } = &reroute.guard.row;
    let at = reroute.rerouting.at.unix_millis();
    match place {
        Place::Stays => None,
        Place::Lanes { tenant, route, lanes } => Some(Moved {
            tenant,
            route,
            lanes,
            state: State::Queued,
            due: if *state == State::Queued { reroute.guard.due().at } else { at },
            // Why no route took it is no longer so.
            diagnostic: diagnostic.as_deref().filter(|_| *state != State::Unrouted),
        }),
        Place::Unrouted { reason } => Some(Moved {
            tenant: &reroute.tenant,
            route: &reroute.route,
            lanes: reroute.guard.lanes(),
            state: State::Unrouted,
            due: at,
            diagnostic: Some(reason),
        }),
    }
}

/// Whether somebody stays: the row is then what it was, transfers cut in this boot included.
pub(super) fn keeps_its_row(parts: &[Placed]) -> bool {
    parts.iter().any(|part| part.place == Place::Stays && !part.recipients.is_empty())
}

impl Applier<'_> {
    /// New places for the recipients of a claim. Does nothing if they were written already, as a settlement.
    pub(super) fn reroute(&mut self, reroute: &Reroute, effects: &mut Effects) -> rusqlite::Result<()> {
        let rows = left(reroute);
        let Some((first, others)) = rows.split_first() else { return Ok(()) };
        if !self.place(reroute, first)? {
            return Ok(());
        }
        let before = &reroute.guard.row;
        effects.totals.count(before.state, before.uncertain, -1);
        note(reroute, first, reroute.guard.delivery(), effects);
        for row in others {
            let Some(moved) = &row.moved else { continue };
            let id = self.insert_moved(reroute, row, moved)?;
            note(reroute, row, id, effects);
        }
        self.write_word(reroute)
    }

    /// The claimed row becomes the first that is left; false if it is not the row that was claimed any more.
    fn place(&self, reroute: &Reroute, row: &Left<'_>) -> rusqlite::Result<bool> {
        let (id, version) = (reroute.guard.delivery(), reroute.guard.row.version);
        let epoch = reroute.rerouting.epoch.cast_signed();
        let Some(moved) = &row.moved else {
            let mut statement = self.connection.prepare_cached(
                "UPDATE delivery SET route_epoch = ?3, version = version + 1, recipients = ?4
                 WHERE id = ?1 AND version = ?2",
            )?;
            return Ok(statement.execute(params![id, version, epoch, chosen(reroute, row)])? == 1);
        };
        let mut statement = self.connection.prepare_cached(
            "UPDATE delivery SET tenant = ?3, lane = ?4, route_epoch = ?5, state = ?6, due = ?7, uncertain = ?8,
             in_flight = NULL, version = version + 1, diagnostic = ?9, recipients = ?10, route = ?11
             WHERE id = ?1 AND version = ?2",
        )?;
        let changed = statement.execute(params![
            id,
            version,
            moved.tenant,
            moved.lanes.as_str(),
            epoch,
            moved.state as i64,
            moved.due,
            reroute.uncertain,
            moved.diagnostic,
            chosen(reroute, row),
            moved.route
        ])?;
        Ok(changed == 1)
    }

    /// Another row like the claimed one, for those who go another way; gives its id.
    fn insert_moved(&mut self, reroute: &Reroute, row: &Left<'_>, moved: &Moved<'_>) -> rusqlite::Result<i64> {
        let id = self.delivery_id();
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO delivery (id, message, tenant, lane, route_epoch, state, due, attempts, uncertain, in_flight,
             version, diagnostic, recipients, route, client, origin, age, denied, delay_told, user, asked)
             SELECT ?1, message, ?3, ?4, ?5, ?6, ?7, attempts, ?8, NULL, 0, ?9, ?10, ?11, client, origin, age, denied,
             delay_told, user, asked FROM delivery WHERE id = ?2",
        )?;
        statement.execute(params![
            id,
            reroute.guard.delivery(),
            moved.tenant,
            moved.lanes.as_str(),
            reroute.rerouting.epoch.cast_signed(),
            moved.state as i64,
            moved.due,
            reroute.uncertain,
            moved.diagnostic,
            chosen(reroute, row),
            moved.route
        ])?;
        Ok(id)
    }

    /// The operator's word in the history of each recipient; the lanes are those that may carry it now.
    fn write_word(&self, reroute: &Reroute) -> rusqlite::Result<()> {
        let Some(said) = &reroute.rerouting.said else { return Ok(()) };
        for part in &reroute.rerouting.parts {
            let (tenant, lanes) = match &part.place {
                Place::Lanes { tenant, lanes, .. } => (tenant, lanes),
                Place::Unrouted { .. } => (&reroute.tenant, reroute.guard.lanes()),
                // It was asked for, and nothing has come of it.
                Place::Stays => continue,
            };
            for recipient in part.recipients.iter().filter_map(|position| reroute.recipients.get(*position)) {
                self.write_event(&Event {
                    at: reroute.rerouting.at,
                    message: reroute.message,
                    name: EVENT,
                    lane: &lanes.to_string(),
                    tenant,
                    mailbox: "",
                    sender: &reroute.sender,
                    recipient: &recipient.to_string(),
                    client: reroute.guard.client(),
                    message_id: &reroute.message_id,
                    reply: said,
                    attempt: reroute.guard.row.attempts,
                })?;
            }
        }
        Ok(())
    }
}

/// Counts a row that was left and tells its queue.
fn note(reroute: &Reroute, row: &Left<'_>, delivery: i64, effects: &mut Effects) {
    let before = &reroute.guard.row;
    let (state, uncertain, lanes, due) = match &row.moved {
        None => (before.state, before.uncertain, reroute.guard.lanes(), reroute.guard.due().at),
        Some(moved) => (moved.state, reroute.uncertain, moved.lanes, moved.due),
    };
    effects.totals.count(state, uncertain, 1);
    if state == State::Queued {
        effects.claimable(lanes, reroute.guard.client(), due, delivery);
    }
}

/// The recipients of a row as it stores them.
fn chosen(reroute: &Reroute, row: &Left<'_>) -> String {
    recipients::encode(row.recipients.iter().filter_map(|position| reroute.recipients.get(*position)))
}
