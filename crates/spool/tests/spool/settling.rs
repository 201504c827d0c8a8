//! A settlement is one transaction: it parts the delivery, writes history and usage, stores bounces and failures
//! for a digest, and ends the message.

use std::sync::Arc;
use std::time::Duration;

use clock::ManualClock;
use mail::{Diagnostic, EnhancedCode, LaneId, LaneSet, Outcome, ReversePath};
use spool::{
    BodySink, Counts, NewMessage, NewReport, Next, Origin, QueueId, ReportGroup, Settlement, Spool, SqliteSpool,
    StoreError, Usage,
};

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

#[tokio::test(flavor = "multi_thread")]
async fn who_was_to_wait_and_is_given_up_has_expired() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let sink = sink(&spool, b"body").await;
    spool.commit(sink, message(&["a@b.c", "d@b.c", "h@b.c", "p@b.c", "u@b.c", "r@b.c"])).await.unwrap();
    let claim = claim(&spool).await.unwrap();
    let held = Outcome::Held { scope: mail::Scope::Tenant, diagnostic: said("token") };
    let parts = vec![
        part(&[0], Outcome::Accepted(said("ok")), Next::Finished),
        part(&[1], Outcome::Deferred(said("busy")), Next::Finished),
        part(&[2], held, Next::Finished),
        part(&[3], Outcome::Paced(said("slow")), Next::Finished),
        part(&[4], Outcome::Uncertain(said("lost")), Next::Finished),
        part(&[5], Outcome::Refused(said("no")), Next::Finished),
    ];
    spool.settle(claim, settlement(parts)).await.unwrap();
    let events: Vec<_> = history(directory.path()).into_iter().map(|(event, ..)| event).collect();
    assert_eq!(events, ["accepted", "expired", "expired", "expired", "expired", "refused"]);
    assert_eq!(spool.counts().await.unwrap(), Counts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_s_usage_is_summed_by_the_minute() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let other = LaneId::new("tenant", "other@contoso.com");
    let usage = |messages, recipients, external| Usage { messages, recipients, external };
    for (lane, seconds, used) in [
        (lane(), 1, usage(1, 3, 2)),
        (lane(), 59, usage(1, 1, 0)),
        (lane(), 61, usage(1, 2, 1)),
        (other.clone(), 3, usage(1, 1, 1)),
        (LaneId::new("tenant", "idle@contoso.com"), 3, Usage::default()),
    ] {
        put(&spool, b"body").await;
        let claim = claim(&spool).await.unwrap();
        let settlement = Settlement { lane, usage: used, at: NOW + Duration::from_secs(seconds), ..accepted(&claim) };
        spool.settle(claim, settlement).await.unwrap();
    }
    spool.close().await;
    let (spool, _) = open(directory.path());
    let minute = NOW + Duration::from_mins(1);
    assert_eq!(
        spool.usage_since(&lane(), NOW + Duration::from_secs(30)).await.unwrap(),
        [(NOW, usage(2, 4, 2)), (minute, usage(1, 2, 1))]
    );
    assert_eq!(spool.usage_since(&lane(), minute).await.unwrap(), [(minute, usage(1, 2, 1))]);
    assert_eq!(spool.used_lanes(NOW).await.unwrap(), [other, lane()]);
    assert_eq!(spool.used_lanes(minute).await.unwrap(), [lane()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_forgotten_after_a_day_and_an_hour() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(NOW));
    let (spool, _) = SqliteSpool::open(options(directory.path()), clock.clone()).unwrap();
    put(&spool, b"body").await;
    let claim = claim(&spool).await.unwrap();
    let used = Usage { messages: 1, recipients: 1, external: 0 };
    let settlement = Settlement { usage: used, ..accepted(&claim) };
    spool.settle(claim, settlement).await.unwrap();
    clock.advance(Duration::from_hours(25));
    spool.prune_history(NOW).await.unwrap();
    assert_eq!(spool.used_lanes(NOW).await.unwrap(), [lane()]);
    clock.advance(Duration::from_mins(1));
    spool.prune_history(NOW).await.unwrap();
    assert_eq!(spool.used_lanes(NOW).await.unwrap(), []);
}

/// A failure of `message` for `to`, so many seconds after the start.
fn failure(to: &str, seconds: u64) -> NewReport {
    NewReport {
        tenant: "contoso".to_owned(),
        lanes: lanes(),
        to: to.to_owned(),
        at: NOW + Duration::from_secs(seconds),
        message: QueueId::new(1, 1),
        message_id: "<1@contoso.com>".to_owned(),
        sender: "erp@contoso.com".to_owned(),
        recipients: "x@b.c".to_owned(),
        reply: "550 5.1.1 gone".to_owned(),
    }
}

/// Stores failures for later, as a settlement does.
async fn fail(spool: &SqliteSpool, reports: Vec<NewReport>) {
    put(spool, b"body").await;
    let claim = claim(spool).await.unwrap();
    let settlement = Settlement { reports, ..accepted(&claim) };
    spool.settle(claim, settlement).await.unwrap();
}

/// A digest that tells of `reports`.
async fn tell(spool: &SqliteSpool, reports: Vec<i64>) -> bool {
    let mut sink = spool.receive_own().unwrap();
    sink.write(&pattern(50_000)).await.unwrap();
    let digest = NewMessage { origin: Origin::Report, ..message(&["postmaster@contoso.com"]) };
    spool.commit_digest(sink, digest, reports).await.unwrap()
}

async fn ids(spool: &SqliteSpool, to: &str) -> Vec<i64> {
    spool.report_entries("contoso", to, 100).await.unwrap().into_iter().map(|(id, _)| id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_wait_for_their_digest() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    assert_eq!(spool.reports(10).await.unwrap(), []);
    fail(&spool, vec![failure("b@contoso.com", 5), failure("a@contoso.com", 9), failure("a@contoso.com", 3)]).await;
    spool.close().await;
    let (spool, _) = open(directory.path());
    let group = |to: &str, count, seconds| ReportGroup {
        tenant: "contoso".to_owned(),
        to: to.to_owned(),
        count,
        oldest: NOW + Duration::from_secs(seconds),
    };
    assert_eq!(spool.reports(10).await.unwrap(), [group("a@contoso.com", 2, 3), group("b@contoso.com", 1, 5)]);
    assert_eq!(spool.reports(1).await.unwrap().len(), 1);
    let entries = spool.report_entries("contoso", "a@contoso.com", 10).await.unwrap();
    let failures: Vec<_> = entries.into_iter().map(|(_, failure)| failure).collect();
    assert_eq!(failures, [failure("a@contoso.com", 3), failure("a@contoso.com", 9)], "oldest first");
    assert_eq!(spool.report_entries("contoso", "a@contoso.com", 1).await.unwrap().len(), 1);
    assert_eq!(spool.report_entries("fabrikam", "a@contoso.com", 1).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_and_the_end_of_its_failures_are_one_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    fail(&spool, vec![failure("a@contoso.com", 1), failure("a@contoso.com", 2)]).await;
    let told = ids(&spool, "a@contoso.com").await;
    fail(&spool, vec![failure("a@contoso.com", 3)]).await;
    let before = spool.transactions();
    assert!(tell(&spool, told).await);
    assert_eq!(spool.transactions(), before + 1);
    assert_eq!(spool.reports(9).await.unwrap()[0].count, 1, "the later one waits for the next");
    let crashed = copy_of(directory.path());
    let (spool, _) = open(crashed.path());
    assert_eq!(ids(&spool, "a@contoso.com").await.len(), 1);
    let mut digest = claim(&spool).await.unwrap();
    assert_eq!(digest.origin, Origin::Report);
    assert_eq!(octets(&mut digest.body).await, pattern(50_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_of_failures_that_are_gone_is_not_stored() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    fail(&spool, vec![failure("a@contoso.com", 1), failure("a@contoso.com", 2)]).await;
    let told = ids(&spool, "a@contoso.com").await;
    assert!(tell(&spool, told[..1].to_vec()).await);
    for wrong in [told.clone(), told[..1].to_vec(), vec![], vec![i64::MAX]] {
        assert!(!tell(&spool, wrong.clone()).await, "{wrong:?}");
        assert_eq!(ids(&spool, "a@contoso.com").await, told[1..], "nothing is forgotten untold");
    }
    assert_eq!(spool.counts().await.unwrap().messages, 1);
    assert_eq!(body_files(directory.path()).len(), 1);
    assert!(tell(&spool, told[1..].to_vec()).await);
    assert_eq!(spool.counts().await.unwrap().messages, 2);
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
