//! The store behind [`SqliteSpool`]: one writer thread, two readers, a janitor, and the state they share. The road of a
//! message: `body` receives it, `inbox` queues it, `writer` commits it by `apply`, `fetch` claims it in the order
//! of `turns`, `split` and `apply` settle it. Not here: anything of the contract, which is the crate's root.

mod apply;
mod body;
mod claims;
mod connection;
mod digest;
#[cfg(test)]
mod faults;
mod fetch;
mod inbox;
mod janitor;
mod job;
mod listing;
mod migrate;
mod open;
mod peek;
mod readers;
mod recipients;
mod rerouting;
mod schema;
mod selecting;
mod space;
mod split;
mod totals;
mod turns;
mod usage;
mod writer;

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clock::{Clock, WallTime};
use mail::{LaneId, LaneSet};
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::claim::Claim;
use crate::error::{OpenError, PeekError, StoreError};
use crate::id::{DeliveryId, QueueId};
use crate::list::{ListFilter, Page};
use crate::message::NewMessage;
use crate::passage::Passage;
use crate::report::{NewReport, ReportGroup};
use crate::rerouting::{Place, Placed, Rerouting};
use crate::selection::{Selected, Selection};
use crate::settlement::Settlement;
use crate::usage::Usage;
use crate::{BodySink, Counts, Spool};

pub use body::{SqliteSink, SqliteSource};
pub use claims::ClaimGuard;

use claims::Claims;
use fetch::Fetch;
use inbox::Inbox;
use janitor::Janitor;
use job::{Answer, Chore, Commit, Incoming, Mark, Record, Reroute, Settle, Task};
use readers::Readers;
use space::{Kind, Space};
use writer::Writer;

/// Octets that may wait for the writer, commits and settlements each: a few transactions' worth.
const GATE_BYTES: u32 = 16 * 1024 * 1024;
/// Octets of what went straight through that may wait for the writer: thousands of messages, many more than there are lanes
/// to carry them in the time of a sync. Beyond it, while the store is being reopened, they go to the log alone.
const RECORD_BYTES: u32 = 4 * 1024 * 1024;
/// How long it is known what the lanes have used: the day that upstream counts, and something for clocks that differ.
const USAGE_KEPT: Duration = Duration::from_hours(25);
const READER_THREADS: usize = 2;
/// SQLite and our frames need a fraction of it.
const STACK_LEN: usize = 512 * 1024;

/// Where the queue stands and how far it may grow.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// The state directory; made if it is missing.
    pub directory: PathBuf,
    /// Messages stored or being received at most.
    pub max_messages: u64,
    /// Octets stored or being received at most.
    pub max_bytes: u64,
    /// Free octets that the disk must keep for something to be accepted.
    pub min_free_bytes: u64,
    /// Octets of bodies in memory at most, all together; beyond it they go to files at once.
    pub memory_budget: u64,
}

/// What was found at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The number of this start.
    pub boot: u32,
    /// Deliveries that an earlier boot left in flight: upstream may have them.
    pub uncertain: u64,
    /// What is in the queue, those included.
    pub counts: Counts,
}

/// The durable queue in an SQLite database.
pub struct SqliteSpool {
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    /// Octets on their way to the writer: messages, and settlements apart, so that they never wait behind messages; and what
    /// never waits at all.
    commit_gate: Arc<Semaphore>,
    settle_gate: Arc<Semaphore>,
    record_gate: Arc<Semaphore>,
    running: Mutex<Option<Running>>,
    died: watch::Receiver<Option<&'static str>>,
}

/// What the threads share.
struct Shared {
    database: PathBuf,
    bodies: Arc<Path>,
    clock: Arc<dyn Clock>,
    boot: u32,
    /// Messages named in this boot.
    named: AtomicU64,
    claims: Arc<Claims>,
    inbox: Arc<Inbox>,
    space: Arc<Space>,
    janitor: Janitor,
    /// Counts how often the store was reopened.
    generation: Arc<AtomicU64>,
    /// Transactions committed.
    transactions: AtomicU64,
    #[cfg(test)]
    faults: faults::Faults,
}

/// The threads and the lock, until the end.
struct Running {
    writer: JoinHandle<()>,
    janitor: JoinHandle<()>,
    readers: Vec<JoinHandle<()>>,
    lock: Arc<File>,
}

impl SqliteSpool {
    /// Whether a daemon has the queue in `directory` at this moment, as far as can be seen.
    pub fn is_owned(directory: &Path) -> bool {
        open::is_owned(directory)
    }

    /// Opens the queue, or makes an empty one. Blocks while it reads and syncs; takes no longer for a long queue.
    pub fn open(options: SpoolOptions, clock: Arc<dyn Clock>) -> Result<(Self, Recovered), OpenError> {
        let opened = open::open(&options.directory, clock.wall())?;
        let counts = Counts { oldest: opened.oldest, ..opened.totals.counts() };
        let recovered = Recovered { boot: opened.boot, uncertain: opened.uncertain, counts };
        let generation = Arc::new(AtomicU64::new(0));
        let database = open::database(&options.directory);
        let readers = Arc::new(Readers::new(database.clone(), Arc::clone(&generation)));
        let shared = Arc::new(Shared {
            database,
            bodies: open::bodies(&options.directory).into(),
            boot: opened.boot,
            named: AtomicU64::new(0),
            claims: Arc::default(),
            inbox: Arc::default(),
            space: Arc::new(Space::new(options, Arc::clone(&clock), opened.totals)),
            clock,
            janitor: Janitor::default(),
            generation,
            transactions: AtomicU64::new(0),
            #[cfg(test)]
            faults: faults::Faults::default(),
        });
        let (died, death) = watch::channel(None);
        let threads = Threads { shared: &shared, readers: &readers, died, lock: Arc::new(opened.lock) };
        let running = threads.start(opened.connection).inspect_err(|_| {
            // Those that were started end again.
            shared.inbox.close();
            shared.janitor.close();
            readers.close();
        })?;
        shared.janitor.begin();
        let gate = |octets: u32| Arc::new(Semaphore::new(octets as usize));
        let (commit_gate, settle_gate, record_gate) = (gate(GATE_BYTES), gate(GATE_BYTES), gate(RECORD_BYTES));
        let running = Mutex::new(Some(running));
        Ok((Self { shared, readers, commit_gate, settle_gate, record_gate, running, died: death }, recovered))
    }

    /// What is in the queue in `directory` while no daemon has it, without changing anything there. Blocks for a moment.
    pub fn peek(directory: &Path) -> Result<Counts, PeekError> {
        peek::peek(directory)
    }

    /// Resolves with the name of a thread of the store that died of a panic; the daemon must stop then. Never resolves
    /// otherwise.
    pub fn failed(&self) -> impl Future<Output = &'static str> + Send + use<> {
        let mut died = self.died.clone();
        async move {
            loop {
                let name = *died.borrow_and_update();
                match name {
                    Some(name) => return name,
                    None if died.changed().await.is_err() => std::future::pending().await,
                    None => {}
                }
            }
        }
    }

    /// Transactions committed since the start: fewer than messages and settlements together, if they came at once.
    pub fn transactions(&self) -> u64 {
        self.shared.transactions.load(Ordering::Relaxed)
    }

    fn sink(&self, kind: Kind) -> Result<SqliteSink, StoreError> {
        self.shared.inbox.check()?;
        let reservation = self.shared.space.reserve(kind)?;
        let id = self.shared.name_message()?;
        Ok(SqliteSink::new(id, body::path(&self.shared.bodies, id), reservation))
    }

    /// Makes the body durable and joins it with the rest.
    async fn finish(&self, mut sink: SqliteSink, message: NewMessage) -> Result<Incoming, StoreError> {
        if !message.is_addressed() {
            return Err(StoreError::Failed(format!("message {} has no recipient", sink.id())));
        }
        sink.reserve(message.header.len())?;
        match sink.finish().await {
            Ok(body) => Ok(Incoming::new(body, message)),
            Err(body::FinishError::Write(error)) => Err(error),
            Err(body::FinishError::Sync(error)) => {
                self.shared.inbox.doubt(error.to_string());
                Err(error)
            }
        }
    }

    /// Keeps the claim, until the store is reopened, if its settlement cannot be written.
    async fn finish_all(
        &self,
        messages: Vec<(SqliteSink, NewMessage)>,
        guard: ClaimGuard,
        lane: &LaneId,
    ) -> Result<(Vec<Incoming>, ClaimGuard), StoreError> {
        let mut finished = Vec::with_capacity(messages.len());
        for (sink, message) in messages {
            match self.finish(sink, message).await {
                Ok(incoming) => finished.push(incoming),
                Err(error) => {
                    self.shared.inbox.abandon(guard, Some(lane));
                    self.shared.inbox.doubt(error.to_string());
                    return Err(error);
                }
            }
        }
        Ok((finished, guard))
    }

    async fn settle_claim(
        &self,
        claim: Claim<SqliteSource>,
        settlement: Settlement<SqliteSink>,
    ) -> Result<(), StoreError> {
        let Claim { guard, message, tenant, envelope, recipients, message_id, header, body, .. } = claim;
        // Many may wait for the writer; none needs its content for that.
        drop((header, body));
        let Settlement { parts, at, lane, mailbox, usage, new_messages, reports } = settlement;
        if !split::covers(parts.iter().map(|part| &part.recipients), recipients.len())
            || !new_messages.iter().all(|(_, message)| message.is_addressed())
        {
            self.shared.inbox.abandon(guard, Some(&lane));
            return Err(StoreError::Failed(format!("the settlement of {message} does not name each recipient once")));
        }
        let (new_messages, guard) = self.finish_all(new_messages, guard, &lane).await?;
        let sender = envelope.reverse_path.to_string();
        let weight = new_messages.iter().map(Incoming::weight).sum::<usize>()
            + 1024
            + 256 * recipients.len()
            + 512 * reports.len();
        let permit = pass(&self.settle_gate, weight).await?;
        let (answer, answered) = Answer::new();
        self.shared.inbox.push_settle(Settle {
            guard,
            message,
            tenant,
            lane,
            sender,
            message_id,
            recipients,
            parts,
            at,
            mailbox,
            usage,
            reports,
            new_messages,
            answer,
            permit,
        });
        answered.await.map_err(|_| writer_stopped())?
    }

    async fn reroute_claim(&self, claim: Claim<SqliteSource>, rerouting: Rerouting) -> Result<(), StoreError> {
        check_rerouting(&claim, &rerouting)?;
        let Claim { guard, message, tenant, route, envelope, recipients, message_id, progress, header, body, .. } =
            claim;
        // Many may wait for the writer; none needs its content for that.
        drop((header, body));
        let permit = pass(&self.settle_gate, Reroute::weight_of(&recipients)).await?;
        let (answer, answered) = Answer::new();
        self.shared.inbox.push_reroute(Reroute {
            guard,
            message,
            tenant,
            route,
            sender: envelope.reverse_path.to_string(),
            message_id,
            recipients,
            uncertain: progress.uncertain,
            rerouting,
            answer,
            permit,
        });
        answered.await.map_err(|_| writer_stopped())?
    }

    async fn store(&self, sink: SqliteSink, message: NewMessage, digest: Option<Vec<i64>>) -> Result<bool, StoreError> {
        let incoming = self.finish(sink, message).await?;
        let permit = pass(&self.commit_gate, incoming.weight()).await?;
        let (answer, answered) = Answer::new();
        self.shared.inbox.push_commit(Commit { incoming, digest, answer, permit });
        answered.await.map_err(|_| writer_stopped())?
    }

    fn fetch(&self) -> Fetch {
        Fetch {
            claims: Arc::clone(&self.shared.claims),
            inbox: Arc::clone(&self.shared.inbox),
            bodies: Arc::clone(&self.shared.bodies),
        }
    }

    async fn chore(&self, task: Task) -> Result<u64, StoreError> {
        let (answer, answered) = Answer::new();
        self.shared.inbox.push_chore(Chore { task, answer });
        answered.await.map_err(|_| writer_stopped())?
    }

    async fn stop(&self) {
        let mut running = self.running.lock().await;
        let Some(threads) = running.take() else { return };
        self.shared.inbox.close();
        let (shared, readers) = (Arc::clone(&self.shared), Arc::clone(&self.readers));
        let stopped = tokio::task::spawn_blocking(move || threads.join(&shared, &readers)).await;
        if stopped.is_err() {
            tracing::error!("the threads of the queue could not be joined");
        }
    }
}

impl Shared {
    /// The next id. Refuses rather than to use one twice.
    fn name_message(&self) -> Result<QueueId, StoreError> {
        let sequence = self.named.fetch_add(1, Ordering::Relaxed) + 1;
        match u32::try_from(sequence) {
            Ok(sequence) => Ok(QueueId::new(self.boot, sequence)),
            Err(_) => Err(StoreError::Failed("4294967295 messages since the start: restart the relay".to_owned())),
        }
    }
}

/// Why a rerouting is not obeyed, if it is not.
fn check_rerouting(claim: &Claim<SqliteSource>, rerouting: &Rerouting) -> Result<(), StoreError> {
    let message = claim.message;
    let refused = |why: &str| Err(StoreError::Failed(format!("the rerouting of {message} {why}")));
    if !split::covers(rerouting.parts.iter().map(|part| &part.recipients), claim.recipients.len()) {
        return refused("does not name each recipient once");
    }
    if claim.guard.is_marked() {
        return refused("comes while it is in flight");
    }
    let goes_elsewhere = |part: &Placed| matches!(&part.place, Place::Lanes { lanes, .. } if *lanes != claim.lanes);
    if claim.progress.uncertain > 0 && rerouting.said.is_none() && rerouting.parts.iter().any(goes_elsewhere) {
        return refused("names other lanes than the one from which upstream may have it");
    }
    Ok(())
}

fn writer_stopped() -> StoreError {
    StoreError::Failed("the writer has stopped".to_owned())
}

/// Waits until `weight` octets more may wait for the writer.
async fn pass(gate: &Arc<Semaphore>, weight: usize) -> Result<OwnedSemaphorePermit, StoreError> {
    let weight = u32::try_from(weight).unwrap_or(u32::MAX).min(GATE_BYTES);
    Arc::clone(gate).acquire_many_owned(weight).await.map_err(|_| StoreError::Closed)
}

impl Spool for SqliteSpool {
    type Sink = SqliteSink;
    type Source = SqliteSource;

    fn receive(&self) -> Result<SqliteSink, StoreError> {
        self.sink(Kind::Received)
    }

    fn receive_own(&self) -> Result<SqliteSink, StoreError> {
        self.sink(Kind::Own)
    }

    async fn commit(&self, sink: SqliteSink, message: NewMessage) -> Result<(), StoreError> {
        self.store(sink, message, None).await.map(|_| ())
    }

    async fn commit_digest(
        &self,
        sink: SqliteSink,
        message: NewMessage,
        reports: Vec<i64>,
    ) -> Result<bool, StoreError> {
        self.store(sink, message, Some(reports)).await
    }

    fn waker(&self, lanes: &LaneSet) -> Arc<Notify> {
        self.shared.claims.waker(lanes)
    }

    async fn next_due(&self, lanes: &LaneSet) -> Result<Option<WallTime>, StoreError> {
        self.shared.inbox.check()?;
        let (claims, lanes) = (Arc::clone(&self.shared.claims), lanes.clone());
        self.readers.read(move |connection| fetch::next_due(connection, &claims, &lanes)).await
    }

    async fn claim(&self, lanes: &LaneSet, now: WallTime) -> Result<Option<Claim<SqliteSource>>, StoreError> {
        // While nothing can be recorded nothing may be sent.
        self.shared.inbox.check()?;
        let (fetch, lanes) = (self.fetch(), lanes.clone());
        self.readers.read(move |connection| fetch.claim(connection, &lanes, now.unix_millis())).await
    }

    async fn claim_accepted_before(
        &self,
        lanes: &LaneSet,
        before: WallTime,
    ) -> Result<Option<Claim<SqliteSource>>, StoreError> {
        self.shared.inbox.check()?;
        let (fetch, lanes) = (self.fetch(), lanes.clone());
        let before = before.unix_millis();
        self.readers.read(move |connection| fetch.claim_accepted_before(connection, &lanes, before)).await
    }

    async fn claim_selected(
        &self,
        selection: &Selection,
        after: Option<DeliveryId>,
    ) -> Result<Selected<SqliteSource>, StoreError> {
        // While nothing can be recorded nothing may be changed.
        self.shared.inbox.check()?;
        let (fetch, selection) = (self.fetch(), *selection);
        self.readers.read(move |connection| fetch.claim_selected(connection, selection, after)).await
    }

    fn mark_in_flight(&self, guard: &ClaimGuard, lane: &LaneId) {
        if guard.mark(lane) {
            self.shared.inbox.push_mark(Mark::of(guard));
        }
    }

    async fn settle(&self, claim: Claim<SqliteSource>, settlement: Settlement<SqliteSink>) -> Result<(), StoreError> {
        self.settle_claim(claim, settlement).await
    }

    fn passing_id(&self) -> QueueId {
        // Messages are named from 1 on. Once no number is left, none can be received either, and 0 stands for all the rest.
        self.shared.name_message().unwrap_or(QueueId::new(self.shared.boot, 0))
    }

    fn record(&self, passage: Passage) {
        let weight = u32::try_from(Record::weight_of(&passage)).unwrap_or(u32::MAX).min(RECORD_BYTES);
        match Arc::clone(&self.record_gate).try_acquire_many_owned(weight) {
            Ok(permit) => self.shared.inbox.push_record(Record::new(passage, permit)),
            Err(_) => job::not_recorded(&passage),
        }
    }

    async fn reroute(&self, claim: Claim<SqliteSource>, rerouting: Rerouting) -> Result<(), StoreError> {
        self.reroute_claim(claim, rerouting).await
    }

    fn set_limits(&self, max_messages: u64, max_bytes: u64, min_free_bytes: u64) {
        self.shared.space.set_limits(max_messages, max_bytes, min_free_bytes);
    }

    async fn lanes(&self) -> Result<Vec<LaneSet>, StoreError> {
        self.readers.read(fetch::lanes).await
    }

    fn check_room(&self, octets: u64) -> Result<(), StoreError> {
        self.shared.inbox.check()?;
        self.shared.space.check(octets)
    }

    async fn earliest_due(&self) -> Result<Option<WallTime>, StoreError> {
        self.readers.read(fetch::earliest_due).await
    }

    async fn queued(&self, lanes: &LaneSet, at_most: u32) -> Result<u32, StoreError> {
        let lanes = lanes.clone();
        self.readers.read(move |connection| fetch::queued(connection, &lanes, at_most)).await
    }

    async fn list(&self, filter: &ListFilter, after: Option<DeliveryId>, limit: u32) -> Result<Page, StoreError> {
        let filter = filter.clone();
        self.readers.read(move |connection| listing::page(connection, &filter, after, limit)).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        let oldest = self.readers.read(fetch::oldest).await?;
        Ok(Counts { oldest, ..self.shared.space.stored().counts() })
    }

    async fn prune_history(&self, before: WallTime) -> Result<u64, StoreError> {
        let usage = self.shared.clock.wall() - USAGE_KEPT;
        self.chore(Task::Prune { history: before, usage }).await
    }

    async fn bring_forward(&self, latest: WallTime, now: WallTime) -> Result<u64, StoreError> {
        self.chore(Task::BringForward { latest, now }).await
    }

    async fn usage_since(&self, lane: &LaneId, since: WallTime) -> Result<Vec<(WallTime, Usage)>, StoreError> {
        let lane = lane.clone();
        self.readers.read(move |connection| usage::since(connection, &lane, since)).await
    }

    async fn used_lanes(&self, since: WallTime) -> Result<Vec<LaneId>, StoreError> {
        self.readers.read(move |connection| usage::lanes(connection, since)).await
    }

    async fn reports(&self, at_most_groups: u32) -> Result<Vec<ReportGroup>, StoreError> {
        self.readers.read(move |connection| digest::groups(connection, at_most_groups)).await
    }

    async fn report_entries(&self, tenant: &str, to: &str, limit: u32) -> Result<Vec<(i64, NewReport)>, StoreError> {
        let (tenant, to) = (tenant.to_owned(), to.to_owned());
        self.readers.read(move |connection| digest::entries(connection, &tenant, &to, limit)).await
    }

    async fn close(&self) {
        self.stop().await;
    }
}

/// Not closed: the threads write what waits, then end by themselves, and the last one releases the lock.
impl Drop for SqliteSpool {
    fn drop(&mut self) {
        if let Some(running) = self.running.get_mut().take() {
            self.shared.inbox.close();
            let (shared, readers) = (Arc::clone(&self.shared), Arc::clone(&self.readers));
            // Joining would block the runtime's thread.
            let ending = thread::Builder::new().name("spool-end".to_owned());
            if let Err(error) = ending.spawn(move || running.join(&shared, &readers)) {
                tracing::error!(%error, "the queue was not closed");
            }
        }
    }
}

/// Without anything stored.
impl fmt::Debug for SqliteSpool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSpool").field("database", &self.shared.database).finish_non_exhaustive()
    }
}

/// What starting the threads needs.
struct Threads<'a> {
    shared: &'a Arc<Shared>,
    readers: &'a Arc<Readers>,
    died: watch::Sender<Option<&'static str>>,
    lock: Arc<File>,
}

impl Threads<'_> {
    fn start(self, connection: rusqlite::Connection) -> Result<Running, OpenError> {
        let writer = Writer::new(Arc::clone(self.shared), connection);
        let writer = self.spawn("spool-writer", move || writer.run())?;
        let shared = Arc::clone(self.shared);
        let janitor = self.spawn("spool-janitor", move || janitor::run(&shared))?;
        let mut readers = Vec::new();
        for _ in 0..READER_THREADS {
            let reader = Arc::clone(self.readers);
            readers.push(self.spawn("spool-reader", move || reader.run())?);
        }
        Ok(Running { writer, janitor, readers, lock: self.lock })
    }

    fn spawn(&self, name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
        let life = Life {
            name,
            shared: Arc::clone(self.shared),
            readers: Arc::clone(self.readers),
            died: self.died.clone(),
            _lock: Arc::clone(&self.lock),
        };
        let run = move || {
            let _life = life;
            work();
        };
        let spawned = thread::Builder::new().name(name.to_owned()).stack_size(STACK_LEN).spawn(run);
        spawned.map_err(|error| OpenError::Database { path: self.shared.database.clone(), detail: error.to_string() })
    }
}

/// Lives as long as a thread; tells everybody if it ends by a panic.
struct Life {
    name: &'static str,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    died: watch::Sender<Option<&'static str>>,
    /// The store stays ours until its last thread has ended.
    _lock: Arc<File>,
}

impl Drop for Life {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.inbox.die();
            self.readers.close();
            self.died.send_replace(Some(self.name));
        }
    }
}

impl Running {
    /// Waits for the end: what waits is written, the log emptied, the lock released.
    fn join(self, shared: &Shared, readers: &Readers) {
        let mut panicked = self.writer.join().is_err();
        readers.close();
        for reader in self.readers {
            panicked |= reader.join().is_err();
        }
        shared.janitor.close();
        panicked |= self.janitor.join().is_err();
        drop(self.lock);
        if panicked {
            tracing::error!("a thread of the queue had died before the queue was closed");
        }
    }
}
