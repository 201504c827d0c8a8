//! From the start of the process to its first greeting, with an empty queue and with a full one.

use crate::bench::{Bench, Start, Work};
use crate::error::BenchError;
use crate::figure::{Experiment, Key, Quantity, Sessions};
use crate::subject::Subject;

const OCTETS: usize = 1024;

/// Starts a subject as often as asked over a queue of so many messages, then lets it send them all.
pub(crate) async fn start(
    bench: &mut Bench,
    subject: &dyn Subject,
    queued: usize,
    repetitions: usize,
) -> Result<(), BenchError> {
    let name = subject.description().name;
    let place = bench.place()?;
    let held = Start { held: subject.has_queue(), ..Start::default() };
    let mut filled = None;
    if queued > 0 {
        let running = bench.start(subject, &place, held).await?;
        let work = Work { connections: 100, octets: OCTETS, sessions: Sessions::Kept, dot: 0 };
        filled = Some(bench.fill(subject, &running, work, queued).await?);
        running.stop()?;
    }
    let key = |quantity| Key { queued: Some(queued), ..Key::new(Experiment::Start, &name, quantity) };
    for _ in 0..repetitions {
        let running = bench.start(subject, &place, held).await?;
        bench.note(key(Quantity::Listening), running.listening.as_secs_f64() * 1000.0);
        running.stop()?;
    }
    if let Some(outcome) = filled {
        let running = bench.start(subject, &place, Start::default()).await?;
        let account = bench.settle(&outcome).await?;
        if let Some(rate) = account.rate(1) {
            bench.note(Key { experiment: Experiment::Drain, ..key(Quantity::Rate) }, rate);
        }
        running.stop()?;
        bench.book(&format!("{name}, a queue of {queued}"), &outcome)?;
    }
    Ok(())
}
