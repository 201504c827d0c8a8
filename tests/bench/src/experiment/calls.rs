//! System calls and syncs for each message, counted by strace in a run that is not timed.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::bench::{Bench, OCTETS, Start, Work};
use crate::error::BenchError;
use crate::figure::{Experiment, Key, Quantity, Sessions};
use crate::process;
use crate::subject::{Subject, Tracer};

/// Messages that are counted, and clients that bring them.
const MESSAGES: usize = 1000;
/// What makes data durable. Only these stop the subject in their count, so that group commit stays as it is.
const SYNCS: &str = "fsync,fdatasync,sync_file_range,syncfs,msync";
const ALL: &str = "all";
/// How long strace may take to write its table once the subject has ended.
const TABLE: Duration = Duration::from_secs(20);

/// Counts the calls of a subject with a queue: taking with nothing sent on, and through.
pub(crate) async fn calls(bench: &mut Bench, subject: &dyn Subject, connections: usize) -> Result<(), BenchError> {
    for (calls, quantity) in [(SYNCS, Quantity::Syncs), (ALL, Quantity::Calls)] {
        for experiment in [Experiment::Acceptance, Experiment::Through] {
            let held = experiment == Experiment::Acceptance;
            // What starting and ending alone needs is taken off.
            let (idle, _) = count(bench, subject, connections, calls, held, 0).await?;
            let (busy, taken) = count(bench, subject, connections, calls, held, MESSAGES).await?;
            let key = Key {
                connections: Some(connections),
                octets: Some(OCTETS),
                sessions: Some(Sessions::Kept),
                ..Key::new(experiment, &subject.description().name, quantity)
            };
            if taken > 0 {
                #[allow(clippy::cast_precision_loss, reason = "counts of a thousand messages")]
                bench.note(key, busy.saturating_sub(idle) as f64 / taken as f64);
            }
        }
    }
    Ok(())
}

async fn count(
    bench: &mut Bench,
    subject: &dyn Subject,
    connections: usize,
    calls: &str,
    held: bool,
    messages: usize,
) -> Result<(u64, usize), BenchError> {
    let place = bench.place()?;
    let table = place.path.join("calls.txt");
    let tracer = Some(Tracer { table: &table, calls });
    let start = Start { held, clients: connections + 10, tracer, ..Start::default() };
    let running = bench.start(subject, &place, start).await?;
    let work = Work { connections, octets: OCTETS, sessions: Sessions::Kept, dot: 0 };
    let outcome = bench.fill(subject, &running, work, messages).await?;
    if !held {
        bench.settle(&outcome).await?;
    }
    let tracer = process::tracer(running.id());
    running.stop()?;
    if !held {
        bench.book(&format!("{}, counted", subject.description().name), &outcome)?;
    }
    Ok((total(&table, tracer).await?, outcome.promised.len()))
}

/// The sum at the end of strace's table, once strace has ended; without a single call it writes no table at all.
async fn total(table: &Path, tracer: Option<u32>) -> Result<u64, BenchError> {
    let begun = Instant::now();
    while tracer.is_some_and(process::alive) {
        if begun.elapsed() > TABLE {
            return Err(BenchError::Late { what: "strace's table".to_owned(), seconds: TABLE.as_secs() });
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let text = std::fs::read_to_string(table).map_err(BenchError::file("read", table))?;
    Ok(sum_of(&text).unwrap_or(0))
}

fn sum_of(table: &str) -> Option<u64> {
    let line = table.lines().find(|line| line.trim_end().ends_with(" total"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_a_table() {
        let table = "    calls syscall\n--------- ------\n       12 fsync\n        3 fdatasync\n--------- ------\n       15 total\n";
        assert_eq!(sum_of(table), Some(15));
        assert_eq!(sum_of(&table[..60]), None);
    }
}
