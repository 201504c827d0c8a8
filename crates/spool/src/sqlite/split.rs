//! How a settlement parts a delivery: a pure function from parts to rows. Recipients that go the same way, with the
//! same counts, stay one delivery, so that the next attempt is one transfer for all of them.

use mail::Outcome;

use super::schema::State;
use crate::settlement::{Next, Part};

/// What a delivery has behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) attempts: u32,
    pub(super) uncertain: u32,
}

/// A delivery that stays in the queue after the settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remainder {
    /// Positions in the claim's recipients.
    pub(super) recipients: Vec<usize>,
    pub(super) state: State,
    /// Milliseconds; the settlement's own time where it does not matter.
    pub(super) due: i64,
    pub(super) progress: Progress,
    /// The first of its recipients' reasons; history has them all.
    pub(super) diagnostic: String,
}

/// Whether each of `count` recipients stands in exactly one part.
pub(super) fn covers(parts: &[Part], count: usize) -> bool {
    let mut seen = vec![false; count];
    for position in parts.iter().flat_map(|part| &part.recipients) {
        match seen.get_mut(*position) {
            Some(seen) if !*seen => *seen = true,
            _ => return false,
        }
    }
    seen.into_iter().all(|seen| seen)
}

/// The deliveries that remain; none if all is finished. `at` is the settlement's time in milliseconds.
pub(super) fn remainders(parts: &[Part], before: Progress, at: i64) -> Vec<Remainder> {
    let mut rows: Vec<Remainder> = Vec::new();
    for part in parts.iter().filter(|part| !part.recipients.is_empty()) {
        let Some((state, due)) = place(&part.next, at) else { continue };
        let progress = after(before, &part.outcome);
        match rows.iter_mut().find(|row| (row.state, row.due, row.progress) == (state, due, progress)) {
            Some(row) => row.recipients.extend(&part.recipients),
            None => rows.push(Remainder {
                recipients: part.recipients.clone(),
                state,
                due,
                progress,
                diagnostic: part.outcome.diagnostic().to_string(),
            }),
        }
    }
    rows
}

/// The counts after an outcome: only what upstream may have seen counts.
pub(super) fn after(before: Progress, outcome: &Outcome) -> Progress {
    let (attempt, uncertainty) = match outcome {
        Outcome::Uncertain(_) => (1, 1),
        Outcome::Deferred(_) => (1, 0),
        Outcome::Accepted(_) | Outcome::Refused(_) | Outcome::Paced(_) | Outcome::Held { .. } => (0, 0),
    };
    Progress {
        attempts: before.attempts.saturating_add(attempt),
        uncertain: before.uncertain.saturating_add(uncertainty),
    }
}

fn place(next: &Next, at: i64) -> Option<(State, i64)> {
    match next {
        Next::Finished => None,
        Next::Due(due) => Some((State::Queued, due.unix_millis())),
        Next::Held => Some((State::Held, at)),
        Next::Refused => Some((State::Refused, at)),
        Next::Quarantined => Some((State::Quarantined, at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::WallTime;
    use mail::{Diagnostic, Scope};
    use proptest::prelude::*;

    const BEFORE: Progress = Progress { attempts: 3, uncertain: 1 };

    fn part(recipients: &[usize], outcome: Outcome, next: Next) -> Part {
        Part { recipients: recipients.to_vec(), outcome, next }
    }

    fn said(text: &str) -> Diagnostic {
        Diagnostic::local(text)
    }

    fn due(millis: i64) -> Next {
        Next::Due(WallTime::from_unix_millis(millis))
    }

    #[test]
    fn three_ways_are_two_rows_and_one_end() {
        let parts = [
            part(&[0], Outcome::Accepted(said("ok")), Next::Finished),
            part(&[1], Outcome::Refused(said("no")), Next::Refused),
            part(&[2], Outcome::Deferred(said("later")), due(500)),
        ];
        let row = |recipient, state, due, attempts, text: &str| Remainder {
            recipients: vec![recipient],
            state,
            due,
            progress: Progress { attempts, uncertain: 1 },
            diagnostic: text.to_owned(),
        };
        let wanted = vec![row(1, State::Refused, 9, 3, "no"), row(2, State::Queued, 500, 4, "later")];
        assert_eq!(remainders(&parts, BEFORE, 9), wanted);
    }

    #[test]
    fn the_same_way_with_other_words_stays_together() {
        let parts = [
            part(&[2, 0], Outcome::Deferred(said("a")), due(500)),
            part(&[1], Outcome::Deferred(said("b")), due(500)),
            part(&[3], Outcome::Uncertain(said("c")), due(500)),
        ];
        let rows = remainders(&parts, BEFORE, 9);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].recipients.as_slice(), rows[0].diagnostic.as_str()), (&[2, 0, 1][..], "a"));
        assert_eq!(rows[1].progress, Progress { attempts: 4, uncertain: 2 });
    }

    #[test]
    fn what_counts() {
        let held = Outcome::Held { scope: Scope::Tenant, diagnostic: said("") };
        for (outcome, attempts, uncertain) in [
            (Outcome::Accepted(said("")), 3, 1),
            (Outcome::Refused(said("")), 3, 1),
            (Outcome::Deferred(said("")), 4, 1),
            (Outcome::Paced(said("")), 3, 1),
            (held, 3, 1),
            (Outcome::Uncertain(said("")), 4, 2),
        ] {
            assert_eq!(after(BEFORE, &outcome), Progress { attempts, uncertain }, "{}", outcome.name());
        }
    }

    #[test]
    fn each_recipient_in_exactly_one_part() {
        let one = |recipients: &[usize]| part(recipients, Outcome::Paced(said("")), Next::Held);
        assert!(covers(&[one(&[1]), one(&[0, 2])], 3));
        assert!(!covers(&[one(&[1])], 2));
        assert!(!covers(&[one(&[0, 0])], 1));
        assert!(!covers(&[one(&[0]), one(&[0])], 1));
        assert!(!covers(&[one(&[2])], 1));
    }

    proptest! {
        #[test]
        fn nobody_is_lost_or_doubled(ways in proptest::collection::vec((0..5_u8, 0..3_u8), 1..30)) {
            let parts: Vec<_> = ways.iter().enumerate().map(|(at, (next, outcome))| {
                let next = match next {
                    0 => Next::Finished,
                    1 => due(1_000),
                    2 => Next::Held,
                    3 => Next::Refused,
                    _ => due(2_000),
                };
                let outcome = match outcome {
                    0 => Outcome::Accepted(said("a")),
                    1 => Outcome::Deferred(said("d")),
                    _ => Outcome::Uncertain(said("u")),
                };
                part(&[at], outcome, next)
            }).collect();
            prop_assert!(covers(&parts, ways.len()));
            let mut left: Vec<usize> = remainders(&parts, BEFORE, 0).into_iter().flat_map(|row| row.recipients).collect();
            left.sort_unstable();
            let wanted: Vec<usize> = (0..ways.len()).filter(|at| ways[*at].0 != 0).collect();
            prop_assert_eq!(left, wanted);
        }
    }
}
