//! By which lanes a message of a direct listener may go, and as whom: decided from its envelope, since its header has not come.
//! Pure; `carriage` acts on it, and `explain` asks it for an administrator.

use std::sync::Arc;

use mail::{Field, HeaderBlock, LaneId, ReversePath};

use crate::config::SenderPolicy;
use crate::routing::dress::{Given, MayNotSendAs, dress};
use crate::routing::{Identity, Routing, Sender, Taken};

/// By which lane a message goes, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    /// The lane.
    pub(crate) lane: LaneId,
    /// Who sends.
    pub(crate) identity: Arc<Identity>,
    /// What becomes of senders that it may not send as.
    pub(crate) policy: SenderPolicy,
    /// The envelope's sender as it goes up.
    pub(crate) reverse_path: ReversePath,
}

impl Sending {
    /// Whether a recipient of this `way` goes by the same lane, as the same sender.
    pub(crate) fn takes_along(&self, routing: &Routing, sender: &Sender, way: &Taken) -> bool {
        let identity = routing.identity(&way.route, &self.lane, sender);
        way.carriers.lanes.contains(&self.lane)
            && way.route.policy == self.policy
            && identity.is_some_and(|identity| identity.name == self.identity.name)
    }
}

/// All that a message from `given` may go by that is sent this `way`; at least one, or why there is none.
pub(crate) fn sendings(
    routing: &Routing,
    given: &ReversePath,
    sender: &Sender,
    way: &Taken,
) -> Result<Vec<Sending>, MayNotSendAs> {
    let (mut sendings, mut refused) = (Vec::new(), None);
    let policy = way.route.policy;
    for lane in way.carriers.lanes.lanes() {
        let Some(identity) = routing.identity(&way.route, &lane, sender) else { continue };
        match envelope_sender(routing, given, policy, &identity) {
            Ok(reverse_path) => sendings.push(Sending { lane, identity, policy, reverse_path }),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(refused) if sendings.is_empty() => Err(refused),
        _ => Ok(sendings),
    }
}

/// The envelope's sender as the mailbox sends it: judged by itself, as if From said the same.
fn envelope_sender(
    routing: &Routing,
    given: &ReversePath,
    policy: SenderPolicy,
    identity: &Identity,
) -> Result<ReversePath, MayNotSendAs> {
    let from = given.mailbox().unwrap_or(&identity.from).to_string();
    let mut header = HeaderBlock::default();
    if let Ok(field) = Field::new("From", &from) {
        header.append(&field);
    }
    let given = Given { reverse_path: given, header: &header };
    dress(&given, policy, identity, &routing.senders).map(|dressed| dressed.reverse_path)
}
