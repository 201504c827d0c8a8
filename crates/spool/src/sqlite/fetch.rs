//! What is read from the database: the next delivery of a lane, when it is due, the oldest message. A row that does not
//! decode is handed to the writer to be set aside, so that it stops nothing behind it.

use std::path::Path;
use std::sync::Arc;

use clock::WallTime;
use mail::{Envelope, LaneId};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::apply::{body_type, reverse_path};
use super::body::{self, SqliteSource};
use super::claims::{ClaimGuard, Claims, Due, Row};
use super::inbox::Inbox;
use super::job::Quarantine;
use super::recipients;
use super::split::Progress;
use crate::claim::Claim;
use crate::id::{DeliveryId, QueueId};

/// Due deliveries looked up at once, beyond those that are claimed.
const AHEAD: usize = 64;

/// Everything that a claim needs beside its lane and time.
pub(super) struct Fetch {
    pub(super) claims: Arc<Claims>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) bodies: Arc<Path>,
}

impl Fetch {
    /// Claims the delivery of `lane` that has been due longest at `now`.
    pub(super) fn claim(
        &self,
        connection: &Connection,
        lane: &LaneId,
        now: i64,
    ) -> rusqlite::Result<Option<Claim<SqliteSource>>> {
        while let Some(due) = self.next(connection, lane, now)? {
            let guard = ClaimGuard::new(Arc::clone(&self.claims), lane.clone(), due);
            match self.load(connection, lane, now, guard) {
                Loaded::Claim(claim) => return Ok(Some(*claim)),
                Loaded::Stale(guard) => guard.settle(),
                Loaded::Failed(error) => return Err(error),
                // Set aside and said so by the writer; what stands behind it goes on.
                Loaded::Damaged(guard, detail) => self.inbox.push_quarantine(Quarantine { guard, detail }),
            }
        }
        Ok(None)
    }

    /// Takes from the list looked up ahead, or looks up.
    fn next(&self, connection: &Connection, lane: &LaneId, now: i64) -> rusqlite::Result<Option<Due>> {
        loop {
            if let Some(due) = self.claims.take(lane, now) {
                return Ok(Some(due));
            }
            let limit = self.claims.claimed(lane) + AHEAD;
            let found = look_up(connection, lane, now, limit)?;
            // All that were found may have been claimed meanwhile, with more behind them.
            if self.claims.refill(lane, &found) == 0 && found.len() < limit {
                return Ok(None);
            }
        }
    }

    fn load(&self, connection: &Connection, lane: &LaneId, now: i64, guard: ClaimGuard) -> Loaded {
        let stored = match read(connection, lane, now, guard.delivery()) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Loaded::Stale(guard),
            Err(error) if is_damage(&error) => return Loaded::Damaged(guard, error.to_string()),
            Err(error) => return Loaded::Failed(error),
        };
        match parse(stored, &self.bodies) {
            Ok(parsed) => Loaded::Claim(Box::new(self.hand_out(parsed, guard, lane))),
            Err(detail) => Loaded::Damaged(guard, detail.to_owned()),
        }
    }

    fn hand_out(&self, parsed: Parsed, mut guard: ClaimGuard, lane: &LaneId) -> Claim<SqliteSource> {
        let delivery = guard.delivery();
        let Parsed { mut row, message, tenant, envelope, recipients, content } = parsed;
        row.progress.uncertain = row.stored.uncertain.saturating_add(self.claims.cuts(delivery));
        let Progress { attempts, uncertain } = row.progress;
        guard.row = row;
        Claim {
            delivery: DeliveryId(delivery),
            message,
            lane: lane.clone(),
            tenant,
            envelope,
            recipients,
            header: content.header.into(),
            body: content.body,
            message_id: content.message_id,
            accepted_at: content.accepted_at,
            attempts,
            uncertain,
            guard,
        }
    }
}

enum Loaded {
    Claim(Box<Claim<SqliteSource>>),
    /// Changed since it was looked up: no longer due, or gone.
    Stale(ClaimGuard),
    Damaged(ClaimGuard, String),
    Failed(rusqlite::Error),
}

/// A delivery and its message as the columns say.
struct StoredDelivery {
    message: i64,
    tenant: String,
    recipients: String,
    version: i64,
    route_epoch: i64,
    attempts: u32,
    uncertain: u32,
    diagnostic: Option<String>,
    found: Option<StoredMessage>,
}

struct StoredMessage {
    accepted_at: i64,
    reverse_path: String,
    body_type: i64,
    smtputf8: bool,
    message_id: String,
    client: String,
    body_len: i64,
    header: Vec<u8>,
    /// None if it stands in a file.
    body: Option<Vec<u8>>,
}

struct Parsed {
    row: Row,
    message: QueueId,
    tenant: String,
    envelope: Envelope,
    recipients: Vec<mail::Recipient>,
    content: Content,
}

struct Content {
    header: Vec<u8>,
    body: SqliteSource,
    message_id: String,
    accepted_at: WallTime,
}

fn parse(stored: StoredDelivery, bodies: &Path) -> Result<Parsed, &'static str> {
    let id = QueueId::from_i64(stored.message).ok_or("its message id is not valid")?;
    let message = stored.found.ok_or("its message is missing")?;
    let recipients = recipients::decode(&stored.recipients).ok_or("its recipients do not read")?;
    let reverse_path = reverse_path(&message.reverse_path).ok_or("its reverse-path does not read")?;
    let body_type = body_type(message.body_type).ok_or("its body type is unknown")?;
    let total = u64::try_from(message.body_len).map_err(|_| "its body length is not valid")?;
    let body = match message.body {
        Some(body) if body.len() as u64 == total => SqliteSource::inline(body),
        Some(_) => return Err("its body is not as long as it was"),
        None => SqliteSource::filed(body::path(bodies, id), total),
    };
    let progress = Progress { attempts: stored.attempts, uncertain: stored.uncertain };
    Ok(Parsed {
        row: Row {
            version: stored.version,
            route_epoch: stored.route_epoch,
            stored: progress,
            progress,
            diagnostic: stored.diagnostic,
            client: message.client,
        },
        message: id,
        tenant: stored.tenant,
        envelope: Envelope { body_type, smtputf8: message.smtputf8, ..Envelope::from(reverse_path) },
        recipients,
        content: Content {
            header: message.header,
            body,
            message_id: message.message_id,
            accepted_at: WallTime::from_unix_millis(message.accepted_at),
        },
    })
}

fn read(connection: &Connection, lane: &LaneId, now: i64, delivery: i64) -> rusqlite::Result<Option<StoredDelivery>> {
    let mut statement = connection.prepare_cached(
        "SELECT d.message, d.tenant, d.recipients, d.version, d.route_epoch, d.attempts, d.uncertain, d.diagnostic,
         m.id, m.accepted_at, m.reverse_path, m.body_type, m.smtputf8, m.message_id, m.client, m.body_len, m.header, m.body
         FROM delivery d LEFT JOIN message m ON m.id = d.message
         WHERE d.id = ?1 AND d.lane = ?2 AND d.state = 0 AND d.due <= ?3",
    )?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(StoredDelivery {
            message: row.get(0)?,
            tenant: row.get(1)?,
            recipients: row.get(2)?,
            version: row.get(3)?,
            route_epoch: row.get(4)?,
            attempts: row.get(5)?,
            uncertain: row.get(6)?,
            diagnostic: row.get(7)?,
            found: row.get::<_, Option<i64>>(8)?.map(|_| message(row)).transpose()?,
        })
    };
    statement.query_row(params![delivery, lane.as_str(), now], read).optional()
}

fn message(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredMessage> {
    Ok(StoredMessage {
        accepted_at: row.get(9)?,
        reverse_path: row.get(10)?,
        body_type: row.get(11)?,
        smtputf8: row.get(12)?,
        message_id: row.get(13)?,
        client: row.get(14)?,
        body_len: row.get(15)?,
        header: row.get(16)?,
        body: row.get(17)?,
    })
}

/// Whether the row, and not the moment, is at fault.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => code == ErrorCode::DatabaseCorrupt,
        None => true,
    }
}

/// The first `limit` queued deliveries of `lane` due at `until`, in order. Answered by the index alone.
fn look_up(connection: &Connection, lane: &LaneId, until: i64, limit: usize) -> rusqlite::Result<Vec<Due>> {
    let mut statement = connection.prepare_cached(
        "SELECT due, id FROM delivery WHERE lane = ?1 AND state = 0 AND due <= ?2 ORDER BY due, id LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement
        .query_map(params![lane.as_str(), until, limit], |row| Ok(Due { at: row.get(0)?, delivery: row.get(1)? }))?;
    rows.collect()
}

/// When the first delivery of `lane` that nobody holds is due.
pub(super) fn next_due(connection: &Connection, claims: &Claims, lane: &LaneId) -> rusqlite::Result<Option<WallTime>> {
    loop {
        let limit = claims.claimed(lane) + 1;
        let found = look_up(connection, lane, i64::MAX, limit)?;
        let first = claims.first_unclaimed(lane, &found);
        if first.is_some() || found.len() < limit {
            return Ok(first.map(|due| WallTime::from_unix_millis(due.at)));
        }
    }
}

/// Every lane that has deliveries: one step in the index for each, however long they are.
pub(super) fn lanes(connection: &Connection) -> rusqlite::Result<Vec<LaneId>> {
    let mut statement = connection.prepare_cached(
        "WITH RECURSIVE found(lane) AS (
             SELECT min(lane) FROM delivery
             UNION ALL
             SELECT (SELECT min(lane) FROM delivery WHERE lane > found.lane) FROM found WHERE found.lane IS NOT NULL
         )
         SELECT lane FROM found WHERE lane IS NOT NULL",
    )?;
    let lanes = statement.query_map([], |row| row.get(0).map(LaneId::from_stored))?;
    lanes.collect()
}

/// The first entry of each lane's part of the index.
const EARLIEST_DUE: &str = "WITH RECURSIVE found(lane) AS (
         SELECT min(lane) FROM delivery
         UNION ALL
         SELECT (SELECT min(lane) FROM delivery WHERE lane > found.lane) FROM found WHERE found.lane IS NOT NULL
     )
     SELECT min((SELECT min(due) FROM delivery WHERE lane = found.lane AND state = 0)) FROM found";

/// When the first queued delivery of any lane is due.
pub(super) fn earliest_due(connection: &Connection) -> rusqlite::Result<Option<WallTime>> {
    let mut statement = connection.prepare_cached(EARLIEST_DUE)?;
    let millis: Option<i64> = statement.query_row([], |row| row.get(0))?;
    Ok(millis.map(WallTime::from_unix_millis))
}

const QUEUED: &str = "SELECT count(*) FROM (SELECT 1 FROM delivery WHERE lane = ?1 AND state = 0 LIMIT ?2)";

/// Queued deliveries of `lane`, counted in the index and no further than `at_most`.
pub(super) fn queued(connection: &Connection, lane: &LaneId, at_most: u32) -> rusqlite::Result<u32> {
    connection.prepare_cached(QUEUED)?.query_row(params![lane.as_str(), at_most], |row| row.get(0))
}

/// Messages of `lane` that upstream has answered since then: few, because a lane has its pace.
pub(super) fn sent_since(connection: &Connection, lane: &LaneId, since: i64) -> rusqlite::Result<u64> {
    let mut statement =
        connection.prepare_cached("SELECT count(DISTINCT message) FROM history WHERE at > ?1 AND lane = ?2")?;
    let count: i64 = statement.query_row(params![since, lane.as_str()], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// When the oldest message was accepted: ids order by acceptance.
pub(super) fn oldest(connection: &Connection) -> rusqlite::Result<Option<WallTime>> {
    let mut statement = connection.prepare_cached("SELECT accepted_at FROM message ORDER BY id LIMIT 1")?;
    let millis: Option<i64> = statement.query_row([], |row| row.get(0)).optional()?;
    Ok(millis.map(WallTime::from_unix_millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema;

    #[test]
    fn what_status_asks_for_is_answered_by_the_index() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(directory.path().join("db")).unwrap();
        schema::create(&mut connection).unwrap();
        for sql in [EARLIEST_DUE, QUEUED] {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let parameters = vec![rusqlite::types::Null; statement.parameter_count()];
            let steps = statement.query_map(rusqlite::params_from_iter(parameters), |row| row.get::<_, String>(3));
            let plan = steps.unwrap().collect::<Result<Vec<_>, _>>().unwrap().join("\n");
            assert!(plan.contains("USING COVERING INDEX delivery_due (lane=? AND state=?)"), "{plan}");
            assert!(!plan.contains("SCAN delivery"), "{plan}");
        }
    }
}
