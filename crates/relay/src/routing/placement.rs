//! What a later reading of the routes does with mail in the queue: it goes by the mailboxes that the routes name now, within
//! the tenant that was decided at acceptance, or is held (invariant 7). Pure.

use std::sync::Arc;

use mail::{ForwardPath, LaneSet, Mailbox, Recipient};
use spool::{Origin, Place, Placed};

use super::submitter::{Asked, Submitter};
use super::{Decision, IsUnknown, Routing};

/// A delivery as routes are asked about it again.
pub(crate) struct Stored<'a> {
    /// Who submitted it.
    pub(crate) submitter: Submitter<'a>,
    /// Whose message it is.
    pub(crate) origin: Origin,
    /// Those who have not had it, as they were at acceptance.
    pub(crate) recipients: &'a [Recipient],
    /// Whom the routes were asked for, if the route redirected it.
    pub(crate) redirected: Option<&'a Mailbox>,
    /// The tenant that was decided.
    pub(crate) tenant: &'a str,
    /// The lanes that may carry it now.
    pub(crate) lanes: &'a LaneSet,
    /// The route that gave it these.
    pub(crate) route: &'a str,
    /// Whether upstream may have it.
    pub(crate) is_uncertain: bool,
}

/// An operator's word for mail that would stay or be held otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Word<'a> {
    /// It may move to this tenant.
    pub(crate) tenant: Option<&'a str>,
}

impl Routing {
    /// Where the recipients of `stored` go from now on; each is in exactly one part.
    pub(crate) fn place(&self, stored: &Stored<'_>, word: Word<'_>, is_unknown: IsUnknown<'_>) -> Vec<Placed> {
        if stored.origin == Origin::Report {
            let everybody = (0..stored.recipients.len()).collect();
            return vec![Placed { recipients: everybody, place: self.place_report(stored) }];
        }
        let mut parts: Vec<Placed> = Vec::new();
        for (at, recipient) in stored.recipients.iter().enumerate() {
            let place = self.place_one(stored, recipient, word, is_unknown);
            match parts.iter_mut().find(|part| part.place == place) {
                Some(part) => part.recipients.push(at),
                None => parts.push(Placed { recipients: vec![at], place }),
            }
        }
        parts
    }

    fn place_one(
        &self,
        stored: &Stored<'_>,
        recipient: &Recipient,
        word: Word<'_>,
        is_unknown: IsUnknown<'_>,
    ) -> Place {
        let asked = match (stored.redirected, &recipient.path) {
            (Some(asked), _) => Asked::mailbox(asked.clone()),
            (None, ForwardPath::Mailbox(mailbox)) => Asked::mailbox(mailbox.clone()),
            (None, ForwardPath::Postmaster) => Asked::Postmaster,
        };
        let unrouted = |reason: String| Place::Unrouted { reason };
        let route = match (word.tenant, self.decide(&stored.submitter, &asked)) {
            (Some(tenant), _) => match self.decide_within(&stored.submitter, &asked, tenant, is_unknown) {
                Some(route) => route,
                // The word was wrong, and the mail is not.
                None => return Place::Stays,
            },
            (None, Decision::Route(route)) => route,
            (None, Decision::Depends | Decision::None) => {
                return unrouted(format!(
                    "no route takes it any more; route {:?} did when it was accepted",
                    stored.route
                ));
            }
        };
        let (carriers, _) = match self.carriers(route, &stored.submitter, is_unknown) {
            Ok(found) => found,
            Err(refused) => return unrouted(refused.to_string()),
        };
        let tenant = &*carriers.tenant;
        if word.tenant.is_none() && !is_same_tenant(stored, tenant, &carriers.lanes) {
            return unrouted(format!(
                "it was accepted for tenant {} and route {:?} gives it to tenant {tenant} now; to move it there: xoauth2-relay \
                 queue reroute ID --tenant {tenant}",
                stored.tenant, route.name
            ));
        }
        if stored.is_uncertain {
            // Never by another mailbox (invariant 5).
            if !stored.lanes.lanes().all(|lane| carriers.lanes.contains(&lane)) {
                return unrouted(format!(
                    "upstream may have it from {}, and route {:?} gives it to {} now",
                    stored.lanes, route.name, carriers.lanes
                ));
            }
            return Place::Lanes { tenant: tenant.to_owned(), route: route.name.clone(), lanes: stored.lanes.clone() };
        }
        Place::Lanes { tenant: tenant.to_owned(), route: route.name.clone(), lanes: carriers.lanes.clone() }
    }

    /// The first route that takes it and whose mailboxes are of `tenant`.
    fn decide_within(
        &self,
        submitter: &Submitter<'_>,
        asked: &Asked,
        tenant: &str,
        is_unknown: IsUnknown<'_>,
    ) -> Option<&Arc<super::Route>> {
        let mut matching = self.routes.iter().filter(|route| route.misses(submitter, Some(asked)).next().is_none());
        matching.find(|route| {
            self.carriers(route, submitter, is_unknown).is_ok_and(|(carriers, _)| &*carriers.tenant == tenant)
        })
    }

    /// A report is sent by the mailbox whose mail it speaks of, or by another of the tenant.
    fn place_report(&self, stored: &Stored<'_>) -> Place {
        if stored.lanes.lanes().any(|lane| self.by_lane.contains_key(&lane) || self.wildcard_of(&lane).is_some()) {
            return Place::Stays;
        }
        let mut of_tenant: Vec<_> =
            self.by_lane.iter().filter(|(_, carriers)| &*carriers.tenant == stored.tenant).collect();
        // The same one however often it is asked.
        of_tenant.sort_by_key(|(lane, _)| *lane);
        match of_tenant.first() {
            _ if stored.is_uncertain => Place::Unrouted {
                reason: format!("upstream may have it from {}, which is no mailbox any more", stored.lanes),
            },
            Some((lane, carriers)) => Place::Lanes {
                tenant: carriers.tenant.to_string(),
                route: stored.route.to_owned(),
                lanes: LaneSet::from(*lane),
            },
            None => Place::Unrouted { reason: format!("no mailbox of tenant {} is left to send it", stored.tenant) },
        }
    }
}

/// By the Entra tenant, whatever it is called here: renaming moves no mail. Whether a GUID and a domain are one tenant only the
/// name tells.
fn is_same_tenant(stored: &Stored<'_>, tenant: &str, lanes: &LaneSet) -> bool {
    let id = |lanes: &LaneSet| lanes.lanes().next().map(|lane| lane.tenant_id().to_owned());
    let (old, new) = (id(stored.lanes), id(lanes));
    let both_are_guids = [&old, &new].into_iter().all(|id| id.as_deref().is_some_and(is_guid));
    old == new || (stored.tenant == tenant && !both_are_guids)
}

/// `11111111-2222-3333-4444-555555555555`; a domain has a dot.
fn is_guid(id: &str) -> bool {
    id.len() == 36 && id.bytes().all(|octet| octet == b'-' || octet.is_ascii_hexdigit())
}
