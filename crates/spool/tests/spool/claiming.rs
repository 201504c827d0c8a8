//! A delivery has one holder, lanes do not see each other, and nobody sleeps through work.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mail::{LaneId, LaneSet, Outcome};
use spool::{Next, Part, Spool};
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
