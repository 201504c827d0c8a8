//! The start names what is wrong and leaves what is not ours alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use clock::ManualClock;
use spool::{OpenError, PeekError, Spool, SqliteSpool};

use crate::harness::*;

fn refused(directory: &Path) -> OpenError {
    match SqliteSpool::open(options(directory), Arc::new(ManualClock::at(NOW))) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    assert!(matches!(refused(directory.path()), OpenError::Locked { directory: found } if found == directory.path()));
    spool.close().await;
    let (spool, _) = open(directory.path());
    spool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_spool_gives_its_directory_back() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    put(&spool, b"body").await;
    drop(spool);
    let clock = Arc::new(ManualClock::at(NOW));
    until("the lock is free", || SqliteSpool::open(options(directory.path()), clock.clone()).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_private() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("a").join("state");
    let (spool, _) = open(&directory);
    put(&spool, &pattern(100_000)).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&directory.join("bodies")), 0o700);
    for name in ["queue.db", "queue.db-wal", "queue.db-shm", "lock"] {
        assert_eq!(mode(&directory.join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&body_files(&directory)[0]), 0o600);
    until("the ballast is there", || directory.join("ballast").exists()).await;
    assert_eq!(mode(&directory.join("ballast")), 0o600);
    spool.close().await;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    open(&directory).0.close().await;
    assert_eq!(mode(&directory), 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).0.close().await;
    database(directory.path()).pragma_update(None, "user_version", 4).unwrap();
    assert!(matches!(refused(directory.path()), OpenError::Newer { found: 4, known: 3, .. }));
}

#[test]
fn a_foreign_database_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    database(directory.path()).execute_batch("CREATE TABLE theirs (a)").unwrap();
    let before = fs::read(directory.path().join("queue.db")).unwrap();
    assert!(matches!(refused(directory.path()), OpenError::Foreign { .. }));
    assert_eq!(fs::read(directory.path().join("queue.db")).unwrap(), before);
}

#[test]
fn garbage_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("queue.db"), pattern(20_000)).unwrap();
    assert!(matches!(refused(directory.path()), OpenError::Damaged { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shortened_or_overwritten_database_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for _ in 0..20 {
        put(&spool, &pattern(10_000)).await;
    }
    spool.close().await;
    let path = directory.path().join("queue.db");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(refused(directory.path()), OpenError::Damaged { .. }), "shortened");
    let mut overwritten = whole.clone();
    overwritten[100..4_096].fill(0xaa);
    fs::write(&path, &overwritten).unwrap();
    assert!(matches!(refused(directory.path()), OpenError::Damaged { .. }), "overwritten");
    fs::write(&path, &whole).unwrap();
    assert_eq!(open(directory.path()).1.counts.messages, 20);
}

#[test]
fn what_cannot_be_used_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    for (directory, named) in [(file.clone(), file.clone()), (file.join("below"), file.join("below"))] {
        match refused(&directory) {
            OpenError::Access { path, .. } => assert_eq!(path, named),
            other => panic!("{other}"),
        }
    }
    let directory = parent.path().join("state");
    fs::create_dir_all(directory.join("queue.db")).unwrap();
    let error = refused(&directory);
    assert!(matches!(&error, OpenError::Access { path, .. } if *path == directory.join("queue.db")), "{error}");
    assert!(error.to_string().contains("queue.db"));
}

/// Closing meets the janitor wherever it stands: at work on the log, or about to ask the writer to pause.
#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_whatever_the_threads_are_at() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let (spool, _) = open(directory.path());
        for _ in 0..round {
            put(&spool, b"body").await;
        }
        let closed = tokio::time::timeout(std::time::Duration::from_secs(30), spool.close());
        closed.await.unwrap_or_else(|_| panic!("round {round} hangs"));
    }
}

/// Every file of `directory` with its length and the time of its last change.
fn files(directory: &Path) -> Vec<(std::path::PathBuf, u64, std::time::SystemTime)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        (entry.path(), found.len(), found.modified().unwrap())
    });
    let mut files: Vec<_> = entries.collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_at_rest_can_be_looked_at_and_is_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(SqliteSpool::peek(directory.path()), Err(PeekError::Missing));
    let (spool, _) = open(directory.path());
    put(&spool, b"body").await;
    assert_eq!(SqliteSpool::peek(directory.path()), Err(PeekError::InUse));
    let counts = spool.counts().await.unwrap();
    spool.close().await;
    let before = files(directory.path());
    assert_eq!(SqliteSpool::peek(directory.path()), Ok(counts));
    assert_eq!(files(directory.path()), before);
    // As a killed daemon leaves it.
    fs::write(directory.path().join("queue.db-wal"), "not empty").unwrap();
    assert_eq!(SqliteSpool::peek(directory.path()), Err(PeekError::NotClosed));
    fs::remove_file(directory.path().join("queue.db-wal")).unwrap();
    fs::write(directory.path().join("queue.db"), "no database".repeat(1000)).unwrap();
    assert!(matches!(SqliteSpool::peek(directory.path()), Err(PeekError::Unreadable(_))));
}
