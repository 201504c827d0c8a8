//! What waits for the writer, under one lock, and who may add to it: the state of the store as callers see it. Bounded by
//! the permits that callers hold and by the number of claims. Not here: anything that touches the disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mail::LaneId;

use super::claims::ClaimGuard;
use super::job::{Batch, Chore, Commit, Mark, Quarantine, Record, Reroute, Settle};
use crate::error::StoreError;

/// Jobs of one kind in a transaction: enough to make a sync cheap, few enough to answer soon.
const BATCH_JOBS: usize = 1024;
/// Octets of one transaction: it stands in the log twice at most, and in memory once.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How long settlements, marks and records wait for others to share their sync with, unless a message that a client waits for takes
/// them along. Upstream's answer to the envelope alone usually takes longer, and nobody waits for a mark in any case.
const GATHER: Duration = Duration::from_millis(2);

/// The writer's queue.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<InboxState>,
    /// Wakes the writer.
    filled: Condvar,
    /// Wakes who waits for the writer to stand still.
    still: Condvar,
}

#[derive(Default)]
struct InboxState {
    settles: VecDeque<Settle>,
    marks: BTreeMap<i64, Mark>,
    reroutes: VecDeque<Reroute>,
    records: VecDeque<Record>,
    quarantines: Vec<Quarantine>,
    chores: VecDeque<Chore>,
    commits: VecDeque<Commit>,
    /// Claims whose settlement cannot be written; held until the store is reopened.
    abandoned: Vec<ClaimGuard>,
    /// When settlements and marks that came one by one have waited long enough; none when they shall wait no longer.
    gathering: Option<Instant>,
    health: Health,
    closing: bool,
    paused: bool,
    writing: bool,
}

/// Whether the store takes anything in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Health {
    #[default]
    Sound,
    /// Something failed; the writer has not seen it yet.
    Doubtful(String),
    /// The writer is reopening the store.
    Reopening(String),
    /// The writer has died.
    Dead,
}

/// What outlives a failed transaction.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) settles: Vec<Settle>,
    pub(super) marks: Vec<Mark>,
    pub(super) reroutes: Vec<Reroute>,
    pub(super) records: Vec<Record>,
    pub(super) quarantines: Vec<Quarantine>,
}

/// What the writer does next.
pub(super) enum Work {
    Write(Batch),
    Recover(String),
    Idle,
    Close,
}

impl Inbox {
    /// Whether anything is taken in now.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.state().check()
    }

    pub(super) fn push_commit(&self, mut commit: Commit) {
        let mut state = self.state();
        if let Err(error) = state.check() {
            drop(state);
            commit.answer.give(Err(error));
            return;
        }
        state.commits.push_back(commit);
        self.filled.notify_one();
    }

    /// A settlement is kept even while the store is reopened: it is written afterwards, though its caller was told of
    /// the failure, so that what upstream has accepted is not sent again.
    pub(super) fn push_settle(&self, mut settle: Settle) {
        let mut state = self.state();
        // Its own mark, if still unwritten, must not come after it.
        state.marks.remove(&settle.guard.delivery());
        if let Err(error) = state.check() {
            settle.answer.give(Err(error));
        }
        if state.closing || state.health == Health::Dead {
            // The mark in the database makes it uncertain at the next start.
            state.abandoned.push(settle.guard);
            return;
        }
        state.settles.push_back(settle);
        self.gather(state);
    }

    /// Kept like a settlement: of one that failed nobody knows whether the log has it.
    pub(super) fn push_reroute(&self, mut reroute: Reroute) {
        let mut state = self.state();
        if let Err(error) = state.check() {
            reroute.answer.give(Err(error));
        }
        if state.closing || state.health == Health::Dead {
            state.abandoned.push(reroute.guard);
            return;
        }
        state.reroutes.push_back(reroute);
        self.gather(state);
    }

    pub(super) fn push_mark(&self, mark: Mark) {
        let mut state = self.state();
        if !state.closing {
            state.marks.insert(mark.delivery, mark);
            self.gather(state);
        }
    }

    /// Kept like a settlement while the store is reopened; nothing is written behind the end.
    pub(super) fn push_record(&self, record: Record) {
        let mut state = self.state();
        if state.closing || state.health == Health::Dead {
            // What it says as it is dropped is said outside the lock.
            drop(state);
            drop(record);
            return;
        }
        state.records.push_back(record);
        self.gather(state);
    }

    /// The writer hears of the first; the others join it.
    fn gather(&self, mut state: MutexGuard<'_, InboxState>) {
        if state.marks.len() + state.settles.len() + state.reroutes.len() + state.records.len() == 1 {
            state.gathering = Some(Instant::now() + GATHER);
            self.filled.notify_one();
        }
    }

    pub(super) fn push_quarantine(&self, quarantine: Quarantine) {
        let mut state = self.state();
        state.quarantines.push(quarantine);
        self.filled.notify_one();
    }

    pub(super) fn push_chore(&self, mut chore: Chore) {
        let mut state = self.state();
        match state.check() {
            Ok(()) => state.chores.push_back(chore),
            Err(error) => chore.answer.give(Err(error)),
        }
        self.filled.notify_one();
    }

    /// Keeps a claim whose row cannot be written. If a lane was at it, upstream may have it, and its row is to say so: the
    /// mark may have left the queue together with the settlement.
    pub(super) fn abandon(&self, guard: ClaimGuard, lane: Option<&LaneId>) {
        if let Some(lane) = lane {
            guard.mark(lane);
        }
        let mut state = self.state();
        if guard.is_marked() && !state.closing {
            state.marks.insert(guard.delivery(), Mark::of(&guard));
        }
        state.abandoned.push(guard);
        self.filled.notify_one();
    }

    /// A sync failed elsewhere: nothing more is accepted until the store was reopened.
    pub(super) fn doubt(&self, reason: String) {
        let mut state = self.state();
        if state.health == Health::Sound {
            state.health = Health::Doubtful(reason);
        }
        self.filled.notify_one();
    }

    /// No new work; what waits is still written.
    pub(super) fn close(&self) {
        self.state().closing = true;
        self.filled.notify_all();
    }

    /// The writer is gone: whoever waits is told so.
    pub(super) fn die(&self) {
        let mut state = self.state();
        state.health = Health::Dead;
        state.writing = false;
        let mut waiting = state.take_all();
        state.abandoned.extend(waiting.settles.drain(..).map(|settle| settle.guard));
        state.abandoned.extend(waiting.reroutes.drain(..).map(|reroute| reroute.guard));
        self.still.notify_all();
        drop(state);
        // The other answers are dropped here, which their callers read as a failure.
        drop(waiting);
    }

    /// The writer's next step; waits for one, at most `patience` if that is some.
    pub(super) fn next(&self, patience: Option<Duration>) -> Work {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut state = self.state();
        state.writing = false;
        self.still.notify_all();
        loop {
            let gathering = state.gathering();
            if gathering.is_none()
                && let Some(work) = state.work()
            {
                state.writing = !matches!(work, Work::Close);
                return work;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) && !state.paused {
                state.writing = true;
                return Work::Idle;
            }
            let left = left.into_iter().chain(gathering).min();
            state = self.wait(state, left);
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, InboxState>, left: Option<Duration>) -> MutexGuard<'a, InboxState> {
        match left {
            Some(left) if !left.is_zero() => {
                self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            }
            _ => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Refuses all that is new, answers all that waits with the failure. Settlements, marks, reroutings and records stay, for
    /// later.
    pub(super) fn refuse(&self, reason: &str) {
        let mut state = self.state();
        state.health = Health::Reopening(reason.to_owned());
        let commits = std::mem::take(&mut state.commits);
        let chores = std::mem::take(&mut state.chores);
        for settle in &mut state.settles {
            settle.answer.give(Err(StoreError::Failed(reason.to_owned())));
        }
        for reroute in &mut state.reroutes {
            reroute.answer.give(Err(StoreError::Failed(reason.to_owned())));
        }
        drop(state);
        for mut commit in commits {
            commit.answer.give(Err(StoreError::Failed(reason.to_owned())));
        }
        for mut chore in chores {
            chore.answer.give(Err(StoreError::Failed(reason.to_owned())));
        }
    }

    /// Puts back what a failed transaction held, before what came since.
    pub(super) fn put_back(&self, kept: Kept) {
        let Kept { settles, marks, reroutes, records, quarantines } = kept;
        let mut state = self.state();
        let settled: BTreeSet<i64> = state.settles.iter().map(|settle| settle.guard.delivery()).collect();
        let unsettled = marks.into_iter().filter(|mark| !settled.contains(&mark.delivery));
        state.marks.extend(unsettled.map(|mark| (mark.delivery, mark)));
        state.quarantines.extend(quarantines);
        for settle in settles.into_iter().rev() {
            state.settles.push_front(settle);
        }
        for reroute in reroutes.into_iter().rev() {
            state.reroutes.push_front(reroute);
        }
        for mut record in records.into_iter().rev() {
            record.is_doubtful = true;
            state.records.push_front(record);
        }
    }

    /// All settlements, marks, reroutings, records and quarantines that wait.
    pub(super) fn take_kept(&self) -> Batch {
        self.state().take_all()
    }

    /// Sleeps while the store is closed for reopening; false if it is to stay closed.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state();
        state.writing = false;
        self.still.notify_all();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.closing {
                return false;
            }
            if left.is_zero() {
                state.writing = true;
                return true;
            }
            state = self.wait(state, Some(left));
        }
    }

    /// Takes work in again. The claims given back are dropped by the caller, outside the lock.
    pub(super) fn accept(&self) -> Vec<ClaimGuard> {
        let mut state = self.state();
        state.health = Health::Sound;
        std::mem::take(&mut state.abandoned)
    }

    /// Waits until the writer is between two transactions and keeps it there.
    pub(super) fn pause(&self) -> Pause<'_> {
        let mut state = self.state();
        state.paused = true;
        while state.writing {
            state = self.still.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Pause { inbox: self }
    }

    /// Messages that wait, for tests that need several in one transaction.
    #[cfg(test)]
    pub(super) fn waiting_commits(&self) -> usize {
        self.state().commits.len()
    }

    /// What went straight through and waits to be written down.
    #[cfg(test)]
    pub(super) fn waiting_records(&self) -> usize {
        self.state().records.len()
    }

    /// Its octets.
    #[cfg(test)]
    pub(super) fn weight_of_records(&self) -> usize {
        self.state().records.iter().map(Record::weight).sum()
    }

    fn state(&self) -> MutexGuard<'_, InboxState> {
        // Each change is one step: a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer stands still while this lives.
pub(super) struct Pause<'a> {
    inbox: &'a Inbox,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.inbox.state().paused = false;
        self.inbox.filled.notify_all();
    }
}

impl InboxState {
    fn check(&self) -> Result<(), StoreError> {
        match &self.health {
            Health::Dead => Err(StoreError::Failed("the writer has stopped".to_owned())),
            _ if self.closing => Err(StoreError::Closed),
            Health::Sound => Ok(()),
            Health::Doubtful(reason) | Health::Reopening(reason) => Err(StoreError::Failed(reason.clone())),
        }
    }

    /// For how long the writer waits for more before it writes what there is.
    fn gathering(&self) -> Option<Duration> {
        let hurry = self.paused
            || self.closing
            || self.health != Health::Sound
            || !(self.commits.is_empty() && self.chores.is_empty() && self.quarantines.is_empty());
        let until = self.gathering.filter(|_| !hurry)?;
        Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    fn work(&mut self) -> Option<Work> {
        if self.paused {
            return None;
        }
        if let Health::Doubtful(reason) = &self.health {
            return Some(Work::Recover(reason.clone()));
        }
        let batch = self.take_batch();
        match (batch.is_empty(), self.closing) {
            (false, _) => Some(Work::Write(batch)),
            (true, true) => Some(Work::Close),
            (true, false) => None,
        }
    }

    fn take_batch(&mut self) -> Batch {
        let settles = share(self.settles.iter().map(Settle::weight), BATCH_BYTES);
        let reroutes = share(self.reroutes.iter().map(Reroute::weight), BATCH_BYTES);
        let records = share(self.records.iter().map(Record::weight), BATCH_BYTES);
        let commits = share(self.commits.iter().map(|commit| commit.incoming.weight()), BATCH_BYTES);
        self.gathering = None;
        Batch {
            settles: self.settles.drain(..settles).collect(),
            marks: std::mem::take(&mut self.marks).into_values().collect(),
            reroutes: self.reroutes.drain(..reroutes).collect(),
            records: self.records.drain(..records).collect(),
            quarantines: std::mem::take(&mut self.quarantines),
            // One at a time: each may delete a thousand rows.
            chores: self.chores.pop_front().into_iter().collect(),
            commits: self.commits.drain(..commits).collect(),
        }
    }

    fn take_all(&mut self) -> Batch {
        Batch {
            settles: std::mem::take(&mut self.settles).into(),
            marks: std::mem::take(&mut self.marks).into_values().collect(),
            reroutes: std::mem::take(&mut self.reroutes).into(),
            records: std::mem::take(&mut self.records).into(),
            quarantines: std::mem::take(&mut self.quarantines),
            chores: std::mem::take(&mut self.chores).into(),
            commits: std::mem::take(&mut self.commits).into(),
        }
    }
}

/// How many of the jobs that wait fit into one transaction: at least one, if there is one.
fn share(weights: impl Iterator<Item = usize>, bytes: usize) -> usize {
    let mut sum = 0_usize;
    let fit = weights.take(BATCH_JOBS).enumerate().take_while(|(at, weight)| {
        sum = sum.saturating_add(*weight);
        *at == 0 || sum <= bytes
    });
    fit.count()
}

#[cfg(test)]
mod tests {
    use clock::WallTime;

    use super::super::job::{Answer, Task};
    use super::*;

    fn mark(delivery: i64) -> Mark {
        Mark { delivery, pin: None }
    }

    #[test]
    fn a_batch_is_bounded_in_number_and_octets_but_never_stuck() {
        for (weights, wanted) in [
            (vec![], 0),
            (vec![10], 1),
            (vec![1_000], 1),
            (vec![40, 60, 1], 2),
            (vec![40, 61], 1),
            (vec![0; 5_000], BATCH_JOBS),
        ] {
            assert_eq!(share(weights.iter().copied(), 100), wanted, "{weights:?}");
        }
    }

    #[test]
    fn marks_are_written_once_and_doubt_comes_first() {
        let inbox = Inbox::default();
        inbox.push_mark(mark(7));
        inbox.push_mark(mark(7));
        assert!(matches!(inbox.next(None), Work::Write(batch) if batch.marks == [mark(7)]));
        assert!(matches!(inbox.next(Some(Duration::ZERO)), Work::Idle));
        inbox.push_mark(mark(8));
        inbox.doubt("a sync failed".to_owned());
        assert_eq!(inbox.check(), Err(StoreError::Failed("a sync failed".to_owned())));
        assert!(matches!(inbox.next(None), Work::Recover(reason) if reason == "a sync failed"));
        inbox.refuse("a sync failed");
        assert!(inbox.check().is_err());
        inbox.accept();
        assert_eq!(inbox.check(), Ok(()));
        assert!(matches!(inbox.next(None), Work::Write(batch) if batch.marks == [mark(8)]));
        inbox.close();
        assert_eq!(inbox.check(), Err(StoreError::Closed));
        assert!(matches!(inbox.next(None), Work::Close));
    }

    #[test]
    fn marks_gather_until_something_comes_that_is_waited_for() {
        let inbox = Inbox::default();
        inbox.push_mark(mark(1));
        let until = inbox.state().gathering;
        assert!(until.is_some());
        inbox.push_mark(mark(2));
        assert_eq!(inbox.state().gathering, until, "the first one's wait is everyone's");
        let (answer, _answered) = Answer::new();
        inbox.push_chore(Chore {
            task: Task::Prune { history: WallTime::default(), usage: WallTime::default() },
            answer,
        });
        assert_eq!(inbox.state().gathering(), None);
        assert!(
            matches!(inbox.next(None), Work::Write(batch) if batch.marks == [mark(1), mark(2)] && batch.chores.len() == 1)
        );
    }

    #[test]
    fn a_paused_writer_takes_nothing() {
        let inbox = Inbox::default();
        let pause = inbox.pause();
        inbox.push_mark(mark(1));
        assert!(inbox.state().work().is_none());
        drop(pause);
        assert!(matches!(inbox.next(None), Work::Write(_)));
    }
}
