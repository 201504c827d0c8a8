//! Faults that tests ask for, where no file system can be made to fail on demand.

use std::sync::atomic::{AtomicU32, Ordering};

use super::connection::Trouble;

/// How often each fault strikes.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// The next commits fail before they are written.
    pub(super) commits: AtomicU32,
    /// The next commits are in the log, but their sync fails.
    pub(super) syncs: AtomicU32,
    /// The writer panics.
    pub(super) panics: AtomicU32,
}

impl Faults {
    pub(super) fn fail_commit_if_asked(&self) -> Result<(), Trouble> {
        strike(&self.commits, "commit")
    }

    pub(super) fn fail_sync_if_asked(&self) -> Result<(), Trouble> {
        strike(&self.syncs, "sync")
    }

    pub(super) fn panic_if_asked(&self) {
        assert!(strike(&self.panics, "panic").is_ok(), "a panic was asked for");
    }
}

fn strike(count: &AtomicU32, what: &str) -> Result<(), Trouble> {
    let struck = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if struck.is_ok() { Err(Trouble::Broken(format!("a failing {what} was asked for"))) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use clock::{ManualClock, WallTime};
    use mail::{Diagnostic, Envelope, ForwardPath, LaneId, LaneSet, Outcome, ReversePath};

    use super::super::{SpoolOptions, SqliteSink, SqliteSpool};
    use super::*;
    use crate::{
        BodySink, BodySource, DeliveryState, ListFilter, NewDelivery, NewMessage, NewReport, Next, Origin, Part,
        Passage, Place, Placed, Progress, QueueId, Rerouting, Selection, Settlement, Spool, StoreError, Usage,
    };

    const NOW: WallTime = WallTime::from_unix_millis(1_795_247_640_000);

    fn open(directory: &Path) -> SqliteSpool {
        let options = SpoolOptions {
            directory: directory.to_owned(),
            max_messages: 100,
            max_bytes: 1 << 30,
            min_free_bytes: 0,
            memory_budget: 1 << 20,
        };
        SqliteSpool::open(options, Arc::new(ManualClock::at(NOW))).unwrap().0
    }

    fn lane() -> LaneId {
        LaneId::new("t", "a@b.c")
    }

    fn lanes() -> LaneSet {
        LaneSet::from(&lane())
    }

    fn message() -> NewMessage {
        let envelope = Envelope::from(ReversePath::Null);
        let recipients = vec![ForwardPath::Postmaster.into()];
        let tenant = "t".to_owned();
        NewMessage {
            envelope,
            header: Vec::new(),
            message_id: String::new(),
            listener: String::new(),
            client: String::new(),
            user: None,
            origin: Origin::Submitted,
            accepted_at: NOW,
            deliveries: vec![NewDelivery {
                tenant,
                lanes: lanes(),
                route: String::new(),
                route_epoch: 0,
                asked: None,
                recipients,
            }],
        }
    }

    async fn commit(spool: &SqliteSpool, len: usize) -> Result<QueueId, StoreError> {
        let mut sink = spool.receive()?;
        let id = sink.id();
        sink.write(&vec![7; len]).await?;
        spool.commit(sink, message()).await.map(|()| id)
    }

    fn settlement(outcome: Outcome, next: Next) -> Settlement<SqliteSink> {
        let parts = vec![Part { recipients: vec![0], outcome, next, progress: Progress::default() }];
        Settlement {
            parts,
            at: NOW,
            lane: lane(),
            mailbox: String::new(),
            usage: Usage::default(),
            new_messages: Vec::new(),
            reports: Vec::new(),
        }
    }

    fn accepted() -> Settlement<SqliteSink> {
        settlement(Outcome::Accepted(Diagnostic::local("ok")), Next::Finished)
    }

    async fn until_reopened(spool: &SqliteSpool) {
        for _ in 0..1_000 {
            if spool.receive().is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never reopened");
    }

    fn files(directory: &Path) -> usize {
        std::fs::read_dir(directory.join("bodies")).unwrap().count()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_failed_commit_stores_nothing_and_the_store_is_reopened() {
        for log_has_it in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let spool = open(directory.path());
            let faults = &spool.shared.faults;
            let counter = if log_has_it { &faults.syncs } else { &faults.commits };
            counter.store(1, Ordering::Relaxed);
            assert!(matches!(commit(&spool, 100_000).await, Err(StoreError::Failed(_))));
            assert!(matches!(spool.receive(), Err(StoreError::Failed(_))), "nothing more is accepted");
            until_reopened(&spool).await;
            assert_eq!(spool.counts().await.unwrap().messages, 0, "{log_has_it}");
            assert!(spool.claim(&lanes(), NOW).await.unwrap().is_none());
            assert_eq!(files(directory.path()), 0);
            let id = commit(&spool, 100_000).await.unwrap();
            assert_eq!(spool.claim(&lanes(), NOW).await.unwrap().unwrap().message, id);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_settlement_whose_sync_failed_is_written_once_after_all() {
        for (log_has_it, again) in [(false, 0), (true, 0), (false, 2), (true, 2)] {
            let directory = tempfile::tempdir().unwrap();
            let spool = open(directory.path());
            commit(&spool, 10).await.unwrap();
            let claim = spool.claim(&lanes(), NOW).await.unwrap().unwrap();
            spool.mark_in_flight(&claim.guard, &lane());
            let faults = &spool.shared.faults;
            let counter = if log_has_it { &faults.syncs } else { &faults.commits };
            let mut bounce = spool.receive_own().unwrap();
            bounce.write(b"bounce").await.unwrap();
            let bounce_id = bounce.id();
            // The mark may be written in a transaction of its own; wait for it, so that the fault hits the settlement.
            spool.prune_history(NOW).await.unwrap();
            counter.store(1 + again, Ordering::Relaxed);
            let settlement = Settlement { new_messages: vec![(bounce, message())], ..accepted() };
            assert!(matches!(spool.settle(claim, settlement).await, Err(StoreError::Failed(_))));
            assert!(spool.claim(&lanes(), NOW).await.is_err(), "nothing is sent meanwhile");
            until_reopened(&spool).await;
            let next = spool.claim(&lanes(), NOW).await.unwrap().unwrap();
            assert_eq!((next.message, next.progress.uncertain), (bounce_id, 0), "only the bounce is left");
            assert_eq!(spool.counts().await.unwrap().messages, 1);
            assert!(spool.claim(&lanes(), NOW).await.unwrap().is_none());
        }
    }

    fn failure() -> NewReport {
        NewReport {
            tenant: "t".to_owned(),
            lanes: lanes(),
            to: "a@b.c".to_owned(),
            at: NOW,
            message: QueueId::new(1, 1),
            message_id: String::new(),
            sender: String::new(),
            recipients: String::new(),
            reply: String::new(),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_digest_whose_commit_failed_is_there_or_its_failures_are() {
        for log_has_it in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let spool = open(directory.path());
            commit(&spool, 10).await.unwrap();
            let claim = spool.claim(&lanes(), NOW).await.unwrap().unwrap();
            spool.settle(claim, Settlement { reports: vec![failure()], ..accepted() }).await.unwrap();
            let entries = spool.report_entries("t", "a@b.c", 9).await.unwrap();
            let ids: Vec<i64> = entries.into_iter().map(|(id, _)| id).collect();
            let mut sink = spool.receive_own().unwrap();
            sink.write(&vec![7; 100_000]).await.unwrap();
            let faults = &spool.shared.faults;
            let counter = if log_has_it { &faults.syncs } else { &faults.commits };
            counter.store(1, Ordering::Relaxed);
            assert!(matches!(spool.commit_digest(sink, message(), ids.clone()).await, Err(StoreError::Failed(_))));
            until_reopened(&spool).await;
            let left = spool.report_entries("t", "a@b.c", 9).await.unwrap().len();
            assert_eq!(left, usize::from(!log_has_it));
            let stored = usize::from(log_has_it);
            assert_eq!((spool.counts().await.unwrap().messages, files(directory.path())), (stored as u64, stored));
            let sink = spool.receive_own().unwrap();
            assert_eq!(spool.commit_digest(sink, message(), ids).await, Ok(!log_has_it), "told once");
            let mut claim = spool.claim(&lanes(), NOW).await.unwrap().unwrap();
            let first = claim.body.next().await.unwrap().map(<[u8]>::len);
            assert_eq!(first.is_some(), log_has_it, "its body is there");
        }
    }

    /// The mark leaves the queue together with the settlement; if that is refused, the row must still learn whose it is.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_shared_delivery_whose_settlement_is_refused_is_pinned_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let spool = open(directory.path());
        let both = LaneSet::new(&lane(), &[LaneId::new("t", "d@e.f")]);
        let sink = spool.receive().unwrap();
        let mut shared = message();
        shared.deliveries[0].lanes = both.clone();
        spool.commit(sink, shared).await.unwrap();
        let claim = spool.claim(&both, NOW).await.unwrap().unwrap();
        spool.mark_in_flight(&claim.guard, &lane());
        let nobody = Settlement { parts: Vec::new(), ..accepted() };
        assert!(matches!(spool.settle(claim, nobody).await, Err(StoreError::Failed(_))));
        spool.prune_history(NOW).await.unwrap();
        assert_eq!(spool.lanes().await.unwrap(), [lanes()]);
        assert!(spool.claim(&lanes(), NOW).await.unwrap().is_none(), "it is kept");
    }

    fn other_lanes() -> LaneSet {
        LaneSet::from(&LaneId::new("t", "d@e.f"))
    }

    /// The last recipient stays, the first goes elsewhere.
    fn parting() -> Rerouting {
        let place = Place::Lanes { tenant: "u".to_owned(), route: "new".to_owned(), lanes: other_lanes() };
        let parts = vec![Placed { recipients: vec![0], place }, Placed { recipients: vec![1], place: Place::Stays }];
        Rerouting { epoch: 1, parts, said: Some("said".to_owned()), at: NOW }
    }

    fn told(directory: &Path) -> u32 {
        let other = rusqlite::Connection::open(directory.join("queue.db")).unwrap();
        let sql = "SELECT count(*) FROM history WHERE event = 'rerouted'";
        other.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_rerouting_whose_sync_failed_is_written_once_after_all() {
        for (log_has_it, again) in [(false, 0), (true, 0), (false, 2), (true, 2)] {
            let directory = tempfile::tempdir().unwrap();
            let spool = open(directory.path());
            let mut two = message();
            two.deliveries[0].recipients.push(ForwardPath::parse(b"g@h.i").unwrap().into());
            spool.commit(spool.receive().unwrap(), two).await.unwrap();
            let claim = spool.claim_selected(&Selection::OtherEpoch(1), None).await.unwrap().claim.unwrap();
            let faults = &spool.shared.faults;
            let counter = if log_has_it { &faults.syncs } else { &faults.commits };
            counter.store(1 + again, Ordering::Relaxed);
            assert!(matches!(spool.reroute(claim, parting()).await, Err(StoreError::Failed(_))));
            assert!(
                spool.claim_selected(&Selection::OtherEpoch(1), None).await.is_err(),
                "nothing is changed meanwhile"
            );
            until_reopened(&spool).await;
            let stayed = spool.claim(&lanes(), NOW).await.unwrap().unwrap();
            assert_eq!((stayed.recipients.len(), stayed.tenant.as_str(), stayed.route_epoch), (1, "t", 1));
            let gone = spool.claim(&other_lanes(), NOW).await.unwrap().unwrap();
            assert_eq!((gone.recipients.len(), gone.tenant.as_str(), gone.route.as_str()), (1, "u", "new"));
            assert!(spool.claim(&lanes(), NOW).await.unwrap().is_none());
            assert!(spool.claim(&other_lanes(), NOW).await.unwrap().is_none());
            assert_eq!(spool.counts().await.unwrap().queued, 2);
            assert_eq!(told(directory.path()), 1, "who went elsewhere was told of, once");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_rerouting_that_could_not_be_written_before_the_end_leaves_all_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let spool = open(directory.path());
        let mut two = message();
        two.deliveries[0].recipients.push(ForwardPath::parse(b"g@h.i").unwrap().into());
        spool.commit(spool.receive().unwrap(), two).await.unwrap();
        let claim = spool.claim(&lanes(), NOW).await.unwrap().unwrap();
        spool.shared.faults.commits.store(u32::MAX, Ordering::Relaxed);
        assert!(spool.reroute(claim, parting()).await.is_err());
        spool.close().await;
        let spool = open(directory.path());
        let claim = spool.claim(&lanes(), NOW).await.unwrap().unwrap();
        assert_eq!((claim.recipients.len(), claim.route_epoch, claim.progress.uncertain), (2, 0, 0));
        assert_eq!(told(directory.path()), 0);
    }

    /// The mark of a cut transfer may still wait when its delivery is moved: it must not come after.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_mark_that_still_waits_is_written_before_the_delivery_moves() {
        for place in [
            Place::Lanes { tenant: "t".to_owned(), route: String::new(), lanes: other_lanes() },
            Place::Unrouted { reason: "none".to_owned() },
            Place::Stays,
        ] {
            let directory = tempfile::tempdir().unwrap();
            let spool = open(directory.path());
            commit(&spool, 1).await.unwrap();
            let pause = spool.shared.inbox.pause();
            let claim = spool.claim(&lanes(), NOW).await.unwrap().unwrap();
            spool.mark_in_flight(&claim.guard, &lane());
            drop(claim);
            let claim = spool.claim_selected(&Selection::OtherEpoch(1), None).await.unwrap().claim.unwrap();
            assert_eq!(claim.progress.uncertain, 1);
            let stays = place == Place::Stays;
            let parts = vec![Placed { recipients: vec![0], place }];
            let rerouting = Rerouting { epoch: 1, parts, said: Some("said".to_owned()), at: NOW };
            let ((), rerouted) = tokio::join!(async { drop(pause) }, spool.reroute(claim, rerouting));
            rerouted.unwrap();
            let listed = spool.list(&ListFilter::default(), None, 1).await.unwrap().deliveries.remove(0);
            // Of one that stays the mark alone says so, until it is settled or its boot ends.
            assert_eq!(listed.progress.uncertain, u32::from(!stays));
            let again = spool.claim(&listed.lanes, NOW).await.unwrap().map(|claim| claim.progress.uncertain);
            assert_eq!(again, (listed.state == DeliveryState::Queued).then_some(1), "counted once in this boot");
            spool.close().await;
            let spool = open(directory.path());
            let listed = spool.list(&ListFilter::default(), None, 1).await.unwrap().deliveries.remove(0);
            assert_eq!(listed.progress.uncertain, 1, "and once in the next");
        }
    }

    fn passage(spool: &SqliteSpool) -> Passage {
        Passage {
            id: spool.passing_id(),
            at: NOW,
            lane: lane(),
            tenant: "t".to_owned(),
            mailbox: String::new(),
            sender: ReversePath::Null,
            client: String::new(),
            message_id: String::new(),
            outcomes: vec![(ForwardPath::Postmaster.into(), Outcome::Accepted(Diagnostic::local("ok")))],
            usage: Usage { messages: 1, recipients: 1, external: 0 },
        }
    }

    /// Lines of history of what passed, and messages that the lane has used.
    async fn passed(spool: &SqliteSpool, directory: &Path) -> (u32, u32) {
        let other = rusqlite::Connection::open(directory.join("queue.db")).unwrap();
        let sql = "SELECT count(*) FROM history WHERE event = 'accepted'";
        let told = other.query_row(sql, [], |row| row.get(0)).unwrap();
        let used = spool.usage_since(&lane(), NOW).await.unwrap();
        (told, used.into_iter().map(|(_, usage)| usage.messages).sum())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_passed_while_a_sync_failed_is_written_once_after_all() {
        for (log_has_it, again) in [(false, 0), (true, 0), (false, 2), (true, 2)] {
            let directory = tempfile::tempdir().unwrap();
            let spool = open(directory.path());
            let faults = &spool.shared.faults;
            let counter = if log_has_it { &faults.syncs } else { &faults.commits };
            counter.store(1 + again, Ordering::Relaxed);
            let pause = spool.shared.inbox.pause();
            spool.record(passage(&spool));
            spool.record(passage(&spool));
            let (pruned, ()) = tokio::join!(spool.prune_history(NOW), async { drop(pause) });
            assert!(pruned.is_err());
            // Nothing is taken in now, but what has passed has passed.
            spool.record(passage(&spool));
            until_reopened(&spool).await;
            spool.prune_history(NOW).await.unwrap();
            assert_eq!(passed(&spool, directory.path()).await, (3, 3), "{log_has_it} {again}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_passes_never_fills_memory_and_what_is_lost_of_it_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let spool = open(directory.path());
        let told = Arc::new(Told::default());
        let _told = tracing::subscriber::set_default(Arc::clone(&told));
        let pause = spool.shared.inbox.pause();
        let mut ids = Vec::new();
        for _ in 0..10_000 {
            let passage = passage(&spool);
            ids.push(passage.id.to_string());
            spool.record(passage);
        }
        let kept = spool.shared.inbox.waiting_records();
        let weight = spool.shared.inbox.weight_of_records();
        assert!(kept > 1_000 && weight <= super::super::RECORD_BYTES as usize, "{kept} of {weight} octets wait");
        assert_eq!(told.messages(), ids[kept..], "each that is lost is named, once");
        let (pruned, ()) = tokio::join!(spool.prune_history(NOW), async { drop(pause) });
        pruned.unwrap();
        // More than one transaction; what the last one holds waits no more before it is written.
        while spool.shared.inbox.waiting_records() > 0 {
            spool.prune_history(NOW).await.unwrap();
        }
        spool.prune_history(NOW).await.unwrap();
        let kept = u32::try_from(kept).unwrap();
        assert_eq!(passed(&spool, directory.path()).await, (kept, kept));
        spool.record(passage(&spool));
        spool.prune_history(NOW).await.unwrap();
        assert_eq!(passed(&spool, directory.path()).await, (kept + 1, kept + 1), "there is room again");
        spool.close().await;
        let late = passage(&spool);
        ids.push(late.id.to_string());
        spool.record(late);
        assert_eq!(told.messages().last(), ids.last(), "nothing is written behind the end");
        assert_eq!(told.messages().len(), 10_001 - kept as usize);
    }

    /// The messages that the log names.
    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Told {
        fn messages(&self) -> Vec<String> {
            self.0.lock().unwrap().clone()
        }
    }

    impl tracing::field::Visit for &Told {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            if field.name() == "id" {
                self.0.lock().unwrap().push(format!("{value:?}"));
            }
        }
    }

    impl tracing::Subscriber for Told {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::ERROR
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            event.record(&mut &*self);
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_that_stays_broken_can_be_closed() {
        let directory = tempfile::tempdir().unwrap();
        let spool = open(directory.path());
        commit(&spool, 10).await.unwrap();
        let claim = spool.claim(&lanes(), NOW).await.unwrap().unwrap();
        spool.mark_in_flight(&claim.guard, &lane());
        spool.prune_history(NOW).await.unwrap();
        spool.shared.faults.commits.store(u32::MAX, Ordering::Relaxed);
        assert!(spool.settle(claim, accepted()).await.is_err());
        spool.close().await;
        let spool = open(directory.path());
        let claim = spool.claim(&lanes(), NOW).await.unwrap().unwrap();
        assert_eq!(claim.progress.uncertain, 1, "nobody knows any more");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_bad_row_does_not_hurt_its_neighbours() {
        let directory = tempfile::tempdir().unwrap();
        let spool = open(directory.path());
        // The id is taken before its message comes.
        let taken = QueueId::new(1, 2);
        let other = rusqlite::Connection::open(directory.path().join("queue.db")).unwrap();
        let sql = "INSERT INTO message VALUES (?1, 0, '', 0, 0, '', '', '', 0, 0, 0, x'', x'', NULL, NULL)";
        other.execute(sql, [taken.to_i64()]).unwrap();
        let pause = spool.shared.inbox.pause();
        let all = async { tokio::join!(commit(&spool, 1), commit(&spool, 100_000), commit(&spool, 1)) };
        let unpause = async {
            while spool.shared.inbox.waiting_commits() < 3 {
                tokio::task::yield_now().await;
            }
            drop(pause);
        };
        let ((first, second, third), ()) = tokio::join!(all, unpause);
        assert!(first.is_ok() && third.is_ok());
        assert!(matches!(second, Err(StoreError::Failed(_))), "{second:?}");
        assert_eq!(files(directory.path()), 0);
        assert_eq!(spool.counts().await.unwrap().queued, 2);
        assert!(spool.receive().is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_of_the_writer_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let spool = open(directory.path());
        spool.shared.faults.panics.store(1, Ordering::Relaxed);
        let failed = spool.failed();
        assert!(matches!(commit(&spool, 1).await, Err(StoreError::Failed(_))));
        assert_eq!(failed.await, "spool-writer");
        assert!(matches!(spool.receive(), Err(StoreError::Failed(_))));
        assert!(spool.counts().await.is_err());
        spool.close().await;
    }
}
