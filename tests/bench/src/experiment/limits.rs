//! What the machine can do without any relay: syncs, SMTP from source to sink, and the same over TLS.
//!
//! One writer that syncs each message is slower than a group that shares a sync. When these move between two runs, so
//! does everything else.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::bench::{Bench, OCTETS, UPSTREAM_CONNECTIONS, Work, rate};
use crate::error::BenchError;
use crate::figure::{Experiment, Key, Quantity, Sessions};
use crate::load::{Line, Security};

/// Measures the machine once.
pub(crate) async fn limits(bench: &mut Bench, duration: Duration) -> Result<(), BenchError> {
    let place = bench.place()?;
    let appended = appended(&place.path, duration)?;
    let renamed = renamed(&place.path, duration)?;
    let doors = bench.upstream.doors().clone();
    let tls = Security::xoauth2(&doors.ca_file)?;
    let plain = carried(bench, doors.bare, Security::None, 10, duration).await?;
    let crowd = carried(bench, doors.bare, Security::None, 100, duration).await?;
    let secured = carried(bench, doors.near, tls.clone(), UPSTREAM_CONNECTIONS, duration).await?;
    let opened = opened(doors.near, &tls, duration).await?;
    for (name, value) in [
        ("10 KiB appended and fdatasync", appended),
        ("10 KiB file, fsync, rename, directory fsync", renamed),
        ("SMTP from source to sink, 10 connections", plain),
        ("SMTP from source to sink, 100 connections", crowd),
        ("SMTP over TLS to the upstream, 20 connections", secured),
        ("connections with STARTTLS and AUTH, one at a time", opened),
    ] {
        bench.note(Key::new(Experiment::Limits, name, Quantity::Rate), value);
    }
    Ok(())
}

/// One writer that appends and syncs.
fn appended(directory: &Path, duration: Duration) -> Result<f64, BenchError> {
    let path = directory.join("appended");
    let mut file = File::create(&path).map_err(BenchError::file("make", &path))?;
    let octets = vec![b'x'; OCTETS];
    timed(duration, || {
        file.write_all(&octets).and_then(|()| file.sync_data()).map_err(BenchError::file("append to", &path))
    })
}

/// One writer that makes a file for each message, as queues of files do.
fn renamed(directory: &Path, duration: Duration) -> Result<f64, BenchError> {
    let (new, old) = (directory.join("new"), directory.join("old"));
    let parent = File::open(directory).map_err(BenchError::file("open", directory))?;
    let octets = vec![b'x'; OCTETS];
    timed(duration, || {
        let mut file = File::create(&new).map_err(BenchError::file("make", &new))?;
        file.write_all(&octets).and_then(|()| file.sync_all()).map_err(BenchError::file("write", &new))?;
        fs::rename(&new, &old).and_then(|()| parent.sync_all()).map_err(BenchError::file("rename", &new))
    })
}

fn timed(duration: Duration, mut work: impl FnMut() -> Result<(), BenchError>) -> Result<f64, BenchError> {
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < duration {
        work()?;
        count += 1;
    }
    Ok(rate(count, begun.elapsed()))
}

/// The load straight into the upstream.
async fn carried(
    bench: &mut Bench,
    port: u16,
    security: Security,
    connections: usize,
    duration: Duration,
) -> Result<f64, BenchError> {
    let work = Work { connections, octets: OCTETS, sessions: Sessions::Kept, dot: 0 };
    let mut crowd = bench.begin(([127, 0, 0, 1], port).into(), security, work)?.open().await?;
    let outcome = crowd.run(duration, u32::MAX).await?;
    crowd.close().await;
    Ok(rate(outcome.promised.len(), outcome.took))
}

/// Connections opened one after the other, up to the first MAIL.
async fn opened(port: u16, security: &Security, duration: Duration) -> Result<f64, BenchError> {
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < duration {
        let line = Line::open(([127, 0, 0, 1], port).into(), security, "a@example.com", "b@example.com").await?;
        line.quit().await;
        count += 1;
    }
    Ok(rate(count, begun.elapsed()))
}
