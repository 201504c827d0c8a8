//! What a relay with a state directory has beside one without: the queue, what brings its mail to the lanes, and whoever looks
//! after what lies in it. It exists whole or not at all.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, WallTime};
use mail::LaneSet;
use spool::{OpenError, Recovered, Spool, SpoolOptions, SqliteSpool};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::clock_watch::ClockWatch;
use crate::config::Settings;
use crate::current::Current;
use crate::delivery::{Road, give_up_held};
use crate::lanes::Lanes;
use crate::rules::Rules;
use crate::unknown_mailboxes::UnknownMailboxes;
use crate::wanted_lanes::WantedLanes;

/// Octets of bodies in memory, all together; beyond that they go to files at once.
const MEMORY_BUDGET: u64 = 16 << 20;
/// How often the clock is looked at.
const CLOCK_LOOK: Duration = Duration::from_secs(30);
/// How often failures that were gathered are told.
const DIGEST_EVERY: Duration = Duration::from_mins(15);
/// How often old history is forgotten.
const HOUSEKEEPING: Duration = Duration::from_hours(1);

/// The state directory at work.
pub(crate) struct Store {
    road: Arc<Road<SqliteSpool>>,
    max_hold: watch::Sender<Duration>,
}

/// Why it cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreOpenError {
    /// The state directory.
    #[error("{0}")]
    Spool(#[from] OpenError),
    /// A fault of ours.
    #[error("opening the queue ended by a fault of ours: {0}")]
    Internal(#[from] JoinError),
}

/// What those who bring mail to lanes share, with a queue or without.
#[derive(Clone)]
pub(crate) struct Common {
    /// What a reload replaces.
    pub(crate) rules: Arc<Current<Rules>>,
    /// Senders whose own mailbox Exchange does not know.
    pub(crate) unknown: Arc<UnknownMailboxes>,
    /// Lanes of wildcard mailboxes that mail has come for.
    pub(crate) wanted: Arc<WantedLanes>,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
}

impl Store {
    /// Opens what is in `directory`; due times that the machine's clock has spoiled are mended.
    pub(crate) async fn open(directory: &Path, settings: &Settings, common: Common) -> Result<Self, StoreOpenError> {
        let Common { rules, unknown, wanted, clock } = common;
        let spool = open_spool(directory, settings, Arc::clone(&clock)).await?;
        bring_forward(&spool, rules.get().plan.longest_wait(), clock.wall()).await;
        let road = Arc::new(Road { spool, rules, unknown, wanted, clock });
        Ok(Self { road, max_hold: watch::Sender::new(settings.retry.max_hold.duration()) })
    }

    /// The queue with what brings its mail to the lanes.
    pub(crate) fn road(&self) -> &Arc<Road<SqliteSpool>> {
        &self.road
    }

    /// The queue.
    pub(crate) fn spool(&self) -> &Arc<SqliteSpool> {
        &self.road.spool
    }

    /// Starts whoever looks after it: mail follows the routes, what is held too long is given up, failures that were gathered
    /// are told, old history is forgotten. They run until they are cut.
    pub(crate) fn attend(
        &self,
        attendants: &mut JoinSet<()>,
        lanes: &Arc<Lanes>,
        settings: &watch::Sender<Arc<Settings>>,
        stop: CancellationToken,
    ) {
        let lanes = Arc::clone(lanes);
        attendants.spawn(give_up_held(move || lanes.deliveries(), self.max_hold.subscribe()));
        attendants.spawn(follow(Arc::clone(&self.road), settings.subscribe()));
        attendants.spawn(send_digests(Arc::clone(&self.road), stop));
        attendants.spawn(keep_house(Arc::clone(&self.road), settings.subscribe()));
    }

    /// The sets of lanes that have mail now.
    pub(crate) async fn lanes(&self) -> Vec<LaneSet> {
        self.spool().lanes().await.unwrap_or_else(|error| {
            warn!(%error, "the lanes of the queue cannot be listed");
            Vec::new()
        })
    }

    /// Follows other settings.
    pub(crate) fn take_up(&self, settings: &Settings) {
        let limits = &settings.spool;
        self.spool().set_limits(limits.max_messages.get(), limits.max_bytes.octets(), limits.min_free_bytes.octets());
        self.max_hold.send_if_modified(|now| {
            let wanted = settings.retry.max_hold.duration();
            std::mem::replace(now, wanted) != wanted
        });
    }

    /// Resolves when a part of the queue has died, and says which. Never resolves otherwise.
    pub(crate) async fn failed(&self) -> &'static str {
        self.spool().failed().await
    }

    /// Writes what is to be written and closes it.
    pub(crate) async fn close(&self) {
        self.spool().close().await;
        debug!("the queue is closed");
    }
}

/// Opens the queue in `directory`.
pub(crate) async fn open_spool(
    directory: &Path,
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> Result<Arc<SqliteSpool>, StoreOpenError> {
    let options = SpoolOptions {
        directory: directory.to_owned(),
        max_messages: settings.spool.max_messages.get(),
        max_bytes: settings.spool.max_bytes.octets(),
        min_free_bytes: settings.spool.min_free_bytes.octets(),
        memory_budget: MEMORY_BUDGET,
    };
    let (spool, recovered) = tokio::task::spawn_blocking(move || SqliteSpool::open(options, clock)).await??;
    tell(&recovered);
    Ok(Arc::new(spool))
}

/// What waits in the queue at the start: what nobody looks for is not found.
fn tell(recovered: &Recovered) {
    let Recovered { boot, uncertain, counts } = recovered;
    info!(
        boot,
        messages = counts.messages,
        queued = counts.queued,
        held = counts.held,
        quarantined = counts.quarantined,
        "queue opened"
    );
    if *uncertain > 0 {
        warn!(
            deliveries = uncertain,
            "in flight when the last run was cut: upstream may have them; they are sent again"
        );
    }
    if counts.held + counts.quarantined > 0 {
        warn!(
            held = counts.held,
            quarantined = counts.quarantined,
            "the queue holds mail that does not go out by itself"
        );
    }
}

/// Mail in the queue follows the routes, from the start on and after each reload.
async fn follow(road: Arc<Road<SqliteSpool>>, mut settings: watch::Receiver<Arc<Settings>>) {
    loop {
        settings.borrow_and_update();
        let changed = tokio::select! {
            changed = settings.changed() => changed,
            () = road.follow() => settings.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Failures that were gathered rather than told one by one.
async fn send_digests(road: Arc<Road<SqliteSpool>>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        road.rules.get().reporting.send_digests(&*road.spool, &*road.clock).await;
        sleep(DIGEST_EVERY).await;
    }
}

/// Follows the clock, and forgets history that is too old.
async fn keep_house(road: Arc<Road<SqliteSpool>>, settings: watch::Receiver<Arc<Settings>>) {
    let Road { spool, rules, clock, .. } = &*road;
    let mut watch = ClockWatch::new(clock.wall(), clock.monotonic());
    let mut pruned = clock.monotonic();
    loop {
        sleep(CLOCK_LOOK).await;
        let now = clock.monotonic();
        if watch.was_set_back(clock.wall(), now) {
            warn!("the machine's clock was set back; what would be due too late is due now");
            bring_forward(spool, rules.get().plan.longest_wait(), clock.wall()).await;
        }
        if now.saturating_since(pruned) >= HOUSEKEEPING {
            pruned = now;
            let keep = settings.borrow().history.keep.duration();
            forget_history(spool, clock.wall() - keep).await;
        }
    }
}

/// What is due later than any wait could make it is due now.
async fn bring_forward(spool: &SqliteSpool, longest_wait: Duration, now: WallTime) {
    match spool.bring_forward(now + longest_wait, now).await {
        Ok(0) => {}
        Ok(deliveries) => warn!(deliveries, "mail was queued while the machine's clock ran ahead; it is due now"),
        Err(error) => warn!(%error, "due times could not be looked through"),
    }
}

async fn forget_history(spool: &SqliteSpool, before: WallTime) {
    loop {
        match spool.prune_history(before).await {
            Ok(0) => break,
            Ok(rows) => debug!(rows, "old history forgotten"),
            Err(error) => {
                debug!(%error, "old history could not be forgotten now");
                break;
            }
        }
    }
}
