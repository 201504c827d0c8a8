//! Acceptance with nothing sent on, drain of what was taken, and both together: one cell of the matrix.

use std::time::Duration;

use crate::bench::{Bench, Place, Start, Work, each, percentile, rate};
use crate::error::BenchError;
use crate::figure::{Experiment, Key, Quantity, Sessions};
use crate::load::Outcome;
use crate::process::{Tree, Watch};
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
        Work {
            connections: self.connections,
            octets: self.octets,
            sessions: self.sessions,
            duration: self.duration,
            messages: u32::MAX,
            dot: 0,
        }
    }
}

/// Measures a subject under the conditions of a cell, once.
pub(crate) async fn cell(bench: &mut Bench, subject: &dyn Subject, cell: Cell) -> Result<(), BenchError> {
    let place = bench.place()?;
    let start = Start { clients: cell.connections + 10, ..Start::default() };
    if subject.has_queue() {
        let running = bench.start(subject, &place, Start { held: true, ..start }).await?;
        let outcome = take(bench, subject, &running, cell, Experiment::Acceptance).await?;
        running.stop()?;
        drain(bench, subject, &place, start, cell, &outcome).await?;
    }
    let running = bench.start(subject, &place, start).await?;
    through(bench, subject, &running, cell).await?;
    running.stop()
}

/// Hands in messages for a while.
async fn take(
    bench: &mut Bench,
    subject: &dyn Subject,
    running: &Running,
    cell: Cell,
    experiment: Experiment,
) -> Result<Outcome, BenchError> {
    let name = subject.description().name;
    let meter = Meter::begin(bench, running.tree());
    let outcome = bench.load(subject, running, cell.work()).await?;
    let taken = outcome.promised.len();
    bench.note(cell.key(experiment, &name, Quantity::Rate), rate(taken, outcome.took));
    meter.end(bench, taken, |quantity| cell.key(experiment, &name, quantity))?;
    latencies(bench, cell, experiment, &name, &outcome);
    Ok(outcome)
}

async fn drain(
    bench: &mut Bench,
    subject: &dyn Subject,
    place: &Place,
    start: Start<'_>,
    cell: Cell,
    outcome: &Outcome,
) -> Result<(), BenchError> {
    let name = subject.description().name;
    let running = bench.start(subject, place, start).await?;
    let meter = Meter::begin(bench, running.tree());
    let account = bench.settle(&format!("{name}, drain of {} messages", outcome.promised.len()), outcome)?;
    if let Some(rate) = account.rate() {
        bench.note(cell.key(Experiment::Drain, &name, Quantity::Rate), rate);
    }
    meter.end(bench, account.messages, |quantity| cell.key(Experiment::Drain, &name, quantity))?;
    running.stop()
}

async fn through(bench: &mut Bench, subject: &dyn Subject, running: &Running, cell: Cell) -> Result<(), BenchError> {
    let experiment = Experiment::Through;
    let name = subject.description().name;
    let meter = Meter::begin(bench, running.tree());
    let outcome = bench.load(subject, running, cell.work()).await?;
    let account = bench.settle(&format!("{name}, {} messages through", outcome.promised.len()), &outcome)?;
    let took = outcome.took.max(bench.arrival(&outcome, account.last));
    bench.note(cell.key(experiment, &name, Quantity::Rate), rate(account.messages, took));
    meter.end(bench, account.messages, |quantity| cell.key(experiment, &name, quantity))?;
    latencies(bench, cell, experiment, &name, &outcome);
    Ok(())
}

fn latencies(bench: &mut Bench, cell: Cell, experiment: Experiment, name: &str, outcome: &Outcome) {
    let mut sorted = outcome.latencies.clone();
    sorted.sort_unstable();
    for (quantity, per_mille) in [(Quantity::P50, 500), (Quantity::P99, 990)] {
        if let Some(latency) = percentile(&sorted, per_mille) {
            bench.note(cell.key(experiment, name, quantity), latency.as_secs_f64() * 1000.0);
        }
    }
    // One repetition has too few of a slow subject.
    bench.pool(cell.key(experiment, name, Quantity::P999), &sorted);
}

/// CPU and memory of a subject, and the CPU of what drives it, from a moment on.
struct Meter {
    tree: Tree,
    upstream: Tree,
    cpu: Duration,
    rest: Duration,
    watch: Watch,
}

impl Meter {
    fn begin(bench: &Bench, tree: Tree) -> Self {
        let upstream = Tree::of(bench.upstream.id());
        Self { tree, upstream, cpu: tree.cpu(), rest: Tree::own_cpu() + upstream.cpu(), watch: tree.watch() }
    }

    /// Notes what was used for so many messages.
    fn end(self, bench: &mut Bench, messages: usize, key: impl Fn(Quantity) -> Key) -> Result<(), BenchError> {
        let rest = Tree::own_cpu() + self.upstream.cpu();
        bench.note(key(Quantity::Cpu), each(self.tree.cpu().saturating_sub(self.cpu), messages));
        bench.note(key(Quantity::RestCpu), each(rest.saturating_sub(self.rest), messages));
        bench.note(key(Quantity::PeakResident), self.watch.peak()?);
        Ok(())
    }
}
