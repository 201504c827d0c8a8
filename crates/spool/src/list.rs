//! The queue as a list to look at: what each delivery is and where it stands, without header and body.

use clock::WallTime;
use mail::{LaneSet, Mailbox, Recipient};

use crate::id::{DeliveryId, QueueId};
use crate::message::Origin;
use crate::progress::Progress;

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Waits for its turn or its next attempt.
    Queued,
    /// Waits for an operator or for trouble to end.
    Held,
    /// Its stored message is damaged.
    Quarantined,
    /// No route takes it: waits for one.
    Unrouted,
}

/// Which deliveries are listed; each that is none excludes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only those that exactly these lanes may carry.
    pub lanes: Option<LaneSet>,
    /// Only those that stand so.
    pub state: Option<DeliveryState>,
}

/// Some of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their ids. May be fewer than asked for, even none, though more follow.
    pub deliveries: Vec<Listed>,
    /// Where the next page goes on; none at the end.
    pub next: Option<DeliveryId>,
}

/// One delivery of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The message it belongs to.
    pub message: QueueId,
    /// The lanes that may carry it.
    pub lanes: LaneSet,
    /// The tenant's name in the configuration.
    pub tenant: String,
    /// The route's name, empty if none chose it.
    pub route: String,
    /// Which reading of the routes gave these lanes.
    pub route_epoch: u64,
    /// Whom the client asked for where the recipient is another.
    pub asked: Option<Mailbox>,
    /// Where it stands.
    pub state: DeliveryState,
    /// When it is due, if it is queued; else since when it stands so.
    pub due: WallTime,
    /// What it has behind it.
    pub progress: Progress,
    /// What the last attempt met, or why no route takes it.
    pub diagnostic: Option<String>,
    /// Those who have not had it yet; none if they do not read.
    pub recipients: Vec<Recipient>,
    /// The reverse-path, empty for `<>`.
    pub sender: String,
    /// Octets of header and body.
    pub size: u64,
    /// The listener's name.
    pub listener: String,
    /// The client's address, as logged.
    pub client: String,
    /// Who had logged in, if anybody had.
    pub user: Option<String>,
    /// When it was accepted.
    pub accepted_at: WallTime,
    /// The Message-ID with its brackets.
    pub message_id: String,
    /// Whose message it is.
    pub origin: Origin,
}
