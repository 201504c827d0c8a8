//! The steps that make the schema: the first creates it, each later one brings it to the next version. A fresh file takes
//! all of them, an older one those it has not had, so that both hold the same. A released step is never changed. What the
//! columns mean stands in `schema`; no row of `message` is ever rewritten, since a long queue must start soon.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::schema::APPLICATION_ID;

/// A step for each version.
const STEPS: [&str; 3] = [FIRST, TURNS_AND_REPORTS, ROUTES_ASKED_AGAIN];

/// The schema that this release writes. A newer one is refused, never guessed at.
#[allow(clippy::cast_possible_truncation, reason = "a handful of steps")]
pub(super) const VERSION: u32 = STEPS.len() as u32;

/// No foreign keys are declared: each would be a look-up for every row, and the writer is the only one that writes.
/// Wide columns stand last, so that reading the others never walks their overflow pages.
const FIRST: &str = "
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    boot INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    queued INTEGER NOT NULL,
    held INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    quarantined INTEGER NOT NULL,
    uncertain INTEGER NOT NULL
) STRICT;
INSERT INTO meta VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0);

CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    accepted_at INTEGER NOT NULL,
    reverse_path TEXT NOT NULL,
    body_type INTEGER NOT NULL,
    smtputf8 INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    listener TEXT NOT NULL,
    client TEXT NOT NULL,
    size INTEGER NOT NULL,
    body_len INTEGER NOT NULL,
    body_filed INTEGER NOT NULL,
    header BLOB NOT NULL,
    body BLOB
) STRICT;

CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    message INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    lane TEXT NOT NULL,
    route_epoch INTEGER NOT NULL,
    state INTEGER NOT NULL,
    due INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    uncertain INTEGER NOT NULL,
    in_flight INTEGER,
    version INTEGER NOT NULL,
    diagnostic TEXT,
    recipients TEXT NOT NULL
) STRICT;
CREATE INDEX delivery_due ON delivery (lane, state, due);
CREATE INDEX delivery_message ON delivery (message);
CREATE INDEX delivery_in_flight ON delivery (in_flight) WHERE in_flight IS NOT NULL;

CREATE TABLE history (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    message INTEGER NOT NULL,
    event TEXT NOT NULL,
    lane TEXT NOT NULL,
    tenant TEXT NOT NULL,
    mailbox TEXT NOT NULL,
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    client TEXT NOT NULL,
    message_id TEXT NOT NULL,
    reply TEXT NOT NULL,
    attempt INTEGER NOT NULL
) STRICT;
CREATE INDEX history_at ON history (at);
";

/// Turns between clients, several lanes for a delivery, what the lanes used, failures for a digest. What waited for a bounce
/// that nothing ever made (state 2) is tried once more, and bounced then.
///
/// `origin` stands at the delivery: at the message it would come behind the body, where reading it for a list walks the
/// body's pages. Ids of reports are never used twice, since a digest names those it told of.
const TURNS_AND_REPORTS: &str = "
DROP INDEX delivery_due;
UPDATE meta SET queued = queued + refused,
    uncertain = uncertain + (SELECT count(*) FROM delivery WHERE state = 2 AND uncertain > 0);
ALTER TABLE meta DROP COLUMN refused;

ALTER TABLE message ADD COLUMN ret TEXT;
ALTER TABLE message ADD COLUMN envelope_id TEXT;

ALTER TABLE delivery ADD COLUMN route TEXT NOT NULL DEFAULT '';
ALTER TABLE delivery ADD COLUMN client TEXT NOT NULL DEFAULT '';
ALTER TABLE delivery ADD COLUMN origin INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN age INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN denied INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN delay_told INTEGER NOT NULL DEFAULT 0;
UPDATE delivery SET
    client = coalesce((SELECT message.client FROM message WHERE message.id = delivery.message), ''),
    state = CASE state WHEN 2 THEN 0 ELSE state END;
CREATE INDEX delivery_due ON delivery (lane, state, client, due);

CREATE TABLE usage (
    lane TEXT NOT NULL,
    minute INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    external INTEGER NOT NULL,
    PRIMARY KEY (lane, minute)
) STRICT, WITHOUT ROWID;

CREATE TABLE report (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    address TEXT NOT NULL,
    at INTEGER NOT NULL,
    lane TEXT NOT NULL,
    message INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    sender TEXT NOT NULL,
    recipients TEXT NOT NULL,
    reply TEXT NOT NULL
) STRICT;
CREATE INDEX report_address ON report (tenant, address, at);
";

/// What the routes need to be asked again: who had logged in, and whom the client asked for. At the delivery and not at the
/// message for the same reason as `origin`. Nothing is rewritten: what was queued before has neither. State 4 begins here.
const ROUTES_ASKED_AGAIN: &str = "
ALTER TABLE delivery ADD COLUMN user TEXT;
ALTER TABLE delivery ADD COLUMN asked TEXT;
";

/// Makes the tables in an empty file, all or nothing.
pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    take_steps(transaction, 0)
}

/// Brings a file of version `from` to ours, all or nothing.
pub(super) fn migrate(connection: &mut Connection, from: u32) -> rusqlite::Result<()> {
    take_steps(connection.transaction_with_behavior(TransactionBehavior::Immediate)?, from)
}

fn take_steps(transaction: Transaction<'_>, from: u32) -> rusqlite::Result<()> {
    for step in STEPS.iter().skip(from as usize) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::sqlite::schema;

    fn objects(connection: &Connection) -> Vec<(String, String)> {
        let mut statement =
            connection.prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// A copy of the queue that was kept of a format.
    fn kept(directory: &Path, format: u32) -> Connection {
        let copy = directory.join(format!("format-{format}.db"));
        let kept = format!("{}/tests/fixtures/format-{format}/queue.db", env!("CARGO_MANIFEST_DIR"));
        std::fs::copy(kept, &copy).unwrap();
        Connection::open(copy).unwrap()
    }

    #[test]
    fn a_migrated_file_has_the_schema_of_a_fresh_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut fresh = Connection::open(directory.path().join("fresh.db")).unwrap();
        schema::create(&mut fresh).unwrap();
        for format in 1..VERSION {
            let mut migrated = kept(directory.path(), format);
            migrate(&mut migrated, format).unwrap();
            assert_eq!(objects(&migrated), objects(&fresh), "{format}");
            assert_eq!(schema::owner(&migrated).unwrap(), schema::Owner::Ours(VERSION));
        }
    }

    #[test]
    fn the_second_format_is_taken_over_without_rewriting_a_row() {
        let directory = tempfile::tempdir().unwrap();
        let mut queue = kept(directory.path(), 2);
        schema::use_wal(&queue).unwrap();
        queue
            .execute_batch(
                "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 5000)
                 INSERT INTO delivery SELECT id + 1000 + n, message, tenant, lane, route_epoch, state, due, attempts,
                     uncertain, in_flight, version, diagnostic, recipients, route, client, origin, age, denied, delay_told
                 FROM delivery, number WHERE id = (SELECT min(id) FROM delivery);",
            )
            .unwrap();
        let truncated: i64 = queue.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        assert_eq!(truncated, 0);
        migrate(&mut queue, 2).unwrap();
        let log = std::fs::metadata(directory.path().join("format-2.db-wal")).unwrap().len();
        assert!((1..64 * 1024).contains(&log), "{log} octets for 5,000 deliveries");
    }
}
