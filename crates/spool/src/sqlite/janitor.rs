//! The janitor: a thread for what the writer must not wait for - checkpoints, unlinking body files, the sweep of
//! orphans after a start, the ballast. It changes no row.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::Shared;
use super::connection::{self, Purpose, Trouble};
use super::{body, fetch};
use crate::id::QueueId;

/// A log longer than this is started anew, for which the writer must stand still a moment: while it writes, a passive
/// checkpoint never quite reaches the end, and the log would grow for ever.
const LOG_LEN_MAX: u64 = 16 * 1024 * 1024;
/// How long a checkpoint waits for readers; theirs are short.
const READERS_TIMEOUT: Duration = Duration::from_secs(1);

/// What the janitor was asked for.
#[derive(Default)]
pub(super) struct Janitor {
    tasks: Mutex<Tasks>,
    asked: Condvar,
}

#[allow(clippy::struct_excessive_bools, reason = "one flag a task: they are asked for and done together")]
#[derive(Debug, Default)]
struct Tasks {
    unlink: VecDeque<QueueId>,
    checkpoint: bool,
    empty_log: bool,
    sweep: bool,
    ballast: bool,
    closing: bool,
}

impl Tasks {
    fn any(&self) -> bool {
        self.checkpoint || self.empty_log || self.sweep || self.ballast || self.closing || !self.unlink.is_empty()
    }
}

impl Janitor {
    /// Remove the body files of these messages; their rows are gone for good.
    pub(super) fn unlink(&self, messages: Vec<QueueId>) {
        if !messages.is_empty() {
            self.ask(|tasks| tasks.unlink.extend(messages));
        }
    }

    /// The log has grown.
    pub(super) fn checkpoint(&self) {
        self.ask(|tasks| tasks.checkpoint = true);
    }

    /// Nothing is being written: make the log empty, and the ballast whole.
    pub(super) fn empty_log(&self) {
        self.ask(|tasks| {
            tasks.empty_log = true;
            tasks.ballast = true;
        });
    }

    /// The store was opened.
    pub(super) fn begin(&self) {
        self.ask(|tasks| {
            tasks.sweep = true;
            tasks.ballast = true;
        });
    }

    /// The writer has ended: one last checkpoint.
    pub(super) fn close(&self) {
        self.ask(|tasks| tasks.closing = true);
    }

    fn ask(&self, change: impl FnOnce(&mut Tasks)) {
        change(&mut self.tasks());
        self.asked.notify_one();
    }

    fn take(&self) -> Tasks {
        let mut tasks = self.tasks();
        while !tasks.any() {
            tasks = self.asked.wait(tasks).unwrap_or_else(PoisonError::into_inner);
        }
        mem::take(&mut *tasks)
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread.
pub(super) fn run(shared: &Shared) {
    let mut handle = Handle { shared, open: None };
    loop {
        let tasks = shared.janitor.take();
        for message in &tasks.unlink {
            unlink(shared, *message);
        }
        if tasks.sweep {
            handle.with(sweep);
        }
        if tasks.checkpoint {
            handle.with(checkpoint);
        }
        if tasks.empty_log || tasks.closing {
            handle.with(empty_log);
        }
        if tasks.ballast && !tasks.closing {
            shared.space.restore_ballast();
        }
        if tasks.closing {
            return;
        }
    }
}

/// The janitor's connection, opened when it is first needed and anew after the store was reopened.
struct Handle<'a> {
    shared: &'a Shared,
    open: Option<(u64, Connection)>,
}

impl Handle<'_> {
    fn with(&mut self, work: impl FnOnce(&Shared, &Connection) -> Result<(), Trouble>) {
        let shared = self.shared;
        let done = match self.connection() {
            Ok(connection) => work(shared, connection),
            // No handle was synced in vain; it can wait for the next occasion.
            Err(error) => return tracing::warn!(%error, "housekeeping of the queue cannot open it"),
        };
        if let Err(trouble) = done {
            self.open = None;
            self.report(trouble);
        }
    }

    fn connection(&mut self) -> rusqlite::Result<&Connection> {
        let generation = self.shared.generation.load(Ordering::Relaxed);
        let open = match self.open.take() {
            Some((opened, connection)) if opened == generation => (opened, connection),
            _ => (generation, open(self.shared)?),
        };
        Ok(&self.open.insert(open).1)
    }

    fn report(&self, trouble: Trouble) {
        match trouble {
            Trouble::Full(_) => drop(self.shared.space.release_ballast()),
            Trouble::Row(text) => tracing::warn!(error = text, "housekeeping of the queue failed"),
            // A sync failed or the file is in doubt: the writer reopens the store (invariant 1).
            Trouble::Broken(text) => self.shared.inbox.doubt(text),
        }
    }
}

fn open(shared: &Shared) -> rusqlite::Result<Connection> {
    let connection = connection::open(&shared.database, Purpose::Write)?;
    connection.busy_timeout(READERS_TIMEOUT)?;
    Ok(connection)
}

/// Brings what is logged into the database, beside the writer.
fn checkpoint(shared: &Shared, connection: &Connection) -> Result<(), Trouble> {
    run_checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
    let log = shared.database.with_extension("db-wal");
    if fs::metadata(log).is_ok_and(|log| log.len() > LOG_LEN_MAX) {
        let _pause = shared.inbox.pause();
        run_checkpoint(connection, "PRAGMA wal_checkpoint(RESTART)")?;
    }
    Ok(())
}

fn empty_log(shared: &Shared, connection: &Connection) -> Result<(), Trouble> {
    run_checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
    let _pause = shared.inbox.pause();
    run_checkpoint(connection, "PRAGMA wal_checkpoint(TRUNCATE)")
}

/// A checkpoint that a reader held up is no failure: the next one goes further.
fn run_checkpoint(connection: &Connection, pragma: &str) -> Result<(), Trouble> {
    Ok(connection.query_row(pragma, [], |_| Ok(()))?)
}

fn unlink(shared: &Shared, message: QueueId) {
    match fs::remove_file(body::path(&shared.bodies, message)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%message, %error, "a body file that is no longer needed stays until the next start");
        }
        _ => {}
    }
}

/// Removes body files of earlier boots that no message has: what was being received when the daemon died. Files of this
/// boot are being received or stored now.
fn sweep(shared: &Shared, connection: &Connection) -> Result<(), Trouble> {
    let Ok(entries) = fs::read_dir(&shared.bodies) else { return Ok(()) };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for message in names.filter_map(|name| name.parse::<QueueId>().ok()).filter(|id| id.boot() != shared.boot) {
        if !fetch::is_stored(connection, message)? {
            tracing::info!(%message, "removing a body that was never accepted");
            unlink(shared, message);
        }
    }
    Ok(())
}
