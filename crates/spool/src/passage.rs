//! A message that went straight through to upstream while its client waited: what history and the lane's limits keep of it.
//! It was never stored, and nothing waits for it.

use clock::WallTime;
use mail::{LaneId, Outcome, Recipient, ReversePath};

use crate::id::QueueId;
use crate::usage::Usage;

/// What is written down of it.
#[derive(Debug)]
pub struct Passage {
    /// Its id, by [`crate::Spool::passing_id`].
    pub id: QueueId,
    /// When it was known.
    pub at: WallTime,
    /// Who carried it.
    pub lane: LaneId,
    /// Name of its tenant.
    pub tenant: String,
    /// The mailbox, as history shows it.
    pub mailbox: String,
    /// The envelope's sender, as the client said it.
    pub sender: ReversePath,
    /// The client's address.
    pub client: String,
    /// Its Message-ID, as history shows it; empty if its header never came.
    pub message_id: String,
    /// What became of whom; at least one.
    pub outcomes: Vec<(Recipient, Outcome)>,
    /// What the lane used upstream; added to its minute in the same transaction.
    pub usage: Usage,
}
