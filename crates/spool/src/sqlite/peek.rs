//! A look at a queue that nobody runs, which changes nothing in it: not even a file comes or goes. So it reads only what
//! the last stop left in order; what a killed daemon left in the log is for the next start to take in.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::schema::{self, Owner};
use super::totals::Totals;
use super::{fetch, open};
use crate::Counts;
use crate::error::PeekError;

/// What is in the queue in `directory`.
pub(super) fn peek(directory: &Path) -> Result<Counts, PeekError> {
    if fs::metadata(directory).map_err(|error| missing(&error))?.uid() != rustix::process::geteuid().as_raw() {
        return Err(PeekError::NotOurs);
    }
    // Held while it is read: nobody may write meanwhile. A daemon that starts waits that long.
    let lock = File::open(open::lock(directory)).map_err(|error| missing(&error))?;
    match lock.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(PeekError::InUse),
        Err(TryLockError::Error(error)) => return Err(missing(&error)),
    }
    let database = open::database(directory);
    let log = fs::metadata(database.with_extension("db-wal"));
    if log.is_ok_and(|log| log.len() > 0) {
        return Err(PeekError::NotClosed);
    }
    fs::metadata(&database).map_err(|error| missing(&error))?;
    read(&database).map_err(|error| PeekError::Unreadable(error.to_string()))
}

/// `immutable` keeps SQLite from making files of its own beside the database.
fn read(database: &Path) -> rusqlite::Result<Counts> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(format!("{}?immutable=1", uri(database)), flags)?;
    // The sums of an older format read alike; the next start takes it over.
    if !matches!(schema::owner(&connection)?, Owner::Ours(1..=schema::VERSION)) {
        return Err(rusqlite::Error::InvalidQuery);
    }
    Ok(Counts { oldest: fetch::oldest(&connection)?, ..Totals::load(&connection)?.counts() })
}

/// As <https://www.sqlite.org/uri.html> wants it.
fn uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let octets = path.as_os_str().as_bytes().iter();
    let escaped = octets.map(|octet| match octet {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => char::from(*octet).to_string(),
        octet => format!("%{octet:02X}"),
    });
    format!("file:{}", escaped.collect::<Vec<_>>().concat())
}

fn missing(error: &io::Error) -> PeekError {
    match error.kind() {
        io::ErrorKind::NotFound => PeekError::Missing,
        io::ErrorKind::PermissionDenied => PeekError::NotOurs,
        _ => PeekError::Unreadable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri(Path::new("/var/lib/a b?c#d%/ä.db")), "file:/var/lib/a%20b%3Fc%23d%25/%C3%A4.db");
    }
}
