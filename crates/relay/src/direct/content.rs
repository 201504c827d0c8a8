//! A message whose octets go up as they come: its header once it is whole, edited as the mailbox sends it, then its body, piece
//! by piece. Memory holds the header and a piece, however long the message is.

use forwarder::LiveContent;
use mail::HeaderBlock;
use spool::Spool;
use wire::Reply;

use super::answer;
use super::trace::Trace;
use super::way::Sending;
use crate::intake::acceptance::Refusal;
use crate::intake::completion::Completed;
use crate::intake::repair::Repair;
use crate::intake::{Incoming, tell_repairs};
use crate::routing::Refused;
use crate::routing::dress::{Given, dress};
use crate::tokens::Tokens;

/// A message for which Exchange waits. Dropped before its end, Exchange takes nothing of it.
pub(crate) struct Content<S: Spool> {
    trace: Trace<S>,
    sending: Sending,
    /// None once it has ended.
    live: Option<LiveContent<Tokens>>,
}

impl<S: Spool> Content<S> {
    pub(super) fn new(trace: Trace<S>, sending: Sending, live: LiveContent<Tokens>) -> Self {
        Self { trace, sending, live: Some(live) }
    }

    /// The header is whole and right: it goes up as the mailbox sends it. Fails where the mailbox may not, and when Exchange
    /// does not take it.
    pub(crate) async fn header(
        &mut self,
        incoming: &Incoming,
        block: HeaderBlock,
        from_repair: Option<Repair>,
    ) -> Result<(), Reply> {
        let completed = incoming.completed(block, &self.trace.stamp());
        let Completed { header, message_id, date_repair } =
            completed.map_err(|error| Refusal::Header(error.to_string()).reply())?;
        self.trace.message_id = message_id;
        let given = Given { reverse_path: &incoming.envelope.reverse_path, header: &header };
        let Sending { policy, identity, .. } = &self.sending;
        let dressed = dress(&given, *policy, identity, &incoming.rules.routing.senders);
        let dressed = match dressed {
            Ok(dressed) => dressed,
            Err(_) if self.may_go_otherwise(incoming, &given) => return Err(answer::another_mailbox()),
            Err(refused) => {
                let refusal = Refusal::Routes { recipient: None, refused: Box::new(Refused::Sender(refused)) };
                return Err(incoming.refused(&refusal));
            }
        };
        tell_repairs(self.trace.id, [from_repair, date_repair]);
        self.write(dressed.header.as_bytes()).await?;
        self.write(b"\r\n").await
    }

    /// Whether another mailbox of the route may send what this one may not: the next try may meet it.
    fn may_go_otherwise(&self, incoming: &Incoming, given: &Given<'_>) -> bool {
        let Some(way) = incoming.recipients.first().and_then(|addressed| addressed.way.as_ref()) else { return false };
        let routing = &incoming.rules.routing;
        let mut others = way.carriers.lanes.lanes().filter(|lane| *lane != self.sending.lane);
        others.any(|lane| {
            let identity = routing.identity(&way.route, &lane, &incoming.sender);
            identity.is_some_and(|identity| dress(given, way.route.policy, &identity, &routing.senders).is_ok())
        })
    }

    /// More of the body.
    pub(crate) async fn body(&mut self, octets: &[u8]) -> Result<(), Reply> {
        self.write(octets).await
    }

    /// The final dot: Exchange's answer is the client's.
    pub(crate) async fn end(mut self) -> Reply {
        let Some(live) = self.live.take() else { return answer::no_lane() };
        let awaited = self.trace.awaited(live.at_stake());
        let ending = live.end().await;
        awaited.answered();
        let reply = answer::reply(&ending.told);
        self.trace.ended(ending);
        reply
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), Reply> {
        let Some(live) = &mut self.live else { return Err(answer::no_lane()) };
        let Err(told) = live.write(octets).await else {
            self.trace.size += octets.len() as u64;
            return Ok(());
        };
        if let Some(live) = self.live.take() {
            // It was cut by what was told: nothing more is waited for.
            self.trace.ended(live.end().await);
        }
        Err(answer::reply(&told))
    }
}

impl<S: Spool> Drop for Content<S> {
    /// Its client went, or what it said was refused here.
    fn drop(&mut self) {
        if let Some(live) = self.live.take() {
            self.trace.abandoned(live.abandon());
        }
    }
}
