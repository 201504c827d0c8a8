//! Acceptance with nothing sent on, and acceptance and sending together: one cell of the matrix.
//!
//! Connections are opened and the subject is warmed up before anything is measured.

use std::time::Duration;

use crate::bench::{Bench, Start, Work, percentile, rate};
use crate::error::BenchError;
use crate::experiment::meter::Meter;
use crate::figure::{Experiment, Key, Quantity, Sessions};
use crate::load::Outcome;
use crate::subject::{Running, Subject};

/// The conditions of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Clients at a time.
    pub(crate) connections: usize,
    /// Octets of each message.
    pub(crate) octets: usize,
    /// How clients use their connections.
    pub(crate) sessions: Sessions,
    /// How long messages are begun.
    pub(crate) duration: Duration,
}

impl Cell {
    fn key(&self, experiment: Experiment, subject: &str, quantity: Quantity) -> Key {
        Key {
            connections: Some(self.connections),
            octets: Some(self.octets),
            sessions: Some(self.sessions),
            ..Key::new(experiment, subject, quantity)
        }
    }

    fn work(&self) -> Work {
        Work { connections: self.connections, octets: self.octets, sessions: self.sessions, dot: 0 }
    }
}

/// Measures a subject under the conditions of a cell, once.
pub(crate) async fn cell(bench: &mut Bench, subject: &dyn Subject, cell: Cell) -> Result<(), BenchError> {
    let name = subject.description().name;
    let place = bench.place()?;
    let start = Start { clients: cell.connections + 10, ..Start::default() };
    let mut taken = None;
    if subject.has_queue() {
        let running = bench.start(subject, &place, Start { held: true, ..start }).await?;
        taken = Some(acceptance(bench, subject, &running, cell).await?);
        running.stop()?;
    }
    let running = bench.start(subject, &place, start).await?;
    if let Some(outcome) = &taken {
        bench.settle(outcome).await?;
        bench.book(&format!("{name}, taken from {} clients", cell.connections), outcome)?;
    }
    let outcome = through(bench, subject, &running, cell).await?;
    running.stop()?;
    bench.book(&format!("{name}, through from {} clients", cell.connections), &outcome)
}

async fn acceptance(
    bench: &mut Bench,
    subject: &dyn Subject,
    running: &Running,
    cell: Cell,
) -> Result<Outcome, BenchError> {
    let name = subject.description().name;
    let key = |quantity| cell.key(Experiment::Acceptance, &name, quantity);
    let mut crowd = bench.crowd(subject, running, cell.work()).await?;
    let warm = crowd.warm_up().await?;
    let meter = Meter::begin(bench, running.tree());
    let outcome = crowd.run(cell.duration, u32::MAX).await?;
    let count = outcome.promised.len();
    bench.note(key(Quantity::Rate), rate(count, outcome.took));
    meter.end(bench, count, key)?;
    latencies(bench, &outcome, key);
    crowd.close().await;
    Ok(outcome.after(warm))
}

async fn through(
    bench: &mut Bench,
    subject: &dyn Subject,
    running: &Running,
    cell: Cell,
) -> Result<Outcome, BenchError> {
    let name = subject.description().name;
    let key = |quantity| cell.key(Experiment::Through, &name, quantity);
    let mut crowd = bench.crowd(subject, running, cell.work()).await?;
    let warm = crowd.warm_up().await?;
    bench.settle(&warm).await?;
    let meter = Meter::begin(bench, running.tree());
    let outcome = crowd.run(cell.duration, u32::MAX).await?;
    let count = outcome.promised.len();
    let took = outcome.took;
    let begun = outcome.begun;
    let outcome = outcome.after(warm);
    let account = bench.settle(&outcome).await?;
    let took = took.max(bench.arrival(begun, account.last));
    bench.note(key(Quantity::Rate), rate(count, took));
    meter.end(bench, count, key)?;
    latencies(bench, &outcome, key);
    crowd.close().await;
    Ok(outcome)
}

fn latencies(bench: &mut Bench, outcome: &Outcome, key: impl Fn(Quantity) -> Key) {
    let mut sorted = outcome.latencies.clone();
    sorted.sort_unstable();
    for (quantity, per_mille) in [(Quantity::P50, 500), (Quantity::P99, 990)] {
        if let Some(latency) = percentile(&sorted, per_mille) {
            bench.note(key(quantity), latency.as_secs_f64() * 1000.0);
        }
    }
    // One repetition has too few of a slow subject.
    bench.pool(key(Quantity::P999), &sorted);
}
