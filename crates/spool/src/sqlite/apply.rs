//! Jobs as rows: what each writes inside the writer's transaction, and what follows once that is durable. Not here:
//! the transaction itself, nor the answers.

use clock::WallTime;
use mail::{BodyType, LaneSet, Outcome, ReversePath};
use rusqlite::{Connection, OptionalExtension, params};

use super::body::Stored;
use super::claims::Arrival;
use super::job::{Batch, Commit, Incoming, Mark, Quarantine, Record, Settle, Task};
use super::schema::State;
use super::split::{self, Remainder};
use super::totals::Totals;
use super::turns::Due;
use super::usage::{self, Used};
use super::{digest, fetch, recipients};
use crate::id::QueueId;
use crate::message::Origin;
use crate::passage::Passage;
use crate::progress::millis;
use crate::settlement::{Next, Part};

/// Rows of history that one call forgets at most.
const PRUNED_AT_ONCE: u32 = 1000;

/// What a transaction changes beside its rows; acted upon only once it is durable.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) totals: Totals,
    pub(super) used: Used,
    /// What became claimable.
    pub(super) arrivals: Vec<Arrival>,
    /// Queues in which due times of many changed.
    pub(super) stirred: Vec<LaneSet>,
    /// Messages whose body file has lost its row.
    pub(super) unfiled: Vec<QueueId>,
    /// Digests that were not stored, because a failure they tell of was gone.
    pub(super) unstored: Vec<QueueId>,
}

impl Effects {
    pub(super) fn claimable(&mut self, lanes: &LaneSet, client: &str, at: i64, delivery: i64) {
        let (lanes, client) = (lanes.clone(), client.to_owned());
        self.arrivals.push(Arrival { lanes, client, due: Due { at, delivery } });
    }

    /// Adds the effects of one more job.
    pub(super) fn add(&mut self, other: Self) {
        self.totals += other.totals;
        self.used.merge(other.used);
        self.arrivals.extend(other.arrivals);
        self.stirred.extend(other.stirred);
        self.unfiled.extend(other.unfiled);
        self.unstored.extend(other.unstored);
    }

    /// Writes what is summed up over the jobs, as the last of a transaction.
    pub(super) fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.totals.save_change(connection)?;
        self.used.save(connection)
    }
}

/// What history tells of one recipient.
pub(super) struct Event<'a> {
    pub(super) at: WallTime,
    pub(super) message: QueueId,
    pub(super) name: &'a str,
    pub(super) lane: &'a str,
    pub(super) tenant: &'a str,
    pub(super) mailbox: &'a str,
    pub(super) sender: &'a str,
    pub(super) recipient: &'a str,
    pub(super) client: &'a str,
    pub(super) message_id: &'a str,
    pub(super) reply: &'a str,
    pub(super) attempt: u32,
}

/// Writes jobs on one connection. Gives out delivery ids that this spool never used before.
pub(super) struct Applier<'a> {
    pub(super) connection: &'a Connection,
    pub(super) boot: u32,
    pub(super) next_delivery: &'a mut u32,
}

impl Applier<'_> {
    pub(super) fn delivery_id(&mut self) -> i64 {
        *self.next_delivery += 1;
        QueueId::new(self.boot, *self.next_delivery).to_i64()
    }

    /// A message of a client, or a digest of ours if the failures it tells of are all there.
    pub(super) fn commit(&mut self, commit: &Commit, effects: &mut Effects) -> rusqlite::Result<()> {
        if let Some(reports) = &commit.digest
            && !digest::take(self.connection, reports)?
        {
            effects.unstored.push(commit.incoming.id);
            return Ok(());
        }
        self.message(&commit.incoming, effects)
    }

    /// The message and its deliveries.
    fn message(&mut self, incoming: &Incoming, effects: &mut Effects) -> rusqlite::Result<()> {
        self.insert_message(incoming)?;
        let message = &incoming.message;
        let due = message.accepted_at.unix_millis();
        for delivery in &message.deliveries {
            let id = self.delivery_id();
            let mut statement = self.connection.prepare_cached(
                "INSERT INTO delivery (id, message, tenant, lane, route_epoch, state, due, attempts, uncertain, in_flight,
                 version, diagnostic, recipients, route, client, origin, age, denied, delay_told, user, asked)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, NULL, 0, NULL, ?8, ?9, ?10, ?11, 0, 0, 0, ?12, ?13)",
            )?;
            statement.execute(params![
                id,
                incoming.id.to_i64(),
                delivery.tenant,
                delivery.lanes.as_str(),
                delivery.route_epoch.cast_signed(),
                State::Queued as i64,
                due,
                recipients::encode(&delivery.recipients),
                delivery.route,
                message.client,
                origin_number(message.origin),
                message.user,
                delivery.asked.as_ref().map(ToString::to_string)
            ])?;
            effects.totals.count(State::Queued, 0, 1);
            effects.claimable(&delivery.lanes, &message.client, due, id);
        }
        effects.totals.messages += 1;
        effects.totals.bytes += incoming.size().cast_signed();
        Ok(())
    }

    fn insert_message(&self, incoming: &Incoming) -> rusqlite::Result<()> {
        let message = &incoming.message;
        let (filed, body) = match &incoming.body {
            Stored::Inline(body) => (0, Some(body)),
            Stored::Filed(_) => (1, None),
        };
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO message (id, accepted_at, reverse_path, body_type, smtputf8, message_id, listener, client, size,
             body_len, body_filed, header, body, ret, envelope_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?;
        statement.execute(params![
            incoming.id.to_i64(),
            message.accepted_at.unix_millis(),
            message.envelope.reverse_path.to_string(),
            body_type_number(message.envelope.body_type),
            message.envelope.smtputf8,
            message.message_id,
            message.listener,
            message.client,
            incoming.size().cast_signed(),
            incoming.body_len.cast_signed(),
            filed,
            message.header,
            body,
            message.envelope.ret.map(|ret| ret.to_string()),
            message.envelope.envelope_id.as_ref().map(ToString::to_string)
        ])?;
        Ok(())
    }

    /// What became of a claim, with the messages it gave rise to. Does nothing if it was written already, as when the
    /// sync of its first transaction failed and the log had it all the same.
    pub(super) fn settle(&mut self, settle: &Settle, effects: &mut Effects) -> rusqlite::Result<()> {
        let at = settle.at.unix_millis();
        let rows = split::remainders(&settle.parts, settle.guard.lanes(), &settle.lane, at);
        if !self.replace(settle, rows.first())? {
            return Ok(());
        }
        effects.totals.count(settle.guard.row.state, settle.guard.row.uncertain, -1);
        for (at, row) in rows.iter().enumerate() {
            let id = if at == 0 { settle.guard.delivery() } else { self.insert_remainder(settle, row)? };
            effects.totals.count(row.state, row.progress.uncertain, 1);
            if row.state == State::Queued {
                effects.claimable(&row.lanes, settle.guard.client(), row.due, id);
            }
        }
        if rows.is_empty() {
            self.delete_message_if_done(settle.message, effects)?;
        }
        effects.used.add(&settle.lane, settle.at, settle.usage);
        self.write_history(settle)?;
        for report in &settle.reports {
            digest::add(self.connection, report)?;
        }
        for incoming in &settle.new_messages {
            self.message(incoming, effects)?;
        }
        Ok(())
    }

    /// The claimed row becomes the first remainder, or goes; false if it is not the row that was claimed any more.
    fn replace(&self, settle: &Settle, first: Option<&Remainder>) -> rusqlite::Result<bool> {
        let (id, version) = (settle.guard.delivery(), settle.guard.row.version);
        let Some(row) = first else {
            let mut statement =
                self.connection.prepare_cached("DELETE FROM delivery WHERE id = ?1 AND version = ?2")?;
            return Ok(statement.execute(params![id, version])? == 1);
        };
        let mut statement = self.connection.prepare_cached(
            "UPDATE delivery SET lane = ?3, state = ?4, due = ?5, attempts = ?6, uncertain = ?7, in_flight = NULL,
             version = version + 1, diagnostic = ?8, recipients = ?9, age = ?10, denied = ?11, delay_told = ?12
             WHERE id = ?1 AND version = ?2",
        )?;
        let changed = statement.execute(params![
            id,
            version,
            row.lanes.as_str(),
            row.state as i64,
            row.due,
            row.progress.attempts,
            row.progress.uncertain,
            row.diagnostic,
            chosen(settle, row),
            millis(row.progress.age),
            millis(row.progress.denied),
            row.progress.delay_told
        ])?;
        Ok(changed == 1)
    }

    /// Another row like the claimed one, for those who go another way; gives its id.
    fn insert_remainder(&mut self, settle: &Settle, row: &Remainder) -> rusqlite::Result<i64> {
        let id = self.delivery_id();
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO delivery (id, message, tenant, lane, route_epoch, state, due, attempts, uncertain, in_flight,
             version, diagnostic, recipients, route, client, origin, age, denied, delay_told, user, asked)
             SELECT ?1, message, tenant, ?3, route_epoch, ?4, ?5, ?6, ?7, NULL, 0, ?8, ?9, route, client, origin, ?10, ?11,
             ?12, user, asked FROM delivery WHERE id = ?2",
        )?;
        statement.execute(params![
            id,
            settle.guard.delivery(),
            row.lanes.as_str(),
            row.state as i64,
            row.due,
            row.progress.attempts,
            row.progress.uncertain,
            row.diagnostic,
            chosen(settle, row),
            millis(row.progress.age),
            millis(row.progress.denied),
            row.progress.delay_told
        ])?;
        Ok(id)
    }

    /// The message goes with its last delivery; its body file only after the transaction.
    fn delete_message_if_done(&self, message: QueueId, effects: &mut Effects) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM message WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM delivery WHERE message = ?1)
             RETURNING size, body_filed",
        )?;
        let gone: Option<(i64, bool)> =
            statement.query_row([message.to_i64()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        if let Some((size, filed)) = gone {
            effects.totals.messages -= 1;
            effects.totals.bytes -= size;
            if filed {
                effects.unfiled.push(message);
            }
        }
        Ok(())
    }

    /// A line for each recipient. Our own pacing is no event, and the same trouble told again is none either: a held queue would
    /// otherwise fill the disk with it.
    fn write_history(&self, settle: &Settle) -> rusqlite::Result<()> {
        let known = settle.guard.row.diagnostic.as_deref();
        for part in &settle.parts {
            let reply = part.outcome.diagnostic().to_string();
            let event = event(part);
            let may_repeat = matches!(event, "held" | "paced");
            if is_our_pace(event, &part.outcome)
                || may_repeat && known.is_some_and(|known| is_same_trouble(known, &reply))
            {
                continue;
            }
            let paths = part.recipients.iter().filter_map(|position| settle.recipients.get(*position));
            for recipient in paths {
                self.write_event(&Event {
                    at: settle.at,
                    message: settle.message,
                    name: event,
                    lane: settle.lane.as_str(),
                    tenant: &settle.tenant,
                    mailbox: &settle.mailbox,
                    sender: &settle.sender,
                    recipient: &recipient.to_string(),
                    client: settle.guard.client(),
                    message_id: &settle.message_id,
                    reply: &reply,
                    attempt: settle.guard.row.attempts.saturating_add(1),
                })?;
            }
        }
        Ok(())
    }

    /// What became of a message that went straight through: a line for each recipient, and what its lane used. Does nothing if
    /// the log had it all the same, though its transaction failed.
    pub(super) fn record(&self, record: &Record, effects: &mut Effects) -> rusqlite::Result<()> {
        let passage = record.passage();
        if record.is_doubtful && self.has_history(passage)? {
            return Ok(());
        }
        effects.used.add(&passage.lane, passage.at, passage.usage);
        let sender = passage.sender.to_string();
        for (recipient, outcome) in &passage.outcomes {
            if is_our_pace(outcome.name(), outcome) {
                continue;
            }
            self.write_event(&Event {
                at: passage.at,
                message: passage.id,
                name: outcome.name(),
                lane: passage.lane.as_str(),
                tenant: &passage.tenant,
                mailbox: &passage.mailbox,
                sender: &sender,
                recipient: &recipient.to_string(),
                client: &passage.client,
                message_id: &passage.message_id,
                reply: &outcome.diagnostic().to_string(),
                attempt: 1,
            })?;
        }
        Ok(())
    }

    /// Whether history tells of it; by the index of times.
    fn has_history(&self, passage: &Passage) -> rusqlite::Result<bool> {
        let mut statement =
            self.connection.prepare_cached("SELECT 1 FROM history WHERE at = ?1 AND message = ?2 LIMIT 1")?;
        statement.exists(params![passage.at.unix_millis(), passage.id.to_i64()])
    }

    /// A line of history.
    pub(super) fn write_event(&self, event: &Event<'_>) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO history (at, message, event, lane, tenant, mailbox, sender, recipient, client, message_id, reply,
             attempt) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?;
        statement.execute(params![
            event.at.unix_millis(),
            event.message.to_i64(),
            event.name,
            event.lane,
            event.tenant,
            event.mailbox,
            event.sender,
            event.recipient,
            event.client,
            event.message_id,
            event.reply,
            event.attempt
        ])?;
        Ok(())
    }

    /// The transfer of a delivery begins in this boot. Its lane is written only where it changes: that moves it in the index.
    pub(super) fn mark(&self, mark: &Mark, effects: &mut Effects) -> rusqlite::Result<()> {
        let Some(pin) = &mark.pin else {
            let mut statement = self.connection.prepare_cached("UPDATE delivery SET in_flight = ?2 WHERE id = ?1")?;
            statement.execute(params![mark.delivery, self.boot])?;
            return Ok(());
        };
        let mut statement =
            self.connection.prepare_cached("UPDATE delivery SET in_flight = ?2, lane = ?3 WHERE id = ?1")?;
        statement.execute(params![mark.delivery, self.boot, pin.lanes.as_str()])?;
        // Its claim may have been dropped meanwhile.
        effects.arrivals.push(pin.clone());
        Ok(())
    }

    /// Sets a delivery aside that does not decode.
    pub(super) fn quarantine(&self, quarantine: &Quarantine, effects: &mut Effects) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(
            "UPDATE delivery SET state = ?2, in_flight = NULL, version = version + 1, diagnostic = ?3
             WHERE id = ?1 AND state = ?4 RETURNING uncertain",
        )?;
        let (aside, before) = (State::Quarantined, quarantine.guard.row.state);
        let values = params![quarantine.guard.delivery(), aside as i64, quarantine.detail, before as i64];
        let uncertain: Option<u32> = statement.query_row(values, |row| row.get(0)).optional()?;
        if let Some(uncertain) = uncertain {
            effects.totals.count(before, uncertain, -1);
            effects.totals.count(aside, uncertain, 1);
        }
        Ok(())
    }

    /// Gives how many rows it touched.
    pub(super) fn chore(&self, task: Task, effects: &mut Effects) -> rusqlite::Result<u64> {
        match task {
            Task::Prune { history, usage } => {
                usage::prune(self.connection, usage)?;
                self.prune(history.unix_millis())
            }
            Task::BringForward { latest, now } => self.bring_forward(latest.unix_millis(), now.unix_millis(), effects),
        }
    }

    /// A due time beyond `latest` comes from a clock that ran ahead; a client of a queue at a time, by the index.
    fn bring_forward(&self, latest: i64, now: i64, effects: &mut Effects) -> rusqlite::Result<u64> {
        let mut statement = self.connection.prepare_cached(
            "UPDATE delivery SET due = ?1 WHERE lane = ?2 AND state = 0 AND client = ?3 AND due > ?4",
        )?;
        let mut moved = 0;
        for lanes in fetch::lanes(self.connection)? {
            let before = moved;
            for client in fetch::clients(self.connection, &lanes)? {
                moved += statement.execute(params![now, lanes.as_str(), client, latest])? as u64;
            }
            if moved > before {
                effects.stirred.push(lanes);
            }
        }
        Ok(moved)
    }

    /// Forgets history before `before`; gives how many rows.
    fn prune(&self, before: i64) -> rusqlite::Result<u64> {
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM history WHERE id IN (SELECT id FROM history WHERE at < ?1 ORDER BY at LIMIT ?2)",
        )?;
        statement.execute(params![before, PRUNED_AT_ONCE]).map(|rows| rows as u64)
    }

    /// Takes a message back whose caller was told that it is not stored.
    pub(super) fn undo(&self, incoming: &Incoming, effects: &mut Effects) -> rusqlite::Result<()> {
        let id = incoming.id.to_i64();
        let gone = self.connection.execute("DELETE FROM message WHERE id = ?1", [id])?;
        let deliveries = self.connection.execute("DELETE FROM delivery WHERE message = ?1", [id])?;
        effects.totals.messages -= gone.cast_signed() as i64;
        effects.totals.bytes -= if gone > 0 { incoming.size().cast_signed() } else { 0 };
        effects.totals.queued -= deliveries.cast_signed() as i64;
        Ok(())
    }

    /// Everything in `batch`, in order, but its quarantines; stops at the first error.
    pub(super) fn batch(&mut self, batch: &Batch, effects: &mut Effects) -> rusqlite::Result<Vec<u64>> {
        for settle in &batch.settles {
            self.settle(settle, effects)?;
        }
        for mark in &batch.marks {
            self.mark(mark, effects)?;
        }
        // Behind the marks: one that was cut before it was marked leaves its mark behind as it goes.
        for reroute in &batch.reroutes {
            self.reroute(reroute, effects)?;
        }
        for record in &batch.records {
            self.record(record, effects)?;
        }
        let pruned = batch.chores.iter().map(|chore| self.chore(chore.task, effects)).collect::<Result<_, _>>()?;
        for commit in &batch.commits {
            self.commit(commit, effects)?;
        }
        Ok(pruned)
    }
}

/// What history calls it: the outcome, unless those who were to wait are given up.
fn event(part: &Part) -> &'static str {
    match (&part.outcome, &part.next) {
        (Outcome::Accepted(_) | Outcome::Refused(_), _) => part.outcome.name(),
        (_, Next::Finished) => "expired",
        (outcome, _) => outcome.name(),
    }
}

/// Our own pace is no event; upstream's is one.
fn is_our_pace(event: &str, outcome: &Outcome) -> bool {
    event == "paced" && outcome.diagnostic().code.is_none()
}

/// The recipients of a remainder as their row stores them.
fn chosen(settle: &Settle, row: &Remainder) -> String {
    recipients::encode(row.recipients.iter().filter_map(|position| settle.recipients.get(*position)))
}

/// As `message.body_type` stores it.
fn body_type_number(body_type: BodyType) -> i64 {
    match body_type {
        BodyType::SevenBit => 0,
        BodyType::EightBitMime => 1,
    }
}

/// As `delivery.origin` stores it.
fn origin_number(origin: Origin) -> i64 {
    match origin {
        Origin::Submitted => 0,
        Origin::Report => 1,
    }
}

/// From `delivery.origin`.
pub(super) fn origin(number: i64) -> Option<Origin> {
    match number {
        0 => Some(Origin::Submitted),
        1 => Some(Origin::Report),
        _ => None,
    }
}

/// From `message.body_type`.
pub(super) fn body_type(number: i64) -> Option<BodyType> {
    match number {
        0 => Some(BodyType::SevenBit),
        1 => Some(BodyType::EightBitMime),
        _ => None,
    }
}

/// From `message.reverse_path`.
pub(super) fn reverse_path(text: &str) -> Option<ReversePath> {
    ReversePath::parse(text.as_bytes()).ok()
}

/// Whether two replies tell of the same trouble: by their codes, since Exchange ends each with a time and a session of its
/// own; without codes by the text.
fn is_same_trouble(one: &str, other: &str) -> bool {
    let codes = |reply: &str| -> Vec<String> {
        let code = |word: &&str| word.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
        reply.split(' ').take(2).take_while(code).map(str::to_owned).collect()
    };
    let (first, second) = (codes(one), codes(other));
    if first.is_empty() || second.is_empty() { one == other } else { first == second }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_known_whatever_ends_the_reply() {
        for (one, other, same) in [
            ("554 5.2.252 SendAsDenied [Hostname=A]", "554 5.2.252 SendAsDenied [Hostname=B]", true),
            ("535 5.7.3 no [X 2026-11-21T07:54:00.000Z 1]", "535 5.7.3 no [X 2026-11-21T08:54:00.000Z 2]", true),
            ("535 5.7.3 no", "535 5.7.139 no", false),
            ("535 one", "535 two", true),
            ("cannot connect", "cannot connect", true),
            ("cannot connect", "no token", false),
            ("cannot connect", "535 5.7.3 no", false),
        ] {
            assert_eq!(is_same_trouble(one, other), same, "{one} / {other}");
        }
    }
}
