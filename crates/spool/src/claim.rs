//! A delivery in the hands of one worker.

use std::fmt;
use std::sync::Arc;

use clock::WallTime;
use mail::{Envelope, LaneSet, Mailbox, Recipient};

use crate::id::{DeliveryId, QueueId};
use crate::message::Origin;
use crate::progress::Progress;
use crate::sqlite::ClaimGuard;

/// A claimed delivery with all that its transfer needs. Dropped unsettled, the delivery is due again at once.
pub struct Claim<Source> {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The message it belongs to.
    pub message: QueueId,
    /// The lanes that may carry it: one alone if upstream may have it from that one.
    pub lanes: LaneSet,
    /// The tenant's name in the configuration.
    pub tenant: String,
    /// The route's name, empty if none chose the lanes.
    pub route: String,
    /// Which reading of the routes gave these lanes.
    pub route_epoch: u64,
    /// Whom the client asked for where the recipient is another.
    pub asked: Option<Mailbox>,
    /// Whose message it is.
    pub origin: Origin,
    /// The listener's name.
    pub listener: String,
    /// The client's address, as logged.
    pub client: String,
    /// Who had logged in, if anybody had.
    pub user: Option<String>,
    /// Reverse-path and what the transfer needs.
    pub envelope: Envelope,
    /// Those who have not had it yet.
    pub recipients: Vec<Recipient>,
    /// The stored header block, without the empty line.
    pub header: Arc<[u8]>,
    /// The stored body.
    pub body: Source,
    /// The Message-ID with its brackets.
    pub message_id: String,
    /// When it was accepted.
    pub accepted_at: WallTime,
    /// What it has behind it, transfers cut in this boot included.
    pub progress: Progress,
    /// What keeps the claim; apart from the rest so that the body can be read while the claim is marked.
    pub guard: ClaimGuard,
}

/// Without header and body: what a log line may say (invariant 8).
impl<Source> fmt::Debug for Claim<Source> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("delivery", &self.delivery)
            .field("message", &self.message)
            .field("lanes", &self.lanes)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}
