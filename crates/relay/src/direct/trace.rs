//! What the log and history keep of a message that went straight through, or was to: who sent it, by whom it went, and what
//! became of each recipient.

use std::sync::Arc;

use forwarder::{Ending, Spent};
use mail::{Diagnostic, LaneId, Outcome, Recipient, ReversePath, Scope};
use smtp_server::Client;
use spool::{Passage, QueueId, Spool};
use tracing::{info, warn};

use super::Direct;
use crate::delivery::{is_same, usage};
use crate::intake::completion::Stamp;
use crate::intake::shown;

/// One message, from its first recipient on.
pub(super) struct Trace<S> {
    direct: Arc<Direct<S>>,
    /// Its name, in the Received field too.
    pub(super) id: QueueId,
    client: Client,
    sender: ReversePath,
    route: String,
    tenant: String,
    lane: LaneId,
    mailbox: String,
    /// As history shows it; empty before its header has come.
    pub(super) message_id: String,
    /// Octets that went up.
    pub(super) size: u64,
    /// Those that Exchange took.
    pub(super) taken: Vec<Recipient>,
}

/// Exchange has a whole message, and has not answered. Dropped without an answer, we were stopped in this wait: the client heard
/// nothing, and the message is written down as uncertain.
pub(super) struct Awaited<'a, S: Spool> {
    /// None once the answer is there.
    trace: Option<&'a Trace<S>>,
    /// What Exchange counts if it has taken the message.
    at_stake: Spent,
}

impl<S: Spool> Awaited<'_, S> {
    /// The answer is there.
    pub(super) fn answered(mut self) {
        self.trace = None;
    }
}

impl<S: Spool> Drop for Awaited<'_, S> {
    fn drop(&mut self) {
        let Some(trace) = self.trace else { return };
        let text = "stopped while Exchange's answer to the whole message was awaited";
        let outcome = Outcome::Uncertain(Diagnostic::local(text));
        let outcomes = trace.taken.iter().map(|recipient| (recipient.clone(), outcome.clone())).collect();
        trace.settled(outcomes, self.at_stake);
    }
}

/// By whom it goes.
pub(super) struct By<'a> {
    pub(super) route: &'a str,
    pub(super) tenant: &'a str,
    pub(super) lane: &'a LaneId,
    pub(super) login: &'a str,
}

impl<S: Spool> Trace<S> {
    pub(super) fn new(direct: Arc<Direct<S>>, client: &Client, sender: &ReversePath, by: &By<'_>) -> Self {
        Self {
            id: direct.id(),
            direct,
            client: client.clone(),
            sender: sender.clone(),
            route: by.route.to_owned(),
            tenant: by.tenant.to_owned(),
            lane: by.lane.clone(),
            mailbox: by.login.to_owned(),
            message_id: String::new(),
            size: 0,
            taken: Vec::new(),
        }
    }

    /// What makes its acceptance, now, this one.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp::new(self.id, self.direct.clock.wall())
    }

    /// The final dot goes up.
    pub(super) fn awaited(&self, at_stake: Spent) -> Awaited<'_, S> {
        Awaited { trace: Some(self), at_stake }
    }

    /// Its client went on without it, or was refused here: only what Exchange itself has said is written down.
    pub(super) fn abandoned(&self, mut ending: Ending) {
        ending.outcomes.retain(|(_, outcome)| outcome.diagnostic().code.is_some());
        self.ended(ending);
    }

    /// Writes down how it ended.
    pub(super) fn ended(&self, ending: Ending) {
        self.settled(ending.outcomes, ending.spent);
    }

    fn settled(&self, outcomes: Vec<(Recipient, Outcome)>, spent: Spent) {
        if outcomes.is_empty() {
            return;
        }
        for (outcome, recipients) in groups(&outcomes) {
            self.tell(outcome, &recipients);
        }
        self.direct.record(Passage {
            id: self.id,
            at: self.direct.clock.wall(),
            lane: self.lane.clone(),
            tenant: self.tenant.clone(),
            mailbox: self.mailbox.clone(),
            sender: self.sender.clone(),
            client: self.client.address().to_string(),
            message_id: self.message_id.clone(),
            outcomes,
            usage: usage(spent),
        });
    }

    fn tell(&self, outcome: &Outcome, recipients: &[&Recipient]) {
        let Self { id, client, sender, mailbox, message_id, size, .. } = self;
        let (listener, address, user, tls) = (&client.listener, client.address(), client.user.as_deref(), client.tls);
        let recipients = recipients.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let (route, reply, name) = (shown(&self.route), outcome.diagnostic(), outcome.name());
        match outcome {
            Outcome::Accepted(_) => info!(
                %id, outcome = name, client = %address, %listener, user, tls, %sender, mailbox, route, recipients, size, %reply,
                message_id, "sent while its client waited"
            ),
            Outcome::Uncertain(_) => warn!(
                %id, outcome = name, client = %address, %listener, user, %sender, mailbox, route, recipients, size, %reply, message_id,
                "upstream may have it; its client heard no 250 and may send it again: it may arrive twice"
            ),
            Outcome::Refused(_) => warn!(
                %id, outcome = name, client = %address, %listener, user, %sender, mailbox, route, recipients, %reply, message_id,
                "refused by Exchange, and its client was told so"
            ),
            Outcome::Held { scope: Scope::Message, diagnostic } => warn!(
                %id, outcome = name, client = %address, %listener, user, %sender, mailbox, route, recipients, %reply, message_id,
                advice = forwarder::sender_advice(diagnostic), "refused by Exchange, and its client was told so"
            ),
            Outcome::Held { .. } | Outcome::Deferred(_) | Outcome::Paced(_) => warn!(
                %id, outcome = name, client = %address, %listener, user, %sender, mailbox, route, recipients, %reply, message_id,
                "not sent; its client was told to come back"
            ),
        }
    }
}

/// Recipients that met the same, in their order.
fn groups(outcomes: &[(Recipient, Outcome)]) -> Vec<(&Outcome, Vec<&Recipient>)> {
    let mut groups: Vec<(&Outcome, Vec<&Recipient>)> = Vec::new();
    for (recipient, outcome) in outcomes {
        match groups.iter_mut().find(|(other, _)| is_same(other, outcome)) {
            Some((_, recipients)) => recipients.push(recipient),
            None => groups.push((outcome, vec![recipient])),
        }
    }
    groups
}
