//! The recipients of a message as its deliveries: those that go the same way stay together, each once.

use std::collections::HashSet;
use std::sync::Arc;

use mail::{LaneId, Mailbox, Recipient};
use spool::NewDelivery;

use super::Addressed;
use super::completion::readdressed;
use crate::routing::{Chosen, Taken};

/// A message's deliveries.
pub(crate) struct Deliveries {
    /// At least one, if any recipient has a way.
    pub(crate) deliveries: Vec<NewDelivery>,
    /// Lanes of senders' own mailboxes, which nobody may serve yet.
    pub(crate) wanted: Vec<LaneId>,
}

impl Deliveries {
    /// Those of `recipients`, by the reading of the routes called `epoch`.
    pub(crate) fn of(recipients: Vec<Addressed>, epoch: u64) -> Self {
        let mut parts: Vec<(Taken, Vec<Recipient>)> = Vec::new();
        let mut seen = HashSet::new();
        for Addressed { given, way } in recipients {
            // All are known once the header is.
            let Some(way) = way else { continue };
            let recipient = readdressed(given, way.recipient.clone());
            let at = parts.iter().position(|(other, _)| is_same_way(other, &way)).unwrap_or(parts.len());
            // Maps and redirection make one of several.
            if !seen.insert((at, same(&recipient))) {
                continue;
            }
            match parts.get_mut(at) {
                Some((_, others)) => others.push(recipient),
                None => parts.push((way, vec![recipient])),
            }
        }
        let is_own = |way: &Taken| matches!(way.chosen, Chosen::Wildcard(_));
        let wanted = parts.iter().filter(|(way, _)| is_own(way)).flat_map(|(way, _)| way.carriers.lanes.lanes());
        Self {
            wanted: wanted.collect(),
            deliveries: parts
                .into_iter()
                .map(|(way, recipients)| NewDelivery {
                    tenant: way.carriers.tenant.to_string(),
                    lanes: way.carriers.lanes.clone(),
                    route: way.route.name.clone(),
                    route_epoch: epoch,
                    asked: way.redirected,
                    recipients,
                })
                .collect(),
        }
    }
}

/// Whether two recipients are the same: maps and redirection make one of several.
pub(crate) fn is_same_recipient(one: &Recipient, other: &Recipient) -> bool {
    same(one) == same(other)
}

/// What two recipients that are the same have in common: the domain's capitals do not count.
fn same(recipient: &Recipient) -> String {
    let in_lower_case =
        |mailbox: &Mailbox| format!("{}@{}", mailbox.local_part(), mailbox.domain().as_str().to_ascii_lowercase());
    recipient.path.mailbox().map_or_else(String::new, in_lower_case)
}

fn is_same_way(one: &Taken, other: &Taken) -> bool {
    Arc::ptr_eq(&one.route, &other.route) && one.carriers.lanes == other.carriers.lanes
}
