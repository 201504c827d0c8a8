//! What a relay with a state directory has beside one without: the queue, what brings its mail to the lanes, and whoever looks
//! after what lies in it. It exists whole or not at all.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, WallTime};
use mail::LaneSet;
use spool::{OpenError, PeekError, Recovered, Spool, SpoolOptions, SqliteSpool};
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

/// Tells of a queue in `directory` that an earlier configuration has filled, where the present one has none.
pub(crate) async fn tell_left_behind(directory: &'static str) {
    let found = tokio::task::spawn_blocking(move || left_behind(Path::new(directory))).await;
    if let Ok(Some(found)) = found {
        warn!(
            directory,
            found,
            "a queue lies there, and this relay has none: its mail is not sent. To have it sent, give that directory as spool.directory"
        );
    }
}

/// What lies there; none where nothing does that anybody waits for.
fn left_behind(directory: &Path) -> Option<String> {
    match SqliteSpool::peek(directory) {
        Err(PeekError::Missing | PeekError::NotOurs | PeekError::InUse) => None,
        Ok(counts) => (counts.messages > 0).then(|| format!("messages: {}", counts.messages)),
        Err(error) => Some(error.to_string()),
    }
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

#[cfg(test)]
mod tests {
    use clock::{ManualClock, SystemClock};
    use mail::{Envelope, ForwardPath, LaneId, LaneSet, Mailbox, ReversePath};
    use spool::{NewDelivery, NewMessage, Origin};

    use super::*;

    fn options(directory: &Path) -> SpoolOptions {
        SpoolOptions {
            directory: directory.to_owned(),
            max_messages: 10,
            max_bytes: 1 << 20,
            min_free_bytes: 0,
            memory_budget: 1 << 20,
        }
    }

    #[tokio::test]
    async fn mail_that_an_earlier_configuration_queued_is_told_of() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(left_behind(&directory.path().join("none")), None);
        assert_eq!(left_behind(directory.path()), None, "no queue");
        let state = directory.path().join("state");
        let clock = Arc::new(ManualClock::at(SystemClock::new().wall()));
        let (spool, _) = SqliteSpool::open(options(&state), clock.clone()).unwrap();
        assert_eq!(left_behind(&state), None, "somebody has it");
        spool.close().await;
        drop(spool);
        assert_eq!(left_behind(&state), None, "it is empty");
        let (spool, _) = SqliteSpool::open(options(&state), clock.clone()).unwrap();
        let sender: Mailbox = "erp@contoso.com".parse().unwrap();
        let message = NewMessage {
            header: b"Subject: x\r\n".to_vec(),
            message_id: "<1@contoso.com>".to_owned(),
            listener: "local".to_owned(),
            client: "127.0.0.1".to_owned(),
            user: None,
            accepted_at: clock.wall(),
            origin: Origin::Submitted,
            deliveries: vec![NewDelivery {
                tenant: "contoso".to_owned(),
                lanes: LaneSet::from(&LaneId::new("t", "erp@contoso.com")),
                route: String::new(),
                route_epoch: 0,
                asked: None,
                recipients: vec![ForwardPath::parse(b"a@x.example").unwrap().into()],
            }],
            envelope: Envelope::from(ReversePath::Mailbox(sender)),
        };
        spool.commit(spool.receive().unwrap(), message).await.unwrap();
        spool.close().await;
        drop(spool);
        assert_eq!(left_behind(&state).as_deref(), Some("messages: 1"));
    }
}
