//! What went straight through is written down as what was queued is: its history, and what its lane used.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clock::ManualClock;
use mail::{Diagnostic, EnhancedCode, Outcome, ReversePath, Scope};
use spool::{BodySink, Passage, QueueId, Spool, SqliteSpool, Usage};

use crate::harness::*;

fn passage(id: QueueId, outcomes: Vec<(&str, Outcome)>) -> Passage {
    Passage {
        id,
        at: NOW,
        lane: lane(),
        tenant: "contoso".to_owned(),
        mailbox: "scanner".to_owned(),
        sender: ReversePath::parse(b"erp@contoso.com").unwrap(),
        client: "192.0.2.7".to_owned(),
        message_id: "<1@contoso.com>".to_owned(),
        outcomes: outcomes.into_iter().map(|(to, outcome)| (path(to), outcome)).collect(),
        usage: Usage { messages: 1, recipients: 2, external: 1 },
    }
}

/// Upstream said so.
fn upstream(code: u16, enhanced: (u8, u16, u16), text: &str) -> Diagnostic {
    let (class, subject, detail) = enhanced;
    Diagnostic { code: Some(code), enhanced: Some(EnhancedCode::new(class, subject, detail)), text: text.to_owned() }
}

/// Behind a write that is awaited, what is not awaited is written too.
async fn barrier(spool: &SqliteSpool) {
    spool.prune_history(NOW).await.unwrap();
}

/// Event, recipient, reply and attempt of each line that tells of `id` what [`passage`] says.
fn history(directory: &Path, id: QueueId) -> Vec<(String, String, String, u32)> {
    let connection = database(directory);
    let mut statement = connection
        .prepare(
            "SELECT event, recipient, reply, attempt FROM history WHERE message = ?1 AND at = ?2 AND lane = ?3
             AND sender = 'erp@contoso.com' AND mailbox = 'scanner' AND client = '192.0.2.7'
             AND message_id = '<1@contoso.com>' AND tenant = 'contoso' ORDER BY id",
        )
        .unwrap();
    let rows = statement.query_map(rusqlite::params![id.to_i64(), NOW.unix_millis(), lane().as_str()], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_tells_of_each_recipient_and_the_lane_of_what_it_used() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let id = spool.passing_id();
    let outcomes = vec![
        ("a@b.c", Outcome::Accepted(upstream(250, (2, 0, 0), "OK <x> [Hostname=Y]"))),
        ("d@b.c", Outcome::Refused(upstream(550, (5, 1, 1), "User unknown"))),
        ("e@b.c", Outcome::Deferred(upstream(451, (4, 7, 500), "Busy"))),
        ("f@b.c", Outcome::Paced(upstream(432, (4, 3, 2), "Concurrent connections limit"))),
        ("g@b.c", Outcome::Paced(said("our own pace"))),
        ("h@b.c", Outcome::Held { scope: Scope::Mailbox, diagnostic: upstream(535, (5, 7, 3), "No") }),
        ("i@b.c", Outcome::Uncertain(said("the connection was lost"))),
    ];
    spool.record(passage(id, outcomes));
    spool.close().await;
    let event = |event: &str, to: &str, reply: &str| (event.to_owned(), to.to_owned(), reply.to_owned(), 1);
    let told = [
        event("accepted", "a@b.c", "250 2.0.0 OK <x> [Hostname=Y]"),
        event("refused", "d@b.c", "550 5.1.1 User unknown"),
        event("deferred", "e@b.c", "451 4.7.500 Busy"),
        event("paced", "f@b.c", "432 4.3.2 Concurrent connections limit"),
        event("held", "h@b.c", "535 5.7.3 No"),
        event("uncertain", "i@b.c", "the connection was lost"),
    ];
    assert_eq!(history(directory.path(), id), told, "written before the end");
    let (spool, recovered) = open(directory.path());
    assert_eq!(recovered.counts, spool::Counts::default(), "nothing of it is stored");
    let used = spool.usage_since(&lane(), NOW).await.unwrap();
    assert_eq!(used, [(NOW, Usage { messages: 1, recipients: 2, external: 1 })]);
    assert_eq!(spool.used_lanes(NOW).await.unwrap(), [lane()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passed_and_what_was_queued_share_the_minute_of_their_lane() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put(&spool, b"body").await;
    let claim = claim(&spool).await.unwrap();
    let queued = spool::Settlement { usage: Usage { messages: 1, recipients: 1, external: 0 }, ..accepted(&claim) };
    let id = spool.passing_id();
    spool.record(passage(id, vec![("a@b.c", Outcome::Accepted(said("ok")))]));
    spool.settle(claim, queued).await.unwrap();
    barrier(&spool).await;
    let used = spool.usage_since(&lane(), NOW).await.unwrap();
    assert_eq!(used, [(NOW, Usage { messages: 2, recipients: 3, external: 1 })]);
    assert_eq!(history(directory.path(), id).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_forgotten_by_age_like_all_history() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(NOW));
    let (spool, _) = SqliteSpool::open(options(directory.path()), clock.clone()).unwrap();
    let id = spool.passing_id();
    spool.record(passage(id, vec![("a@b.c", Outcome::Accepted(said("ok")))]));
    barrier(&spool).await;
    assert_eq!(history(directory.path(), id).len(), 1);
    clock.advance(Duration::from_hours(26));
    assert_eq!(spool.prune_history(NOW + Duration::from_millis(1)).await, Ok(1));
    assert_eq!(history(directory.path(), id), []);
    assert_eq!(spool.used_lanes(NOW).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_id_is_given_twice_to_what_is_stored_and_what_passes() {
    let directory = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (spool, _) = open(directory.path());
        for _ in 0..3 {
            ids.push(spool.passing_id());
            ids.push(spool.receive().unwrap().id());
            ids.push(spool.receive_own().unwrap().id());
        }
        spool.close().await;
    }
    assert!(ids.is_sorted_by(|one, other| one < other), "{ids:?}");
}
