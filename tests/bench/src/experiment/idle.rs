//! What a subject costs when nothing happens: fresh, and with clients that only sit there.

use std::time::{Duration, Instant};

use crate::bench::{Bench, Start};
use crate::error::BenchError;
use crate::figure::{Experiment, Key, Quantity};
use crate::load::{self, Security};
use crate::subject::Subject;

/// Until what a start or a crowd of connections stirred up has settled.
const SETTLING: Duration = Duration::from_secs(2);
/// How long wakes are counted.
const WATCHING: Duration = Duration::from_secs(10);

/// Measures a subject without clients, then with each number of idle sessions that it can be measured with.
pub(crate) async fn idle(bench: &mut Bench, subject: &dyn Subject, sessions: &[usize]) -> Result<(), BenchError> {
    let name = subject.description().name;
    let key =
        |connections, quantity| Key { connections: Some(connections), ..Key::new(Experiment::Idle, &name, quantity) };
    let counts: Vec<usize> = sessions.iter().copied().filter(|count| *count <= subject.most_idle()).collect();
    let place = bench.place()?;
    let start = Start { clients: counts.iter().copied().max().unwrap_or(0), ..Start::default() };
    let running = bench.start(subject, &place, start).await?;
    let tree = running.tree();
    tokio::time::sleep(SETTLING).await;
    bench.note(key(0, Quantity::Resident), tree.resident());
    let (before, begun) = (tree.wakes(), Instant::now());
    tokio::time::sleep(WATCHING).await;
    // Threads that ended meanwhile are out of sight; one that began counts from its begin.
    let since = |(thread, count): (u32, u64)| count.saturating_sub(before.get(&thread).copied().unwrap_or(0));
    let woken: u64 = tree.wakes().into_iter().map(since).sum();
    #[allow(clippy::cast_precision_loss, reason = "wakes of some seconds")]
    bench.note(key(0, Quantity::Wakes), woken as f64 / begun.elapsed().as_secs_f64());
    let mut lines = Vec::new();
    for count in counts {
        lines.extend(load::idle(running.address, &Security::None, count - lines.len()).await?);
        tokio::time::sleep(SETTLING).await;
        bench.note(key(count, Quantity::Resident), tree.resident());
    }
    drop(lines);
    running.stop()
}
