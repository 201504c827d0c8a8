//! What became of an attempt, as the spool writes it. The relay decides; the spool only obeys.

use clock::WallTime;
use mail::{LaneId, Outcome};

use crate::message::NewMessage;
use crate::progress::Progress;
use crate::report::NewReport;
use crate::usage::Usage;

/// Where some recipients of a delivery go next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// They are done: accepted, bounced or discarded. They leave the queue for the history, which says `expired` of
    /// those that are given up though their outcome was to wait (deferred, held, paced or uncertain).
    Finished,
    /// They stay in the queue until then.
    Due(WallTime),
    /// They wait, visible, for an operator or for trouble to end.
    Held,
    /// Their stored message is damaged; set aside, kept.
    Quarantined,
}

/// Some recipients of a claimed delivery that met the same outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Their positions in [`crate::Claim::recipients`].
    pub recipients: Vec<usize>,
    /// What happened.
    pub outcome: Outcome,
    /// What follows.
    pub next: Next,
    /// What those who stay in the queue have behind them now.
    pub progress: Progress,
}

/// The whole result of an attempt: every recipient of the claim in exactly one part.
#[derive(Debug)]
pub struct Settlement<Sink> {
    /// What became of whom. Parts that go different ways become deliveries of their own.
    pub parts: Vec<Part>,
    /// When it was known.
    pub at: WallTime,
    /// Who carried it, or tried to. Those of whom upstream may have a copy go by no other any more (invariant 5).
    pub lane: LaneId,
    /// The mailbox, as history shows it.
    pub mailbox: String,
    /// What the lane used upstream; added to its minute in the same transaction.
    pub usage: Usage,
    /// Messages that this result gave rise to (bounces), stored in the same transaction.
    pub new_messages: Vec<(Sink, NewMessage)>,
    /// Failures to be told later, together with others; stored in the same transaction.
    pub reports: Vec<NewReport>,
}
