//! Deliveries that are claimed for another reason than that they are due: to ask the routes about them again, or because
//! an operator named them. Not here: what is then done with them.

use crate::claim::Claim;
use crate::id::{DeliveryId, QueueId};

/// Which deliveries are looked for. Those that are set aside as damaged never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Queued or without a route, as another reading of the routes than this one left them.
    OtherEpoch(u64),
    /// Those that no route takes.
    Unrouted,
    /// Those of this message: queued, held or without a route.
    Message(QueueId),
}

/// What a look for the next of a selection gave. A look is short: it may end before it has found one.
#[derive(Debug)]
pub struct Selected<Source> {
    /// The next one, if it was met.
    pub claim: Option<Claim<Source>>,
    /// Where the next look goes on, whether or not one was met; none at the end.
    pub next: Option<DeliveryId>,
    /// How many of the selection somebody held when they were looked at: another round may meet them.
    pub passed_over: u32,
}
