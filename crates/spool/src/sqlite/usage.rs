//! What logins have used upstream, by the minute: written with settlements, read by who keeps a pace over a day. Not here:
//! the pace itself.

use clock::WallTime;
use mail::LaneId;
use rusqlite::{Connection, params};

use crate::usage::Usage;

/// Milliseconds.
const MINUTE: i64 = 60_000;

fn minute(at: WallTime) -> i64 {
    at.unix_millis().div_euclid(MINUTE)
}

/// What a transaction adds, summed up first: many settlements of one lane fall into one minute.
#[derive(Debug, Default)]
pub(super) struct Used(Vec<(LaneId, i64, Usage)>);

impl Used {
    /// Adds what `lane` used at `at`.
    pub(super) fn add(&mut self, lane: &LaneId, at: WallTime, usage: Usage) {
        self.add_minute(lane, minute(at), usage);
    }

    fn add_minute(&mut self, lane: &LaneId, minute: i64, usage: Usage) {
        if usage == Usage::default() {
            return;
        }
        match self.0.iter_mut().find(|(known, at, _)| *at == minute && known == lane) {
            Some((_, _, sum)) => *sum = sum.plus(usage),
            None => self.0.push((lane.clone(), minute, usage)),
        }
    }

    /// Adds what another job used.
    pub(super) fn merge(&mut self, other: Self) {
        for (lane, minute, usage) in other.0 {
            self.add_minute(&lane, minute, usage);
        }
    }

    /// Writes it, inside the caller's transaction.
    pub(super) fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.0.iter().try_for_each(|(lane, minute, usage)| save(connection, lane, *minute, *usage))
    }
}

/// Writes what `lane` used at `at`, inside the caller's transaction.
pub(super) fn add(connection: &Connection, lane: &LaneId, at: WallTime, usage: Usage) -> rusqlite::Result<()> {
    save(connection, lane, minute(at), usage)
}

fn save(connection: &Connection, lane: &LaneId, minute: i64, usage: Usage) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO usage (lane, minute, messages, recipients, external) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (lane, minute) DO UPDATE SET messages = messages + excluded.messages,
         recipients = recipients + excluded.recipients, external = external + excluded.external",
    )?;
    statement.execute(params![lane.as_str(), minute, usage.messages, usage.recipients, usage.external])?;
    Ok(())
}

/// What `lane` used in each minute since the one of `since`, in order.
pub(super) fn since(
    connection: &Connection,
    lane: &LaneId,
    since: WallTime,
) -> rusqlite::Result<Vec<(WallTime, Usage)>> {
    let mut statement = connection.prepare_cached(
        "SELECT minute, messages, recipients, external FROM usage WHERE lane = ?1 AND minute >= ?2 ORDER BY minute",
    )?;
    let number = |value: i64| u32::try_from(value.max(0)).unwrap_or(u32::MAX);
    let rows = statement.query_map(params![lane.as_str(), minute(since)], |row| {
        let at = WallTime::from_unix_millis(row.get::<_, i64>(0)?.saturating_mul(MINUTE));
        let (messages, recipients, external) = (number(row.get(1)?), number(row.get(2)?), number(row.get(3)?));
        Ok((at, Usage { messages, recipients, external }))
    })?;
    rows.collect()
}

/// One step in the key for each lane ever used and not yet forgotten.
const LANES: &str = "WITH RECURSIVE found(lane) AS (
         SELECT min(lane) FROM usage
         UNION ALL
         SELECT (SELECT min(lane) FROM usage WHERE lane > found.lane) FROM found WHERE found.lane IS NOT NULL
     )
     SELECT lane FROM found
     WHERE lane IS NOT NULL AND EXISTS (SELECT 1 FROM usage WHERE lane = found.lane AND minute >= ?1)";

/// The lanes used since the minute of `since`.
pub(super) fn lanes(connection: &Connection, since: WallTime) -> rusqlite::Result<Vec<LaneId>> {
    used_lanes(connection, minute(since))
}

fn used_lanes(connection: &Connection, since: i64) -> rusqlite::Result<Vec<LaneId>> {
    let mut statement = connection.prepare_cached(LANES)?;
    let lanes = statement.query_map([since], |row| row.get(0).map(LaneId::from_stored))?;
    lanes.collect()
}

/// Forgets what lies before the minute of `before`: a day and a bit for each lane is kept at most.
pub(super) fn prune(connection: &Connection, before: WallTime) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("DELETE FROM usage WHERE lane = ?1 AND minute < ?2")?;
    for lane in used_lanes(connection, i64::MIN)? {
        statement.execute(params![lane.as_str(), minute(before)])?;
    }
    Ok(())
}
