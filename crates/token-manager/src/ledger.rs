//! The request budget on disk: a small file in the state directory, written before each request.
//!
//! It decides nothing (`window` does) and never stops the relay: a file that cannot be read is answered with caution,
//! one that cannot be written with a warning. One file for one budget, shared by all processes that ask within it: each
//! looks, decides and writes under a lock.

mod record;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clock::{Clock, Monotonic};

use crate::schedule::Now;
use crate::state_file::{self, NoLock};
use crate::window::{COUNTED, REQUEST_LIMIT, Record, RequestId, Window};

/// What an unusable file costs.
const CAUTION: &str = "the first token request waits 5 minutes";

/// When to try again while another process does not let go of the lock.
const HELD_WAIT: Duration = Duration::from_secs(10);

/// The record of recent token requests that keeps [`crate::REQUEST_LIMIT`] across restarts, and for all processes that
/// open the same file.
///
/// The requests that a ledger knows of count in monotonic time, so that setting the clock neither frees nor locks them.
/// What a process that starts finds in the file has only wall times: a clock set back since makes such requests count
/// for one more [`crate::REQUEST_PERIOD`] at most. A clock set forward makes them look old, which nothing on disk tells
/// from time that has passed: who starts within a period of that step may use one more budget.
#[derive(Debug)]
pub struct Ledger {
    book: Book,
}

/// What a ledger knows; the blocking thread works on a copy.
#[derive(Clone, Debug)]
struct Book {
    path: PathBuf,
    owner: u64,
    /// The number of this owner's next request.
    number: u64,
    window: Window,
    /// When the file was read last.
    looked: Option<Now>,
    /// Whether the file could be written last time.
    kept: bool,
    /// Since when another process has held the lock.
    held_off: Option<Monotonic>,
}

impl Ledger {
    /// The name of the file for one budget: Entra ID counts by tenant, application and scope, and for delegated tokens by
    /// the refresh token too, which is that of the sign-in for `mailbox`.
    pub fn file_name(tenant_id: &str, client_id: &str, scope: &str, mailbox: Option<&str>) -> String {
        let (tenant_id, client_id) = (tenant_id.to_ascii_lowercase(), client_id.to_ascii_lowercase());
        let parts = [&tenant_id, &client_id, scope].into_iter().chain(mailbox);
        format!("token-requests-{}", state_file::digest_name(&parts.collect::<Vec<_>>()))
    }

    /// Opens the ledger at `path`, whose directory exists; a missing file is a first start. Blocks for two small file
    /// operations, and for less than a second if another process holds the lock. It never fails: if the file cannot be
    /// locked, read, understood or written again, this is logged and the budget counts as used up just now, so that the
    /// first request waits for one [`crate::REQUEST_PERIOD`].
    pub fn open(path: impl Into<PathBuf>, clock: &dyn Clock) -> Self {
        let mut book = Book {
            path: path.into(),
            // 0 stands for owners unknown.
            owner: state_file::random().max(1),
            number: 0,
            window: Window::default(),
            looked: None,
            kept: true,
            held_off: None,
        };
        book.open(Now::of(clock));
        Self { book }
    }

    /// How long until a request may be within the budget; zero if it may be now. From memory: what other processes
    /// asked since the last [`Ledger::take`] is not known.
    pub(crate) fn wait(&self, now: Now) -> Duration {
        self.book.window.wait(now)
    }

    /// Counts a request at `now` and makes that durable before it returns, or says how long to wait, if the budget is
    /// used up by all processes together.
    ///
    /// If the disk refuses, the request counts in memory and may go: a full disk must not keep queued mail from leaving.
    /// While another process holds the lock without end, none may go, but for one [`crate::REQUEST_PERIOD`] only: one
    /// that has stood still for so long has nothing that still counts. Dropped halfway, the request may stay counted.
    pub(crate) async fn take(&mut self, now: Now) -> Result<(), Duration> {
        let mut book = self.book.clone();
        // If this is abandoned, the file may keep numbers that must not be given again.
        self.book.number += 1 + REQUEST_LIMIT as u64;
        let taken = tokio::task::spawn_blocking(move || (book.take(now), book)).await;
        if let Ok((taken, book)) = taken {
            self.book = book;
            taken
        } else {
            tracing::warn!(path = %self.book.path.display(), "the thread that keeps the token request ledger ended early; counting in memory");
            self.book.take_in_memory(now)
        }
    }
}

impl Book {
    fn open(&mut self, now: Now) {
        let path = self.path.clone();
        let _lock = match state_file::lock(&path) {
            Ok(lock) => lock,
            Err(NoLock::Held) => {
                tracing::warn!(path = %path.display(), "another process holds the token request ledger; {CAUTION}");
                self.use_up(now);
                return;
            }
            Err(NoLock::Failed(error)) => {
                tracing::warn!(path = %path.display(), %error, "token request ledger cannot be locked; {CAUTION}");
                self.use_up(now);
                self.kept = false;
                return;
            }
        };
        self.look(now);
        // Written at once: a ledger that cannot be kept must not give a fresh budget at each restart, and what was
        // unreadable or in the future must not cost the next start another wait.
        if let Err(error) = record::write(&path, &self.window.records(now)) {
            tracing::warn!(path = %path.display(), %error, "token request ledger cannot be written; {CAUTION}");
            self.use_up(now);
            self.kept = false;
        }
    }

    fn take(&mut self, now: Now) -> Result<(), Duration> {
        match state_file::lock(&self.path) {
            Ok(lock) => {
                self.held_off = None;
                // The request leaves that much later.
                let now = Now { wall: now.wall + lock.waited, monotonic: now.monotonic + lock.waited };
                self.take_locked(now)
            }
            Err(NoLock::Held) => self.take_held_off(now),
            Err(NoLock::Failed(error)) => {
                self.note_write(&Err(error));
                self.take_in_memory(now)
            }
        }
    }

    fn take_locked(&mut self, now: Now) -> Result<(), Duration> {
        let told = self.look(now);
        let taken = self.take_in_memory(now);
        let records = self.window.records(now);
        // Refused, it is written all the same if it differs: unreadable files, and times from before the clock was set.
        if taken.is_ok() || told.as_ref() != Some(&records) {
            let written = record::write(&self.path, &records);
            self.note_write(&written);
        }
        taken
    }

    fn take_held_off(&mut self, now: Now) -> Result<(), Duration> {
        if self.held_off.is_none() {
            tracing::warn!(path = %self.path.display(), "another process holds the token request ledger; token requests wait, 5 minutes at most");
        }
        let since = *self.held_off.get_or_insert(now.monotonic);
        if now.monotonic.saturating_since(since) < COUNTED {
            return Err(self.window.wait(now).max(HELD_WAIT));
        }
        self.take_in_memory(now)
    }

    fn take_in_memory(&mut self, now: Now) -> Result<(), Duration> {
        let wait = self.window.wait(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        let id = self.next_id();
        self.window.record(id, now);
        Ok(())
    }

    /// Learns what the file tells and gives it. An unreadable one uses the budget up, once: while it cannot be replaced,
    /// memory counts.
    fn look(&mut self, now: Now) -> Option<Vec<Record>> {
        match record::read(&self.path) {
            Ok(records) => {
                self.window.learn(&records, now, self.looked);
                self.looked = Some(now);
                Some(records)
            }
            Err(error) => {
                if self.kept {
                    tracing::warn!(path = %self.path.display(), %error, "token request ledger unreadable; {CAUTION}");
                    self.use_up(now);
                }
                None
            }
        }
    }

    fn note_write(&mut self, written: &io::Result<()>) {
        if let (true, Err(error)) = (self.kept, written) {
            tracing::warn!(path = %self.path.display(), %error, "token request ledger cannot be written; counting in memory");
        }
        self.kept = written.is_ok();
    }

    fn use_up(&mut self, now: Now) {
        let ids = std::array::from_fn(|_| self.next_id());
        self.window = Window::full(now, ids);
    }

    fn next_id(&mut self) -> RequestId {
        let number = self.number;
        self.number += 1;
        RequestId { owner: self.owner, number }
    }
}
