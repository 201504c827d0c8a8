//! The request budget on disk: a small file in the state directory, written before each request; or in memory, where there
//! is no such directory.
//!
//! It decides nothing (`window` does) and never stops the relay: a file that cannot be read is answered with caution,
//! one that cannot be written with a warning. One file for one budget, shared by all processes that ask within it: each
//! looks, decides and writes under a lock.

mod memory;
mod record;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clock::{Clock, Monotonic};

pub use memory::MemoryLedger;

use crate::application::Application;
use crate::schedule::Now;
use crate::state_file::{self, NoLock};
use crate::window::{ACCOUNT_LIMIT, COUNTED, REQUEST_LIMIT, Record, RequestId, TAKE_OVER_LIMIT, Window};

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
    kept: Kept,
}

/// Where it is kept.
#[derive(Debug)]
enum Kept {
    OnDisk(Book),
    InMemory(MemoryLedger),
}

/// What a ledger knows; the blocking thread works on a copy.
#[derive(Clone, Debug)]
struct Book {
    path: PathBuf,
    /// Requests within a period.
    limit: usize,
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

    /// The name of the file for all that the refresh tokens of one account ask, whichever mailboxes they are for.
    fn account_file_name(tenant_id: &str, client_id: &str, scope: &str, account: &str) -> String {
        let [tenant_id, client_id, account] = [tenant_id, client_id, account].map(str::to_ascii_lowercase);
        let parts = ["account", &tenant_id, &client_id, scope, &account];
        format!("token-requests-{}", state_file::digest_name(&parts))
    }

    /// Where the one of `account` stands: beside this one, of a mailbox. An empty name is nobody's: of [`Ledger::open_take_overs`].
    /// None where this one is in memory: then nobody has signed in for it, which needs a state directory.
    pub(crate) fn account_path(&self, application: &Application, account: &str) -> Option<PathBuf> {
        let Application { tenant_id, client_id, scope, .. } = application;
        match &self.kept {
            Kept::OnDisk(book) => {
                Some(book.path.with_file_name(Self::account_file_name(tenant_id, client_id, scope, account)))
            }
            Kept::InMemory(_) => None,
        }
    }

    /// Opens the ledger of an account at `path`. Blocks and never fails, as [`Ledger::open`].
    pub(crate) fn open_account(path: PathBuf, clock: &dyn Clock) -> Self {
        Self::open_limited(path, ACCOUNT_LIMIT, clock)
    }

    /// Opens the ledger at `path`, whose directory exists; a missing file is a first start. Blocks for two small file
    /// operations, and for less than a second if another process holds the lock. It never fails: if the file cannot be
    /// locked, read, understood or written again, this is logged and the budget counts as used up just now, so that the
    /// first request waits for one [`crate::REQUEST_PERIOD`].
    pub fn open(path: impl Into<PathBuf>, clock: &dyn Clock) -> Self {
        Self::open_limited(path.into(), REQUEST_LIMIT, clock)
    }

    /// Opens that of the take-overs that were more than their account's budget had room for.
    pub(crate) fn open_take_overs(path: PathBuf, clock: &dyn Clock) -> Self {
        Self::open_limited(path, TAKE_OVER_LIMIT, clock)
    }

    fn open_limited(path: PathBuf, limit: usize, clock: &dyn Clock) -> Self {
        let mut book = Book {
            path,
            limit,
            // 0 stands for owners unknown.
            owner: state_file::random().max(1),
            number: 0,
            window: Window::default(),
            looked: None,
            kept: true,
            held_off: None,
        };
        book.open(Now::of(clock));
        Self { kept: Kept::OnDisk(book) }
    }

    /// How long until a request may be within the budget; zero if it may be now. From memory: what other processes
    /// asked since the last [`Ledger::take`] is not known.
    pub(crate) fn wait(&self, now: Now) -> Duration {
        self.wait_leaving(now, 0)
    }

    /// The same for one that leaves so many requests to others.
    pub(crate) fn wait_leaving(&self, now: Now, left: usize) -> Duration {
        match &self.kept {
            Kept::OnDisk(book) => book.window.wait(now, book.limit.saturating_sub(left)),
            Kept::InMemory(ledger) => ledger.wait(now, left),
        }
    }

    /// The book on disk, as the tests look into it.
    #[cfg(test)]
    fn book(&mut self) -> &mut Book {
        match &mut self.kept {
            Kept::OnDisk(book) => book,
            Kept::InMemory(_) => panic!("this ledger is in memory"),
        }
    }

    /// Counts a request at `now` and makes that durable before it returns, or says how long to wait, if the budget is
    /// used up by all processes together. In memory it counts for this process only.
    ///
    /// If the disk refuses, the request counts in memory and may go: a full disk must not keep queued mail from leaving.
    /// While another process holds the lock without end, none may go, but for one [`crate::REQUEST_PERIOD`] only: one
    /// that has stood still for so long has nothing that still counts. Dropped halfway, the request may stay counted.
    pub(crate) async fn take(&mut self, now: Now) -> Result<(), Duration> {
        self.take_leaving(now, 0).await
    }

    /// The same for one that leaves so many requests to others.
    pub(crate) async fn take_leaving(&mut self, now: Now, left: usize) -> Result<(), Duration> {
        match &mut self.kept {
            Kept::OnDisk(book) => {
                let limit = book.limit.saturating_sub(left);
                book.apart(move |book| book.take(now, limit), move |book| book.take_in_memory(now, limit)).await
            }
            Kept::InMemory(ledger) => ledger.take(now, left),
        }
    }

    /// Counts a request at `now` that was made, whatever the budget. Says whether it was within it.
    pub(crate) async fn note(&mut self, now: Now) -> bool {
        let is_within = self.take(now).await.is_ok();
        match &mut self.kept {
            Kept::OnDisk(book) if !is_within => book.apart(move |book| book.note(now), |_| ()).await,
            Kept::InMemory(ledger) if !is_within => ledger.note(now),
            _ => {}
        }
        is_within
    }
}

impl Book {
    /// Has a blocking thread do `work`; should that thread fail, `otherwise` is what can be done without it.
    async fn apart<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Self) -> T + Send + 'static,
        otherwise: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let mut book = self.clone();
        // If this is abandoned, the file may keep numbers that must not be given again.
        self.number += 1 + self.limit as u64;
        let done = tokio::task::spawn_blocking(move || (work(&mut book), book)).await;
        if let Ok((done, book)) = done {
            *self = book;
            done
        } else {
            tracing::warn!(path = %self.path.display(), "the thread that keeps the token request ledger ended early; counting in memory");
            otherwise(self)
        }
    }

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

    fn take(&mut self, now: Now, limit: usize) -> Result<(), Duration> {
        match state_file::lock(&self.path) {
            Ok(lock) => {
                self.held_off = None;
                // The request leaves that much later.
                let now = Now { wall: now.wall + lock.waited, monotonic: now.monotonic + lock.waited };
                self.take_locked(now, limit)
            }
            Err(NoLock::Held) => self.take_held_off(now, limit),
            Err(NoLock::Failed(error)) => {
                self.note_write(&Err(error));
                self.take_in_memory(now, limit)
            }
        }
    }

    /// One more, which was asked; where the file cannot be had it counts in memory.
    fn note(&mut self, now: Now) {
        let lock = state_file::lock(&self.path);
        if lock.is_ok() {
            self.look(now);
        }
        let id = self.next_id();
        self.window.record(id, now);
        if lock.is_ok() {
            let written = record::write(&self.path, &self.window.records(now));
            self.note_write(&written);
        }
    }

    fn take_locked(&mut self, now: Now, limit: usize) -> Result<(), Duration> {
        let told = self.look(now);
        let taken = self.take_in_memory(now, limit);
        let records = self.window.records(now);
        // Refused, it is written all the same if it differs: unreadable files, and times from before the clock was set.
        if taken.is_ok() || told.as_ref() != Some(&records) {
            let written = record::write(&self.path, &records);
            self.note_write(&written);
        }
        taken
    }

    fn take_held_off(&mut self, now: Now, limit: usize) -> Result<(), Duration> {
        if self.held_off.is_none() {
            tracing::warn!(path = %self.path.display(), "another process holds the token request ledger; token requests wait, 5 minutes at most");
        }
        let since = *self.held_off.get_or_insert(now.monotonic);
        if now.monotonic.saturating_since(since) < COUNTED {
            return Err(self.window.wait(now, limit).max(HELD_WAIT));
        }
        self.take_in_memory(now, limit)
    }

    fn take_in_memory(&mut self, now: Now, limit: usize) -> Result<(), Duration> {
        let wait = self.window.wait(now, limit);
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
        let ids: Vec<_> = (0..self.limit).map(|_| self.next_id()).collect();
        self.window = Window::full(now, ids);
    }

    fn next_id(&mut self) -> RequestId {
        let number = self.number;
        self.number += 1;
        RequestId { owner: self.owner, number }
    }
}
