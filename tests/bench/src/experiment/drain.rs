//! A full queue, as long for each subject, that is sent on while nothing is taken.

use crate::bench::{Bench, Start, Work};
use crate::error::BenchError;
use crate::experiment::meter::Meter;
use crate::figure::{Experiment, Key, Quantity, Sessions};
use crate::subject::Subject;

const CLIENTS: usize = 100;

/// Fills a subject's queue with so many messages of this size, and lets it send them.
pub(crate) async fn drain(
    bench: &mut Bench,
    subject: &dyn Subject,
    octets: usize,
    messages: usize,
) -> Result<(), BenchError> {
    let name = subject.description().name;
    let key = |quantity| Key { octets: Some(octets), ..Key::new(Experiment::Drain, &name, quantity) };
    let place = bench.place()?;
    let running = bench.start(subject, &place, Start { held: true, ..Start::default() }).await?;
    let work = Work { connections: CLIENTS, octets, sessions: Sessions::Kept, dot: 0 };
    let outcome = bench.fill(subject, &running, work, messages).await?;
    running.stop()?;
    let running = bench.start(subject, &place, Start::default()).await?;
    // It sends before it greets, so its start is in its CPU.
    let meter = Meter::from_start(bench, running.tree());
    let account = bench.settle(&outcome).await?;
    if let Some(rate) = account.rate(1) {
        bench.note(key(Quantity::Rate), rate);
    }
    meter.end(bench, account.messages, key)?;
    running.stop()?;
    bench.book(&format!("{name}, drain"), &outcome)
}
