//! A queue of an earlier format is taken over whole, or not at all if the daemon dies while it does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mail::{LaneId, LaneSet, Notify};
use spool::{DeliveryState, ListFilter, Place, Placed, Rerouting, Selection, Spool, SqliteSpool, Usage};

use crate::harness::*;

/// The queue that was kept of the first format.
fn first_format() -> tempfile::TempDir {
    copy_of(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/format-1")))
}

fn queue(login: &str) -> LaneSet {
    LaneSet::from(&LaneId::new("tenant", &format!("{login}@contoso.com")))
}

/// Claims and settles all that is queued; gives message, recipients, attempts, uncertainties and octets of each.
async fn sent(spool: &SqliteSpool, lanes: &LaneSet) -> Vec<(String, String, u32, u32, u64)> {
    let minute_later = NOW + std::time::Duration::from_mins(1);
    let mut sent = Vec::new();
    while let Some(mut claim) = spool.claim(lanes, minute_later).await.unwrap() {
        let body = octets(&mut claim.body).await;
        let recipients: Vec<_> = claim.recipients.iter().map(ToString::to_string).collect();
        let progress = claim.progress;
        sent.push((
            claim.message.to_string(),
            recipients.join(","),
            progress.attempts,
            progress.uncertain,
            body.len() as u64,
        ));
        let settlement = accepted(&claim);
        spool.settle(claim, settlement).await.unwrap();
    }
    sent.sort();
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_the_first_format_is_found_and_can_be_sent() {
    let directory = first_format();
    let at_rest = directory.path().join("lock");
    std::fs::write(&at_rest, "").unwrap();
    assert_eq!(SqliteSpool::peek(directory.path()).unwrap().messages, 8, "looked at before it is taken over");
    let (spool, recovered) = open(directory.path());
    let counts = recovered.counts;
    assert_eq!((recovered.boot, recovered.uncertain, counts.messages, counts.bytes), (2, 1, 8, 40_172));
    assert_eq!((counts.queued, counts.held, counts.quarantined, counts.uncertain), (6, 1, 1, 1));
    let row = |message: &str, recipients: &str, attempts, uncertain, octets| {
        (message.to_owned(), recipients.to_owned(), attempts, uncertain, octets)
    };
    assert_eq!(
        sent(&spool, &queue("scanner")).await,
        [
            row("1-1", "two@b.c,three@b.c", 1, 0, 8),
            row("1-3", "refused@b.c", 0, 0, 7),
            row("1-6", "flying@b.c", 0, 1, 9),
        ]
    );
    let reported = spool.list(&ListFilter { lanes: Some(queue("erp")), state: None }, None, 10).await.unwrap();
    assert_eq!(reported.deliveries[1].recipients[0].notify, Some(Notify::NEVER));
    assert_eq!(
        sent(&spool, &queue("erp")).await,
        [row("1-7", "large@b.c", 0, 0, 40_000), row("1-8", "reported@b.c", 0, 0, 8), row("1-9", "plain@b.c", 0, 0, 5),]
    );
    let left = spool.list(&ListFilter::default(), None, 10).await.unwrap().deliveries;
    let left: Vec<_> = left.into_iter().map(|left| (left.state, left.client, left.diagnostic.unwrap())).collect();
    assert_eq!(
        left,
        [
            (DeliveryState::Held, "192.0.2.2".to_owned(), "554 5.2.252 SendAsDenied".to_owned()),
            (DeliveryState::Quarantined, "192.0.2.4".to_owned(), "damaged".to_owned()),
        ]
    );
    assert_eq!(spool.counts().await.unwrap().messages, 2);
    // What was in flight may have been counted by upstream.
    let scanner = LaneId::new("tenant", "scanner@contoso.com");
    let used = spool.usage_since(&scanner, NOW).await.unwrap();
    assert_eq!(used, [(NOW, Usage { messages: 1, recipients: 1, external: 1 })]);
    let history = "SELECT count(*) FROM history WHERE reply = '450 4.7.0 busy' AND event = 'deferred'";
    let told: u32 = database(directory.path()).query_row(history, [], |row| row.get(0)).unwrap();
    assert_eq!(told, 2, "its history is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_first_format_take_turns() {
    let directory = first_format();
    let (spool, _) = open(directory.path());
    let mut clients = Vec::new();
    while let Some(claim) = spool.claim(&queue("erp"), NOW).await.unwrap() {
        clients.push(claim.client.clone());
        let settlement = accepted(&claim);
        spool.settle(claim, settlement).await.unwrap();
    }
    assert_eq!(clients, ["192.0.2.7", "192.0.2.8", "192.0.2.7"]);
}

const MESSAGES: u32 = 20_000;
/// Tells a copy of this test that it is the one to be killed, and where.
const VICTIM: &str = "SPOOL_TEST_MIGRATES";

/// Many messages in the first format, every fourth refused.
fn long_first_format() -> tempfile::TempDir {
    let directory = first_format();
    database(directory.path())
        .execute_batch(&format!(
            "BEGIN;
             WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {MESSAGES})
             INSERT INTO message SELECT (1 << 32) + 1000 + n, {NOW}, 'erp@contoso.com', 0, 0, '<1@contoso.com>', 'main',
                 '192.0.2.' || (n % 200), 414, 400, 0, randomblob(14), randomblob(400) FROM number;
             INSERT INTO delivery SELECT id, id, 'contoso', 'tenant/scanner@contoso.com', 7,
                 CASE id % 4 WHEN 0 THEN 2 ELSE 0 END, {NOW}, 0, 0, NULL, 0, NULL, 'a@b.c' FROM message
                 WHERE id > (1 << 32) + 1000;
             UPDATE meta SET messages = messages + {MESSAGES}, bytes = bytes + 414 * {MESSAGES},
                 queued = queued + {MESSAGES} * 3 / 4, refused = refused + {MESSAGES} / 4;
             COMMIT;",
            NOW = NOW.unix_millis()
        ))
        .unwrap();
    directory
}

/// Starts a copy of this test that takes the queue over, and kills it once the log has grown so long; false if it had
/// ended before.
fn kill_at(directory: &Path, log: u64) -> bool {
    let test = "migrating::a_killed_migration_was_whole_or_nothing";
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(VICTIM, directory)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let path = directory.join("queue.db-wal");
    loop {
        if let Some(status) = victim.try_wait().unwrap() {
            assert!(status.success());
            return false;
        }
        if std::fs::metadata(&path).is_ok_and(|found| found.len() >= log) {
            victim.kill().unwrap();
            victim.wait().unwrap();
            return true;
        }
        std::thread::yield_now();
    }
}

/// Either format, and nothing between.
fn format_of(directory: &Path) -> u32 {
    let connection = database(directory);
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let has = |sql: &str| connection.prepare(sql).is_ok();
    assert_eq!(has("SELECT route, client, age FROM delivery"), version == 3);
    assert_eq!(has("SELECT * FROM usage, report"), version == 3);
    assert_eq!(has("SELECT user, asked FROM delivery"), version == 3);
    assert_eq!(has("SELECT refused FROM meta"), version == 1);
    version
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_migration_was_whole_or_nothing() {
    if let Some(directory) = std::env::var_os(VICTIM) {
        open(&PathBuf::from(directory)).0.close().await;
        return;
    }
    let long = long_first_format();
    let mut formats = Vec::new();
    let mut octets = 0;
    loop {
        let directory = copy_of(long.path());
        let killed = kill_at(directory.path(), octets);
        formats.push(format_of(directory.path()));
        let (spool, recovered) = open(directory.path());
        let counts = &recovered.counts;
        assert_eq!(
            (counts.messages, counts.queued),
            (u64::from(MESSAGES + 8), u64::from(MESSAGES + 6)),
            "killed at {octets}"
        );
        let other = database(directory.path());
        let one = |sql: &str| other.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
        assert_eq!(one("SELECT count(*) FROM delivery WHERE state = 0"), MESSAGES + 6);
        let own = "SELECT count(*) FROM delivery d JOIN message m ON m.id = d.message AND m.client = d.client";
        assert_eq!(one(own), MESSAGES + 8);
        assert!(spool.claim(&queue("scanner"), NOW).await.unwrap().is_some());
        spool.close().await;
        assert_eq!(format_of(directory.path()), 3);
        if !killed {
            break;
        }
        octets += 512 * 1024;
    }
    println!("killed in formats {formats:?}");
    assert!(formats.contains(&1), "at least one was killed half-way: {formats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_the_second_format_is_found_and_can_be_sent() {
    let directory = copy_of(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/format-2")));
    let (spool, recovered) = open(directory.path());
    let counts = recovered.counts;
    assert_eq!((recovered.boot, recovered.uncertain, counts.messages), (2, 1, 5));
    assert_eq!((counts.queued, counts.held, counts.quarantined, counts.uncertain), (4, 1, 0, 1));
    let scanner = LaneId::new("tenant", "scanner@contoso.com");
    let both = LaneSet::new(&scanner, &[LaneId::new("tenant", "erp@contoso.com")]);
    let listed = spool.list(&ListFilter { lanes: Some(both.clone()), state: None }, None, 10).await.unwrap().deliveries;
    let late = listed.first().unwrap();
    assert_eq!((late.listener.as_str(), late.route_epoch), ("main", 7));
    assert_eq!((&late.user, &late.asked), (&None, &None), "nobody wrote it down then");
    assert_eq!((late.route.as_str(), late.progress.delay_told, late.progress.age.as_secs()), ("invoices", true, 60));
    let held = DeliveryState::Held;
    let held = ListFilter { lanes: None, state: Some(held) };
    assert_eq!(spool.list(&held, None, 10).await.unwrap().deliveries[0].progress.uncertain, 3);
    let row = |message: &str, recipients: &str, attempts, uncertain, octets| {
        (message.to_owned(), recipients.to_owned(), attempts, uncertain, octets)
    };
    assert_eq!(
        sent(&spool, &both).await,
        [row("1-1", "late@b.c,later@b.c", 1, 0, 8), row("1-5", "large@b.c", 0, 0, 40_000)]
    );
    assert_eq!(
        sent(&spool, &queue("scanner")).await,
        [row("1-4", "flying@b.c", 0, 1, 9), row("1-6", "erp@contoso.com", 0, 0, 6)],
        "what was in flight goes on by its lane alone"
    );
    let waiting = spool.report_entries("contoso", "erp@contoso.com", 10).await.unwrap();
    assert_eq!(waiting.iter().map(|(_, report)| report.recipients.as_str()).collect::<Vec<_>>(), ["gone@b.c"]);
    let used: u32 = spool.usage_since(&scanner, NOW).await.unwrap().iter().map(|(_, usage)| usage.messages).sum();
    assert_eq!(used, 3, "two that were sent, and one that was in flight");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_queued_in_the_second_format_can_follow_the_routes() {
    let directory = copy_of(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/format-2")));
    let (spool, _) = open(directory.path());
    let (mut messages, mut after) = (Vec::new(), None);
    loop {
        let selected = spool.claim_selected(&Selection::OtherEpoch(8), after).await.unwrap();
        if let Some(claim) = selected.claim {
            messages.push(claim.message.to_string());
            let parts = vec![Placed { recipients: (0..claim.recipients.len()).collect(), place: Place::Stays }];
            spool.reroute(claim, Rerouting { epoch: 8, parts, said: None, at: NOW }).await.unwrap();
        }
        match selected.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    messages.sort();
    assert_eq!(messages, ["1-1", "1-4", "1-5", "1-6"], "all but the one that is held");
    assert_eq!(spool.counts().await.unwrap().queued, 4);
    let again = spool.claim_selected(&Selection::OtherEpoch(8), None).await.unwrap();
    assert_eq!((again.claim.is_none(), again.next), (true, None));
}
