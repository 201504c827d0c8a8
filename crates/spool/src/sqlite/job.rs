//! What callers ask of the writer, each with the place where its answer goes. Not here: how it is written.

use clock::WallTime;
use mail::{LaneId, Outcome, Recipient};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::body::{BodyFile, Finished, Stored};
use super::claims::{Arrival, ClaimGuard};
use super::space::{Memory, Reservation};
use crate::error::StoreError;
use crate::id::QueueId;
use crate::message::NewMessage;
use crate::passage::Passage;
use crate::report::NewReport;
use crate::rerouting::Rerouting;
use crate::settlement::Part;
use crate::usage::Usage;

/// Where an answer goes. Taken when it was given; a caller that went away is no trouble.
pub(super) struct Answer<T>(Option<oneshot::Sender<Result<T, StoreError>>>);

impl<T> Answer<T> {
    pub(super) fn new() -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }

    /// Gives the answer; only the first one counts.
    pub(super) fn give(&mut self, result: Result<T, StoreError>) {
        if let Some(sender) = self.0.take() {
            // The caller may have been dropped; what was written stays written.
            let _ = sender.send(result);
        }
    }
}

/// A message ready for its row.
pub(super) struct Incoming {
    pub(super) id: QueueId,
    pub(super) message: NewMessage,
    /// None once it is in its row for good.
    pub(super) body: Stored,
    pub(super) body_len: u64,
    _memory: Memory,
    _reservation: Reservation,
}

impl Incoming {
    pub(super) fn new(body: Finished, message: NewMessage) -> Self {
        let Finished { id, body, len, reservation, memory } = body;
        Self { id, message, body, body_len: len, _memory: memory, _reservation: reservation }
    }

    /// Octets of header and body.
    pub(super) fn size(&self) -> u64 {
        self.body_len + self.message.header.len() as u64
    }

    /// Octets that it holds in memory and adds to a transaction, with something for its envelope.
    pub(super) fn weight(&self) -> usize {
        let body = match &self.body {
            Stored::Inline(body) => body.len(),
            Stored::Filed(_) => 0,
        };
        let recipients: usize = self.message.deliveries.iter().map(|delivery| delivery.recipients.len()).sum();
        1024 + body + self.message.header.len() + 64 * recipients
    }

    /// Its rows are durable: a body file now belongs to them.
    pub(super) fn stored(self) {
        match self.body {
            Stored::Filed(file) => BodyFile::keep(file),
            Stored::Inline(_) => {}
        }
    }
}

/// Store a message. The answer says whether it is stored: a digest may be told otherwise.
pub(super) struct Commit {
    pub(super) incoming: Incoming,
    /// The failures that it tells of, if it is a digest: stored only if it can forget all of them.
    pub(super) digest: Option<Vec<i64>>,
    pub(super) answer: Answer<bool>,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Write what became of a claim.
pub(super) struct Settle {
    pub(super) guard: ClaimGuard,
    pub(super) message: QueueId,
    pub(super) tenant: String,
    /// Who carried it.
    pub(super) lane: LaneId,
    pub(super) sender: String,
    pub(super) message_id: String,
    pub(super) recipients: Vec<Recipient>,
    pub(super) parts: Vec<Part>,
    pub(super) at: WallTime,
    pub(super) mailbox: String,
    pub(super) usage: Usage,
    pub(super) reports: Vec<NewReport>,
    pub(super) new_messages: Vec<Incoming>,
    pub(super) answer: Answer<()>,
    pub(super) permit: OwnedSemaphorePermit,
}

impl Settle {
    pub(super) fn weight(&self) -> usize {
        1024 + 256 * self.recipients.len()
            + 512 * self.reports.len()
            + self.new_messages.iter().map(Incoming::weight).sum::<usize>()
    }
}

/// Give the recipients of a claim new places.
pub(super) struct Reroute {
    pub(super) guard: ClaimGuard,
    pub(super) message: QueueId,
    pub(super) tenant: String,
    pub(super) route: String,
    pub(super) sender: String,
    pub(super) message_id: String,
    pub(super) recipients: Vec<Recipient>,
    /// How often upstream may have it, what was cut in this boot included.
    pub(super) uncertain: u32,
    pub(super) rerouting: Rerouting,
    pub(super) answer: Answer<()>,
    pub(super) permit: OwnedSemaphorePermit,
}

impl Reroute {
    pub(super) fn weight(&self) -> usize {
        Self::weight_of(&self.recipients)
    }

    /// What a delivery for so many weighs.
    pub(super) fn weight_of(recipients: &[Recipient]) -> usize {
        1024 + 256 * recipients.len()
    }
}

/// The transfer of a delivery begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) delivery: i64,
    /// Where its row belongs now, if not where it stands.
    pub(super) pin: Option<Arrival>,
}

impl Mark {
    pub(super) fn of(guard: &ClaimGuard) -> Self {
        Self { delivery: guard.delivery(), pin: guard.pin() }
    }
}

/// Write down what became of a message that went straight through. Nobody waits for it: dropped unwritten, the log says so.
pub(super) struct Record {
    passage: Passage,
    /// Whether a transaction that held it failed, of which nobody knows whether the log has it.
    pub(super) is_doubtful: bool,
    is_written: bool,
    _permit: OwnedSemaphorePermit,
}

impl Record {
    /// Octets of a passage, for the bound of what waits and of a transaction.
    pub(super) fn weight_of(passage: &Passage) -> usize {
        let reply = |(_, outcome): &(Recipient, Outcome)| 256 + outcome.diagnostic().text.len();
        1024 + passage.message_id.len() + passage.outcomes.iter().map(reply).sum::<usize>()
    }

    pub(super) fn new(passage: Passage, permit: OwnedSemaphorePermit) -> Self {
        Self { passage, is_doubtful: false, is_written: false, _permit: permit }
    }

    pub(super) fn passage(&self) -> &Passage {
        &self.passage
    }

    pub(super) fn weight(&self) -> usize {
        Self::weight_of(&self.passage)
    }

    /// It is durable.
    pub(super) fn written(mut self) {
        self.is_written = true;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.is_written {
            not_recorded(&self.passage);
        }
    }
}

/// Tells of a passage that history and the lane's usage will never know.
pub(super) fn not_recorded(passage: &Passage) {
    tracing::error!(
        id = %passage.id,
        lane = %passage.lane,
        "what became of this message, which went straight through, could not be recorded"
    );
}

/// Set a delivery aside that does not decode.
pub(super) struct Quarantine {
    pub(super) guard: ClaimGuard,
    pub(super) detail: String,
}

/// Something that is done to many rows at once, now and then; the answer is how many.
pub(super) struct Chore {
    pub(super) task: Task,
    pub(super) answer: Answer<u64>,
}

/// What a chore does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    /// Forgets history and usage older than these.
    Prune { history: WallTime, usage: WallTime },
    /// Makes due now what would be due after `latest`.
    BringForward { latest: WallTime, now: WallTime },
}

/// What one transaction writes, in this order.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) settles: Vec<Settle>,
    pub(super) marks: Vec<Mark>,
    pub(super) reroutes: Vec<Reroute>,
    pub(super) records: Vec<Record>,
    pub(super) quarantines: Vec<Quarantine>,
    pub(super) chores: Vec<Chore>,
    pub(super) commits: Vec<Commit>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.settles.is_empty()
            && self.marks.is_empty()
            && self.reroutes.is_empty()
            && self.records.is_empty()
            && self.quarantines.is_empty()
            && self.chores.is_empty()
            && self.commits.is_empty()
    }
}
