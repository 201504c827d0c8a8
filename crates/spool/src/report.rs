//! Failures that are told together: gathered with the settlements that made them, told by one message for each address.
//! Not here: the text of that message, nor when it is sent.

use clock::WallTime;
use mail::LaneSet;

use crate::id::QueueId;

/// A failure for a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReport {
    /// The tenant of the delivery that failed.
    pub tenant: String,
    /// The lanes that may carry the digest.
    pub lanes: LaneSet,
    /// The address that is told.
    pub to: String,
    /// When it failed.
    pub at: WallTime,
    /// The message that failed; it may be gone by now.
    pub message: QueueId,
    /// Its Message-ID with brackets.
    pub message_id: String,
    /// Its reverse-path.
    pub sender: String,
    /// The recipients that will not have it.
    pub recipients: String,
    /// Upstream's reply, or our own words.
    pub reply: String,
}

/// The failures that wait for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportGroup {
    /// The tenant.
    pub tenant: String,
    /// The address.
    pub to: String,
    /// How many wait.
    pub count: u64,
    /// When the first of them happened.
    pub oldest: WallTime,
}
