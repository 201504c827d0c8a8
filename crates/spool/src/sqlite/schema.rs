//! The tables, and the numbers that stand for words in them. Not here: any query.
//!
//! | `delivery.state` | means |
//! | --- | --- |
//! | 0 | queued: claimable once `due` |
//! | 1 | held: waits for an operator or for trouble to end |
//! | 2 | refused: waits for a bounce |
//! | 3 | quarantined: its stored message is damaged |
//!
//! `message.reverse_path` is empty for `<>`; `body_type` is 0 for 7BIT and 1 for 8BITMIME; times are milliseconds since
//! 1970 in UTC; `delivery.in_flight` is the boot whose transfer began, or null.

use rusqlite::{Connection, OptionalExtension};

/// "XO2R": what `file(1)` and a foreign tool see in the header.
pub(super) const APPLICATION_ID: i32 = 0x584f_3252;
/// The schema that this release writes. A newer one is refused, never guessed at.
pub(super) const VERSION: u32 = 1;

/// No foreign keys are declared: each would be a look-up for every row, and the writer is the only one that writes.
/// Wide columns stand last, so that reading the others never walks their overflow pages.
const TABLES: &str = "
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

/// `delivery.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Queued = 0,
    Held = 1,
    Refused = 2,
    Quarantined = 3,
}

/// Whose file this is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody's yet: an empty file.
    Nobody,
    /// Ours, with this schema.
    Ours(u32),
    /// Another program's.
    Stranger,
}

/// Reads whose file it is without changing it.
pub(super) fn owner(connection: &Connection) -> rusqlite::Result<Owner> {
    let application_id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let table: Option<String> =
        connection.query_row("SELECT name FROM sqlite_schema LIMIT 1", [], |row| row.get(0)).optional()?;
    Ok(match (application_id, table) {
        (APPLICATION_ID, Some(_)) => Owner::Ours(version),
        (0, None) if version == 0 => Owner::Nobody,
        _ => Owner::Stranger,
    })
}

/// Makes the tables in an empty file, all or nothing.
pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    // Only possible before the file has its first page.
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    use_wal(connection)?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Turns the write-ahead log on; it stays on in the file. SQLite answers with the mode it got.
pub(super) fn use_wal(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode.eq_ignore_ascii_case("wal") { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_ours_only_with_our_mark() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(directory.path().join("db")).unwrap();
        assert_eq!(owner(&connection).unwrap(), Owner::Nobody);
        create(&mut connection).unwrap();
        assert_eq!(owner(&connection).unwrap(), Owner::Ours(VERSION));
        let auto_vacuum: i32 = connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0)).unwrap();
        assert_eq!(auto_vacuum, 2);
        connection.pragma_update(None, "application_id", 0).unwrap();
        assert_eq!(owner(&connection).unwrap(), Owner::Stranger);
    }
}
