//! One large message: how long it takes, and by how much it moves memory.

use crate::bench::{Bench, Start, Work};
use crate::error::BenchError;
use crate::figure::{Experiment, Key, Quantity, Sessions};
use crate::subject::Subject;

/// A message that warms the subject up, so that only size makes the difference.
const SMALL: usize = 10 * 1024;

/// Sends one message of this size through a subject.
pub(crate) async fn large(bench: &mut Bench, subject: &dyn Subject, octets: usize) -> Result<(), BenchError> {
    let name = subject.description().name;
    let place = bench.place()?;
    let start = Start { largest_message: octets as u64 + 1024 * 1024, ..Start::default() };
    let running = bench.start(subject, &place, start).await?;
    let one = |octets| Work { connections: 1, octets, sessions: Sessions::Kept, dot: 0 };
    let outcome = bench.fill(subject, &running, one(SMALL), 1).await?;
    bench.settle(&outcome).await?;
    let resident = running.tree().resident();
    let watch = running.tree().watch();
    let outcome = bench.fill(subject, &running, one(octets), 1).await?;
    let account = bench.settle(&outcome).await?;
    let peak = watch.peak()?;
    let mut note = |quantity, value| {
        bench.note(Key { octets: Some(octets), ..Key::new(Experiment::Large, &name, quantity) }, value);
    };
    if let Some(latency) = outcome.latencies.first() {
        note(Quantity::Accepted, latency.as_secs_f64());
        note(Quantity::Growth, (peak - resident).max(0.0));
    }
    if account.messages == 1 {
        let delivered = bench.arrival(outcome.begun, account.last);
        let key = Key { octets: Some(octets), ..Key::new(Experiment::Large, &name, Quantity::Delivered) };
        bench.note(key, delivered.as_secs_f64());
    }
    running.stop()?;
    bench.book(&format!("{name}, one message of {octets} octets"), &outcome)
}
