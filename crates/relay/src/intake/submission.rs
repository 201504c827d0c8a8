//! One message while it comes: its header in memory until it is whole and found right, then its body, whichever road it goes.
//! Whatever is refused is refused as soon as it is known; the session reads the rest and drops it.

use mail::{BodyType, HeaderBlock, HeaderSplitter, HeaderTooLong, begins_with_header};
use smtp_server::MessageSink;
use spool::{QueueId, Spool};
use tracing::info;
use wire::{Dialect, Reply};

use super::Incoming;
use super::acceptance::Refusal;
use super::queued::Queued;
use super::repair::Repair;
use crate::direct::Content;

/// Characters of a repaired value in the log.
const MAX_LOGGED: usize = 100;

/// A message being received.
pub(crate) struct Submission<S: Spool> {
    incoming: Incoming,
    destination: Destination<S>,
    header: Header,
    /// Once it is whole.
    header_len: u64,
    /// Of the body.
    octets: u64,
    /// Whether any octet beyond ASCII came.
    is_eight_bit: bool,
}

/// Where a message goes once its header is whole.
pub(super) enum Destination<S: Spool> {
    Queue(Queued<S>),
    /// Straight to Exchange.
    Direct(Box<Content<S>>),
}

enum Header {
    /// Whether one comes at all is known with the first line: who pipes a long text without a header into us has no empty
    /// line to wait for.
    Awaited(Vec<u8>),
    Coming(HeaderSplitter),
    Whole,
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
                    self.header_taken(HeaderBlock::default()).await?;
                    self.body(&octets).await
                }
            }
            Header::Coming(_) => self.header_goes_on(chunk).await,
            Header::Whole => self.body(chunk).await,
        }
    }

    async fn end(mut self) -> Reply {
        if let Err(refusal) = self.header_at_end().await {
            return refusal;
        }
        if self.is_eight_bit {
            // Upstream must be told what comes, whether or not the client knew to tell us.
            self.incoming.envelope.body_type = BodyType::EightBitMime;
        }
        match self.destination {
            Destination::Queue(queued) => queued.commit(self.incoming).await,
            Destination::Direct(content) => content.end().await,
        }
    }
}

impl<S: Spool> Submission<S> {
    /// A message that goes to `destination`.
    pub(super) fn new(incoming: Incoming, destination: Destination<S>) -> Self {
        Self { incoming, destination, header: Header::default(), header_len: 0, octets: 0, is_eight_bit: false }
    }

    fn is_strict(&self) -> bool {
        self.incoming.door.policy.dialect == Dialect::Strict
    }

    async fn body(&mut self, octets: &[u8]) -> Result<(), Reply> {
        if octets.is_empty() {
            return Ok(());
        }
        if !octets.is_ascii() {
            self.is_eight_bit = true;
            if self.is_strict() && self.incoming.envelope.body_type == BodyType::SevenBit {
                return Err(Reply::new(
                    554,
                    (5, 6, 1),
                    "The body holds 8-bit octets, which BODY=8BITMIME must announce",
                ));
            }
        }
        self.octets += octets.len() as u64;
        // With the line between them, and without what the mailbox adds.
        self.incoming.check_size(self.header_len + 2 + self.octets)?;
        match &mut self.destination {
            Destination::Queue(queued) => queued.body(&self.incoming, octets).await,
            Destination::Direct(content) => content.body(octets).await,
        }
    }

    async fn header_goes_on(&mut self, octets: &[u8]) -> Result<(), Reply> {
        let Header::Coming(splitter) = &mut self.header else { return self.body(octets).await };
        let Some((block, body)) = splitter.push(octets).map_err(too_long)? else { return Ok(()) };
        self.header_ended(block).await?;
        self.body(body).await
    }

    /// The header block is whole.
    async fn header_ended(&mut self, block: HeaderBlock) -> Result<(), Reply> {
        let hops = self.incoming.acceptance().check_hops(&block);
        hops.map_err(|refusal| self.incoming.refused(&refusal))?;
        self.header_taken(block).await
    }

    /// Nothing of the body has gone on yet: what the header says can still be refused.
    async fn header_taken(&mut self, mut block: HeaderBlock) -> Result<(), Reply> {
        let repair = self.incoming.header(&mut block)?;
        self.is_eight_bit |= !block.as_bytes().is_ascii();
        self.header = Header::Whole;
        self.header_len = block.as_bytes().len() as u64;
        match &mut self.destination {
            Destination::Queue(queued) => {
                queued.header(block, repair);
                Ok(())
            }
            Destination::Direct(content) => content.header(&self.incoming, block, repair).await,
        }
    }

    /// A message may end before its header does.
    async fn header_at_end(&mut self) -> Result<(), Reply> {
        match std::mem::take(&mut self.header) {
            Header::Whole => Ok(()),
            Header::Coming(splitter) => self.header_ended(splitter.finish().map_err(too_long)?).await,
            // Less than a line: text, or nothing at all.
            Header::Awaited(octets) => {
                self.header_taken(HeaderBlock::default()).await?;
                self.body(&octets).await
            }
        }
    }
}

fn too_long(error: HeaderTooLong) -> Reply {
    Refusal::from(error).reply()
}

/// Once for each message: whoever looks for what a device writes finds it here.
pub(crate) fn tell_repairs(id: QueueId, repairs: [Option<Repair>; 2]) {
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
