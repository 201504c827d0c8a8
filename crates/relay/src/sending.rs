//! How a claimed delivery leaves by a lane: which mailbox sends it, as whom, and whether the routes as they are now still give
//! it to that lane. Pure; `delivery` acts on it.

use std::sync::Arc;

use mail::{HeaderBlock, LaneId, LaneSet};
use spool::{Claim, Origin, Place, Placed};

use crate::config::SenderPolicy;
use crate::routing::dress::{Dressed, Given, MayNotSendAs, dress};
use crate::routing::{AddressMap, Identity, IsUnknown, Route, Routing, Sender, Stored, Submitter, Word};

/// What is done with a claimed delivery.
pub(crate) enum Leave {
    /// It is sent so.
    As(Box<Dressed>),
    /// Its route refuses what none of its mailboxes may send as.
    Refused(MayNotSendAs),
    /// Other mailboxes carry it now, or none.
    Elsewhere(Vec<Placed>),
}

/// What `lane` does with `claim`, whose route becomes the one that decides now.
pub(crate) fn leave<B>(routing: &Routing, claim: &mut Claim<B>, lane: &LaneId, is_unknown: IsUnknown<'_>) -> Leave {
    let (leave, route) = decided(routing, claim, lane, is_unknown);
    claim.route = route.unwrap_or_else(|| std::mem::take(&mut claim.route));
    leave
}

/// With the route, where that is another than before.
pub(crate) fn decided<B>(
    routing: &Routing,
    claim: &Claim<B>,
    lane: &LaneId,
    is_unknown: IsUnknown<'_>,
) -> (Leave, Option<String>) {
    let header = HeaderBlock::parse(claim.header.to_vec());
    let sender = routing.sender_of_message(&claim.envelope.reverse_path, &header);
    let given = Given { reverse_path: &claim.envelope.reverse_path, header: &header };
    if claim.origin == Origin::Report
        && let Some(identity) = routing.reporter(lane)
    {
        return (dressed(&given, SenderPolicy::Auto, &identity, &AddressMap::default()), None);
    }
    let as_of = |route: &Route| {
        let of = |lane: &LaneId| Some(leave_by(routing, route, lane, &sender, &given)?.1);
        match of(lane)? {
            // What upstream may have stays where it is (invariant 5).
            Leave::Refused(refused) if claim.progress.uncertain == 0 => {
                let may = |other: &LaneId| other != lane && matches!(of(other), Some(Leave::As(_)));
                let other = claim.lanes.lanes().find(may);
                Some(other.map_or(Leave::Refused(refused), |other| Leave::Elsewhere(given_to(claim, route, &other))))
            }
            leave => Some(leave),
        }
    };
    if claim.route_epoch == routing.epoch
        && let Some(leave) = routing.named(&claim.route).and_then(|route| as_of(route))
    {
        return (leave, None);
    }
    let parts = routing.place(&stored(routing, claim, sender.clone()), Word::default(), is_unknown);
    if let [Placed { place: Place::Lanes { route, lanes, .. }, .. }] = parts.as_slice()
        && *lanes == claim.lanes
        && let Some(leave) = routing.named(route).and_then(|route| as_of(route))
    {
        return (leave, Some(route.clone()));
    }
    (Leave::Elsewhere(parts), None)
}

/// How `lane` sends a message of `sender` by `route`, and as which mailbox; none if the route does not give it to that lane.
pub(crate) fn leave_by(
    routing: &Routing,
    route: &Route,
    lane: &LaneId,
    sender: &Sender,
    given: &Given<'_>,
) -> Option<(Arc<Identity>, Leave)> {
    let identity = routing.identity(route, lane, sender)?;
    let leave = dressed(given, route.policy, &identity, &routing.senders);
    Some((identity, leave))
}

/// All of it by one of its mailboxes alone: the others of the route may not send it.
fn given_to<B>(claim: &Claim<B>, route: &Route, lane: &LaneId) -> Vec<Placed> {
    let place = Place::Lanes { tenant: claim.tenant.clone(), route: route.name.clone(), lanes: LaneSet::from(lane) };
    vec![Placed { recipients: (0..claim.recipients.len()).collect(), place }]
}

fn dressed(given: &Given<'_>, policy: SenderPolicy, identity: &Arc<Identity>, senders: &AddressMap) -> Leave {
    match dress(given, policy, identity, senders) {
        Ok(dressed) => Leave::As(Box::new(dressed)),
        Err(refused) => Leave::Refused(refused),
    }
}

/// A claimed delivery as routes are asked about it again.
pub(crate) fn stored<'a, B>(routing: &Routing, claim: &'a Claim<B>, sender: Sender) -> Stored<'a> {
    Stored {
        submitter: Submitter {
            listener: &claim.listener,
            client: claim.client.parse().ok(),
            user: claim.user.as_deref(),
            // What goes by the sender's own mailbox was found right at acceptance.
            is_held_to_senders: is_own(&claim.lanes, &sender)
                || routing.vouches(&claim.listener, claim.user.as_deref()),
            sender,
        },
        origin: claim.origin,
        recipients: &claim.recipients,
        redirected: claim.asked.as_ref(),
        tenant: &claim.tenant,
        lanes: &claim.lanes,
        route: &claim.route,
        is_uncertain: claim.progress.uncertain > 0,
    }
}

/// Whether the sender's own mailbox carries it.
fn is_own(lanes: &LaneSet, sender: &Sender) -> bool {
    sender.key().is_some_and(|key| lanes.is_single() && lanes.lanes().all(|lane| lane.login() == key.address()))
}
