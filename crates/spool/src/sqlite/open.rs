//! The start: directory, lock, database, and what an earlier boot left in flight. Nothing here grows with the queue.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clock::WallTime;
use mail::LaneId;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};

use super::connection::{self, Purpose};
use super::schema::{self, Owner, State};
use super::totals::Totals;
use super::{fetch, migrate, recipients, space, usage};
use crate::error::OpenError;
use crate::usage::Usage;

/// What history says of a transfer that an earlier boot did not end.
const INTERRUPTED: &str = "the relay stopped during the transfer; whether it was accepted is not known";

/// How often the lock is tried, and the pause between.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(30);

/// A store that is ours.
pub(super) struct Opened {
    pub(super) lock: File,
    pub(super) connection: Connection,
    pub(super) boot: u32,
    pub(super) uncertain: u64,
    pub(super) totals: Totals,
    pub(super) oldest: Option<WallTime>,
}

/// Where the database stands.
pub(super) fn database(directory: &Path) -> PathBuf {
    directory.join("queue.db")
}

/// Where the body files stand.
pub(super) fn bodies(directory: &Path) -> PathBuf {
    directory.join("bodies")
}

pub(super) fn open(directory: &Path, now: WallTime) -> Result<Opened, OpenError> {
    make_private_directory(directory)?;
    refuse_network(directory)?;
    let lock = take_lock(directory)?;
    make_private_directory(&bodies(directory))?;
    let path = database(directory);
    // Made here and not by SQLite, whose files are readable by all; its log gets the mode of this one.
    open_private_file(&path)?;
    let begun = match begin(&path, now) {
        // The disk filled and then the daemon died: what is queued leaves, and makes room again.
        Err(OpenError::Full { .. }) if space::throw_ballast_off(directory) => begin(&path, now),
        // Nobody is to restore or move away a queue that its disk did not give back for a moment.
        Err(OpenError::Damaged { .. }) => {
            connection::check_readable(&path).map_err(|error| database_error(&path, &error))?;
            begin(&path, now)
        }
        begun => begun,
    };
    let (connection, (boot, uncertain, totals, oldest)) = begun?;
    Ok(Opened { lock, connection, boot, uncertain, totals, oldest })
}

fn begin(path: &Path, now: WallTime) -> Result<(Connection, Begun), OpenError> {
    let mut connection = open_database(path)?;
    let begun = begin_boot(&mut connection, now).map_err(|error| database_error(path, &error))?;
    Ok((connection, begun))
}

fn make_private_directory(path: &Path) -> Result<(), OpenError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    let made = match made {
        Err(_) if path.exists() && !path.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
        made => made,
    };
    made.and_then(|()| make_private(path, 0o700)).map_err(access(path))
}

fn open_private_file(path: &Path) -> Result<File, OpenError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    file.and_then(|file| make_private(path, 0o600).map(|()| file)).map_err(access(path))
}

/// Takes from others what an earlier umask or a restored backup gave them.
fn make_private(path: &Path, mode: u32) -> io::Result<()> {
    let found = fs::metadata(path)?.permissions().mode();
    // Six bits: group and others.
    if found.trailing_zeros() >= 6 { Ok(()) } else { fs::set_permissions(path, Permissions::from_mode(mode)) }
}

fn access(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenError::Full { path },
        _ => OpenError::Access { path, user: rustix::process::geteuid().as_raw(), source },
    }
}

/// Where the lock stands.
pub(super) fn lock(directory: &Path) -> PathBuf {
    directory.join("lock")
}

/// Whether somebody has the lock at this moment. A lock that is not there, or that cannot be looked at, nobody is known to have.
pub(super) fn is_owned(directory: &Path) -> bool {
    let file = File::open(lock(directory));
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn take_lock(directory: &Path) -> Result<File, OpenError> {
    let path = lock(directory);
    let file = open_private_file(&path)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // Another daemon keeps it; a look at the queue lets it go in a moment.
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(access(&path)(error)),
        }
    }
    Err(OpenError::Locked { directory: directory.to_owned() })
}

/// The log's shared memory and the lock do not hold between machines.
#[cfg(target_os = "linux")]
fn refuse_network(directory: &Path) -> Result<(), OpenError> {
    let found = rustix::fs::statfs(directory).map_err(|error| access(directory)(error.into()))?;
    #[allow(clippy::useless_conversion, reason = "a narrower integer on 32-bit machines")]
    match network_name(i64::from(found.f_type)) {
        Some(kind) => Err(OpenError::Network { directory: directory.to_owned(), kind }),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_network(_directory: &Path) -> Result<(), OpenError> {
    Ok(())
}

/// statfs(2), `f_type`.
#[cfg(target_os = "linux")]
fn network_name(kind: i64) -> Option<&'static str> {
    match kind & 0xffff_ffff {
        0x6969 => Some("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x7375_7245 => Some("Coda"),
        0x00c3_6400 => Some("Ceph"),
        _ => None,
    }
}

fn open_database(path: &Path) -> Result<Connection, OpenError> {
    let failed = |error: rusqlite::Error| database_error(path, &error);
    let mut connection = connection::open(path, Purpose::Write).map_err(failed)?;
    match schema::owner(&connection).map_err(failed)? {
        Owner::Nobody => schema::create(&mut connection).map_err(failed)?,
        Owner::Ours(schema::VERSION) => schema::use_wal(&connection).map_err(failed)?,
        Owner::Ours(found) if found > schema::VERSION => {
            return Err(OpenError::Newer { path: path.to_owned(), found, known: schema::VERSION });
        }
        // No release ever wrote it.
        Owner::Ours(0) => return Err(OpenError::Damaged { path: path.to_owned(), detail: "schema 0".to_owned() }),
        Owner::Ours(found) => {
            schema::use_wal(&connection).map_err(failed)?;
            tracing::info!(from = found, to = schema::VERSION, "taking over a queue of an earlier release");
            migrate::migrate(&mut connection, found).map_err(failed)?;
        }
        Owner::Stranger => return Err(OpenError::Foreign { path: path.to_owned() }),
    }
    Ok(connection)
}

fn database_error(path: &Path, error: &rusqlite::Error) -> OpenError {
    let (path, detail) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => OpenError::Full { path },
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            access(&path)(io::Error::new(io::ErrorKind::PermissionDenied, detail))
        }
        // Unknown or none: ours by its mark, but a table or its one row is not there.
        None | Some(ErrorCode::Unknown | ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            OpenError::Damaged { path, detail }
        }
        Some(_) => OpenError::Database { path, detail },
    }
}

type Begun = (u32, u64, Totals, Option<WallTime>);

/// Counts the boot and makes what earlier ones left in flight uncertain, in one transaction.
fn begin_boot(connection: &mut Connection, now: WallTime) -> rusqlite::Result<Begun> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let boot = transaction.query_row("UPDATE meta SET boot = boot + 1 RETURNING boot", [], |row| row.get(0))?;
    let interrupted = interrupted(&transaction)?;
    let mut change = Totals::default();
    for delivery in &interrupted {
        make_uncertain(&transaction, delivery, now)?;
        if delivery.state == State::Queued as i64 && delivery.uncertain == 0 {
            change.uncertain += 1;
        }
    }
    change.save_change(&transaction)?;
    let totals = Totals::load(&transaction)?;
    let oldest = fetch::oldest(&transaction)?;
    transaction.commit()?;
    Ok((boot, interrupted.len() as u64, totals, oldest))
}

/// A delivery whose transfer had begun when the daemon died.
struct Interrupted {
    id: i64,
    state: i64,
    uncertain: u32,
    recipients: String,
    /// The one that carried it: the mark named it alone.
    lane: LaneId,
}

/// Found by their index: as many as transfers ran at once.
fn interrupted(connection: &Connection) -> rusqlite::Result<Vec<Interrupted>> {
    let mut statement = connection.prepare(
        "SELECT id, state, uncertain, recipients, lane FROM delivery WHERE in_flight IS NOT NULL ORDER BY id",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(Interrupted {
            id: row.get(0)?,
            state: row.get(1)?,
            uncertain: row.get(2)?,
            recipients: row.get(3)?,
            lane: LaneId::from_stored(row.get(4)?),
        })
    })?;
    rows.collect()
}

fn make_uncertain(connection: &Connection, delivery: &Interrupted, now: WallTime) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE delivery SET in_flight = NULL, uncertain = uncertain + 1, due = ?2, version = version + 1, diagnostic = ?3
         WHERE id = ?1",
        params![delivery.id, now.unix_millis(), INTERRUPTED],
    )?;
    // One that does not decode is quarantined when it is claimed.
    let recipients = recipients::decode(&delivery.recipients).unwrap_or_default();
    // Upstream may have counted them; whose domains they are of is not known here.
    let count = u32::try_from(recipients.len()).unwrap_or(u32::MAX);
    usage::add(connection, &delivery.lane, now, Usage { messages: 1, recipients: count, external: count })?;
    for recipient in recipients {
        connection.execute(
            "INSERT INTO history (at, message, event, lane, tenant, mailbox, sender, recipient, client, message_id, reply,
             attempt) SELECT ?2, m.id, 'uncertain', d.lane, d.tenant, '', m.reverse_path, ?3, m.client, m.message_id, ?4,
             d.attempts + 1 FROM delivery d JOIN message m ON m.id = d.message WHERE d.id = ?1",
            params![delivery.id, now.unix_millis(), recipient.to_string(), INTERRUPTED],
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn network_file_systems_are_known() {
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(i64::from(0xff53_4d42_u32.cast_signed())), Some("SMB"));
        assert_eq!(network_name(0xef53), None, "ext4");
        assert_eq!(network_name(0x0102_1994), None, "tmpfs");
    }
}
