//! A settlement is one transaction: it parts the delivery, writes history, stores bounces, and ends the message.

use std::time::Duration;

use mail::{Diagnostic, EnhancedCode, LaneId, LaneSet, Outcome, ReversePath};
use spool::{BodySink, Counts, Next, Settlement, Spool, StoreError};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn three_recipients_part_ways() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let sink = sink(&spool, b"body").await;
    spool.commit(sink, message(&["a@b.c", "x@b.c", "l@b.c"])).await.unwrap();
    let first = claim(&spool).await.unwrap();
    let due = NOW + Duration::from_mins(1);
    let gone = Diagnostic { code: Some(550), enhanced: Some(EnhancedCode::new(5, 1, 1)), text: "gone".to_owned() };
    let parts = vec![
        part(&[0], Outcome::Accepted(said("2.0.0 OK")), Next::Finished),
        part(&[1], Outcome::Refused(gone), Next::Held),
        counted(part(&[2], Outcome::Deferred(said("busy")), Next::Due(due)), 1, 0),
    ];
    spool.settle(first, settlement(parts)).await.unwrap();
    let counts = spool.counts().await.unwrap();
    assert_eq!((counts.messages, counts.queued, counts.held), (1, 1, 1));
    assert!(claim(&spool).await.is_none());
    let later = spool.claim(&lanes(), due).await.unwrap().unwrap();
    assert_eq!((later.recipients.clone(), later.progress.attempts), (vec![path("l@b.c")], 1));
    let settlement = accepted(&later);
    spool.settle(later, settlement).await.unwrap();
    let counts = spool.counts().await.unwrap();
    assert_eq!((counts.messages, counts.queued, counts.held), (1, 0, 1), "the held one still waits");
    assert_eq!(
        history(directory.path()),
        [
            ("accepted", "a@b.c", "2.0.0 OK", 1),
            ("refused", "x@b.c", "550 5.1.1 gone", 1),
            ("deferred", "l@b.c", "busy", 1),
            ("accepted", "l@b.c", "2.0.0 OK", 2),
        ]
        .map(|(event, recipient, reply, attempt)| (event.into(), recipient.into(), reply.into(), attempt))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounce_and_the_refusal_that_made_it_are_one_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put(&spool, &pattern(100_000)).await;
    let refused = claim(&spool).await.unwrap();
    let before = spool.transactions();
    let mut bounce = spool.receive_own().unwrap();
    bounce.write(b"could not be delivered").await.unwrap();
    let id = bounce.id();
    let mut report = message(&["erp@contoso.com"]);
    report.envelope.reverse_path = ReversePath::Null;
    let parts = vec![part(&[0], Outcome::Refused(said("no")), Next::Finished)];
    let settlement = Settlement { new_messages: vec![(bounce, report)], ..settlement(parts) };
    spool.settle(refused, settlement).await.unwrap();
    assert_eq!(spool.transactions(), before + 1);
    let mut claim = claim(&spool).await.unwrap();
    assert_eq!((claim.message, claim.envelope.reverse_path.clone()), (id, ReversePath::Null));
    assert_eq!(octets(&mut claim.body).await, b"could not be delivered");
    assert_eq!(spool.counts().await.unwrap().messages, 1);
    until("the body file is gone", || body_files(directory.path()).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_lives_as_long_as_its_last_delivery() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let other = LaneSet::from(&LaneId::new("tenant", "other@contoso.com"));
    let sink = sink(&spool, &pattern(50_000)).await;
    let mut two = message(&["a@b.c"]);
    two.deliveries.push(delivery(&other, &["d@e.f"]));
    spool.commit(sink, two).await.unwrap();
    let one = claim(&spool).await.unwrap();
    let settlement = accepted(&one);
    spool.settle(one, settlement).await.unwrap();
    assert_eq!(spool.counts().await.unwrap().messages, 1);
    let mut last = spool.claim(&other, NOW).await.unwrap().unwrap();
    assert_eq!(octets(&mut last.body).await, pattern(50_000));
    let settlement = accepted(&last);
    spool.settle(last, settlement).await.unwrap();
    assert_eq!(spool.counts().await.unwrap(), Counts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_follow_every_state() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for (outcome, next, uncertain) in [
        (Outcome::Held { scope: mail::Scope::Mailbox, diagnostic: said("535") }, Next::Held, 0),
        (Outcome::Refused(said("damaged")), Next::Quarantined, 0),
        (Outcome::Uncertain(said("lost")), Next::Due(NOW + Duration::from_secs(9)), 1),
    ] {
        put(&spool, b"12345").await;
        let claim = claim(&spool).await.unwrap();
        spool.settle(claim, settlement(vec![counted(part(&[0], outcome, next), 0, uncertain)])).await.unwrap();
    }
    let header = message(&[]).header.len() as u64;
    let wanted = Counts {
        messages: 3,
        bytes: 3 * (5 + header),
        queued: 1,
        held: 1,
        quarantined: 1,
        uncertain: 1,
        oldest: Some(NOW),
    };
    assert_eq!(spool.counts().await.unwrap(), wanted);
    spool.close().await;
    assert_eq!(open(directory.path()).1.counts, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_earliest_due_is_that_of_all_lanes_and_only_of_what_is_queued() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    assert_eq!(spool.earliest_due().await.unwrap(), None);
    let other = LaneSet::from(&LaneId::new("tenant", "other@contoso.com"));
    for (lanes, seconds) in [(lanes(), 30), (other.clone(), 20), (lanes(), 40)] {
        let sink = sink(&spool, b"body").await;
        let accepted_at = NOW + Duration::from_secs(seconds);
        let deliveries = vec![delivery(&lanes, &["a@b.c"])];
        spool.commit(sink, spool::NewMessage { accepted_at, deliveries, ..message(&[]) }).await.unwrap();
    }
    assert_eq!(spool.earliest_due().await.unwrap(), Some(NOW + Duration::from_secs(20)));
    assert_eq!(spool.queued(&lanes(), 10).await.unwrap(), 2);
    assert_eq!(spool.queued(&lanes(), 1).await.unwrap(), 1, "counted no further");
    let claim = spool.claim(&other, NOW + Duration::from_secs(20)).await.unwrap().unwrap();
    let held = part(&[0], Outcome::Refused(said("no")), Next::Held);
    spool.settle(claim, settlement(vec![held])).await.unwrap();
    assert_eq!(spool.earliest_due().await.unwrap(), Some(NOW + Duration::from_secs(30)));
    assert_eq!(spool.queued(&other, 10).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_told_again_is_no_new_history() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put(&spool, b"body").await;
    for text in ["535", "535", "535 5.7.3", "535 5.7.3"] {
        let claim = claim(&spool).await.unwrap();
        let held = Outcome::Held { scope: mail::Scope::Mailbox, diagnostic: said(text) };
        spool.settle(claim, settlement(vec![part(&[0], held, Next::Due(NOW))])).await.unwrap();
    }
    let paced = claim(&spool).await.unwrap();
    spool.settle(paced, settlement(vec![part(&[0], Outcome::Paced(said("slow")), Next::Due(NOW))])).await.unwrap();
    let replies: Vec<_> = history(directory.path()).into_iter().map(|(_, _, reply, _)| reply).collect();
    assert_eq!(replies, ["535", "535 5.7.3"]);
    assert_eq!(claim(&spool).await.unwrap().progress.attempts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_forgotten_by_age_and_piecemeal() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let recipients: Vec<String> = (0..1_500).map(|at| format!("r{at}@b.c")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let sink = sink(&spool, b"body").await;
    spool.commit(sink, message(&recipients)).await.unwrap();
    let claim = claim(&spool).await.unwrap();
    let settlement = accepted(&claim);
    spool.settle(claim, settlement).await.unwrap();
    assert_eq!(spool.prune_history(NOW).await, Ok(0));
    let after = NOW + Duration::from_secs(1);
    assert_eq!(spool.prune_history(after).await, Ok(1_000));
    assert_eq!(spool.prune_history(after).await, Ok(500));
    assert_eq!(spool.prune_history(after).await, Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_forgets_somebody_is_refused_and_the_claim_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let sink = sink(&spool, b"body").await;
    spool.commit(sink, message(&["a@b.c", "x@b.c"])).await.unwrap();
    let first = claim(&spool).await.unwrap();
    let short = settlement(vec![part(&[0], Outcome::Accepted(said("ok")), Next::Finished)]);
    assert!(matches!(spool.settle(first, short).await, Err(StoreError::Failed(_))));
    assert!(claim(&spool).await.is_none());
    assert_eq!(spool.counts().await.unwrap().queued, 1);
}

type Event = (String, String, String, u32);

fn history(directory: &std::path::Path) -> Vec<Event> {
    let connection = database(directory);
    let mut statement = connection
        .prepare(
            "SELECT event, recipient, reply, attempt FROM history WHERE sender = 'erp@contoso.com' AND mailbox = 'scanner'
             AND client = '192.0.2.7' AND message_id = '<1@contoso.com>' AND tenant = 'contoso' ORDER BY id",
        )
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
    rows.map(Result::unwrap).collect()
}
