//! Takes mail from the wire in to the spool: who may submit, what is added to the header, and the 250 that is a promise.
//!
//! Client, recipients and tenant are decided here and do not change afterwards (invariant 7).

pub(crate) mod acceptance;
pub(crate) mod addressing;
pub(crate) mod completion;
mod door;
pub(crate) mod login;
mod notice;
mod pace;
pub(crate) mod repair;
mod submission;
pub(crate) mod terms;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use clock::Clock;
use mail::{Envelope, HeaderBlock, LaneId, Recipient, ReversePath};
use smtp_server::{Client, Credentials, Intake, Notice, Transaction};
use spool::Spool;
use wire::{MailParameters, Reply};

use crate::current::Current;
use crate::routing::{Sender, Taken};
use crate::rules::Rules;
use crate::unknown_mailboxes::UnknownMailboxes;
use crate::wanted_lanes::WantedLanes;

use acceptance::{Acceptance, Refusal, check_size};
use door::Door;
pub(crate) use door::ListenerPolicy;
#[cfg(test)]
use login::Logins;
pub(crate) use pace::Paces;
use repair::Repair;
pub(crate) use submission::Submission;

/// What is open once the spool is: shared by all listeners.
pub(crate) struct Rooms<S> {
    /// The queue.
    pub(crate) spool: Arc<S>,
    /// What a reload replaces.
    pub(crate) rules: Arc<Current<Rules>>,
    /// Senders whose own mailbox Exchange does not know.
    pub(crate) unknown: Arc<UnknownMailboxes>,
    /// Lanes of wildcard mailboxes that mail has come for.
    pub(crate) wanted: Arc<WantedLanes>,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
    /// How many messages were begun of late; kept over reloads.
    pub(crate) paces: Paces,
}

/// The intake of one listener.
pub(crate) struct ListenerIntake<S> {
    door: Current<Door>,
    rooms: Arc<OnceLock<Arc<Rooms<S>>>>,
}

impl<S> ListenerIntake<S> {
    /// An intake for clients that keep to `policy`. Until `rooms` is set it asks them to come back.
    pub(crate) fn new(policy: ListenerPolicy, clock: Arc<dyn Clock>, rooms: Arc<OnceLock<Arc<Rooms<S>>>>) -> Self {
        Self { door: Current::new(Door::new(policy, clock)), rooms }
    }

    /// Another policy for whoever connects and for every transaction that begins from now on.
    pub(crate) fn renew(&self, policy: ListenerPolicy) {
        self.door.set(self.door.get().renewed(policy));
    }
}

impl<S: Spool> Intake for ListenerIntake<S> {
    type Transaction = MailTransaction<S>;

    fn is_proxy(&self, address: IpAddr) -> bool {
        self.door.get().is_proxy(address)
    }

    fn connect(&self, client: &Client) -> Result<(), Reply> {
        self.door.get().admits(client)?;
        if self.rooms.get().is_none() { Err(starting()) } else { Ok(()) }
    }

    fn noticed(&self, client: &Client, notice: &Notice<'_>) {
        self.door.get().noticed(client, notice);
    }

    async fn authenticate(&self, client: &Client, credentials: Credentials) -> Result<Arc<str>, Reply> {
        self.door.get().authenticate(client, credentials).await
    }

    async fn mail(
        &self,
        client: &Client,
        reverse_path: ReversePath,
        parameters: MailParameters,
    ) -> Result<MailTransaction<S>, Reply> {
        let rooms = Arc::clone(self.rooms.get().ok_or_else(starting)?);
        let door = self.door.get();
        door.still_admits(client)?;
        let rules = rooms.rules.get();
        let acceptance = Acceptance { policy: &door.policy, rules: &rules, client };
        let sender = acceptance.mail(&reverse_path);
        let sender = sender.map_err(|refusal| door.refused(client, &reverse_path, &refusal))?;
        let room = rooms.spool.check_room(parameters.size.unwrap_or(0));
        room.map_err(|error| door.store_failed(&error))?;
        // Last, so that what is refused for another reason does not count.
        door.within_limits(client, &rooms.paces)?;
        Ok(MailTransaction {
            door,
            rooms,
            rules,
            client: client.clone(),
            size: parameters.size.unwrap_or(0),
            sender,
            envelope: Envelope {
                body_type: parameters.body,
                smtputf8: parameters.smtputf8,
                ret: parameters.ret,
                envelope_id: parameters.envelope_id,
                reverse_path,
            },
            recipients: Vec::new(),
        })
    }
}

fn starting() -> Reply {
    Reply::new(421, (4, 3, 2), "Starting, try again in a moment")
}

/// A transaction between MAIL and DATA. One reading of the rules holds for all of it.
pub(crate) struct MailTransaction<S> {
    door: Arc<Door>,
    rooms: Arc<Rooms<S>>,
    rules: Arc<Rules>,
    client: Client,
    /// What the client said the message would have, in octets; 0 if nothing.
    size: u64,
    /// Whom routes are asked about.
    sender: Sender,
    envelope: Envelope,
    recipients: Vec<Addressed>,
}

/// A recipient that was taken.
#[derive(Clone)]
pub(crate) struct Addressed {
    /// As the client said it.
    pub(crate) given: Recipient,
    /// Which way it goes; none while that depends on the From field.
    pub(crate) way: Option<Taken>,
}

impl<S: Spool> MailTransaction<S> {
    fn acceptance(&self) -> Acceptance<'_> {
        Acceptance { policy: &self.door.policy, rules: &self.rules, client: &self.client }
    }

    fn refused(&self, refusal: &Refusal) -> Reply {
        self.door.refused(&self.client, &self.envelope.reverse_path, refusal)
    }

    /// Which way a recipient goes; none if that depends on the From field, which has not come.
    fn way(&self, given: &Recipient) -> Result<Option<Taken>, Reply> {
        let now = self.rooms.clock.monotonic();
        let is_unknown = |lane: &LaneId| self.rooms.unknown.contains(lane, now);
        let way = self.acceptance().way(self.sender.clone(), &given.path, &is_unknown);
        way.map_err(|refusal| self.refused(&refusal))
    }

    /// What becomes of the header: every recipient's way is known then, or the message is refused.
    fn header(&mut self, block: &mut HeaderBlock) -> Result<Option<Repair>, Reply> {
        let Self { door, rooms, rules, client, size, envelope, recipients, .. } = self;
        let now = rooms.clock.monotonic();
        let is_unknown = |lane: &LaneId| rooms.unknown.contains(lane, now);
        let acceptance = Acceptance { policy: &door.policy, rules, client };
        let repair = acceptance.header(envelope, *size, recipients, block, &is_unknown);
        repair.map_err(|refusal| self.refused(&refusal))
    }

    /// What no mailbox would take is refused here rather than hours later.
    fn check_size(&self, octets: u64) -> Result<(), Reply> {
        check_size(&self.recipients, octets).map_err(|refusal| self.refused(&refusal))
    }
}

impl<S: Spool> Transaction for MailTransaction<S> {
    type Sink = Submission<S>;

    async fn rcpt(&mut self, recipient: Recipient) -> Reply {
        let way = match self.way(&recipient) {
            Ok(way) => way,
            Err(refused) => return refused,
        };
        let addressed = Addressed { given: recipient, way };
        if let Err(refusal) = check_size(std::slice::from_ref(&addressed), self.size) {
            return self.refused(&refusal);
        }
        self.recipients.push(addressed);
        Reply::new(250, (2, 1, 5), "Recipient OK")
    }

    async fn data(self) -> Result<Submission<S>, Reply> {
        let sink = self.rooms.spool.receive().map_err(|error| self.door.store_failed(&error))?;
        Ok(Submission::new(self, sink))
    }
}

#[cfg(test)]
mod tests;
