//! Takes mail from the wire in to the spool, or to a direct road: who may submit, what is added to the header, and the 250
//! that is a promise.
//!
//! Client, recipients and tenant are decided here and do not change afterwards (invariant 7).

pub(crate) mod acceptance;
pub(crate) mod addressing;
pub(crate) mod completion;
mod door;
mod incoming;
pub(crate) mod login;
mod notice;
mod pace;
mod queued;
pub(crate) mod repair;
mod submission;
pub(crate) mod terms;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use clock::Clock;
use mail::{Envelope, Recipient, ReversePath};
use smtp_server::{Client, Credentials, Intake, Notice, Transaction};
use spool::Spool;
use wire::{MailParameters, Reply};

use crate::config::DeliveryMode;
use crate::current::Current;
use crate::direct::{Carriage, Direct};
use crate::routing::Taken;
use crate::rules::Rules;
use crate::unknown_mailboxes::UnknownMailboxes;
use crate::wanted_lanes::WantedLanes;

use acceptance::Acceptance;
use door::Door;
pub(crate) use door::ListenerPolicy;
pub(crate) use incoming::Incoming;
#[cfg(test)]
use login::Logins;
pub(crate) use pace::Paces;
use queued::Queued;
pub(crate) use queued::shown;
use submission::Destination;
pub(crate) use submission::{Submission, tell_repairs};

/// What is open once the spool is: shared by all listeners.
pub(crate) struct Rooms<S> {
    /// The queue; none where nothing is stored.
    pub(crate) spool: Option<Arc<S>>,
    /// The road of direct listeners; none where there are no lanes to go by.
    pub(crate) direct: Option<Arc<Direct<S>>>,
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
        let road = match door.policy.delivery {
            DeliveryMode::Queue => {
                let spool = rooms.spool.as_ref().ok_or_else(starting)?;
                let room = spool.check_room(parameters.size.unwrap_or(0));
                room.map_err(|error| door.store_failed(&error))?;
                Road::Queue(Arc::clone(spool), Arc::clone(&rooms.wanted))
            }
            DeliveryMode::Direct => {
                let direct = rooms.direct.as_ref().ok_or_else(starting)?;
                Road::Direct(Box::new(Carriage::new(Arc::clone(direct), parameters.size)))
            }
        };
        // Last, so that what is refused for another reason does not count.
        door.within_limits(client, &rooms.paces)?;
        let incoming = Incoming {
            door,
            rules,
            unknown: Arc::clone(&rooms.unknown),
            clock: Arc::clone(&rooms.clock),
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
        };
        Ok(MailTransaction { incoming, road })
    }
}

fn starting() -> Reply {
    Reply::new(421, (4, 3, 2), "Starting, try again in a moment")
}

/// A transaction between MAIL and DATA.
pub(crate) struct MailTransaction<S: Spool> {
    incoming: Incoming,
    road: Road<S>,
}

/// Which way its listener sends what it takes.
enum Road<S: Spool> {
    /// Into the queue.
    Queue(Arc<S>, Arc<WantedLanes>),
    /// Straight to Exchange.
    Direct(Box<Carriage<S>>),
}

/// A recipient that was taken.
#[derive(Clone)]
pub(crate) struct Addressed {
    /// As the client said it.
    pub(crate) given: Recipient,
    /// Which way it goes; none while that depends on the From field.
    pub(crate) way: Option<Taken>,
}

impl<S: Spool> Transaction for MailTransaction<S> {
    type Sink = Submission<S>;

    fn is_live(&self) -> bool {
        matches!(self.road, Road::Direct(_))
    }

    async fn rcpt(&mut self, recipient: Recipient) -> Reply {
        let addressed = match self.incoming.addressed(recipient) {
            Ok(addressed) => addressed,
            Err(refusal) => return refusal,
        };
        let reply = match &mut self.road {
            Road::Queue(..) => Reply::new(250, (2, 1, 5), "Recipient OK"),
            // Boxed, as DATA's: sessions that queue do not hold the room that this takes.
            Road::Direct(carriage) => Box::pin(carriage.rcpt(&self.incoming, &addressed)).await,
        };
        if reply.is_positive() {
            self.incoming.recipients.push(addressed);
        }
        reply
    }

    async fn data(self) -> Result<Submission<S>, Reply> {
        let Self { incoming, road } = self;
        let destination = match road {
            Road::Queue(spool, wanted) => {
                let sink = spool.receive().map_err(|error| incoming.door.store_failed(&error))?;
                Destination::Queue(Queued::new(spool, wanted, sink))
            }
            Road::Direct(carriage) => Destination::Direct(Box::new(Box::pin(carriage.data()).await?)),
        };
        Ok(Submission::new(incoming, destination))
    }
}

#[cfg(test)]
mod tests;
