//! What was committed is found again, octet for octet, whatever happened to the process.

use std::sync::Arc;

use mail::Outcome;
use spool::{BodySink, BodySource, Next, Spool, StoreError};
use tokio::task::JoinSet;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_message_is_found_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, recovered) = open(directory.path());
    assert_eq!((recovered.boot, recovered.uncertain, recovered.counts.messages), (1, 0, 0));
    let id = put(&spool, b"hello\r\n").await;
    spool.close().await;
    let (spool, recovered) = open(directory.path());
    assert_eq!((recovered.boot, recovered.counts.messages, recovered.counts.queued), (2, 1, 1));
    assert_eq!(recovered.counts.oldest, Some(NOW));
    let mut claim = claim(&spool).await.unwrap();
    let sent = message(&["a@b.c"]);
    assert_eq!(claim.message, id);
    assert_eq!(claim.envelope, sent.envelope);
    assert_eq!(&*claim.header, sent.header);
    assert_eq!(claim.message_id, sent.message_id);
    assert_eq!(claim.recipients, sent.deliveries[0].recipients);
    assert_eq!((claim.tenant.as_str(), claim.accepted_at), ("contoso", NOW));
    assert_eq!((claim.lanes.clone(), claim.route.as_str(), claim.client.as_str()), (lanes(), "invoices", "192.0.2.7"));
    assert_eq!(claim.origin, sent.origin);
    assert_eq!((claim.progress.attempts, claim.progress.uncertain), (0, 0));
    assert_eq!(octets(&mut claim.body).await, b"hello\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_any_length_come_back_octet_for_octet() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for len in [0, 1, 32 * 1024, 32 * 1024 + 1, 64 * 1024, 100_000, 3_000_000] {
        let body = pattern(len);
        put(&spool, &body).await;
        let mut claim = claim(&spool).await.unwrap();
        assert_eq!(claim.body.total(), len as u64);
        assert!(octets(&mut claim.body).await == body, "{len} octets");
        let files = body_files(directory.path()).len();
        assert_eq!(files, usize::from(len > 32 * 1024), "{len} octets");
        let settlement = accepted(&claim);
        spool.settle(claim, settlement).await.unwrap();
        until("the body file is gone", || body_files(directory.path()).is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_sink_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let small = sink(&spool, b"small").await;
    let large = sink(&spool, &pattern(200_000)).await;
    assert_eq!((small.written(), large.written()), (5, 200_000));
    assert_eq!(body_files(directory.path()), [directory.path().join("bodies").join(large.id().to_string())]);
    drop((small, large));
    assert!(body_files(directory.path()).is_empty());
    assert_eq!(spool.counts().await.unwrap().messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_nothing_and_makes_what_was_in_flight_uncertain() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for body in [&b"one"[..], b"two", b"three"] {
        put(&spool, body).await;
    }
    let flying = claim(&spool).await.unwrap();
    let _claimed = claim(&spool).await.unwrap();
    spool.mark_in_flight(&flying.guard, &lane());
    let seen = database(directory.path());
    until("the mark is written", || {
        seen.query_row("SELECT count(*) FROM delivery WHERE in_flight = 1", [], |row| row.get(0)) == Ok(1)
    })
    .await;
    let crashed = copy_of(directory.path());
    let (spool, recovered) = open(crashed.path());
    assert_eq!((recovered.boot, recovered.uncertain), (2, 1));
    assert_eq!((recovered.counts.messages, recovered.counts.queued, recovered.counts.uncertain), (3, 3, 1));
    let mut found = Vec::new();
    while let Some(claim) = claim(&spool).await {
        found.push((claim.message, claim.progress.uncertain));
        let settlement = accepted(&claim);
        spool.settle(claim, settlement).await.unwrap();
    }
    assert_eq!(found.iter().filter(|(_, uncertain)| *uncertain == 1).count(), 1);
    assert!(found.contains(&(flying.message, 1)));
    let history: u32 = database(crashed.path())
        .query_row("SELECT count(*) FROM history WHERE event = 'uncertain'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(history, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_claim_is_not_uncertain_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put(&spool, b"body").await;
    let claim = claim(&spool).await.unwrap();
    spool.mark_in_flight(&claim.guard, &lane());
    let later = settlement(vec![part(&[0], Outcome::Deferred(said("later")), Next::Due(NOW))]);
    spool.settle(claim, later).await.unwrap();
    let crashed = copy_of(directory.path());
    let (_, recovered) = open(crashed.path());
    assert_eq!((recovered.uncertain, recovered.counts.uncertain), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_of_earlier_boots_are_swept_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let stored = put(&spool, &pattern(100_000)).await;
    let receiving = sink(&spool, &pattern(100_000)).await;
    let crashed = copy_of(directory.path());
    assert_eq!(body_files(crashed.path()).len(), 2);
    let (spool, _) = open(crashed.path());
    let now_receiving = sink(&spool, &pattern(100_000)).await;
    let mut wanted = vec![stored, now_receiving.id()];
    wanted.sort();
    let names = || {
        let mut ids: Vec<spool::QueueId> = body_files(crashed.path())
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap())
            .collect();
        ids.sort();
        ids
    };
    until("the orphan is gone", || names() == wanted).await;
    assert!(!wanted.contains(&receiving.id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_at_once_shares_a_sync() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let spool = Arc::new(spool);
    let mut tasks = JoinSet::new();
    for _ in 0..400 {
        let spool = Arc::clone(&spool);
        tasks.spawn(async move { put(&spool, b"body").await });
    }
    assert_eq!(tasks.join_all().await.len(), 400);
    assert_eq!(spool.counts().await.unwrap().messages, 400);
    let transactions = spool.transactions();
    assert!(transactions < 200, "{transactions} transactions for 400 messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_recipients_is_not_stored() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for wrong in [message(&[]), spool::NewMessage { deliveries: Vec::new(), ..message(&["a@b.c"]) }] {
        let sink = sink(&spool, b"body").await;
        assert!(matches!(spool.commit(sink, wrong).await, Err(StoreError::Failed(_))));
    }
    assert_eq!(spool.counts().await.unwrap().messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_is_closed_however_often() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let late = sink(&spool, b"late").await;
    put(&spool, b"early").await;
    spool.close().await;
    spool.close().await;
    assert_eq!(spool.commit(late, message(&["a@b.c"])).await, Err(StoreError::Closed));
    assert_eq!(spool.receive().err(), Some(StoreError::Closed));
    assert_eq!(spool.claim(&lanes(), NOW).await.err(), Some(StoreError::Closed));
    assert_eq!(spool.next_due(&lanes()).await, Err(StoreError::Closed));
    assert_eq!(spool.prune_history(NOW).await, Err(StoreError::Closed));
    assert_eq!(spool.counts().await, Err(StoreError::Closed));
    let log = std::fs::metadata(directory.path().join("queue.db-wal")).map_or(0, |file| file.len());
    assert_eq!(log, 0, "the log was brought home");
    assert_eq!(open(directory.path()).1.counts.messages, 1);
}
