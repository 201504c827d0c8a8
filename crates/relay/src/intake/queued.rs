//! A message on its way into the queue: its body to the spool as it comes, and at its end the 250 that is a promise.

use std::sync::Arc;

use mail::HeaderBlock;
use spool::{BodySink, NewMessage, Origin, Spool};
use tracing::info;
use wire::Reply;

use super::Incoming;
use super::acceptance::Refusal;
use super::addressing::Deliveries;
use super::completion::{Completed, Stamp};
use super::repair::Repair;
use super::submission::tell_repairs;
use crate::wanted_lanes::WantedLanes;

/// A message that is being stored.
pub(super) struct Queued<S: Spool> {
    spool: Arc<S>,
    wanted: Arc<WantedLanes>,
    sink: S::Sink,
    /// Once it is whole.
    header: Option<(HeaderBlock, Option<Repair>)>,
}

impl<S: Spool> Queued<S> {
    /// A message whose body goes to `sink`.
    pub(super) fn new(spool: Arc<S>, wanted: Arc<WantedLanes>, sink: S::Sink) -> Self {
        Self { spool, wanted, sink, header: None }
    }

    /// The header is whole and right. It stays in memory to the end.
    pub(super) fn header(&mut self, block: HeaderBlock, from_repair: Option<Repair>) {
        self.header = Some((block, from_repair));
    }

    /// More of the body.
    pub(super) async fn body(&mut self, incoming: &Incoming, octets: &[u8]) -> Result<(), Reply> {
        self.sink.write(octets).await.map_err(|error| incoming.door.store_failed(&error))
    }

    /// The final dot came: `Ok` of the commit is the promise.
    pub(super) async fn commit(self, incoming: Incoming) -> Reply {
        let Self { spool, wanted, sink, header } = self;
        let (block, from_repair) = header.unwrap_or_default();
        let id = sink.id();
        let accepted_at = incoming.clock.wall();
        let completed = match incoming.completed(block, &Stamp::new(id, accepted_at)) {
            Ok(completed) => completed,
            Err(error) => return Refusal::Header(error.to_string()).reply(),
        };
        let Completed { header, message_id, date_repair } = completed;
        let Incoming { door, rules, client, envelope, recipients, .. } = incoming;
        let size = header.as_bytes().len() as u64 + 2 + sink.written();
        let recipient_count = recipients.len();
        let sender = envelope.reverse_path.clone();
        let Deliveries { deliveries, wanted: lanes } = Deliveries::of(recipients, rules.routing.epoch);
        let routes = deliveries.iter().map(|delivery| delivery.route.as_str()).collect::<Vec<_>>().join(", ");
        let message = NewMessage {
            header: header.into_bytes(),
            message_id: message_id.clone(),
            listener: client.listener.to_string(),
            client: client.address().to_string(),
            user: client.user.as_deref().map(str::to_owned),
            accepted_at,
            origin: Origin::Submitted,
            deliveries,
            envelope,
        };
        match spool.commit(sink, message).await {
            Ok(()) => {
                for lane in lanes {
                    wanted.want(lane);
                }
                tell_repairs(id, [from_repair, date_repair]);
                info!(
                    %id, client = %client.address(), listener = %client.listener, user = client.user.as_deref(),
                    tls = client.tls, %sender, recipients = recipient_count, route = shown(&routes), size, %message_id,
                    "queued"
                );
                Reply::new(250, (2, 0, 0), format!("Queued as {id}"))
            }
            Err(error) => door.store_failed(&error),
        }
    }
}

/// Where the only mailbox serves everything there are no routes to tell of.
pub(crate) fn shown(routes: &str) -> Option<&str> {
    Some(routes).filter(|routes| !routes.is_empty())
}
