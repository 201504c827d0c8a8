//! Takes mail from the wire in to the spool: who may submit, what is added to the header, and the 250 that is a promise.
//!
//! Client, recipients and tenant are decided here and do not change afterwards (invariant 7).

mod completion;
mod door;
mod login;
mod notice;
mod repair;
mod submission;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use clock::Clock;
use mail::{Envelope, Recipient, ReversePath};
use smtp_server::{Client, Credentials, Intake, Notice, Transaction};
use spool::Spool;
use wire::{MailParameters, Reply};

use crate::routing::{Route, Routing};

use door::Door;
pub(crate) use door::ListenerPolicy;
pub(crate) use login::Logins;
pub(crate) use submission::Submission;

/// What is open once the spool is: shared by all listeners.
pub(crate) struct Rooms<S> {
    /// The queue.
    pub(crate) spool: Arc<S>,
    /// Our name.
    pub(crate) hostname: String,
    /// Where mail goes.
    pub(crate) routing: Arc<Routing>,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
}

/// The intake of one listener.
pub(crate) struct ListenerIntake<S> {
    door: Arc<Door>,
    rooms: Arc<OnceLock<Arc<Rooms<S>>>>,
}

impl<S> ListenerIntake<S> {
    /// An intake for clients that keep to `policy`. Until `rooms` is set it asks them to come back.
    pub(crate) fn new(policy: ListenerPolicy, clock: Arc<dyn Clock>, rooms: Arc<OnceLock<Arc<Rooms<S>>>>) -> Self {
        Self { door: Arc::new(Door::new(policy, clock)), rooms }
    }
}

impl<S: Spool> Intake for ListenerIntake<S> {
    type Transaction = MailTransaction<S>;

    fn is_proxy(&self, address: IpAddr) -> bool {
        self.door.is_proxy(address)
    }

    fn connect(&self, client: &Client) -> Result<(), Reply> {
        self.door.admits(client)?;
        if self.rooms.get().is_none() { Err(starting()) } else { Ok(()) }
    }

    fn noticed(&self, client: &Client, notice: &Notice<'_>) {
        self.door.noticed(client, notice);
    }

    async fn authenticate(&self, client: &Client, credentials: Credentials) -> Result<Arc<str>, Reply> {
        self.door.authenticate(client, credentials).await
    }

    async fn mail(
        &self,
        client: &Client,
        reverse_path: ReversePath,
        parameters: MailParameters,
    ) -> Result<MailTransaction<S>, Reply> {
        let rooms = Arc::clone(self.rooms.get().ok_or_else(starting)?);
        let route = rooms.routing.route(&client.listener).cloned().ok_or_else(|| self.door.no_route(client))?;
        // The null reverse-path is anybody's: then the From field decides.
        if let Some(sender) = reverse_path.mailbox() {
            self.door.may_send_as(client, sender, "MAIL FROM")?;
        }
        let room = rooms.spool.check_room(parameters.size.unwrap_or(0));
        room.map_err(|error| self.door.store_failed(&error))?;
        Ok(MailTransaction {
            door: Arc::clone(&self.door),
            rooms,
            route,
            client: client.clone(),
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

/// A transaction between MAIL and DATA.
pub(crate) struct MailTransaction<S> {
    door: Arc<Door>,
    rooms: Arc<Rooms<S>>,
    route: Route,
    client: Client,
    envelope: Envelope,
    recipients: Vec<Recipient>,
}

impl<S: Spool> Transaction for MailTransaction<S> {
    type Sink = Submission<S>;

    async fn rcpt(&mut self, recipient: Recipient) -> Reply {
        self.recipients.push(recipient);
        Reply::new(250, (2, 1, 5), "Recipient OK")
    }

    async fn data(self) -> Result<Submission<S>, Reply> {
        let sink = self.rooms.spool.receive().map_err(|error| self.door.store_failed(&error))?;
        Ok(Submission::new(self, sink))
    }
}

#[cfg(test)]
mod tests;
