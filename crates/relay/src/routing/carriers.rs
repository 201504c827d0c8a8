//! The mailboxes that may carry a message, all of one tenant: those that a route names, or the sender's own.

use std::sync::Arc;

use mail::{LaneId, LaneSet, Mailbox};

use super::identity::Identity;

/// A mailbox with its road upstream.
#[derive(Clone, Debug)]
pub(crate) struct Carrier {
    /// Its login's lane.
    pub(crate) lane: LaneId,
    /// Who it sends as.
    pub(crate) identity: Arc<Identity>,
    /// The largest message that it takes, in octets.
    pub(crate) max_message_size: u64,
}

/// Who may carry a message.
#[derive(Clone, Debug)]
pub(crate) struct Carriers {
    /// The tenant's name.
    pub(crate) tenant: Arc<str>,
    /// At least one; several spread the mail and take over from each other.
    members: Vec<Carrier>,
    /// Their lanes.
    pub(crate) lanes: LaneSet,
}

impl Carriers {
    /// `first` and `others`, all of `tenant`.
    pub(crate) fn new(tenant: Arc<str>, first: Carrier, others: Vec<Carrier>) -> Self {
        let lanes: Vec<_> = others.iter().map(|carrier| carrier.lane.clone()).collect();
        let lanes = LaneSet::new(&first.lane, &lanes);
        let mut members = vec![first];
        members.extend(others);
        Self { tenant, members, lanes }
    }

    /// All of them, in the order of the configuration.
    pub(crate) fn members(&self) -> &[Carrier] {
        &self.members
    }

    /// The address of the first: the domain of a bare `postmaster`, and the From of a message that has none.
    pub(crate) fn address(&self) -> &Mailbox {
        &self.members.first().expect("carriers are made with one at least").identity.address
    }

    /// The largest message that all of them take, in octets.
    pub(crate) fn max_message_size(&self) -> u64 {
        self.members.iter().map(|carrier| carrier.max_message_size).min().unwrap_or(u64::MAX)
    }

    /// Who sends when `lane` carries a message of `sender`: of several mailboxes with one login the one that may send as
    /// `sender`.
    pub(crate) fn identity(&self, lane: &LaneId, sender: Option<&Mailbox>) -> Option<&Arc<Identity>> {
        let of_lane = || self.members.iter().filter(|carrier| carrier.lane == *lane).map(|carrier| &carrier.identity);
        let own = of_lane().find(|identity| sender.is_some_and(|sender| identity.may_send_as(sender)));
        own.or_else(|| of_lane().next())
    }

    /// Those that `are_right`; none if none is.
    pub(crate) fn filtered(&self, mut are_right: impl FnMut(&Identity) -> bool) -> Option<Self> {
        let mut right = self.members.iter().filter(|carrier| are_right(&carrier.identity)).cloned();
        let first = right.next()?;
        Some(Self::new(Arc::clone(&self.tenant), first, right.collect()))
    }
}
