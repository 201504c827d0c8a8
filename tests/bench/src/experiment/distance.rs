//! An upstream as far away as Exchange Online is: 30 ms for each round trip, and 100 ms for each final reply.

use crate::bench::{Bench, OCTETS, Start, Work};
use crate::error::BenchError;
use crate::figure::{Experiment, Key, Quantity, Sessions};
use crate::subject::Subject;

/// How long the final reply takes, in milliseconds.
const DOT: u64 = 100;
/// Messages for each connection upstream: enough that opening the connections counts little.
const EACH: usize = 15;

/// Fills a subject's queue and lets it send over so many connections upstream.
pub(crate) async fn distance(bench: &mut Bench, subject: &dyn Subject, connections: usize) -> Result<(), BenchError> {
    let name = subject.description().name;
    let place = bench.place()?;
    let start = Start { upstream_connections: connections, far: true, ..Start::default() };
    let running = bench.start(subject, &place, Start { held: true, ..start }).await?;
    let work = Work { connections: 10, octets: OCTETS, sessions: Sessions::Kept, dot: DOT };
    let outcome = bench.fill(subject, &running, work, EACH * connections).await?;
    running.stop()?;
    let running = bench.start(subject, &place, start).await?;
    let account = bench.settle(&outcome).await?;
    if let Some(rate) = account.rate(connections) {
        let key = Key::new(Experiment::Distance, &name, Quantity::Rate);
        bench.note(Key { connections: Some(connections), octets: Some(OCTETS), ..key }, rate);
    }
    running.stop()?;
    bench.book(&format!("{name}, at a distance"), &outcome)
}
