//! The durable queue: what was accepted, where it waits, and what became of it.
//!
//! [`Spool`] is the whole contract; [`SqliteSpool`] keeps it with an embedded SQLite database, body files for large
//! messages and one writer thread that commits many messages with one sync. The trait speaks of streams and never of
//! paths, so that another store can stand behind it one day. This crate knows nothing of SMTP or OAuth.

mod claim;
mod error;
mod id;
mod list;
mod message;
mod passage;
mod progress;
mod report;
mod rerouting;
mod selection;
mod settlement;
mod sqlite;
mod usage;

use std::future::Future;
use std::sync::Arc;

use clock::WallTime;
use mail::{LaneId, LaneSet};
use tokio::sync::Notify;

pub use claim::Claim;
pub use error::{OpenError, PeekError, StoreError};
pub use id::{DeliveryId, ParseQueueIdError, QueueId};
pub use list::{DeliveryState, ListFilter, Listed, Page};
pub use message::{NewDelivery, NewMessage, Origin};
pub use passage::Passage;
pub use progress::Progress;
pub use report::{NewReport, ReportGroup};
pub use rerouting::{Place, Placed, Rerouting};
pub use selection::{Selected, Selection};
pub use settlement::{Next, Part, Settlement};
pub use sqlite::{ClaimGuard, Recovered, SpoolOptions, SqliteSink, SqliteSource, SqliteSpool};
pub use usage::Usage;

/// Where one body goes while it is received. Dropped before [`Spool::commit`], it leaves nothing behind.
pub trait BodySink: Send + 'static {
    /// The id that the message has once committed; given now, because the Received field names it.
    fn id(&self) -> QueueId;

    /// Octets written so far.
    fn written(&self) -> u64;

    /// Stores the next octets. After an error the sink is good for nothing but dropping.
    fn write(&mut self, chunk: &[u8]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes out what is buffered for a file, so that what remains to fail is a sync. For whoever must know before it
    /// settles what the message is about.
    fn flush(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A stored body, read from its start.
pub trait BodySource: Send + 'static {
    /// Octets in all.
    fn total(&self) -> u64;

    /// The next octets; none at the end. Fails with [`StoreError::Damaged`] if fewer are there than [`Self::total`].
    fn next(&mut self) -> impl Future<Output = Result<Option<&[u8]>, StoreError>> + Send;

    /// Begins anew: the next octets are the first.
    fn rewind(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The durable queue. Shared by every listener and lane; all methods are safe to call at once from many tasks.
pub trait Spool: Send + Sync + 'static {
    /// Receives one body.
    type Sink: BodySink;
    /// Gives one body back.
    type Source: BodySource;

    /// A place for a new body. Refuses with [`StoreError::Full`] at once where a cap or the free-space floor is reached,
    /// and with [`StoreError::Failed`] while the store is being reopened after a failed sync.
    fn receive(&self) -> Result<Self::Sink, StoreError>;

    /// A place for the body of a message of our own making (a bounce) that a settlement stores. Beyond the caps and the
    /// floor, so that a full queue can drain.
    fn receive_own(&self) -> Result<Self::Sink, StoreError>;

    /// Commits the message. `Ok` means durable: synced, and nothing but loss of the disk loses it (invariant 1).
    /// An error means not stored. If this future is dropped the message may have been stored: never put it under a
    /// timeout.
    fn commit(&self, sink: Self::Sink, message: NewMessage) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Commits a digest of our own and forgets the failures it tells of, in one transaction; beyond the caps, with a sink
    /// of [`Self::receive_own`]. `Ok(true)` means durable. If any of `reports` is gone already, or there is none, nothing
    /// is changed and the answer is `Ok(false)`: read them again. After an error either all of it was done or nothing;
    /// the reports that are left tell which, and a new digest of them doubles nothing.
    fn commit_digest(
        &self,
        sink: Self::Sink,
        message: NewMessage,
        reports: Vec<i64>,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// A waker of the caller's own, notified (one permit) whenever a delivery of exactly these lanes may have become
    /// claimable earlier than it was. Whoever else waits for the same lanes is woken too.
    fn waker(&self, lanes: &LaneSet) -> Arc<Notify>;

    /// When the earliest unclaimed delivery of exactly these lanes is due; none if there is none. May lie in the past.
    fn next_due(&self, lanes: &LaneSet) -> impl Future<Output = Result<Option<WallTime>, StoreError>> + Send;

    /// Claims a delivery of exactly these lanes that is due at `now`, if there is one. Clients take turns, whatever each
    /// has queued; of one client that which has been due longest comes first, as a rule. A claim is held in memory and belongs to
    /// one caller; dropped unsettled, it is due again at once.
    fn claim(
        &self,
        lanes: &LaneSet,
        now: WallTime,
    ) -> impl Future<Output = Result<Option<Claim<Self::Source>>, StoreError>> + Send;

    /// Claims a queued delivery of exactly these lanes, due or not, whose message was accepted before `before`: oldest
    /// first, to give up what has waited too long. Calls go on where the last one stopped, until one finds none.
    fn claim_accepted_before(
        &self,
        lanes: &LaneSet,
        before: WallTime,
    ) -> impl Future<Output = Result<Option<Claim<Self::Source>>, StoreError>> + Send;

    /// Claims the next delivery behind `after`, in the order of their ids, that `selection` names and nobody holds: whatever
    /// its lanes, due or not. One that is held at this moment is passed over, so that whoever claims in its turn must look
    /// at [`Claim::route_epoch`] too. Looks at no more rows than a short read may: [`Selected::next`] tells where to go on.
    fn claim_selected(
        &self,
        selection: &Selection,
        after: Option<DeliveryId>,
    ) -> impl Future<Output = Result<Selected<Self::Source>, StoreError>> + Send;

    /// Marks a claim, by its guard, as in flight by `lane` in this boot. The mark rides in the next group commit and is
    /// not awaited: if this process dies, the next one knows that upstream may have the message, and from whom, and sends
    /// it by no other lane (invariant 5). A marked claim that is dropped unsettled was cut: it can be claimed for that
    /// lane alone, and its next claim counts one more uncertainty.
    fn mark_in_flight(&self, guard: &ClaimGuard, lane: &LaneId);

    /// Writes what became of an attempt and stores the messages it gave rise to, in one transaction. `Ok` means
    /// durable. A settlement that failed is kept and written once the store was reopened, and its claim stays claimed
    /// until then, so that what upstream has accepted is not sent again by this process.
    fn settle(
        &self,
        claim: Claim<Self::Source>,
        settlement: Settlement<Self::Sink>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// An id for a message that goes straight through and is never stored: of the same numbers as those of stored ones, and
    /// never used twice, as long as the numbers of a start last (4,294,967,295).
    fn passing_id(&self) -> QueueId;

    /// Writes down what became of a message that went straight through: its history, and what its lane used, once for each id.
    /// Rides in the next group commit and is not awaited, since whoever sent it has been told already. Kept, as a settlement
    /// is, while the store is reopened; what finds no room among those that wait, or the store closed, is only logged.
    fn record(&self, passage: Passage);

    /// Gives the recipients of a claim new places, in one transaction. `Ok` means durable, and whoever waits for the new
    /// lanes is woken. Refused, and the claim dropped, if not every recipient has one place, if the claim is marked as in
    /// flight, or if upstream may have a copy and other lanes than those that brought it there are named without an
    /// operator's word (invariant 5). One that failed otherwise is kept, claimed, and written once the store was reopened,
    /// as a settlement is.
    fn reroute(
        &self,
        claim: Claim<Self::Source>,
        rerouting: Rerouting,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Every set of lanes that has deliveries, in whatever state: among them may be lanes that nobody serves any more.
    fn lanes(&self) -> impl Future<Output = Result<Vec<LaneSet>, StoreError>> + Send;

    /// Whether a new message of so many octets would find room now, or why not: by the caps, the free disk above its floor as
    /// it was a moment ago, and the state of the store. Does not wait, reserves nothing and writes nothing; what others
    /// receive meanwhile may still take the room.
    fn check_room(&self, octets: u64) -> Result<(), StoreError>;

    /// Other caps and another floor of free disk, from now on; what is beyond them already stays and drains.
    fn set_limits(&self, max_messages: u64, max_bytes: u64, min_free_bytes: u64);

    /// When the earliest queued delivery of any lane is due, claimed or not; none when nothing is queued. One step in
    /// the index for each lane and client, however much is queued.
    fn earliest_due(&self) -> impl Future<Output = Result<Option<WallTime>, StoreError>> + Send;

    /// How many deliveries of exactly these lanes are queued, counted no further than `at_most`.
    fn queued(&self, lanes: &LaneSet, at_most: u32) -> impl Future<Output = Result<u32, StoreError>> + Send;

    /// Some of the deliveries that `filter` lets through, in the order of their ids, from behind `after`: at most `limit`,
    /// and no more rows looked at than a short read may.
    fn list(
        &self,
        filter: &ListFilter,
        after: Option<DeliveryId>,
        limit: u32,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send;

    /// What is in the queue now.
    fn counts(&self) -> impl Future<Output = Result<Counts, StoreError>> + Send;

    /// Makes due at `now` every queued delivery that would be due after `latest`; gives how many. Due times lie no further
    /// ahead than the longest retry wait: those that do come from a clock that ran ahead and was set back.
    fn bring_forward(&self, latest: WallTime, now: WallTime) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// What `lane` has used in each minute since the one of `since`, in order, before a restart included. Known for 25
    /// hours.
    fn usage_since(
        &self,
        lane: &LaneId,
        since: WallTime,
    ) -> impl Future<Output = Result<Vec<(WallTime, Usage)>, StoreError>> + Send;

    /// The lanes that have used anything since the minute of `since`.
    fn used_lanes(&self, since: WallTime) -> impl Future<Output = Result<Vec<LaneId>, StoreError>> + Send;

    /// The addresses for which failures wait, at most so many.
    fn reports(&self, at_most_groups: u32) -> impl Future<Output = Result<Vec<ReportGroup>, StoreError>> + Send;

    /// The failures that wait for one address, each with the id that [`Self::commit_digest`] takes: oldest first, at most
    /// `limit`.
    fn report_entries(
        &self,
        tenant: &str,
        to: &str,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<(i64, NewReport)>, StoreError>> + Send;

    /// Forgets history older than `before`, and usage older than 25 hours; at most a bounded number of rows of
    /// history a call, gives how many.
    fn prune_history(&self, before: WallTime) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Drains the writer, checkpoints and closes. Everything later fails with [`StoreError::Closed`].
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// What is in the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages stored.
    pub messages: u64,
    /// Octets of their headers and bodies.
    pub bytes: u64,
    /// Deliveries that wait for their turn or their next attempt.
    pub queued: u64,
    /// Deliveries that wait for an operator, for trouble to end or for a route.
    pub held: u64,
    /// Deliveries set aside because their stored message is damaged.
    pub quarantined: u64,
    /// Queued deliveries of which upstream may already have a copy.
    pub uncertain: u64,
    /// When the oldest stored message was accepted.
    pub oldest: Option<WallTime>,
}
