//! What is read from the database: the next delivery of a queue (of one set of lanes), when it is due, the oldest message.
//! A row that does not decode is handed to the writer to be set aside, so that it stops nothing behind it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clock::WallTime;
use mail::{Envelope, EnvelopeId, LaneSet, Mailbox, Ret};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::apply::{body_type, origin, reverse_path};
use super::body::{self, SqliteSource};
use super::claims::{ClaimGuard, Claims, Row};
use super::connection::{self, Purpose};
use super::inbox::Inbox;
use super::job::Quarantine;
use super::recipients;
use super::schema::State;
use super::turns::{AHEAD, CLIENTS, Due, Scan, Step};
use crate::claim::Claim;
use crate::id::{DeliveryId, QueueId};
use crate::message::Origin;
use crate::progress::Progress;
use crate::selection::Selection;

/// Everything that a claim needs beside its lanes and time.
pub(super) struct Fetch {
    pub(super) claims: Arc<Claims>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) bodies: Arc<Path>,
}

impl Fetch {
    /// Claims the delivery of `lanes` whose turn it is at `now`.
    pub(super) fn claim(
        &self,
        connection: &Connection,
        lanes: &LaneSet,
        now: i64,
    ) -> rusqlite::Result<Option<Claim<SqliteSource>>> {
        while let Some(guard) = self.next(connection, lanes, now)? {
            if let Some(claim) = self.hand_out(connection, Wanted::Due(now), guard)? {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    /// Claims the oldest delivery of `lanes` that was accepted before `before`, due or not.
    pub(super) fn claim_accepted_before(
        &self,
        connection: &Connection,
        lanes: &LaneSet,
        before: i64,
    ) -> rusqlite::Result<Option<Claim<SqliteSource>>> {
        let Some(last) = last_accepted_before(connection, before)? else { return Ok(None) };
        while let Some((message, client, due)) = self.sweep(connection, lanes, before, last)? {
            self.claims.sweep_to(lanes, message);
            if !self.claims.take(lanes, due.delivery) {
                continue;
            }
            let guard = ClaimGuard::new(Arc::clone(&self.claims), lanes.clone(), client, due);
            if let Some(claim) = self.hand_out(connection, Wanted::Due(i64::MAX), guard)? {
                return Ok(Some(claim));
            }
        }
        // The next sweep begins with the oldest again.
        self.claims.sweep_to(lanes, 0);
        Ok(None)
    }

    /// The next of a sweep that nobody holds, with the last message that the sweep has done with.
    fn sweep(
        &self,
        connection: &Connection,
        lanes: &LaneSet,
        before: i64,
        last: i64,
    ) -> rusqlite::Result<Option<(i64, String, Due)>> {
        let mut statement = connection.prepare_cached(SWEEP)?;
        let mut rows = statement.query(params![self.claims.swept(lanes), last, lanes.as_str(), before])?;
        while let Some(row) = rows.next()? {
            let due = Due { at: row.get(2)?, delivery: row.get(3)? };
            if self.claims.first_free(lanes, &[due]).is_some() {
                // Another delivery of the same message may follow.
                return Ok(Some((row.get::<_, i64>(0)? - 1, row.get(1)?, due)));
            }
        }
        Ok(None)
    }

    /// Takes what was looked up ahead, or looks up.
    fn next(&self, connection: &Connection, lanes: &LaneSet, now: i64) -> rusqlite::Result<Option<ClaimGuard>> {
        // Once all clients were looked at from their start there is nothing, however many scans that took.
        let (mut is_searched, mut rounds) = (false, 0);
        loop {
            match self.claims.next(lanes, now) {
                Step::Serve(client, due) => {
                    return Ok(Some(ClaimGuard::new(Arc::clone(&self.claims), lanes.clone(), client, due)));
                }
                Step::LookUp(client, seen) => {
                    // All that are found may be claimed, with more behind them.
                    let limit = self.claims.taken() + AHEAD;
                    let found = look_up(connection, lanes, &client, limit)?;
                    self.claims.looked_up(lanes, &client, &found, found.len() < limit, seen, now);
                }
                Step::Scan(..) if is_searched => return Ok(None),
                Step::Scan(cursor, seen) => {
                    let scan = scan(connection, lanes, cursor.as_deref(), now)?;
                    rounds += u32::from(scan.wrapped);
                    is_searched = scan.whole || rounds > 1;
                    self.claims.scanned(lanes, scan, seen);
                }
            }
        }
    }

    /// Reads what was claimed; none if it is not there any more, or damaged.
    pub(super) fn hand_out(
        &self,
        connection: &Connection,
        wanted: Wanted,
        guard: ClaimGuard,
    ) -> rusqlite::Result<Option<Claim<SqliteSource>>> {
        match self.load(connection, wanted, guard) {
            Loaded::Claim(claim) => return Ok(Some(*claim)),
            Loaded::Stale(guard, actual) => guard.stale(actual.as_ref()),
            Loaded::Failed(error) => return Err(error),
            // Set aside and said so by the writer; what stands behind it goes on.
            Loaded::Damaged(guard, detail) => self.inbox.push_quarantine(Quarantine { guard, detail }),
        }
        Ok(None)
    }

    fn load(&self, connection: &Connection, wanted: Wanted, guard: ClaimGuard) -> Loaded {
        let stored = match read_surely(connection, guard.delivery()) {
            Ok(Some(stored)) if stored.lanes != *guard.lanes() => return Loaded::Stale(guard, Some(stored.lanes)),
            Ok(Some(stored)) if wanted.is(&stored, &guard) => stored,
            Ok(_) => return Loaded::Stale(guard, None),
            Err(error) if is_damage(&error) => return Loaded::Damaged(guard, error.to_string()),
            Err(error) => return Loaded::Failed(error),
        };
        match parse(stored, &self.bodies) {
            Ok(parsed) => Loaded::Claim(Box::new(self.compose(parsed, guard))),
            Err(detail) => Loaded::Damaged(guard, detail.to_owned()),
        }
    }

    fn compose(&self, parsed: Parsed, mut guard: ClaimGuard) -> Claim<SqliteSource> {
        let delivery = guard.delivery();
        let Parsed { row, progress, content, .. } = parsed;
        let cuts = self.claims.cuts(delivery);
        guard.row = row;
        Claim {
            delivery: DeliveryId(delivery),
            message: parsed.message,
            lanes: guard.lanes().clone(),
            tenant: parsed.tenant,
            route: parsed.route,
            route_epoch: parsed.route_epoch,
            asked: parsed.asked,
            origin: parsed.origin,
            listener: content.listener,
            client: guard.client().to_owned(),
            user: parsed.user,
            envelope: parsed.envelope,
            recipients: parsed.recipients,
            header: content.header.into(),
            body: content.body,
            message_id: content.message_id,
            accepted_at: content.accepted_at,
            progress: Progress { uncertain: progress.uncertain.saturating_add(cuts), ..progress },
            guard,
        }
    }
}

/// What a delivery must still be once it is claimed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// Queued, and due by then.
    Due(i64),
    /// Of this selection, and as it stood when it was met.
    Selected(Selection),
}

impl Wanted {
    fn is(self, stored: &StoredDelivery, guard: &ClaimGuard) -> bool {
        match self {
            Self::Due(now) => stored.state == State::Queued as i64 && stored.due <= now,
            Self::Selected(selection) => {
                selection.takes(stored.state, stored.route_epoch.cast_unsigned())
                    && stored.state == guard.row.state as i64
                    && stored.due == guard.due().at
            }
        }
    }
}

enum Loaded {
    Claim(Box<Claim<SqliteSource>>),
    /// Changed since it was looked up: no longer what is wanted, gone, or in the queue of these lanes now.
    Stale(ClaimGuard, Option<LaneSet>),
    Damaged(ClaimGuard, String),
    Failed(rusqlite::Error),
}

/// A delivery and its message as the columns say.
struct StoredDelivery {
    message: i64,
    tenant: String,
    lanes: LaneSet,
    route: String,
    route_epoch: i64,
    user: Option<String>,
    asked: Option<String>,
    origin: i64,
    state: i64,
    due: i64,
    recipients: String,
    version: i64,
    attempts: u32,
    uncertain: u32,
    age: i64,
    denied: i64,
    delay_told: bool,
    diagnostic: Option<String>,
    found: Option<StoredMessage>,
}

struct StoredMessage {
    accepted_at: i64,
    reverse_path: String,
    body_type: i64,
    smtputf8: bool,
    ret: Option<String>,
    envelope_id: Option<String>,
    message_id: String,
    listener: String,
    body_len: i64,
    header: Vec<u8>,
    /// None if it stands in a file.
    body: Option<Vec<u8>>,
}

struct Parsed {
    row: Row,
    progress: Progress,
    message: QueueId,
    tenant: String,
    route: String,
    route_epoch: u64,
    user: Option<String>,
    asked: Option<Mailbox>,
    origin: Origin,
    envelope: Envelope,
    recipients: Vec<mail::Recipient>,
    content: Content,
}

struct Content {
    header: Vec<u8>,
    body: SqliteSource,
    message_id: String,
    listener: String,
    accepted_at: WallTime,
}

fn parse(stored: StoredDelivery, bodies: &Path) -> Result<Parsed, &'static str> {
    let id = QueueId::from_i64(stored.message).ok_or("its message id is not valid")?;
    let message = stored.found.ok_or("its message is missing")?;
    let recipients = recipients::decode(&stored.recipients).ok_or("its recipients do not read")?;
    let origin = origin(stored.origin).ok_or("its origin is unknown")?;
    let asked =
        stored.asked.map(|asked| asked.parse()).transpose().map_err(|_| "whom it was asked for does not read")?;
    let time = |millis| u64::try_from(millis).map(Duration::from_millis).map_err(|_| "its times are not valid");
    let progress = Progress {
        attempts: stored.attempts,
        uncertain: stored.uncertain,
        age: time(stored.age)?,
        denied: time(stored.denied)?,
        delay_told: stored.delay_told,
    };
    let envelope = envelope(&message)?;
    let total = u64::try_from(message.body_len).map_err(|_| "its body length is not valid")?;
    let body = match message.body {
        Some(body) if body.len() as u64 == total => SqliteSource::inline(body),
        Some(_) => return Err("its body is not as long as it was"),
        None => SqliteSource::filed(body::path(bodies, id), total),
    };
    let Progress { attempts, uncertain, .. } = progress;
    let state = State::from_stored(stored.state).ok_or("its state is unknown")?;
    Ok(Parsed {
        row: Row { version: stored.version, state, attempts, uncertain, diagnostic: stored.diagnostic },
        progress,
        message: id,
        tenant: stored.tenant,
        route: stored.route,
        route_epoch: stored.route_epoch.cast_unsigned(),
        user: stored.user,
        asked,
        origin,
        envelope,
        recipients,
        content: Content {
            header: message.header,
            body,
            message_id: message.message_id,
            listener: message.listener,
            accepted_at: WallTime::from_unix_millis(message.accepted_at),
        },
    })
}

fn envelope(message: &StoredMessage) -> Result<Envelope, &'static str> {
    let ret = message.ret.as_deref().map(Ret::parse).transpose();
    let envelope_id = message.envelope_id.as_deref().map(EnvelopeId::parse).transpose();
    Ok(Envelope {
        reverse_path: reverse_path(&message.reverse_path).ok_or("its reverse-path does not read")?,
        body_type: body_type(message.body_type).ok_or("its body type is unknown")?,
        smtputf8: message.smtputf8,
        ret: ret.map_err(|_| "its RET does not read")?,
        envelope_id: envelope_id.map_err(|_| "its ENVID does not read")?,
    })
}

/// Damage is believed only once the disk was seen to give back all that it holds, and of a fresh handle: a disk that was away
/// for a moment must set no mail aside. Takes as long as reading the database, for each row that is damaged.
fn read_surely(connection: &Connection, delivery: i64) -> rusqlite::Result<Option<StoredDelivery>> {
    match (read(connection, delivery), connection.path()) {
        (Err(error), Some(path)) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            let path = Path::new(path);
            connection::check_readable(path)?;
            let fresh = connection::open(path, Purpose::Read).map_err(|error| connection::unreadable(&error))?;
            read(&fresh, delivery)
        }
        (read, _) => read,
    }
}

fn read(connection: &Connection, delivery: i64) -> rusqlite::Result<Option<StoredDelivery>> {
    let mut statement = connection.prepare_cached(
        "SELECT d.message, d.tenant, d.lane, d.route, d.origin, d.due, d.recipients, d.version, d.attempts, d.uncertain,
         d.age, d.denied, d.delay_told, d.diagnostic, m.id, m.accepted_at, m.reverse_path, m.body_type, m.smtputf8, m.ret,
         m.envelope_id, m.message_id, m.body_len, m.header, m.body, m.listener, d.state, d.route_epoch, d.user, d.asked
         FROM delivery d LEFT JOIN message m ON m.id = d.message WHERE d.id = ?1",
    )?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(StoredDelivery {
            message: row.get(0)?,
            tenant: row.get(1)?,
            lanes: row.get(2).map(LaneSet::from_stored)?,
            route: row.get(3)?,
            route_epoch: row.get(27)?,
            user: row.get(28)?,
            asked: row.get(29)?,
            origin: row.get(4)?,
            state: row.get(26)?,
            due: row.get(5)?,
            recipients: row.get(6)?,
            version: row.get(7)?,
            attempts: row.get(8)?,
            uncertain: row.get(9)?,
            age: row.get(10)?,
            denied: row.get(11)?,
            delay_told: row.get(12)?,
            diagnostic: row.get(13)?,
            found: row.get::<_, Option<i64>>(14)?.map(|_| message(row)).transpose()?,
        })
    };
    statement.query_row([delivery], read).optional()
}

fn message(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredMessage> {
    Ok(StoredMessage {
        accepted_at: row.get(15)?,
        reverse_path: row.get(16)?,
        body_type: row.get(17)?,
        smtputf8: row.get(18)?,
        ret: row.get(19)?,
        envelope_id: row.get(20)?,
        message_id: row.get(21)?,
        listener: row.get(25)?,
        body_len: row.get(22)?,
        header: row.get(23)?,
        body: row.get(24)?,
    })
}

/// Whether the row, and not the moment, is at fault.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => code == ErrorCode::DatabaseCorrupt,
        None => true,
    }
}

const LOOK_UP: &str = "SELECT due, id FROM delivery WHERE lane = ?1 AND state = 0 AND client = ?2
     ORDER BY due, id LIMIT ?3";

/// The first `limit` queued deliveries of a client, due or not, in order. Answered by the index alone.
fn look_up(connection: &Connection, lanes: &LaneSet, client: &str, limit: usize) -> rusqlite::Result<Vec<Due>> {
    let mut statement = connection.prepare_cached(LOOK_UP)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement
        .query_map(params![lanes.as_str(), client, limit], |row| Ok(Due { at: row.get(0)?, delivery: row.get(1)? }))?;
    rows.collect()
}

const HEAD: &str = "SELECT client, due, id FROM delivery WHERE lane = ?1 AND state = 0 AND client >= ?2
     ORDER BY client, due, id LIMIT 1";

/// The first client from `from` on with its first delivery: one step in the index, however many it has.
fn head(connection: &Connection, lanes: &LaneSet, from: &str) -> rusqlite::Result<Option<(String, Due)>> {
    let mut statement = connection.prepare_cached(HEAD)?;
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, Due { at: row.get(1)?, delivery: row.get(2)? }));
    statement.query_row(params![lanes.as_str(), from], read).optional()
}

/// The first text behind `client` in the index's order.
fn behind(client: &str) -> String {
    format!("{client}\0")
}

/// The clients with something due at `now`, from behind `cursor` on and then from the start, until there are enough.
fn scan(connection: &Connection, lanes: &LaneSet, cursor: Option<&str>, now: i64) -> rusqlite::Result<Scan> {
    let mut scan = Scan::default();
    let mut from = cursor.map(behind).unwrap_or_default();
    // Without a cursor the start is where it begins.
    let mut end = if cursor.is_none() { Some(None) } else { None };
    let began_anew = |end: Option<Option<&str>>| cursor.is_none() || end.is_some();
    while scan.heads.len() < CLIENTS {
        let found = head(connection, lanes, &from)?;
        match (found, end) {
            (Some((client, _)), Some(Some(last))) if client.as_str() > last => return Ok(Scan { whole: true, ..scan }),
            (Some((client, due)), _) => {
                scan.looked_at += 1;
                from = behind(&client);
                if due.at <= now {
                    scan.heads.push((client, due));
                } else {
                    scan.again = scan.again.into_iter().chain([due.at]).min();
                }
            }
            (None, Some(_)) => return Ok(Scan { whole: true, ..scan }),
            (None, None) => (from, end) = (String::new(), Some(cursor)),
        }
    }
    Ok(Scan { wrapped: began_anew(end), ..scan })
}

/// The clients that have something queued.
pub(super) fn clients(connection: &Connection, lanes: &LaneSet) -> rusqlite::Result<Vec<String>> {
    let (mut clients, mut from) = (Vec::new(), String::new());
    while let Some((client, _)) = head(connection, lanes, &from)? {
        from = behind(&client);
        clients.push(client);
    }
    Ok(clients)
}

/// When the first delivery of `lanes` that nobody holds is due.
pub(super) fn next_due(
    connection: &Connection,
    claims: &Claims,
    lanes: &LaneSet,
) -> rusqlite::Result<Option<WallTime>> {
    let (mut earliest, mut from) = (None, String::new());
    while let Some((client, due)) = head(connection, lanes, &from)? {
        if earliest.is_none_or(|earliest| due.at < earliest) {
            let free = first_free(connection, claims, lanes, &client, due)?;
            earliest = earliest.into_iter().chain(free).min();
        }
        from = behind(&client);
    }
    Ok(earliest.map(WallTime::from_unix_millis))
}

/// When the first delivery of a client that nobody holds is due.
fn first_free(
    connection: &Connection,
    claims: &Claims,
    lanes: &LaneSet,
    client: &str,
    head: Due,
) -> rusqlite::Result<Option<i64>> {
    if claims.first_free(lanes, &[head]).is_some() {
        return Ok(Some(head.at));
    }
    loop {
        let limit = claims.taken() + AHEAD;
        let found = look_up(connection, lanes, client, limit)?;
        let first = claims.first_free(lanes, &found);
        if first.is_some() || found.len() < limit {
            return Ok(first.map(|due| due.at));
        }
    }
}

const LANES: &str = "WITH RECURSIVE found(lane) AS (
         SELECT min(lane) FROM delivery
         UNION ALL
         SELECT (SELECT min(lane) FROM delivery WHERE lane > found.lane) FROM found WHERE found.lane IS NOT NULL
     )
     SELECT lane FROM found WHERE lane IS NOT NULL";

/// Every set of lanes that has deliveries: one step in the index for each, however long they are.
pub(super) fn lanes(connection: &Connection) -> rusqlite::Result<Vec<LaneSet>> {
    let mut statement = connection.prepare_cached(LANES)?;
    let lanes = statement.query_map([], |row| row.get(0).map(LaneSet::from_stored))?;
    lanes.collect()
}

/// When the first queued delivery of any lanes is due.
pub(super) fn earliest_due(connection: &Connection) -> rusqlite::Result<Option<WallTime>> {
    let mut earliest: Option<i64> = None;
    for lanes in lanes(connection)? {
        let mut from = String::new();
        while let Some((client, due)) = head(connection, &lanes, &from)? {
            earliest = earliest.into_iter().chain([due.at]).min();
            from = behind(&client);
        }
    }
    Ok(earliest.map(WallTime::from_unix_millis))
}

const MESSAGE_FROM: &str = "SELECT id, accepted_at FROM message WHERE id >= ?1 ORDER BY id LIMIT 1";

/// An id behind which nothing was accepted before `before`; none if nothing was. Halved between the ids of the first and
/// the last message, since ids order by acceptance. Where the clock was set back it may err, which the sweep mends.
fn last_accepted_before(connection: &Connection, before: i64) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached(MESSAGE_FROM)?;
    let mut from = |id: i64| -> rusqlite::Result<Option<(i64, i64)>> {
        statement.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
    };
    let Some((mut early, _)) = from(i64::MIN)?.filter(|(_, accepted_at)| *accepted_at < before) else {
        return Ok(None);
    };
    let mut late: i64 = connection
        .prepare_cached("SELECT max(id) FROM message")?
        .query_row([], |row| row.get::<_, Option<i64>>(0))?
        .unwrap_or(early);
    // Accepted early enough is what stands at `early`; nothing behind `late` is.
    while early < late {
        let middle = early + (late - early) / 2 + 1;
        match from(middle)? {
            Some((id, accepted_at)) if accepted_at < before => early = id,
            _ => late = middle - 1,
        }
    }
    Ok(Some(early))
}

/// `CROSS JOIN`, so that the messages are not gone through for their deliveries.
const SWEEP: &str = "SELECT d.message, d.client, d.due, d.id FROM delivery d INDEXED BY delivery_message
     CROSS JOIN message m ON m.id = d.message
     WHERE d.message > ?1 AND d.message <= ?2 AND d.lane = ?3 AND d.state = 0 AND m.accepted_at < ?4
     ORDER BY d.message, d.id";

const QUEUED: &str = "SELECT count(*) FROM (SELECT 1 FROM delivery WHERE lane = ?1 AND state = 0 LIMIT ?2)";

/// Queued deliveries of `lanes`, counted in the index and no further than `at_most`.
pub(super) fn queued(connection: &Connection, lanes: &LaneSet, at_most: u32) -> rusqlite::Result<u32> {
    connection.prepare_cached(QUEUED)?.query_row(params![lanes.as_str(), at_most], |row| row.get(0))
}

/// When the oldest message was accepted: ids order by acceptance.
pub(super) fn oldest(connection: &Connection) -> rusqlite::Result<Option<WallTime>> {
    let mut statement = connection.prepare_cached("SELECT accepted_at FROM message ORDER BY id LIMIT 1")?;
    let millis: Option<i64> = statement.query_row([], |row| row.get(0)).optional()?;
    Ok(millis.map(WallTime::from_unix_millis))
}

/// Whether `message` has its row.
pub(super) fn is_stored(connection: &Connection, message: QueueId) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM message WHERE id = ?1")?;
    Ok(statement.query_row([message.to_i64()], |_| Ok(())).optional()?.is_some())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sqlite::schema;

    /// How SQLite answers `sql` with our schema.
    pub(in crate::sqlite) fn plan(sql: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(directory.path().join("db")).unwrap();
        schema::create(&mut connection).unwrap();
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = vec![rusqlite::types::Null; statement.parameter_count()];
        let steps = statement.query_map(rusqlite::params_from_iter(parameters), |row| row.get::<_, String>(3));
        steps.unwrap().collect::<Result<Vec<_>, _>>().unwrap().join("\n")
    }

    #[test]
    fn a_queue_is_answered_by_its_index_alone() {
        for (sql, wanted) in [
            (HEAD, "SEARCH delivery USING COVERING INDEX delivery_due (lane=? AND state=? AND client>?)"),
            (LOOK_UP, "SEARCH delivery USING COVERING INDEX delivery_due (lane=? AND state=? AND client=?)"),
            (QUEUED, "SEARCH delivery USING COVERING INDEX delivery_due (lane=? AND state=?)"),
            (LANES, "SEARCH delivery USING COVERING INDEX delivery_due (lane>?)"),
        ] {
            let plan = plan(sql);
            assert!(plan.contains(wanted), "{plan}");
            assert!(!plan.contains("SCAN delivery") && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    }

    #[test]
    fn the_oldest_are_found_without_looking_at_the_others() {
        let plan = plan(SWEEP);
        assert!(plan.contains("SEARCH d USING INDEX delivery_message (message>? AND message<?)"), "{plan}");
        assert!(plan.contains("SEARCH m USING INTEGER PRIMARY KEY (rowid=?)"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }

    #[test]
    fn the_last_message_before_a_time_is_found_by_halves() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(directory.path().join("db")).unwrap();
        schema::create(&mut connection).unwrap();
        assert_eq!(last_accepted_before(&connection, 5).unwrap(), None);
        let sql = "INSERT INTO message VALUES (?1, ?2, '', 0, 0, '', '', '', 0, 0, 0, x'', x'', NULL, NULL)";
        let ids: Vec<i64> = [(1, 1), (1, 2), (1, 900), (3, 1), (9, 5)]
            .map(|(boot, sequence)| QueueId::new(boot, sequence).to_i64())
            .to_vec();
        for (id, accepted_at) in ids.iter().zip([10, 20, 30, 40, 50]) {
            connection.execute(sql, [*id, accepted_at]).unwrap();
        }
        for (before, wanted) in [(10, None), (11, Some(0)), (30, Some(1)), (41, Some(3)), (1_000, Some(4))] {
            assert_eq!(last_accepted_before(&connection, before).unwrap(), wanted.map(|at: usize| ids[at]), "{before}");
        }
    }
}
