//! What became of an attempt, as the spool writes it. The relay decides; the spool only obeys.

use clock::WallTime;
use mail::Outcome;

use crate::message::NewMessage;

/// Where some recipients of a delivery go next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// They are done: accepted, bounced or discarded. They leave the queue for the history.
    Finished,
    /// They stay in the queue until then.
    Due(WallTime),
    /// They wait, visible, for an operator or for trouble to end.
    Held,
    /// They were refused and wait, visible, for a bounce.
    Refused,
    /// Their stored message is damaged; set aside, kept.
    Quarantined,
}

/// Some recipients of a claimed delivery that met the same outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Their positions in [`crate::Claim::recipients`].
    pub recipients: Vec<usize>,
    /// What happened. `Deferred` and `Uncertain` count as an attempt, `Uncertain` also as an uncertainty.
    pub outcome: Outcome,
    /// What follows.
    pub next: Next,
}

/// The whole result of an attempt: every recipient of the claim in exactly one part.
#[derive(Debug)]
pub struct Settlement<Sink> {
    /// What became of whom. Parts that go different ways become deliveries of their own.
    pub parts: Vec<Part>,
    /// When it was known.
    pub at: WallTime,
    /// The mailbox, as history shows it.
    pub mailbox: String,
    /// Messages that this result gave rise to (bounces), stored in the same transaction.
    pub new_messages: Vec<(Sink, NewMessage)>,
}
