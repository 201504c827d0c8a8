//! What a long queue costs: start, store, claim and settle, the next due time, the first page of the list and resident
//! memory, for each of the lengths given (1000 and 100000 if none is), with one client and with a thousand that take turns.
//! At the end of each the queue is drained, and the database's length shows whether its pages went back. Run in release;
//! `DIRECTORY` in the environment is where to measure.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clock::{Clock, SystemClock};
use mail::{Diagnostic, Envelope, ForwardPath, LaneId, LaneSet, Outcome, ReversePath};
use spool::{
    BodySink, ListFilter, NewDelivery, NewMessage, Next, Origin, Part, Selection, Settlement, Spool, SpoolOptions,
    SqliteSpool, Usage,
};
use tokio::task::JoinSet;

const TASKS: usize = 100;
const WORKERS: usize = 20;
const BODY_LEN: usize = 2 * 1024;
/// Claimed and settled of a queue that stays long.
const SOME: usize = 1_000;

fn open(directory: &Path) -> (Arc<SqliteSpool>, Duration) {
    let options = SpoolOptions {
        directory: directory.to_owned(),
        max_messages: 10_000_000,
        max_bytes: 20 << 30,
        min_free_bytes: 0,
        memory_budget: 32 << 20,
    };
    let start = Instant::now();
    let (spool, _) = SqliteSpool::open(options, Arc::new(SystemClock::new())).expect("the queue opens");
    (Arc::new(spool), start.elapsed())
}

fn lane() -> LaneId {
    LaneId::new("tenant", "scanner@contoso.com")
}

fn lanes() -> LaneSet {
    LaneSet::from(&lane())
}

fn message(client: usize) -> NewMessage {
    NewMessage {
        envelope: Envelope::from(ReversePath::Null),
        header: vec![b'h'; 500],
        message_id: "<1@contoso.com>".to_owned(),
        listener: "main".to_owned(),
        client: format!("192.0.{}.{}", client / 250, client % 250),
        user: None,
        origin: Origin::Submitted,
        accepted_at: SystemClock::new().wall(),
        deliveries: vec![NewDelivery {
            tenant: "contoso".to_owned(),
            lanes: lanes(),
            route: "scans".to_owned(),
            route_epoch: 1,
            asked: None,
            recipients: vec![ForwardPath::Postmaster.into()],
        }],
    }
}

async fn fill(spool: &Arc<SqliteSpool>, messages: usize, clients: usize) {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let spool = Arc::clone(spool);
        tasks.spawn(async move {
            let body = vec![b'b'; BODY_LEN];
            for at in 0..messages / TASKS {
                let mut sink = spool.receive().expect("there is room");
                sink.write(&body).await.expect("there is room");
                spool.commit(sink, message((at * TASKS + task) % clients)).await.expect("it is stored");
            }
        });
    }
    tasks.join_all().await;
}

/// Claims, marks and settles so many with several workers.
async fn drain(spool: &Arc<SqliteSpool>, messages: usize) {
    let mut tasks = JoinSet::new();
    for _ in 0..WORKERS {
        let spool = Arc::clone(spool);
        tasks.spawn(async move {
            let clock = SystemClock::new();
            for _ in 0..messages / WORKERS {
                let Some(claim) = spool.claim(&lanes(), clock.wall()).await.expect("it reads") else { return };
                spool.mark_in_flight(&claim.guard, &lane());
                let outcome = Outcome::Accepted(Diagnostic::local("250 2.0.0 OK"));
                let part = Part { recipients: vec![0], outcome, next: Next::Finished, progress: claim.progress };
                let settlement = Settlement {
                    parts: vec![part],
                    at: clock.wall(),
                    lane: lane(),
                    mailbox: "scanner".to_owned(),
                    usage: Usage { messages: 1, recipients: 1, external: 1 },
                    new_messages: Vec::new(),
                    reports: Vec::new(),
                };
                spool.settle(claim, settlement).await.expect("it settles");
            }
        });
    }
    tasks.join_all().await;
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let fields: Vec<_> = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM")).collect();
    fields.join(", ").replace(['\t', ' '], "")
}

fn rate(count: usize, start: Instant) -> u128 {
    count as u128 * 1_000_000 / start.elapsed().as_micros().max(1)
}

async fn until_tidy(path: &Path) -> u64 {
    let len = || std::fs::metadata(path).map_or(0, |file| file.len());
    let mut before = len();
    // The writer gives pages back after a quiet second, and the log is brought home after that.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        if len() == before && std::fs::metadata(path.with_extension("db-wal")).map_or(0, |file| file.len()) == 0 {
            break;
        }
        before = len();
    }
    len()
}

#[allow(clippy::print_stdout, reason = "its figures are its purpose")]
async fn measure(place: &Path, messages: usize, clients: usize) {
    println!("{messages} messages of {clients} clients");
    let directory = tempfile::tempdir_in(place).expect("a directory can be made");
    let database = directory.path().join("queue.db");
    let (spool, _) = open(directory.path());
    let start = Instant::now();
    fill(&spool, messages, clients).await;
    println!("  stored: {}/s; {}", rate(messages, start), resident());
    spool.close().await;
    drop(spool);
    let full = std::fs::metadata(&database).map_or(0, |file| file.len());
    let (spool, opened) = open(directory.path());
    println!("  start: {opened:?}; database of {} MiB; {}", full >> 20, resident());
    let start = Instant::now();
    let due = spool.next_due(&lanes()).await.expect("it reads");
    println!("  next_due: {:?}", start.elapsed());
    let start = Instant::now();
    let earliest = spool.earliest_due().await.expect("it reads");
    println!("  earliest_due: {:?}", start.elapsed());
    assert_eq!(due, earliest);
    let start = Instant::now();
    let page = spool.list(&ListFilter::default(), None, 100).await.expect("it reads");
    println!("  list, first page of {}: {:?}; {}", page.deliveries.len(), start.elapsed(), resident());
    let start = Instant::now();
    let (mut after, mut looks) = (None, 0);
    loop {
        let selected = spool.claim_selected(&Selection::OtherEpoch(1), after).await.expect("it reads");
        assert!(selected.claim.is_none());
        looks += 1;
        match selected.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    println!("  none of another epoch: {:?}, {looks} looks; {}", start.elapsed(), resident());
    let start = Instant::now();
    drain(&spool, SOME.min(messages / 2)).await;
    println!("  claim, mark, settle while it is long: {}/s", rate(SOME.min(messages / 2), start));
    let start = Instant::now();
    drain(&spool, messages).await;
    println!("  claim, mark, settle the rest: {}/s; {}", rate(messages - SOME.min(messages / 2), start), resident());
    let left = spool.counts().await.expect("it reads");
    let tidy = until_tidy(&database).await;
    println!(
        "  drained, left {}: database of {} MiB, after it was tidied {} MiB",
        left.messages,
        full >> 20,
        tidy >> 20
    );
    spool.close().await;
}

#[tokio::main]
async fn main() {
    let place = std::env::var("DIRECTORY").map_or_else(|_| std::env::temp_dir(), Into::into);
    let mut lengths: Vec<usize> = std::env::args().skip(1).filter_map(|length| length.parse().ok()).collect();
    if lengths.is_empty() {
        lengths = vec![1_000, 100_000];
    }
    for messages in lengths {
        for clients in [1, 1_000] {
            measure(&place, messages, clients).await;
        }
    }
}
