//! The writer: one thread, one connection, one transaction for all that waits, one sync. It alone changes rows after the
//! start. When a sync fails it closes the connection and opens the store anew, since a second sync of the same handle
//! may lie (invariant 1). Not here: what a job writes (`apply`), what waits (`inbox`).

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mail::LaneId;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::Shared;
use super::apply::{Applier, Effects};
use super::claims::ClaimGuard;
use super::connection::{self, Purpose, Trouble};
use super::fetch;
use super::inbox::{Kept, Work};
use super::job::{Answer, Batch, Chore, Commit, Incoming, Quarantine, Record, Reroute, Settle};
use super::rerouting;
use super::totals::Totals;
use crate::error::StoreError;
use crate::id::QueueId;

/// How long nothing must happen before free pages are given back and the log is emptied.
const QUIET: Duration = Duration::from_secs(1);
/// Free pages kept for what comes next (4 MiB), and given back at once.
const SPARE_PAGES: i64 = 1024;
const VACUUM: &str = "PRAGMA incremental_vacuum(512)";
/// Octets logged for it, roughly: few pages of those given back have to be moved.
const VACUUM_BYTES: usize = 512 * 1024;
/// Octets written between two checkpoints, roughly: pages are counted by the payload and the rows' neighbours.
const CHECKPOINT_BYTES: usize = 4 * 1024 * 1024;
const ROW_BYTES: usize = 8 * 1024;
/// Waits between attempts to reopen the store.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// The thread's own things.
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// None only while the store is reopened.
    connection: Option<Connection>,
    next_delivery: u32,
    /// Messages whose commit failed: their callers were told that nothing is stored, so nothing may be found later. Digests
    /// are the exception, since what they tell of would have to come back: theirs is found whole or not at all.
    doubtful: Vec<Doubtful>,
    /// Octets logged since the last checkpoint was asked for.
    logged: usize,
    rest: Rest,
}

/// A message of which nobody knows whether the log has it.
struct Doubtful {
    incoming: Incoming,
    is_digest: bool,
}

/// What is left to do when nothing waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// Something was written: tidy up after a quiet while.
    Tidy,
    /// More free pages to give back.
    Vacuum,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, connection: Connection) -> Self {
        let doubtful = Vec::new();
        Self { shared, connection: Some(connection), next_delivery: 0, doubtful, logged: 0, rest: Rest::Tidy }
    }

    /// Until the inbox is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            let patience = match self.rest {
                Rest::Nothing => None,
                Rest::Tidy => Some(QUIET),
                Rest::Vacuum => Some(Duration::ZERO),
            };
            match self.shared.inbox.next(patience) {
                Work::Write(batch) => self.write(batch),
                Work::Recover(reason) => self.recover(&reason),
                Work::Idle => self.tidy(),
                Work::Close => return,
            }
        }
    }

    fn write(&mut self, mut batch: Batch) {
        #[cfg(test)]
        self.shared.faults.panic_if_asked();
        self.rest = Rest::Tidy;
        let quarantines = mem::take(&mut batch.quarantines);
        for quarantine in quarantines {
            self.set_aside(quarantine);
        }
        if !batch.is_empty() {
            self.write_batch(batch);
        }
    }

    /// In a transaction of its own: on a damaged page SQLite writes nothing and gives up the whole transaction.
    fn set_aside(&mut self, quarantine: Quarantine) {
        let mut is_out_of_reach = false;
        let done = self.attempt(|applier, effects| {
            let written = applier.quarantine(&quarantine, effects);
            is_out_of_reach = written.as_ref().is_err_and(fetch::is_damage);
            Ok(written.map(|()| Vec::new())?)
        });
        let batch = |quarantine| Batch { quarantines: vec![quarantine], ..Batch::default() };
        match done {
            Ok(done) => self.finish(batch(quarantine), done),
            Err(Trouble::Row(_)) => self.pass_by(quarantine),
            Err(_) if is_out_of_reach => self.pass_by(quarantine),
            Err(Trouble::Full(text) | Trouble::Broken(text)) => self.fail(batch(quarantine), &text),
        }
    }

    /// A damaged delivery that cannot even be set aside is nobody's while this connection lasts, and the rest goes on.
    fn pass_by(&self, quarantine: Quarantine) {
        let Quarantine { guard, detail } = quarantine;
        tracing::error!(
            delivery = guard.delivery(),
            detail,
            "a stored message is damaged, and so is its place in the queue: it is passed by; only a backup can bring it back"
        );
        self.shared.inbox.abandon(guard, None);
    }

    fn write_batch(&mut self, mut batch: Batch) {
        match self.transact(&mut batch) {
            Ok(done) => self.finish(batch, done),
            Err(Trouble::Full(text)) => self.write_on_a_full_disk(batch, &text),
            Err(Trouble::Row(text) | Trouble::Broken(text)) => self.fail(batch, &text),
        }
    }

    /// No room: what comes in is refused, what goes out gets the ballast's.
    fn write_on_a_full_disk(&mut self, mut batch: Batch, text: &str) {
        self.shared.space.forget_free_bytes();
        for commit in mem::take(&mut batch.commits) {
            refuse(commit, StoreError::Full(text.to_owned()));
        }
        if batch.is_empty() {
            return;
        }
        self.shared.space.release_ballast();
        match self.transact(&mut batch) {
            Ok(done) => self.finish(batch, done),
            Err(Trouble::Full(text) | Trouble::Row(text) | Trouble::Broken(text)) => self.fail(batch, &text),
        }
    }

    /// All in one transaction; if one row is wrong, again with each job for itself, so that it hurts no neighbour.
    fn transact(&mut self, batch: &mut Batch) -> Result<Done, Trouble> {
        let done = self.attempt(|applier, effects| Ok(applier.batch(batch, effects)?));
        match done {
            Err(Trouble::Row(text)) => {
                tracing::error!(error = text, "a row of the queue was refused; writing the others without it");
                let inbox = &Arc::clone(&self.shared).inbox;
                self.attempt(|applier, effects| {
                    let (chored, spoiled) = one_by_one(applier, batch, effects)?;
                    for (guard, lane) in spoiled {
                        inbox.abandon(guard, lane.as_ref());
                    }
                    Ok(chored)
                })
            }
            done => done,
        }
    }

    fn attempt(
        &mut self,
        apply: impl FnOnce(&mut Applier<'_>, &mut Effects) -> Result<Vec<u64>, Trouble>,
    ) -> Result<Done, Trouble> {
        let closed = || Trouble::Broken("the queue is being reopened".to_owned());
        let connection = self.connection.as_mut().ok_or_else(closed)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut effects = Effects::default();
        let next_delivery = &mut self.next_delivery;
        let mut applier = Applier { connection: &transaction, boot: self.shared.boot, next_delivery };
        let chored = apply(&mut applier, &mut effects)?;
        effects.save(&transaction)?;
        self.shared.commit(transaction)?;
        Ok(Done { effects, chored })
    }

    /// It is durable: acts upon it and answers.
    fn finish(&mut self, batch: Batch, done: Done) {
        self.note_logged(&batch);
        let Batch { settles, marks: _, reroutes, records, quarantines, chores, commits } = batch;
        let Effects { totals, used: _, arrivals, stirred, unfiled, unstored } = done.effects;
        self.shared.space.add_stored(totals);
        self.shared.janitor.unlink(unfiled);
        let settled: Vec<_> = settles.into_iter().map(settled).chain(reroutes.into_iter().map(rerouted)).collect();
        let stored: Vec<_> = commits.into_iter().map(|commit| stored(commit, &unstored)).collect();
        records.into_iter().for_each(Record::written);
        quarantines.into_iter().for_each(was_set_aside);
        self.shared.claims.arrived(&arrivals);
        for lanes in stirred {
            self.shared.claims.forget(&lanes);
        }
        for mut answer in settled {
            answer.give(Ok(()));
        }
        for (mut answer, is_stored) in stored {
            answer.give(Ok(is_stored));
        }
        for (mut chore, rows) in chores.into_iter().zip(done.chored) {
            chore.answer.give(Ok(rows));
        }
    }

    fn note_logged(&mut self, batch: &Batch) {
        let settles: usize = batch.settles.iter().map(|settle| settle.weight() + ROW_BYTES).sum();
        let reroutes: usize = batch.reroutes.iter().map(|reroute| reroute.weight() + ROW_BYTES).sum();
        let commits: usize = batch.commits.iter().map(|commit| commit.incoming.weight() + ROW_BYTES).sum();
        let records: usize = batch.records.iter().map(|record| record.weight() + ROW_BYTES).sum();
        self.note_octets(settles + reroutes + records + commits + ROW_BYTES * batch.marks.len());
    }

    fn note_octets(&mut self, octets: usize) {
        self.logged += octets;
        if self.logged >= CHECKPOINT_BYTES {
            self.logged = 0;
            self.shared.janitor.checkpoint();
        }
    }

    /// Nothing was stored: tells so, keeps what must not be forgotten and reopens the store.
    fn fail(&mut self, batch: Batch, reason: &str) {
        let inbox = &self.shared.inbox;
        inbox.refuse(reason);
        let Batch { mut settles, marks, mut reroutes, records, quarantines, chores, commits } = batch;
        for settle in &mut settles {
            settle.answer.give(Err(StoreError::Failed(reason.to_owned())));
        }
        for reroute in &mut reroutes {
            reroute.answer.give(Err(StoreError::Failed(reason.to_owned())));
        }
        inbox.put_back(Kept { settles, marks, reroutes, records, quarantines });
        for Chore { mut answer, .. } in chores {
            answer.give(Err(StoreError::Failed(reason.to_owned())));
        }
        for Commit { incoming, digest, mut answer, permit } in commits {
            // Before the answer, so that the body file is there as long as a row might be.
            self.doubtful.push(Doubtful { incoming, is_digest: digest.is_some() });
            drop(permit);
            answer.give(Err(StoreError::Failed(reason.to_owned())));
        }
        self.recover(reason);
    }

    /// Closes the store and opens it anew, with growing patience, until it can be written again or is closed.
    fn recover(&mut self, reason: &str) {
        tracing::error!(error = reason, "the queue cannot be written: nothing is accepted until it is reopened");
        self.shared.inbox.refuse(reason);
        self.close_connection();
        let mut wait = FIRST_RETRY;
        while self.shared.inbox.sleep(wait) {
            match self.reopen() {
                Ok(()) => return self.resume(),
                Err(trouble) => {
                    tracing::warn!(error = ?trouble, "the queue cannot be reopened yet");
                    self.shared.space.release_ballast();
                    self.close_connection();
                    wait = LAST_RETRY.min(wait * 2);
                }
            }
        }
        self.give_up();
    }

    fn close_connection(&mut self) {
        self.connection = None;
        // Readers and janitor leave their old handles too.
        self.shared.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Opens, brings the whole log into the database with fresh syncs, takes back what was told to have failed and
    /// writes the settlements that could not be written.
    fn reopen(&mut self) -> Result<(), Trouble> {
        let connection = connection::open(&self.shared.database, Purpose::Write)?;
        let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if busy != 0 {
            return Err(Trouble::Broken("the log is still being read".to_owned()));
        }
        self.connection = Some(connection);
        self.undo()?;
        let mut kept = self.shared.inbox.take_kept();
        // They wait for their own transactions.
        self.shared.inbox.put_back(Kept { quarantines: mem::take(&mut kept.quarantines), ..Kept::default() });
        match self.transact(&mut kept) {
            Ok(done) => {
                self.finish(kept, done);
                Ok(())
            }
            Err(trouble) => {
                let Batch { settles, marks, reroutes, records, quarantines, .. } = kept;
                self.shared.inbox.put_back(Kept { settles, marks, reroutes, records, quarantines });
                Err(trouble)
            }
        }
    }

    fn undo(&mut self) -> Result<(), Trouble> {
        let doubtful = mem::take(&mut self.doubtful);
        let undone = self.attempt(|applier, effects| {
            for Doubtful { incoming, .. } in doubtful.iter().filter(|doubtful| !doubtful.is_digest) {
                applier.undo(incoming, effects)?;
            }
            Ok(Vec::new())
        });
        let found = undone.and_then(|_| self.stored_digests(&doubtful));
        let found = match found {
            Ok(found) => found,
            Err(trouble) => {
                self.doubtful = doubtful;
                return Err(trouble);
            }
        };
        for Doubtful { incoming, .. } in doubtful {
            // Else its body file goes, as its row did.
            if found.contains(&incoming.id) {
                incoming.stored();
            }
        }
        if let Some(connection) = &self.connection {
            self.shared.space.set_stored(Totals::load(connection)?);
        }
        Ok(())
    }

    /// The digests that the log had after all.
    fn stored_digests(&self, doubtful: &[Doubtful]) -> Result<Vec<QueueId>, Trouble> {
        let Some(connection) = &self.connection else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for Doubtful { incoming, .. } in doubtful.iter().filter(|doubtful| doubtful.is_digest) {
            if fetch::is_stored(connection, incoming.id)? {
                found.push(incoming.id);
            }
        }
        Ok(found)
    }

    fn resume(&mut self) {
        tracing::info!("the queue can be written again");
        drop(self.shared.inbox.accept());
        self.shared.claims.forget_all();
        self.rest = Rest::Tidy;
    }

    /// Closed while it could not be written. Body files stay: if their rows are found at the next start they are
    /// needed, if not they are swept.
    fn give_up(&mut self) {
        self.doubtful.drain(..).for_each(|doubtful| doubtful.incoming.stored());
        let kept = self.shared.inbox.take_kept();
        for reroute in kept.reroutes {
            self.shared.inbox.abandon(reroute.guard, None);
        }
        for settle in kept.settles {
            tracing::error!(id = %settle.message, "what became of this message could not be recorded");
            self.shared.inbox.abandon(settle.guard, Some(&settle.lane));
        }
    }

    /// Gives free pages back, a few at a time, then lets the janitor empty the log.
    fn tidy(&mut self) {
        match self.vacuum() {
            Ok(true) => {
                self.rest = Rest::Vacuum;
                // The file shortens with each checkpoint; without one the log would grow until all is given back.
                self.note_octets(VACUUM_BYTES);
            }
            Ok(false) => {
                self.rest = Rest::Nothing;
                self.shared.janitor.empty_log();
            }
            Err(Trouble::Broken(text)) => self.recover(&text),
            Err(Trouble::Full(_) | Trouble::Row(_)) => self.rest = Rest::Nothing,
        }
    }

    /// Whether pages were given back.
    fn vacuum(&self) -> Result<bool, Trouble> {
        let Some(connection) = &self.connection else { return Ok(false) };
        let free: i64 = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        if free <= SPARE_PAGES {
            return Ok(false);
        }
        let mut statement = connection.prepare_cached(VACUUM)?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(true)
    }
}

/// A transaction that is durable.
struct Done {
    effects: Effects,
    /// Rows touched by each chore.
    chored: Vec<u64>,
}

/// The claim of a row that was refused, and the lane that was at it if one was.
type Spoiled = (ClaimGuard, Option<LaneId>);

/// Each job in a savepoint of its own; those refused are answered and leave the batch, the claims of refused settlements
/// are given out.
fn one_by_one(
    applier: &mut Applier<'_>,
    batch: &mut Batch,
    effects: &mut Effects,
) -> Result<(Vec<u64>, Vec<Spoiled>), Trouble> {
    let mut spoiled = Vec::new();
    for mut settle in mem::take(&mut batch.settles) {
        match alone(applier, effects, |applier, effects| applier.settle(&settle, effects))? {
            Ok(()) => batch.settles.push(settle),
            Err(text) => {
                settle.answer.give(Err(StoreError::Failed(text)));
                spoiled.push((settle.guard, Some(settle.lane)));
            }
        }
    }
    for mark in mem::take(&mut batch.marks) {
        if alone(applier, effects, |applier, effects| applier.mark(&mark, effects))?.is_ok() {
            batch.marks.push(mark);
        }
    }
    for mut reroute in mem::take(&mut batch.reroutes) {
        match alone(applier, effects, |applier, effects| applier.reroute(&reroute, effects))? {
            Ok(()) => batch.reroutes.push(reroute),
            Err(text) => {
                reroute.answer.give(Err(StoreError::Failed(text)));
                spoiled.push((reroute.guard, None));
            }
        }
    }
    for record in mem::take(&mut batch.records) {
        match alone(applier, effects, |applier, effects| applier.record(&record, effects))? {
            Ok(()) => batch.records.push(record),
            // It tells of itself.
            Err(_) => drop(record),
        }
    }
    let mut chored = Vec::new();
    for chore in &batch.chores {
        chored.push(applier.chore(chore.task, effects)?);
    }
    for commit in mem::take(&mut batch.commits) {
        match alone(applier, effects, |applier, effects| applier.commit(&commit, effects))? {
            Ok(()) => batch.commits.push(commit),
            Err(text) => refuse(commit, StoreError::Failed(text)),
        }
    }
    Ok((chored, spoiled))
}

/// One job in a savepoint: `Ok(Err)` if its row was refused, `Err` if the transaction is lost.
fn alone(
    applier: &mut Applier<'_>,
    effects: &mut Effects,
    apply: impl FnOnce(&mut Applier<'_>, &mut Effects) -> rusqlite::Result<()>,
) -> Result<Result<(), String>, Trouble> {
    let connection = applier.connection;
    connection.execute_batch("SAVEPOINT job")?;
    let mut own = Effects::default();
    match apply(applier, &mut own).map_err(Trouble::from) {
        Ok(()) => {
            connection.execute_batch("RELEASE job")?;
            effects.add(own);
            Ok(Ok(()))
        }
        Err(Trouble::Row(text)) => {
            connection.execute_batch("ROLLBACK TO job; RELEASE job")?;
            Ok(Err(text))
        }
        Err(trouble) => Err(trouble),
    }
}

/// Nothing of it is stored; its body file goes with it.
fn refuse(commit: Commit, error: StoreError) {
    let Commit { incoming, mut answer, permit, .. } = commit;
    drop((incoming, permit));
    answer.give(Err(error));
}

/// Room and permit are given back before the answer, so that the caller finds them free.
fn stored(commit: Commit, unstored: &[QueueId]) -> (Answer<bool>, bool) {
    let Commit { incoming, answer, permit, .. } = commit;
    let is_stored = !unstored.contains(&incoming.id);
    if is_stored {
        incoming.stored();
    }
    drop(permit);
    (answer, is_stored)
}

fn settled(settle: Settle) -> Answer<()> {
    let Settle { guard, new_messages, answer, permit, .. } = settle;
    new_messages.into_iter().for_each(Incoming::stored);
    guard.settle();
    drop(permit);
    answer
}

fn rerouted(reroute: Reroute) -> Answer<()> {
    let Reroute { guard, rerouting, answer, permit, .. } = reroute;
    if rerouting::keeps_its_row(&rerouting.parts) {
        guard.keep();
    } else {
        guard.settle();
    }
    drop(permit);
    answer
}

fn was_set_aside(quarantine: Quarantine) {
    let Quarantine { guard, detail } = quarantine;
    tracing::error!(delivery = guard.delivery(), detail, "a stored message is damaged and was quarantined");
    guard.settle();
}

impl Shared {
    /// The one place that commits: counts it, and fails on demand in tests.
    fn commit(&self, transaction: Transaction<'_>) -> Result<(), Trouble> {
        #[cfg(test)]
        self.faults.fail_commit_if_asked()?;
        transaction.commit()?;
        #[cfg(test)]
        self.faults.fail_sync_if_asked()?;
        self.transactions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
