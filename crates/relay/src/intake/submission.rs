//! One message while it comes: the header in memory, the body to the spool, and at its end the 250 that is a promise.
//! Whatever is refused is refused as soon as it is known; the session reads the rest and drops it.

use mail::{BodyType, HeaderBlock, HeaderSplitter, HeaderTooLong, begins_with_header};
use smtp_server::MessageSink;
use spool::{BodySink, NewMessage, Origin, QueueId, Spool};
use tracing::info;
use wire::{Dialect, Reply};

use super::MailTransaction;
use super::acceptance::Refusal;
use super::addressing::Deliveries;
use super::completion::{self, Completed, Place, Stamp};
use super::repair::Repair;

/// Characters of a repaired value in the log.
const MAX_LOGGED: usize = 100;

/// A message being received.
pub(crate) struct Submission<S: Spool> {
    transaction: MailTransaction<S>,
    sink: S::Sink,
    header: Header,
    /// Once it is whole.
    header_len: u64,
    /// Whether any octet beyond ASCII came.
    is_eight_bit: bool,
    from_repair: Option<Repair>,
}

enum Header {
    /// Whether one comes at all is known with the first line: who pipes a long text without a header into us has no empty
    /// line to wait for.
    Awaited(Vec<u8>),
    Coming(HeaderSplitter),
    Whole(HeaderBlock),
}

impl Default for Header {
    fn default() -> Self {
        Self::Awaited(Vec::new())
    }
}

impl<S: Spool> MessageSink for Submission<S> {
    async fn write(&mut self, chunk: &[u8]) -> Result<(), Reply> {
        match &mut self.header {
            Header::Awaited(octets) => {
                octets.extend_from_slice(chunk);
                let Some(is_header) = begins_with_header(octets) else { return Ok(()) };
                let octets = std::mem::take(octets);
                if is_header {
                    self.header = Header::Coming(HeaderSplitter::default());
                    self.header_goes_on(&octets).await
                } else {
                    self.header = Header::Whole(self.header_taken(HeaderBlock::default())?);
                    self.store(&octets).await
                }
            }
            Header::Coming(_) => self.header_goes_on(chunk).await,
            Header::Whole(_) => self.store(chunk).await,
        }
    }

    async fn end(mut self) -> Reply {
        match self.header_at_end().await {
            Ok(block) => self.commit(block).await,
            Err(reply) => reply,
        }
    }
}

impl<S: Spool> Submission<S> {
    /// A message of `transaction`, whose body goes to `sink`.
    pub(super) fn new(transaction: MailTransaction<S>, sink: S::Sink) -> Self {
        Self { transaction, sink, header: Header::default(), header_len: 0, is_eight_bit: false, from_repair: None }
    }

    fn is_strict(&self) -> bool {
        self.transaction.door.policy.dialect == Dialect::Strict
    }

    async fn store(&mut self, octets: &[u8]) -> Result<(), Reply> {
        if octets.is_empty() {
            return Ok(());
        }
        if !octets.is_ascii() {
            self.is_eight_bit = true;
            if self.is_strict() && self.transaction.envelope.body_type == BodyType::SevenBit {
                return Err(Reply::new(
                    554,
                    (5, 6, 1),
                    "The body holds 8-bit octets, which BODY=8BITMIME must announce",
                ));
            }
        }
        self.sink.write(octets).await.map_err(|error| self.transaction.door.store_failed(&error))?;
        // With the line between them, and without what the mailbox adds.
        self.transaction.check_size(self.header_len + 2 + self.sink.written())
    }

    async fn header_goes_on(&mut self, octets: &[u8]) -> Result<(), Reply> {
        let Header::Coming(splitter) = &mut self.header else { return self.store(octets).await };
        let Some((block, body)) = splitter.push(octets).map_err(too_long)? else { return Ok(()) };
        self.header = Header::Whole(self.header_ended(block)?);
        self.store(body).await
    }

    /// The header block is whole.
    fn header_ended(&mut self, block: HeaderBlock) -> Result<HeaderBlock, Reply> {
        let hops = self.transaction.acceptance().check_hops(&block);
        hops.map_err(|refusal| self.transaction.refused(&refusal))?;
        self.header_taken(block)
    }

    /// Nothing of the body is stored yet: what the header says can still be refused.
    fn header_taken(&mut self, mut block: HeaderBlock) -> Result<HeaderBlock, Reply> {
        self.is_eight_bit |= !block.as_bytes().is_ascii();
        self.from_repair = self.transaction.header(&mut block)?;
        self.header_len = block.as_bytes().len() as u64;
        Ok(block)
    }

    /// A message may end before its header does.
    async fn header_at_end(&mut self) -> Result<HeaderBlock, Reply> {
        match std::mem::take(&mut self.header) {
            Header::Whole(block) => Ok(block),
            Header::Coming(splitter) => self.header_ended(splitter.finish().map_err(too_long)?),
            // Less than a line: text, or nothing at all.
            Header::Awaited(octets) => {
                let made = self.header_taken(HeaderBlock::default())?;
                self.store(&octets).await?;
                Ok(made)
            }
        }
    }

    async fn commit(self, block: HeaderBlock) -> Reply {
        let MailTransaction { door, rooms, rules, client, mut envelope, recipients, .. } = self.transaction;
        let id = self.sink.id();
        let accepted_at = rooms.clock.wall();
        let stamp = Stamp { id: id.to_string(), date: accepted_at.rfc5322(), millis: accepted_at.unix_millis() };
        let place = Place { hostname: &rules.hostname, received: door.policy.received };
        let completed = match completion::complete(block, &stamp, &client, envelope.smtputf8, &place) {
            Ok(completed) => completed,
            Err(error) => return Refusal::Header(error.to_string()).reply(),
        };
        let Completed { header, message_id, date_repair } = completed;
        if self.is_eight_bit {
            // Upstream must be told what comes, whether or not the client knew to tell us.
            envelope.body_type = BodyType::EightBitMime;
        }
        let size = header.as_bytes().len() as u64 + 2 + self.sink.written();
        let recipient_count = recipients.len();
        let sender = envelope.reverse_path.clone();
        let Deliveries { deliveries, wanted } = Deliveries::of(recipients, rules.routing.epoch);
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
        match rooms.spool.commit(self.sink, message).await {
            Ok(()) => {
                for lane in wanted {
                    rooms.wanted.want(lane);
                }
                tell_repairs(id, [self.from_repair, date_repair]);
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
fn shown(routes: &str) -> Option<&str> {
    Some(routes).filter(|routes| !routes.is_empty())
}

/// Once for each message: whoever looks for what a device writes finds it here.
fn tell_repairs(id: QueueId, repairs: [Option<Repair>; 2]) {
    let repairs: Vec<_> = repairs.into_iter().flatten().collect();
    if repairs.is_empty() {
        return;
    }
    let fields = repairs.iter().map(|repair| repair.field).collect::<Vec<_>>().join(", ");
    let was = repairs.iter().map(|repair| cut(&repair.was)).collect::<Vec<_>>().join(" | ");
    info!(%id, fields, was, "the header was repaired");
}

/// What a line of the log shows of a value.
fn cut(was: &str) -> String {
    was.chars().take(MAX_LOGGED).collect()
}

fn too_long(error: HeaderTooLong) -> Reply {
    Refusal::from(error).reply()
}
