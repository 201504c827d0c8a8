//! Caps, the memory budget, and a disk that is really full: what is queued still drains.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use clock::ManualClock;
use spool::{BodySink, Spool, SpoolOptions, SqliteSpool, StoreError};

use crate::harness::*;

fn open_with(options: SpoolOptions) -> SqliteSpool {
    SqliteSpool::open(options, Arc::new(ManualClock::at(NOW))).unwrap().0
}

fn full(error: &StoreError, cap: &str) {
    assert!(matches!(error, StoreError::Full(text) if text.contains(cap)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_drains() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open_with(SpoolOptions { max_messages: 2, ..options(directory.path()) });
    put(&spool, b"one").await;
    put(&spool, b"two").await;
    full(&spool.receive().unwrap_err(), "max_messages is 2");
    full(&spool.check_room(0).unwrap_err(), "max_messages is 2");
    let mut own = spool.receive_own().unwrap();
    own.write(b"bounce").await.unwrap();
    let claim = claim(&spool).await.unwrap();
    let settlement = spool::Settlement { new_messages: vec![(own, message(&["a@b.c"]))], ..accepted(&claim) };
    spool.settle(claim, settlement).await.unwrap();
    full(&spool.receive().unwrap_err(), "max_messages is 2");
    let claim = crate::harness::claim(&spool).await.unwrap();
    let settlement = accepted(&claim);
    spool.settle(claim, settlement).await.unwrap();
    spool.check_room(0).unwrap();
    put(&spool, b"three").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn octets_are_capped_while_they_come_and_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let small = SpoolOptions { max_bytes: 150_000, ..options(directory.path()) };
    let spool = open_with(small.clone());
    put(&spool, &pattern(100_000)).await;
    let mut sink = spool.receive().unwrap();
    sink.write(&pattern(40_000)).await.unwrap();
    full(&sink.write(&pattern(40_000)).await.unwrap_err(), "max_bytes is 150000");
    drop(sink);
    assert_eq!(body_files(directory.path()).len(), 1);
    spool.close().await;
    let spool = open_with(small);
    let mut sink = spool.receive().unwrap();
    full(&sink.write(&pattern(60_000)).await.unwrap_err(), "max_bytes is 150000");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_memory_budget_small_bodies_go_to_files() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open_with(SpoolOptions { memory_budget: 1_000, ..options(directory.path()) });
    let first = sink(&spool, &pattern(900)).await;
    let second = sink(&spool, &pattern(900)).await;
    assert_eq!(body_files(directory.path()).len(), 1);
    for sink in [first, second] {
        spool.commit(sink, message(&["a@b.c"])).await.unwrap();
        let mut claim = claim(&spool).await.unwrap();
        assert_eq!(octets(&mut claim.body).await, pattern(900));
        let settlement = accepted(&claim);
        spool.settle(claim, settlement).await.unwrap();
    }
}

#[test]
fn the_floor_names_itself() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open_with(SpoolOptions { min_free_bytes: u64::MAX, ..options(directory.path()) });
    full(&spool.receive().unwrap_err(), "min_free_bytes is");
    assert!(spool.receive_own().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_queue_gives_its_pages_back() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for _ in 0..800 {
        put(&spool, &pattern(30_000)).await;
    }
    let len = || std::fs::metadata(directory.path().join("queue.db")).unwrap().len();
    until("it is long", || len() > 16 << 20).await;
    while let Some(claim) = claim(&spool).await {
        let settlement = accepted(&claim);
        spool.settle(claim, settlement).await.unwrap();
    }
    until("it is short", || len() < 6 << 20).await;
    assert_eq!(spool.counts().await.unwrap().messages, 0);
}

/// A file system of 12 MiB; unmounted when dropped.
struct TinyDisk {
    path: PathBuf,
    _parent: tempfile::TempDir,
}

impl TinyDisk {
    /// None where mounting is not allowed.
    fn mount() -> Option<Self> {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(&path).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self { path, _parent: parent })
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn fill(directory: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(directory.join("filler")).unwrap();
    for len in [64 * 1024, 4096, 1] {
        while file.write_all(&vec![7; len]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_drains() {
    let Some(disk) = TinyDisk::mount() else {
        println!("skipped: mounting a tmpfs is not allowed here");
        return;
    };
    let directory = disk.path.join("state");
    let spool = open_with(options(&directory));
    let ballast = directory.join("ballast");
    until("the ballast is there", || std::fs::metadata(&ballast).is_ok_and(|file| file.len() == 4 << 20)).await;
    let mut queued = 0;
    for _ in 0..40 {
        put(&spool, &pattern(10_000)).await;
        queued += 1;
    }
    fill(&disk.path);
    // The log still has room in blocks that it owns already; soon it has not.
    let error = loop {
        let Ok(sink) = write(&spool, &pattern(20_000)).await else { panic!("small bodies stay in memory") };
        match spool.commit(sink, message(&["a@b.c"])).await {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
    };
    full(&error, "");
    let error = match write(&spool, &pattern(200_000)).await {
        Ok(sink) => spool.commit(sink, message(&["a@b.c"])).await.unwrap_err(),
        Err(error) => error,
    };
    full(&error, "");
    assert!(body_files(&directory).is_empty(), "nothing half-stored");
    assert_eq!(spool.counts().await.unwrap().messages, queued);
    let mut drained = 0;
    while let Some(mut claim) = claim(&spool).await {
        spool.mark_in_flight(&claim.guard, &lane());
        assert!(!octets(&mut claim.body).await.is_empty());
        let settlement = accepted(&claim);
        spool.settle(claim, settlement).await.unwrap();
        drained += 1;
    }
    assert_eq!((drained, spool.counts().await.unwrap().messages), (queued, 0));
    std::fs::remove_file(disk.path.join("filler")).unwrap();
    put(&spool, &pattern(200_000)).await;
    until("the ballast is back", || std::fs::metadata(&ballast).is_ok_and(|file| file.len() == 4 << 20)).await;
    spool.close().await;
    assert_eq!(open_with(options(&directory)).counts().await.unwrap().messages, 1);
}

async fn write(spool: &SqliteSpool, body: &[u8]) -> Result<spool::SqliteSink, StoreError> {
    let mut sink = spool.receive()?;
    sink.write(body).await?;
    Ok(sink)
}
