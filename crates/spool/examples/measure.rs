//! Figures of the spool on this machine: durable commits a second, draining, and opening with a long queue. Run in release;
//! the optional argument is the directory to measure in.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clock::{Clock, SystemClock};
use mail::{Diagnostic, Envelope, ForwardPath, LaneId, LaneSet, Outcome, ReversePath};
use spool::{
    BodySink, NewDelivery, NewMessage, Next, Origin, Part, Settlement, Spool, SpoolOptions, SqliteSpool, Usage,
};
use tokio::task::JoinSet;

const TASKS: usize = 100;
const MESSAGES: usize = 100_000;
const BODY_LEN: usize = 10 * 1024;

fn options(directory: &Path) -> SpoolOptions {
    SpoolOptions {
        directory: directory.to_owned(),
        max_messages: 1_000_000,
        max_bytes: 20 << 30,
        min_free_bytes: 0,
        memory_budget: 32 << 20,
    }
}

fn open(directory: &Path) -> (SqliteSpool, Duration) {
    let start = Instant::now();
    let (spool, _) = SqliteSpool::open(options(directory), Arc::new(SystemClock::new())).expect("the queue opens");
    (spool, start.elapsed())
}

fn lane() -> LaneId {
    LaneId::new("tenant", "scanner@contoso.com")
}

fn message() -> NewMessage {
    NewMessage {
        envelope: Envelope::from(ReversePath::Null),
        header: vec![b'h'; 500],
        message_id: "<1@contoso.com>".to_owned(),
        listener: "main".to_owned(),
        client: "127.0.0.1".to_owned(),
        origin: Origin::Submitted,
        accepted_at: SystemClock::new().wall(),
        deliveries: vec![NewDelivery {
            tenant: "contoso".to_owned(),
            lanes: LaneSet::from(&lane()),
            route: String::new(),
            route_epoch: 1,
            recipients: vec![ForwardPath::Postmaster.into()],
        }],
    }
}

/// Commits messages from many tasks; gives the latencies in order.
async fn fill(spool: &Arc<SqliteSpool>, messages: usize) -> Vec<Duration> {
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let spool = Arc::clone(spool);
        tasks.spawn(async move {
            let body = vec![b'b'; BODY_LEN];
            let mut latencies = Vec::new();
            for _ in 0..messages / TASKS {
                let start = Instant::now();
                let mut sink = spool.receive().expect("there is room");
                sink.write(&body).await.expect("there is room");
                spool.commit(sink, message()).await.expect("it is stored");
                latencies.push(start.elapsed());
            }
            latencies
        });
    }
    let mut latencies: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    latencies.sort_unstable();
    latencies
}

/// Claims, marks and settles everything with `workers` tasks.
async fn drain(spool: &Arc<SqliteSpool>, workers: usize) {
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let spool = Arc::clone(spool);
        tasks.spawn(async move {
            let clock = SystemClock::new();
            while let Some(claim) = spool.claim(&LaneSet::from(&lane()), clock.wall()).await.expect("it reads") {
                spool.mark_in_flight(&claim.guard, &lane());
                let outcome = Outcome::Accepted(Diagnostic::local("250 2.0.0 OK"));
                let parts = vec![Part { recipients: vec![0], outcome, next: Next::Finished, progress: claim.progress }];
                let settlement = Settlement {
                    parts,
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

fn resident_kib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let fields: Vec<_> = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM")).collect();
    fields.join(", ").replace('\t', " ")
}

#[allow(clippy::print_stdout)]
#[tokio::main]
async fn main() {
    let place = std::env::args().nth(1).unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let directory = tempfile::tempdir_in(place).expect("a directory can be made");
    let (spool, opened) = open(directory.path());
    println!("open, empty: {opened:?}; {}", resident_kib());
    let spool = Arc::new(spool);
    let start = Instant::now();
    let latencies = fill(&spool, MESSAGES).await;
    let rate = MESSAGES as u128 * 1000 / start.elapsed().as_millis();
    let (p50, p99) = (latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100]);
    println!("commit, {TASKS} tasks, {BODY_LEN} octets: {rate}/s, p50 {p50:?}, p99 {p99:?}");
    println!("transactions: {}; {}", spool.transactions(), resident_kib());
    let before = resident_kib();
    let mut sink = spool.receive().expect("there is room");
    let chunk = vec![b'b'; 64 * 1024];
    for _ in 0..1600 {
        sink.write(&chunk).await.expect("there is room");
    }
    spool.commit(sink, message()).await.expect("it is stored");
    println!("a body of 100 MiB: before {before}; after {}", resident_kib());
    let crashed = tempfile::tempdir_in(directory.path()).expect("a directory can be made");
    let mut log = 0;
    // The log first: the janitor may just bring it into the database.
    for name in ["queue.db-wal", "queue.db"] {
        let copied = std::fs::copy(directory.path().join(name), crashed.path().join(name));
        log = log.max(if name == "queue.db" { 0 } else { copied.expect("the files can be copied") });
    }
    println!("open, {MESSAGES} queued, log of {log} octets left: {:?}", open(crashed.path()).1);
    spool.close().await;
    let (spool, opened) = open(directory.path());
    println!("open, {MESSAGES} queued, closed before: {opened:?}");
    let spool = Arc::new(spool);
    let start = Instant::now();
    drain(&spool, 20).await;
    let rate = MESSAGES as u128 * 1000 / start.elapsed().as_millis();
    println!("claim, mark, settle, 20 tasks: {rate}/s; transactions: {}; {}", spool.transactions(), resident_kib());
    println!("left: {:?}", spool.counts().await.expect("it reads"));
    spool.close().await;
}
