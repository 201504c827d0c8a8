//! What a subject without a queue adds to the latency of upstream itself: the same messages, one after the other, by turns
//! straight into the upstream and through the subject.
//!
//! Both connections are kept, and both roads are warm. What the machine does meanwhile then meets both alike.

use std::time::{Duration, Instant};

use crate::bench::{Bench, OCTETS, Start, Work, percentile};
use crate::error::BenchError;
use crate::figure::{Experiment, Key, Quantity, RAW, Sessions};
use crate::load::{Line, Load, Message, Outcome, Security, TO};
use crate::subject::Subject;
use crate::upstream::ROUND_TRIP;

/// Messages of each road before any is timed.
const WARM: u32 = 10;
/// No message is begun later than this after the first, so that a slow subject does not take minutes.
const ENOUGH: Duration = Duration::from_secs(15);
/// How long one message may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Times so many messages of each road, to the upstream beside us or to the one that is `far` away.
pub(crate) async fn latency(
    bench: &mut Bench,
    subject: &dyn Subject,
    far: bool,
    messages: u32,
) -> Result<(), BenchError> {
    let name = subject.description().name;
    let place = bench.place()?;
    let running = bench.start(subject, &place, Start { clients: 1, far, ..Start::default() }).await?;
    let work = Work { connections: 1, octets: OCTETS, sessions: Sessions::Kept, dot: 0 };
    let doors = bench.upstream.doors().clone();
    let load = bench.begin(running.address, Security::with(subject.login()), work)?;
    let port = if far { doors.far } else { doors.near };
    let upstream =
        Load { address: ([127, 0, 0, 1], port).into(), security: Security::xoauth2(&doors.ca_file)?, ..load.clone() };
    let mut roads = [Road::open(&upstream).await?, Road::open(&load).await?];
    let outcome = by_turns(&mut roads, messages).await?;
    let [raw, through] = roads.map(Road::close);
    let key = |name: &str, quantity| Key {
        octets: Some(OCTETS),
        round_trip: Some(if far { ROUND_TRIP.as_millis() as usize } else { 0 }),
        ..Key::new(Experiment::Latency, name, quantity)
    };
    for (name, sorted) in [(RAW, &raw), (name.as_str(), &through)] {
        for (quantity, per_mille) in [(Quantity::P50, 500), (Quantity::P90, 900), (Quantity::P99, 990)] {
            if let Some(latency) = percentile(sorted, per_mille) {
                bench.note(key(name, quantity), latency.as_secs_f64() * 1000.0);
            }
        }
    }
    if let Some(added) = added(&raw, &through) {
        bench.note(key(&name, Quantity::Added), added);
    }
    bench.settle(&outcome).await?;
    running.stop()?;
    bench.book(&format!("{name}, by turns with the upstream itself"), &outcome)
}

/// One way to the upstream, on one connection.
struct Road {
    line: Line,
    message: Message,
    latencies: Vec<Duration>,
}

impl Road {
    async fn open(load: &Load) -> Result<Self, BenchError> {
        let line = Line::open(load.address, &load.security, &load.from, TO).await?;
        Ok(Self { line, message: load.message.clone(), latencies: Vec::new() })
    }

    /// From MAIL to the final reply.
    async fn carry(&mut self, number: u32) -> Result<(), BenchError> {
        let begun = Instant::now();
        let sent = tokio::time::timeout(PATIENCE, self.line.send(&mut self.message, number)).await;
        sent.unwrap_or_else(|_| Err(BenchError::Late { what: "one message".to_owned(), seconds: PATIENCE.as_secs() }))?;
        self.latencies.push(begun.elapsed());
        Ok(())
    }

    /// Hangs up, and gives the latencies from the lowest to the highest, without those of the way's first messages.
    fn close(self) -> Vec<Duration> {
        let mut sorted = self.latencies.into_iter().skip(WARM as usize).collect::<Vec<_>>();
        sorted.sort_unstable();
        sorted
    }
}

/// So many messages of each road behind those that warm it, and the number of each.
async fn by_turns(roads: &mut [Road; 2], messages: u32) -> Result<Outcome, BenchError> {
    let mut outcome = Outcome { begun: Some(Instant::now()), ..Outcome::default() };
    let begun = Instant::now();
    let mut number = 0;
    for _ in 0..WARM + messages {
        for road in &mut *roads {
            road.carry(number).await?;
            outcome.promised.push(number);
            number += 1;
        }
        if begun.elapsed() >= ENOUGH {
            break;
        }
    }
    Ok(outcome)
}

/// How far the median of a subject is above that of the upstream itself, in milliseconds; none where there are too few to
/// tell a median. Both are sorted.
fn added(raw: &[Duration], through: &[Duration]) -> Option<f64> {
    let [raw, through] = [percentile(raw, 500)?, percentile(through, 500)?].map(|median| median.as_secs_f64() * 1000.0);
    Some(through - raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_the_difference_of_the_medians_and_may_be_negative() {
        for (raw, through, wanted) in [
            (&[2, 3, 4][..], &[4, 5, 90][..], Some(2.0)),
            (&[5, 5, 90], &[1, 2, 3], Some(-3.0)),
            (&[1, 2], &[1, 9], Some(0.0)),
            (&[], &[1, 2], None),
            (&[1, 2], &[], None),
        ] {
            let [ours, theirs] =
                [raw, through].map(|all| all.iter().map(|millis| Duration::from_millis(*millis)).collect::<Vec<_>>());
            let found = added(&ours, &theirs);
            let same = match (found, wanted) {
                (Some(found), Some(wanted)) => (found - wanted).abs() < 1e-9,
                (found, wanted) => found.is_none() && wanted.is_none(),
            };
            assert!(same, "{raw:?} {through:?}: {found:?}");
        }
    }
}
