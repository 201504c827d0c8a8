//! Whose file it is, and the numbers that stand for words in its tables. Not here: the tables themselves (`migrate`), nor
//! any query.
//!
//! | `delivery.state` | means |
//! | --- | --- |
//! | 0 | queued: claimable once `due` |
//! | 1 | held: waits for an operator or for trouble to end |
//! | 3 | quarantined: its stored message is damaged |
//! | 4 | unrouted: no route takes it, `diagnostic` says why (since format 3) |
//!
//! 2 was "refused: waits for a bounce" in format 1 and is not used again.
//!
//! `message.reverse_path` is empty for `<>`; `body_type` is 0 for 7BIT and 1 for 8BITMIME; `ret` and `envelope_id` stand as
//! in RET= and ENVID=, null if not said. Times are milliseconds since 1970 in UTC, `age` and `denied` milliseconds,
//! `usage.minute` minutes since 1970. `delivery.lane` is the set of lanes that may carry it, a line each; `client` is its
//! message's, whose turn it is; `user` is who had logged in and `asked` the address that its client asked for where a route
//! redirected it, null if nobody and nothing; `in_flight` is the boot whose transfer began, or null; `origin` is 0 for a client's message
//! and 1 for a report of ours.

use rusqlite::{Connection, OptionalExtension};

use super::migrate;
pub(super) use super::migrate::VERSION;

/// "XO2R": what `file(1)` and a foreign tool see in the header.
pub(super) const APPLICATION_ID: i32 = 0x584f_3252;
/// `delivery.state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Queued = 0,
    Held = 1,
    Quarantined = 3,
    Unrouted = 4,
}

impl State {
    /// From the column; none for a number that means nothing.
    pub(super) fn from_stored(number: i64) -> Option<Self> {
        [Self::Queued, Self::Held, Self::Quarantined, Self::Unrouted].into_iter().find(|state| *state as i64 == number)
    }
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
    migrate::create(connection)
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
