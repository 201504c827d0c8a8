//! What is handed to the spool for one accepted message.

use clock::WallTime;
use mail::{Envelope, LaneSet, Mailbox, Recipient};

/// Whose message it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A client submitted it.
    #[default]
    Submitted,
    /// A report of our own.
    Report,
}

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
    /// The client's address, as logged. Clients take turns in a queue by it.
    pub client: String,
    /// Who had logged in, if anybody had.
    pub user: Option<String>,
    /// Whose it is.
    pub origin: Origin,
    /// When it was accepted.
    pub accepted_at: WallTime,
    /// Who gets it by which lanes; at least one, each with at least one recipient.
    pub deliveries: Vec<NewDelivery>,
}

/// One part of a message's recipients and the lanes they were given at acceptance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// The configuration's name of the tenant; only an operator's word changes it afterwards (invariant 7).
    pub tenant: String,
    /// The lanes that may carry it.
    pub lanes: LaneSet,
    /// The route's name, empty if none chose the lanes.
    pub route: String,
    /// Which reading of the routes gave these lanes; a later one may give others.
    pub route_epoch: u64,
    /// Whom the client asked for where the recipient is another, as a route redirects it: the routes are asked about this
    /// one again.
    pub asked: Option<Mailbox>,
    /// The recipients.
    pub recipients: Vec<Recipient>,
}

impl NewMessage {
    /// Whether it has a delivery, and each delivery a recipient.
    pub(crate) fn is_addressed(&self) -> bool {
        !self.deliveries.is_empty() && self.deliveries.iter().all(|delivery| !delivery.recipients.is_empty())
    }
}
