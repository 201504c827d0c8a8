//! A connection to the database with our settings, and what its errors mean for us. Not here: any table.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use crate::error::StoreError;

/// How long one connection waits for another's lock. Only checkpoints and the start take locks that the writer needs.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Prepared statements kept; more than any connection uses.
const STATEMENTS: usize = 32;
/// What is read at once where only the reading matters.
const PROBE_CHUNK: usize = 256 * 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The one that writes, and the one that checkpoints.
    Write,
    /// Short reads.
    Read,
}

/// Opens `path`. Checkpoints are the janitor's, hence `wal_autocheckpoint = 0` everywhere.
pub(super) fn open(path: &Path, purpose: Purpose) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Plans do not look at bound values: otherwise `LIMIT ?` is planned anew each time it is run.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA secure_delete = FAST;
         PRAGMA temp_store = MEMORY;
         PRAGMA journal_size_limit = 16777216;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA cache_size = -2048;",
    )?;
    if purpose == Purpose::Read {
        // Each reader has its own page cache; its reads are short and seldom of the same page.
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -512;")?;
    }
    Ok(connection)
}

/// Fails with the disk's own error unless it gives back the whole database and its log. SQLite has one word, "malformed",
/// for a page that is wrong and for a read that failed: the one is there for good, the other may pass.
pub(super) fn check_readable(database: &Path) -> rusqlite::Result<()> {
    let readable = read_whole(database).and_then(|()| read_whole(&database.with_extension("db-wal")));
    readable.map_err(|error| unreadable(&error))
}

/// To be told apart from damage.
pub(super) fn unreadable(error: &dyn std::fmt::Display) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_READ), Some(error.to_string()))
}

fn read_whole(path: &Path) -> io::Result<()> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let (mut chunk, mut at) = (vec![0; PROBE_CHUNK], 0);
    loop {
        // As SQLite reads.
        match file.read_at(&mut chunk, at)? {
            0 => return Ok(()),
            read => at += read as u64,
        }
    }
}

/// What an error of SQLite asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// One row was wrong; the others can be written.
    Row(String),
    /// The disk has no room; the connection is sound.
    Full(String),
    /// The file or the device is in doubt: close, reopen, never sync again on this handle.
    Broken(String),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(text),
            None | Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
                Self::Row(text)
            }
            Some(_) => Self::Broken(text),
        }
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Full(text) => Self::Full(text),
            Trouble::Row(text) | Trouble::Broken(text) => Self::Failed(text),
        }
    }
}

/// A failed read, told to the caller.
pub(super) fn read_failed(error: &rusqlite::Error) -> StoreError {
    StoreError::Failed(format!("reading the queue: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        let failure = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let row = |code| matches!(Trouble::from(failure(code)), Trouble::Row(_));
        let full = |code| matches!(Trouble::from(failure(code)), Trouble::Full(_));
        let broken = |code| matches!(Trouble::from(failure(code)), Trouble::Broken(_));
        assert!(row(ffi::SQLITE_CONSTRAINT_PRIMARYKEY));
        assert!(row(ffi::SQLITE_TOOBIG));
        assert!(full(ffi::SQLITE_FULL));
        assert!(broken(ffi::SQLITE_IOERR_FSYNC));
        assert!(broken(ffi::SQLITE_CORRUPT));
        assert!(broken(ffi::SQLITE_NOTADB));
        assert!(matches!(Trouble::from(rusqlite::Error::InvalidQuery), Trouble::Row(_)));
    }
}
