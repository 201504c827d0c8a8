//! A message as far as it has come: who sends it, as whom, to whom, and by which rules that is judged. The same on both roads,
//! into the queue and straight through.

use std::sync::Arc;

use clock::Clock;
use mail::{Envelope, FieldError, HeaderBlock, LaneId, Recipient};
use smtp_server::Client;
use wire::Reply;

use super::Addressed;
use super::acceptance::{Acceptance, Refusal, check_size};
use super::completion::{self, Completed, Place, Stamp};
use super::door::Door;
use super::repair::Repair;
use crate::routing::{Sender, Taken};
use crate::rules::Rules;
use crate::unknown_mailboxes::UnknownMailboxes;

/// Between MAIL and the final dot. One reading of the rules holds for all of it.
pub(crate) struct Incoming {
    pub(super) door: Arc<Door>,
    /// What it is judged by.
    pub(crate) rules: Arc<Rules>,
    pub(super) unknown: Arc<UnknownMailboxes>,
    pub(super) clock: Arc<dyn Clock>,
    /// Who sends it.
    pub(crate) client: Client,
    /// What the client said the message would have, in octets; 0 if nothing.
    pub(crate) size: u64,
    /// Whom routes are asked about.
    pub(crate) sender: Sender,
    /// As the client said it.
    pub(crate) envelope: Envelope,
    /// Those that were taken.
    pub(crate) recipients: Vec<Addressed>,
}

impl Incoming {
    pub(super) fn acceptance(&self) -> Acceptance<'_> {
        Acceptance { policy: &self.door.policy, rules: &self.rules, client: &self.client }
    }

    /// What the client hears; the administrator reads it in the log.
    pub(crate) fn refused(&self, refusal: &Refusal) -> Reply {
        self.door.refused(&self.client, &self.envelope.reverse_path, refusal)
    }

    /// A recipient with the way that it goes; none if that depends on the From field, which has not come. Refused too where the
    /// message would be too large for its mailbox.
    pub(super) fn addressed(&self, given: Recipient) -> Result<Addressed, Reply> {
        let addressed = Addressed { way: self.way(&given)?, given };
        check_size(std::slice::from_ref(&addressed), self.size).map_err(|refusal| self.refused(&refusal))?;
        Ok(addressed)
    }

    /// Whether Exchange let nobody log in to the mailbox of `lane` lately.
    pub(crate) fn is_unknown(&self, lane: &LaneId) -> bool {
        self.unknown.contains(lane, self.clock.monotonic())
    }

    fn way(&self, given: &Recipient) -> Result<Option<Taken>, Reply> {
        let way = self.acceptance().way(self.sender.clone(), &given.path, &|lane| self.is_unknown(lane));
        way.map_err(|refusal| self.refused(&refusal))
    }

    /// What becomes of the header: every recipient's way is known then, or the message is refused.
    pub(super) fn header(&mut self, block: &mut HeaderBlock) -> Result<Option<Repair>, Reply> {
        let Self { door, rules, client, size, envelope, recipients, unknown, clock, .. } = self;
        let now = clock.monotonic();
        let is_unknown = |lane: &LaneId| unknown.contains(lane, now);
        let acceptance = Acceptance { policy: &door.policy, rules, client };
        let repair = acceptance.header(envelope, *size, recipients, block, &is_unknown);
        repair.map_err(|refusal| self.refused(&refusal))
    }

    /// Its header with what a submission server adds.
    pub(crate) fn completed(&self, block: HeaderBlock, stamp: &Stamp) -> Result<Completed, FieldError> {
        let Self { door, rules, client, envelope, .. } = self;
        let place = Place { hostname: &rules.hostname, received: door.policy.received };
        completion::complete(block, stamp, client, envelope.smtputf8, &place)
    }

    /// Tells the administrator, once in a while, that the client was asked to come back.
    pub(crate) fn come_back(&self, reply: &Reply) {
        self.door.come_back(&self.client, reply);
    }

    /// What no mailbox would take is refused here rather than hours later.
    pub(super) fn check_size(&self, octets: u64) -> Result<(), Reply> {
        check_size(&self.recipients, octets).map_err(|refusal| self.refused(&refusal))
    }
}
