//! What the routes, asked again, or an operator say of a claimed delivery, as the spool writes it. The relay decides; the
//! spool only obeys.

use clock::WallTime;
use mail::LaneSet;

/// A new place for each recipient of a claimed delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rerouting {
    /// Which reading of the routes gave it.
    pub epoch: u64,
    /// Who goes where: every recipient of the claim in exactly one part. Parts that go different ways become deliveries of
    /// their own.
    pub parts: Vec<Placed>,
    /// An operator's word, written to history as event `rerouted` for each recipient that does not stay.
    pub said: Option<String>,
    /// When it was decided.
    pub at: WallTime,
}

/// Some recipients of a claimed delivery that go to the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Their positions in [`crate::Claim::recipients`].
    pub recipients: Vec<usize>,
    /// Where they go.
    pub place: Place,
}

/// Where some recipients of a delivery stand from now on. What they have behind them they keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where they stood: in the same state, for the same lanes, due as they were.
    Stays,
    /// Queued for these lanes: due as they were, or at once if they were not queued.
    Lanes {
        /// The configuration's name of the tenant.
        tenant: String,
        /// The route's name, empty if none chose the lanes.
        route: String,
        /// The lanes that may carry it.
        lanes: LaneSet,
    },
    /// No route takes them: they wait for one, visible.
    Unrouted {
        /// Why, for whoever looks at the list.
        reason: String,
    },
}
