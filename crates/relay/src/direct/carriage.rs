//! The recipients of a message that is carried while its client waits: the first one fixes the lane, and each hears what Exchange
//! says of it.

use std::sync::Arc;

use forwarder::{Live, LiveTold, Slot};
use mail::{Envelope, LaneId, Recipient};
use spool::Spool;
use wire::Reply;

use super::content::Content;
use super::trace::{By, Trace};
use super::way::{Sending, sendings};
use super::{Direct, answer, turn};
use crate::intake::acceptance::Refusal;
use crate::intake::addressing::is_same_recipient;
use crate::intake::completion::readdressed;
use crate::intake::{Addressed, Incoming};
use crate::routing::{Refused, Taken};
use crate::tokens::Tokens;

/// A message between MAIL and DATA. Dropped, its lane is free.
pub(crate) struct Carriage<S: Spool> {
    direct: Arc<Direct<S>>,
    /// What the client said the message would have, in octets.
    size: Option<u64>,
    /// None before the first recipient. A refusal is everybody's from then on: nobody waits for a turn twice.
    begun: Option<Result<Carried<S>, Reply>>,
}

/// One that has its lane.
struct Carried<S: Spool> {
    live: Live<Tokens>,
    trace: Trace<S>,
    sending: Sending,
}

impl<S: Spool> Carriage<S> {
    /// A message of which its client said that it would have `size` octets.
    pub(crate) fn new(direct: Arc<Direct<S>>, size: Option<u64>) -> Self {
        Self { direct, size, begun: None }
    }

    /// Exchange's own answer to this recipient, or why there is none.
    pub(crate) async fn rcpt(&mut self, incoming: &Incoming, addressed: &Addressed) -> Reply {
        let Some(way) = &addressed.way else { return answer::depends() };
        let begun = match self.begun.take() {
            Some(begun) => begun,
            None => match sendings(&incoming.rules.routing, &incoming.envelope.reverse_path, &incoming.sender, way) {
                Ok(sendings) => self.begin(incoming, way, sendings).await,
                // Of this recipient's route alone.
                Err(refused) => {
                    let recipient = Some(addressed.given.path.clone());
                    return incoming
                        .refused(&Refusal::Routes { recipient, refused: Box::new(Refused::Sender(refused)) });
                }
            },
        };
        let carried = match self.begun.insert(begun) {
            Ok(carried) => carried,
            Err(reply) => return reply.clone(),
        };
        if !carried.sending.takes_along(&incoming.rules.routing, &incoming.sender, way) {
            return answer::another_way();
        }
        let recipient = readdressed(addressed.given.clone(), way.recipient.clone());
        if carried.trace.taken.iter().any(|other| is_same_recipient(other, &recipient)) {
            return Reply::new(250, (2, 1, 5), "Recipient OK, one that this message has already");
        }
        let (told, is_over) = carried.rcpt(recipient).await;
        let reply = answer::reply(&told);
        if reply.code() / 100 == 4 && !matches!(told, LiveTold::Upstream(..)) {
            // What Exchange says of a recipient is told with what became of it.
            incoming.come_back(&reply);
        }
        if is_over && let Some(Ok(carried)) = self.begun.replace(Err(reply.clone())) {
            carried.abandon();
        }
        reply
    }

    /// DATA: on `Ok` Exchange waits for the message.
    pub(crate) async fn data(mut self) -> Result<Content<S>, Reply> {
        let carried = match self.begun.take() {
            Some(Ok(carried)) => carried,
            // Somebody was taken, and then the road was lost.
            Some(Err(reply)) => return Err(reply),
            // The session asks only when somebody was taken.
            None => return Err(answer::no_lane()),
        };
        carried.data().await
    }

    /// Waits for a turn on one of the lanes of `sendings`.
    async fn begin(&self, incoming: &Incoming, way: &Taken, mut sendings: Vec<Sending>) -> Result<Carried<S>, Reply> {
        let place = self.direct.place(sendings.len());
        sendings.rotate_left(place);
        let found = tokio::select! {
            biased;
            () = self.direct.stop.cancelled() => return Err(answer::stopping()),
            found = self.turn(incoming, sendings) => found,
        };
        let (slot, sending) = found.inspect_err(|reply| incoming.come_back(reply))?;
        let reverse_path = sending.reverse_path.clone();
        let envelope = Envelope {
            // The mailbox's own address may need what the client's did not.
            smtputf8: incoming.envelope.smtputf8 || !reverse_path.is_ascii(),
            reverse_path,
            ..incoming.envelope.clone()
        };
        let by = By {
            route: &way.route.name,
            tenant: &way.carriers.tenant,
            lane: &sending.lane,
            login: slot.lane().login(),
        };
        let trace = Trace::new(Arc::clone(&self.direct), &incoming.client, &incoming.envelope.reverse_path, &by);
        Ok(Carried { live: slot.live(envelope, self.size), trace, sending })
    }

    async fn turn(&self, incoming: &Incoming, mut sendings: Vec<Sending>) -> Result<(Slot<Tokens>, Sending), Reply> {
        let lanes: Vec<_> = sendings.iter().map(|sending| &sending.lane).collect();
        let opened = |id: &LaneId| {
            let (lanes, id) = (Arc::clone(&self.direct.lanes), id.clone());
            async move { lanes.open_for(&id).await }
        };
        let turn = turn::first(&lanes, opened).await;
        let (at, slot) = turn.map_err(|reason| match reason {
            Some(reason) => answer::no_turn(&reason),
            None if lanes.iter().all(|id| incoming.is_unknown(id)) => answer::unknown_mailbox(),
            None => answer::no_lane(),
        })?;
        Ok((slot, sendings.swap_remove(at)))
    }
}

impl<S: Spool> Carried<S> {
    /// What the recipient's client is told, and whether there is nothing more to be had here.
    async fn rcpt(&mut self, recipient: Recipient) -> (LiveTold, bool) {
        let told = self.live.rcpt(recipient.clone()).await;
        if matches!(&told, LiveTold::Upstream(_, reply) if reply.is_positive()) {
            self.trace.taken.push(recipient);
        }
        let is_over = matches!(told, LiveTold::Trouble(_) | LiveTold::Lost(_) | LiveTold::NoSmtpUtf8);
        (told, is_over)
    }

    async fn data(self) -> Result<Content<S>, Reply> {
        let Self { live, trace, sending } = self;
        match live.data().await {
            Ok(content) => Ok(Content::new(trace, sending, content)),
            Err(ending) => {
                let reply = answer::reply(&ending.told);
                trace.ended(ending);
                Err(reply)
            }
        }
    }

    /// What Exchange refused is known all the same.
    fn abandon(self) {
        self.trace.abandoned(self.live.abandon());
    }
}

impl<S: Spool> Drop for Carriage<S> {
    /// Its client goes on without DATA, or went.
    fn drop(&mut self) {
        if let Some(Ok(carried)) = self.begun.take() {
            carried.abandon();
        }
    }
}
