//! A delivery has one holder, lanes do not see each other, and nobody sleeps through work.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mail::{LaneId, LaneSet, Outcome};
use spool::{BodySink, NewMessage, Next, Part, Progress, QueueId, Settlement, Spool, SqliteSpool, Usage};
use tokio::task::JoinSet;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_what_another_holds() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let spool = Arc::new(spool);
    let mut puts = JoinSet::new();
    for _ in 0..300 {
        let spool = Arc::clone(&spool);
        puts.spawn(async move { put(&spool, b"body").await });
    }
    puts.join_all().await;
    let mut workers = JoinSet::new();
    for worker in 0..20_u32 {
        let spool = Arc::clone(&spool);
        workers.spawn(async move {
            let mut done = Vec::new();
            while let Some(claim) = claim(&spool).await {
                spool.mark_in_flight(&claim.guard, &lane());
                // Every third claim is dropped once by each worker's first try of it.
                if claim.progress.attempts == 0 && u32::try_from(done.len()).unwrap() % 3 == worker % 3 {
                    let later = part(&[0], Outcome::Deferred(said("again")), Next::Due(claim.accepted_at));
                    let later = settlement(vec![counted(later, 1, 0)]);
                    spool.settle(claim, later).await.unwrap();
                    continue;
                }
                done.push(claim.message);
                let settlement = accepted(&claim);
                spool.settle(claim, settlement).await.unwrap();
            }
            done
        });
    }
    let mut seen = HashMap::new();
    for id in workers.join_all().await.into_iter().flatten() {
        *seen.entry(id).or_insert(0) += 1;
    }
    // A worker may have stopped while others held the last ones and then deferred them.
    while let Some(claim) = claim(&spool).await {
        *seen.entry(claim.message).or_insert(0) += 1;
        let settlement = accepted(&claim);
        spool.settle(claim, settlement).await.unwrap();
    }
    assert_eq!(seen.len(), 300);
    assert!(seen.values().all(|times| *times == 1));
    assert_eq!(spool.counts().await.unwrap(), spool::Counts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_claim_is_due_again_and_wakes_its_lane() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put(&spool, b"body").await;
    let first = claim(&spool).await.unwrap();
    let id = first.delivery;
    assert!(claim(&spool).await.is_none());
    assert_eq!(spool.next_due(&lanes()).await, Ok(None));
    let waker = spool.waker(&lanes());
    drop(first);
    waker.notified().await;
    assert_eq!(spool.next_due(&lanes()).await, Ok(Some(NOW)));
    let again = claim(&spool).await.unwrap();
    assert_eq!((again.delivery, again.progress.uncertain), (id, 0));
    spool.mark_in_flight(&again.guard, &lane());
    drop(again);
    let cut = claim(&spool).await.unwrap();
    assert_eq!((cut.delivery, cut.progress.uncertain), (id, 1), "it was dropped in flight");
    let later = part(&[0], Outcome::Paced(said("later")), Next::Due(NOW));
    let later = settlement(vec![Part { progress: cut.progress, ..later }]);
    spool.settle(cut, later).await.unwrap();
    assert_eq!(claim(&spool).await.unwrap().progress.uncertain, 1, "and that was written");
    assert_eq!(spool.counts().await.unwrap().uncertain, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_wakes_for_its_own_mail() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let other = LaneSet::from(&LaneId::new("tenant", "other@contoso.com"));
    let (waker, other_waker) = (spool.waker(&lanes()), spool.waker(&other));
    put(&spool, b"body").await;
    waker.notified().await;
    let silence = tokio::time::timeout(Duration::from_millis(1), other_waker.notified()).await;
    assert!(silence.is_err());
    assert!(spool.claim(&other, NOW).await.unwrap().is_none());
    assert_eq!(spool.next_due(&other).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_due_comes_first_and_the_future_waits() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut ids = Vec::new();
    for seconds in [5_u64, 1, 3] {
        let sink = sink(&spool, b"body").await;
        ids.push(spool::BodySink::id(&sink));
        let accepted_at = NOW + Duration::from_secs(seconds);
        spool.commit(sink, spool::NewMessage { accepted_at, ..message(&["a@b.c"]) }).await.unwrap();
    }
    assert_eq!(spool.next_due(&lanes()).await, Ok(Some(NOW + Duration::from_secs(1))));
    assert!(claim(&spool).await.is_none());
    let at = NOW + Duration::from_secs(3);
    let first = spool.claim(&lanes(), at).await.unwrap().unwrap();
    let second = spool.claim(&lanes(), at).await.unwrap().unwrap();
    assert_eq!((first.message, second.message), (ids[1], ids[2]));
    assert!(spool.claim(&lanes(), at).await.unwrap().is_none());
    assert_eq!(spool.next_due(&lanes()).await, Ok(Some(NOW + Duration::from_secs(5))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_wait_for_a_claim_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put(&spool, b"body").await;
    for _ in 0..50 {
        let lanes = lanes();
        let waiting = spool.claim(&lanes, NOW);
        // Polled once, so that a reader may already be at it.
        let _ = tokio::time::timeout(Duration::ZERO, waiting).await;
    }
    let waker = spool.waker(&lanes());
    loop {
        if claim(&spool).await.is_some() {
            return;
        }
        waker.notified().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lane_with_deliveries_is_listed_once() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    assert_eq!(spool.lanes().await.unwrap(), []);
    let lanes: Vec<_> = ["a@b.c", "d@e.f", "g@h.i"].map(|login| LaneSet::from(&LaneId::new("tenant", login))).into();
    for lane in lanes.iter().chain(&lanes) {
        let message = spool::NewMessage { deliveries: vec![delivery(lane, &["a@b.c"])], ..message(&["a@b.c"]) };
        spool.commit(sink(&spool, b"body").await, message).await.unwrap();
    }
    assert_eq!(spool.lanes().await.unwrap(), lanes);
    spool.close().await;
}

/// Stores a message of `client`, accepted so many seconds after the start.
async fn put_from(spool: &SqliteSpool, client: &str, lanes: &LaneSet, seconds: u64) -> QueueId {
    let sink = sink(spool, b"body").await;
    let id = BodySink::id(&sink);
    let accepted_at = NOW + Duration::from_secs(seconds);
    let deliveries = vec![delivery(lanes, &["a@b.c"])];
    let message = NewMessage { client: client.to_owned(), accepted_at, deliveries, ..message(&[]) };
    spool.commit(sink, message).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_of_one_client_does_not_hold_up_another() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for _ in 0..300 {
        put_from(&spool, "busy", &lanes(), 0).await;
    }
    put_from(&spool, "early", &lanes(), 0).await;
    let mut served = Vec::new();
    for at in 0..20 {
        if at == 5 {
            put_from(&spool, "late", &lanes(), 0).await;
        }
        let claim = claim(&spool).await.unwrap();
        served.push(claim.client.clone());
        let settlement = accepted(&claim);
        spool.settle(claim, settlement).await.unwrap();
    }
    assert!(served[..2].contains(&"early".to_owned()), "{served:?}");
    assert!(served[5..8].contains(&"late".to_owned()), "{served:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_due_again_has_its_turn_beside_a_long_queue() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put_from(&spool, "deferred", &lanes(), 0).await;
    let first = claim(&spool).await.unwrap();
    let due = NOW + Duration::from_mins(1);
    let later = part(&[0], Outcome::Deferred(said("again")), Next::Due(due));
    spool.settle(first, settlement(vec![later])).await.unwrap();
    for _ in 0..200 {
        put_from(&spool, "busy", &lanes(), 0).await;
    }
    let mut served = Vec::new();
    for at in 0..6 {
        let claim = spool.claim(&lanes(), if at < 3 { NOW } else { due }).await.unwrap().unwrap();
        served.push(claim.client.clone());
        let settlement = accepted(&claim);
        spool.settle(claim, settlement).await.unwrap();
    }
    assert_eq!(served[..3], ["busy", "busy", "busy"]);
    assert!(served[3..5].contains(&"deferred".to_owned()), "{served:?}");
}

fn one() -> LaneId {
    LaneId::new("tenant", "one@contoso.com")
}

fn two() -> LaneId {
    LaneId::new("tenant", "two@contoso.com")
}

fn both() -> LaneSet {
    LaneSet::new(&one(), &[two()])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_goes_by_the_lane_that_carried_it_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let id = put_from(&spool, "erp", &both(), 0).await;
    let shared = spool.claim(&both(), NOW).await.unwrap().unwrap();
    let waker = spool.waker(&LaneSet::from(&one()));
    spool.mark_in_flight(&shared.guard, &one());
    spool.prune_history(NOW).await.unwrap();
    assert!(spool.claim(&LaneSet::from(&one()), NOW).await.unwrap().is_none(), "it is in flight");
    drop(shared);
    waker.notified().await;
    assert!(spool.claim(&both(), NOW).await.unwrap().is_none());
    assert_eq!(spool.next_due(&both()).await, Ok(None));
    let cut = spool.claim(&LaneSet::from(&one()), NOW).await.unwrap().unwrap();
    assert_eq!((cut.message, cut.progress.uncertain), (id, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_before_its_mark_was_written_is_claimed_once_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let single = LaneSet::from(&two());
    for _ in 0..20 {
        put_from(&spool, "erp", &both(), 0).await;
        let waker = spool.waker(&single);
        let shared = spool.claim(&both(), NOW).await.unwrap().unwrap();
        spool.mark_in_flight(&shared.guard, &two());
        drop(shared);
        let cut = loop {
            assert!(spool.claim(&both(), NOW).await.unwrap().is_none());
            if let Some(cut) = spool.claim(&single, NOW).await.unwrap() {
                break cut;
            }
            tokio::time::timeout(Duration::from_secs(10), waker.notified()).await.expect("its queue is woken");
        };
        let settlement = Settlement { lane: two(), ..accepted(&cut) };
        spool.settle(cut, settlement).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_flight_in_a_crash_is_pinned_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put_from(&spool, "erp", &both(), 0).await;
    let shared = spool.claim(&both(), NOW).await.unwrap().unwrap();
    spool.mark_in_flight(&shared.guard, &two());
    spool.prune_history(NOW).await.unwrap();
    let crashed = copy_of(directory.path());
    let (spool, _) = open(crashed.path());
    assert_eq!(spool.lanes().await.unwrap(), [LaneSet::from(&two())]);
    assert_eq!(spool.used_lanes(NOW).await.unwrap(), [two()]);
    let used = spool.usage_since(&two(), NOW).await.unwrap();
    assert_eq!(used, [(NOW, Usage { messages: 1, recipients: 1, external: 1 })]);
    let pinned = spool.claim(&LaneSet::from(&two()), NOW).await.unwrap().unwrap();
    assert_eq!(pinned.progress.uncertain, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_upstream_may_have_is_pinned_by_a_settlement() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let sink = sink(&spool, b"body").await;
    let deliveries = vec![delivery(&both(), &["sure@b.c", "unsure@b.c"])];
    spool.commit(sink, NewMessage { deliveries, ..message(&[]) }).await.unwrap();
    let shared = spool.claim(&both(), NOW).await.unwrap().unwrap();
    spool.mark_in_flight(&shared.guard, &one());
    let parts = vec![
        counted(part(&[0], Outcome::Deferred(said("busy")), Next::Due(NOW)), 1, 0),
        counted(part(&[1], Outcome::Uncertain(said("lost")), Next::Due(NOW)), 1, 1),
    ];
    spool.settle(shared, Settlement { lane: one(), ..settlement(parts) }).await.unwrap();
    let free = spool.claim(&both(), NOW).await.unwrap().unwrap();
    let pinned = spool.claim(&LaneSet::from(&one()), NOW).await.unwrap().unwrap();
    assert_eq!((free.recipients[0].clone(), free.lanes.clone()), (path("sure@b.c"), both()));
    assert_eq!((pinned.recipients[0].clone(), pinned.lanes.clone()), (path("unsure@b.c"), LaneSet::from(&one())));
}

/// Lanes that share a queue, cut transfers, settle some by halves, all at once.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_in_two_hands_whichever_queue_it_came_from() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let spool = Arc::new(spool);
    for at in 0..200 {
        put_from(&spool, &format!("c{}", at % 7), &both(), 0).await;
    }
    let held = Arc::new(Mutex::new(HashSet::new()));
    let mut workers = JoinSet::new();
    for worker in 0..12_usize {
        let (spool, held) = (Arc::clone(&spool), Arc::clone(&held));
        workers.spawn(async move {
            let lane = if worker % 2 == 0 { one() } else { two() };
            let queues = [both(), LaneSet::from(&lane)];
            let (mut done, mut turn) = (0, worker);
            while spool.counts().await.unwrap().queued > 0 {
                turn += 1;
                let Some(claim) = spool.claim(&queues[turn % 2], NOW).await.unwrap() else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let id = claim.delivery;
                assert!(held.lock().unwrap().insert(id), "{id} has two holders");
                assert!(claim.lanes.contains(&lane));
                if turn % 3 != 0 {
                    spool.mark_in_flight(&claim.guard, &lane);
                }
                tokio::task::yield_now().await;
                assert!(held.lock().unwrap().remove(&id));
                if claim.progress.attempts == 0 && turn % 5 == 0 {
                    let progress = Progress { attempts: 1, ..claim.progress };
                    let later = Part { progress, ..part(&[0], Outcome::Deferred(said("busy")), Next::Due(NOW)) };
                    spool.settle(claim, Settlement { lane: lane.clone(), ..settlement(vec![later]) }).await.unwrap();
                } else if claim.progress.uncertain < 2 && turn % 4 == 0 {
                    drop(claim);
                } else {
                    let settlement = Settlement { lane: lane.clone(), ..accepted(&claim) };
                    spool.settle(claim, settlement).await.unwrap();
                    done += 1;
                }
            }
            done
        });
    }
    assert_eq!(workers.join_all().await.into_iter().sum::<usize>(), 200);
    assert_eq!(spool.counts().await.unwrap(), spool::Counts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_are_claimed_whether_due_or_not() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut ids = Vec::new();
    for seconds in 0..10 {
        ids.push(put_from(&spool, "erp", &lanes(), seconds).await);
        put_from(&spool, "erp", &both(), seconds).await;
    }
    let later = NOW + Duration::from_hours(1);
    for _ in 0..3 {
        let claim = spool.claim(&lanes(), later).await.unwrap().unwrap();
        let held = Outcome::Held { scope: mail::Scope::Mailbox, diagnostic: said("535") };
        spool.settle(claim, settlement(vec![part(&[0], held, Next::Due(later))])).await.unwrap();
    }
    let in_hand = spool.claim(&lanes(), later).await.unwrap().unwrap();
    assert_eq!(in_hand.message, ids[3]);
    let before = NOW + Duration::from_secs(6);
    let mut given_up = Vec::new();
    while let Some(claim) = spool.claim_accepted_before(&lanes(), before).await.unwrap() {
        given_up.push(claim.message);
        let diagnostic = said("held too long");
        let expired = part(&[0], Outcome::Held { scope: mail::Scope::Mailbox, diagnostic }, Next::Finished);
        spool.settle(claim, settlement(vec![expired])).await.unwrap();
    }
    assert_eq!(given_up, [ids[0], ids[1], ids[2], ids[4], ids[5]]);
    drop(in_hand);
    let last = spool.claim_accepted_before(&lanes(), before).await.unwrap().unwrap();
    assert_eq!(last.message, ids[3], "the next sweep finds what was in hand in this one");
    assert!(spool.claim_accepted_before(&lanes(), NOW).await.unwrap().is_none());
    let expired = "SELECT count(*) FROM history WHERE event = 'expired' AND reply = 'held too long'";
    let told: u32 = database(directory.path()).query_row(expired, [], |row| row.get(0)).unwrap();
    assert_eq!(told, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_clock_that_ran_ahead_put_off_is_brought_forward() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let year = 365 * 24 * 3600;
    for (client, lanes, seconds) in
        [("a", lanes(), year), ("b", lanes(), year), ("b", both(), year), ("c", lanes(), 60)]
    {
        put_from(&spool, client, &lanes, seconds).await;
    }
    assert!(claim(&spool).await.is_none());
    let waker = spool.waker(&lanes());
    let latest = NOW + Duration::from_hours(1);
    assert_eq!(spool.bring_forward(latest, NOW).await, Ok(3));
    waker.notified().await;
    let (first, second) = (claim(&spool).await.unwrap(), claim(&spool).await.unwrap());
    assert_eq!((first.client.as_str(), second.client.as_str()), ("a", "b"));
    assert!(spool.claim(&both(), NOW).await.unwrap().is_some());
    assert!(claim(&spool).await.is_none());
}

/// As when a route has many mailboxes, each with its connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_ends_however_many_clients_have_only_what_is_held() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for number in 0..200 {
        let mut message = message(&["a@b.c"]);
        message.client = format!("192.0.2.{number}");
        let sink = sink(&spool, b"body").await;
        spool.commit(sink, message).await.unwrap();
    }
    let mut held = Vec::new();
    while let Some(claim) = claim(&spool).await {
        held.push(claim);
    }
    assert_eq!(held.len(), 200);
    assert!(claim(&spool).await.is_none());
    drop(held.pop());
    assert!(claim(&spool).await.is_some());
}
