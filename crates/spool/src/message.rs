//! What is handed to the spool for one accepted message.

use clock::WallTime;
use mail::{Envelope, LaneId, Recipient};

/// A message as accepted, beside its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Reverse-path and what the transfer needs.
    pub envelope: Envelope,
    /// The header block as stored: Received, Date and Message-ID made, without the empty line.
    pub header: Vec<u8>,
    /// The Message-ID with its brackets: Exchange's trace key.
    pub message_id: String,
    /// The listener's name.
    pub listener: String,
    /// The client's address, as logged.
    pub client: String,
    /// When it was accepted.
    pub accepted_at: WallTime,
    /// Who gets it by which lane; at least one, each with at least one recipient.
    pub deliveries: Vec<NewDelivery>,
}

/// One part of a message's recipients and the lane they were given at acceptance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// The configuration's name of the tenant; it does not change afterwards (invariant 7).
    pub tenant: String,
    /// The lane.
    pub lane: LaneId,
    /// Which reading of the routes gave this lane; a later one may give another.
    pub route_epoch: u64,
    /// The recipients.
    pub recipients: Vec<Recipient>,
}

impl NewMessage {
    /// Whether it has a delivery, and each delivery a recipient.
    pub(crate) fn is_addressed(&self) -> bool {
        !self.deliveries.is_empty() && self.deliveries.iter().all(|delivery| !delivery.recipients.is_empty())
    }
}
