//! The readers: two threads with a connection each, for short reads only, so that no read holds a checkpoint up for
//! long. Not here: what is read.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use super::connection::{self, Purpose, read_failed};
use crate::error::StoreError;

/// Reads that may wait; more callers wait for a place.
const WAITING: usize = 256;

type Read = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Connected + Send>;

/// Whether the connection is still good.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connected {
    Yes,
    No,
}

/// The queue of reads.
pub(super) struct Readers {
    database: PathBuf,
    /// Counts how often the store was reopened; older connections are closed.
    generation: Arc<AtomicU64>,
    waiting: Mutex<Waiting>,
    asked: Condvar,
    places: Semaphore,
}

#[derive(Default)]
struct Waiting {
    reads: VecDeque<Read>,
    closed: bool,
}

impl Readers {
    pub(super) fn new(database: PathBuf, generation: Arc<AtomicU64>) -> Self {
        let waiting = Mutex::new(Waiting::default());
        Self { database, generation, waiting, asked: Condvar::new(), places: Semaphore::new(WAITING) }
    }

    /// Runs `read` on one of the threads. A result whose caller went away is dropped.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _place = self.places.acquire().await.map_err(|_| StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        self.push(Box::new(move |connection| {
            let (result, connected) = perform(connection, read);
            // The caller may have been dropped.
            let _ = answer.send(result);
            connected
        }))?;
        answered.await.map_err(|_| StoreError::Failed("the reader has stopped".to_owned()))?
    }

    fn push(&self, read: Read) -> Result<(), StoreError> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(StoreError::Closed);
        }
        waiting.reads.push_back(read);
        self.asked.notify_one();
        Ok(())
    }

    /// No further reads; the threads end, reads that wait are dropped.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        let dropped = std::mem::take(&mut waiting.reads);
        self.asked.notify_all();
        drop(waiting);
        drop(dropped);
    }

    /// One thread's work.
    pub(super) fn run(&self) {
        let mut open: Option<(u64, Connection)> = None;
        while let Some(read) = self.take() {
            let generation = self.generation.load(Ordering::Relaxed);
            let current = open.take().filter(|(opened, _)| *opened == generation);
            let (result, kept) = match current.map_or_else(|| self.connect(generation), Ok) {
                Ok((opened, connection)) => (read(Ok(&connection)), Some((opened, connection))),
                Err(error) => (read(Err(read_failed(&error))), None),
            };
            open = kept.filter(|_| result == Connected::Yes);
        }
    }

    fn connect(&self, generation: u64) -> rusqlite::Result<(u64, Connection)> {
        Ok((generation, connection::open(&self.database, Purpose::Read)?))
    }

    fn take(&self) -> Option<Read> {
        let mut waiting = self.waiting();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(read) = waiting.reads.pop_front() {
                return Some(read);
            }
            waiting = self.asked.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn perform<T>(
    connection: Result<&Connection, StoreError>,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> (Result<T, StoreError>, Connected) {
    match connection.map(read) {
        Ok(Ok(value)) => (Ok(value), Connected::Yes),
        Ok(Err(error)) => (Err(read_failed(&error)), Connected::No),
        Err(error) => (Err(error), Connected::No),
    }
}
