//! What every test needs: a directory, a clock that stands, messages, and waiting for conditions.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clock::{ManualClock, WallTime};
use mail::{
    BodyType, Diagnostic, Envelope, EnvelopeId, ForwardPath, LaneId, LaneSet, Outcome, Recipient, Ret, ReversePath,
};
use spool::{
    BodySink, BodySource, Claim, NewDelivery, NewMessage, Next, Origin, Part, Progress, Recovered, Settlement, Spool,
    SpoolOptions, SqliteSink, SqliteSource, SqliteSpool, Usage,
};

/// When the clock of the tests begins.
pub(crate) const NOW: WallTime = WallTime::from_unix_millis(1_795_247_640_000);

pub(crate) fn options(directory: &Path) -> SpoolOptions {
    SpoolOptions {
        directory: directory.to_owned(),
        max_messages: 1_000_000,
        max_bytes: 1 << 34,
        min_free_bytes: 0,
        memory_budget: 1 << 20,
    }
}

pub(crate) fn open(directory: &Path) -> (SqliteSpool, Recovered) {
    SqliteSpool::open(options(directory), Arc::new(ManualClock::at(NOW))).unwrap()
}

pub(crate) fn lane() -> LaneId {
    LaneId::new("tenant", "scanner@contoso.com")
}

/// The queue of that lane alone.
pub(crate) fn lanes() -> LaneSet {
    LaneSet::from(&lane())
}

pub(crate) fn path(text: &str) -> Recipient {
    ForwardPath::parse(text.as_bytes()).unwrap().into()
}

pub(crate) fn message(recipients: &[&str]) -> NewMessage {
    NewMessage {
        envelope: Envelope {
            body_type: BodyType::EightBitMime,
            smtputf8: true,
            ret: Some(Ret::Headers),
            envelope_id: EnvelopeId::parse("a+2Bb").ok(),
            ..Envelope::from(ReversePath::parse(b"erp@contoso.com").unwrap())
        },
        header: b"Subject: test\r\n".to_vec(),
        message_id: "<1@contoso.com>".to_owned(),
        listener: "main".to_owned(),
        client: "192.0.2.7".to_owned(),
        user: None,
        origin: Origin::Submitted,
        accepted_at: NOW,
        deliveries: vec![delivery(&lanes(), recipients)],
    }
}

pub(crate) fn delivery(lanes: &LaneSet, recipients: &[&str]) -> NewDelivery {
    NewDelivery {
        tenant: "contoso".to_owned(),
        lanes: lanes.clone(),
        route: "invoices".to_owned(),
        route_epoch: 7,
        asked: None,
        recipients: recipients.iter().map(|text| path(text)).collect(),
    }
}

pub(crate) async fn sink(spool: &SqliteSpool, body: &[u8]) -> SqliteSink {
    let mut sink = spool.receive().unwrap();
    for chunk in body.chunks(10_000) {
        sink.write(chunk).await.unwrap();
    }
    sink
}

/// Stores a message for one recipient.
pub(crate) async fn put(spool: &SqliteSpool, body: &[u8]) -> spool::QueueId {
    let sink = sink(spool, body).await;
    let id = sink.id();
    spool.commit(sink, message(&["a@b.c"])).await.unwrap();
    id
}

pub(crate) async fn claim(spool: &SqliteSpool) -> Option<Claim<SqliteSource>> {
    spool.claim(&lanes(), NOW).await.unwrap()
}

pub(crate) async fn octets(source: &mut SqliteSource) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(chunk) = source.next().await.unwrap() {
        body.extend_from_slice(chunk);
    }
    body
}

pub(crate) fn said(text: &str) -> Diagnostic {
    Diagnostic::local(text)
}

pub(crate) fn part(recipients: &[usize], outcome: Outcome, next: Next) -> Part {
    Part { recipients: recipients.to_vec(), outcome, next, progress: Progress::default() }
}

/// With so many attempts and uncertainties behind it.
pub(crate) fn counted(part: Part, attempts: u32, uncertain: u32) -> Part {
    Part { progress: Progress { attempts, uncertain, ..Progress::default() }, ..part }
}

pub(crate) fn settlement(parts: Vec<Part>) -> Settlement<SqliteSink> {
    Settlement {
        parts,
        at: NOW,
        lane: lane(),
        mailbox: "scanner".to_owned(),
        usage: Usage::default(),
        new_messages: Vec::new(),
        reports: Vec::new(),
    }
}

/// All recipients accepted.
pub(crate) fn accepted(claim: &Claim<SqliteSource>) -> Settlement<SqliteSink> {
    let all: Vec<usize> = (0..claim.recipients.len()).collect();
    settlement(vec![part(&all, Outcome::Accepted(said("2.0.0 OK")), Next::Finished)])
}

/// Waits until `condition` holds; the test fails after ten seconds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// The queue's files as a crash would leave them now. Nothing may be written meanwhile; the janitor may be at work, so
/// the log is copied before the database into which it may just be brought, and files may vanish.
pub(crate) fn copy_of(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_into(directory, copy.path());
    copy
}

fn copy_into(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let mut entries: Vec<_> = std::fs::read_dir(from).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(|entry| entry.file_name() != "queue.db-wal");
    for entry in entries.into_iter().filter(|entry| entry.file_name() != "queue.db-shm") {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_into(&entry.path(), &target);
        } else {
            match std::fs::copy(entry.path(), target) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

/// The names of the body files.
pub(crate) fn body_files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(directory.join("bodies")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A second look at the database, beside the spool's.
pub(crate) fn database(directory: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(directory.join("queue.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection
}

/// Octets that no two positions share by accident.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}
