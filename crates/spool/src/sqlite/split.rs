//! How a settlement parts a delivery: a pure function from parts to rows. Recipients that go the same way, with the
//! same progress, stay one delivery, so that the next attempt is one transfer for all of them.

use mail::{LaneId, LaneSet, Outcome};

use super::schema::State;
use crate::progress::Progress;
use crate::settlement::{Next, Part};

/// A delivery that stays in the queue after the settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remainder {
    /// Positions in the claim's recipients.
    pub(super) recipients: Vec<usize>,
    /// Who may carry it from now on.
    pub(super) lanes: LaneSet,
    pub(super) state: State,
    /// Milliseconds; the settlement's own time where it does not matter.
    pub(super) due: i64,
    pub(super) progress: Progress,
    /// The first of its recipients' reasons; history has them all.
    pub(super) diagnostic: String,
}

/// Whether each of `count` recipients stands in exactly one part.
pub(super) fn covers<'a>(parts: impl IntoIterator<Item = &'a Vec<usize>>, count: usize) -> bool {
    let mut seen = vec![false; count];
    for position in parts.into_iter().flatten() {
        match seen.get_mut(*position) {
            Some(seen) if !*seen => *seen = true,
            _ => return false,
        }
    }
    seen.into_iter().all(|seen| seen)
}

/// The deliveries that remain; none if all is finished. `lanes` might have carried it, `lane` did; `at` is the settlement's
/// time in milliseconds.
pub(super) fn remainders(parts: &[Part], lanes: &LaneSet, lane: &LaneId, at: i64) -> Vec<Remainder> {
    let mut rows: Vec<Remainder> = Vec::new();
    for part in parts.iter().filter(|part| !part.recipients.is_empty()) {
        let Some((state, due)) = place(&part.next, at) else { continue };
        let progress = part.progress.in_millis();
        let lanes = if may_have_it(part) { LaneSet::from(lane) } else { lanes.clone() };
        let same =
            |row: &&mut Remainder| (row.state, row.due, row.progress) == (state, due, progress) && row.lanes == lanes;
        match rows.iter_mut().find(same) {
            Some(row) => row.recipients.extend(&part.recipients),
            None => rows.push(Remainder {
                recipients: part.recipients.clone(),
                lanes,
                state,
                due,
                progress,
                diagnostic: part.outcome.diagnostic().to_string(),
            }),
        }
    }
    rows
}

/// Whether upstream may have it from the lane that carried it: it goes by no other then (invariant 5).
fn may_have_it(part: &Part) -> bool {
    matches!(part.outcome, Outcome::Uncertain(_)) || part.progress.uncertain > 0
}

fn place(next: &Next, at: i64) -> Option<(State, i64)> {
    match next {
        Next::Finished => None,
        Next::Due(due) => Some((State::Queued, due.unix_millis())),
        Next::Held => Some((State::Held, at)),
        Next::Quarantined => Some((State::Quarantined, at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::WallTime;
    use mail::Diagnostic;
    use proptest::prelude::*;
    use std::time::Duration;

    fn part(recipients: &[usize], outcome: Outcome, next: Next) -> Part {
        Part { recipients: recipients.to_vec(), outcome, next, progress: Progress::default() }
    }

    fn counted(recipients: &[usize], outcome: Outcome, next: Next, attempts: u32, uncertain: u32) -> Part {
        Part { progress: Progress { attempts, uncertain, ..Progress::default() }, ..part(recipients, outcome, next) }
    }

    fn said(text: &str) -> Diagnostic {
        Diagnostic::local(text)
    }

    fn due(millis: i64) -> Next {
        Next::Due(WallTime::from_unix_millis(millis))
    }

    fn lane() -> LaneId {
        LaneId::new("t", "one@b.c")
    }

    fn both() -> LaneSet {
        LaneSet::new(&lane(), &[LaneId::new("t", "other@b.c")])
    }

    fn covers_all(parts: &[Part], count: usize) -> bool {
        covers(parts.iter().map(|part| &part.recipients), count)
    }

    fn rows(parts: &[Part]) -> Vec<Remainder> {
        remainders(parts, &both(), &lane(), 9)
    }

    #[test]
    fn three_ways_are_two_rows_and_one_end() {
        let parts = [
            part(&[0], Outcome::Accepted(said("ok")), Next::Finished),
            counted(&[1], Outcome::Refused(said("no")), Next::Quarantined, 3, 0),
            counted(&[2], Outcome::Deferred(said("later")), due(500), 4, 0),
        ];
        let row = |recipient, state, due, attempts, text: &str| Remainder {
            recipients: vec![recipient],
            lanes: both(),
            state,
            due,
            progress: Progress { attempts, ..Progress::default() },
            diagnostic: text.to_owned(),
        };
        assert_eq!(rows(&parts), [row(1, State::Quarantined, 9, 3, "no"), row(2, State::Queued, 500, 4, "later")]);
    }

    #[test]
    fn the_same_way_with_other_words_stays_together() {
        let parts = [
            counted(&[2, 0], Outcome::Deferred(said("a")), due(500), 4, 0),
            counted(&[1], Outcome::Deferred(said("b")), due(500), 4, 0),
            counted(&[3], Outcome::Uncertain(said("c")), due(500), 4, 1),
        ];
        let rows = rows(&parts);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].recipients.as_slice(), rows[0].diagnostic.as_str()), (&[2, 0, 1][..], "a"));
        assert_eq!(rows[1].progress.uncertain, 1);
    }

    #[test]
    fn what_upstream_may_have_goes_by_the_lane_that_carried_it() {
        for (outcome, uncertain, pinned) in [
            (Outcome::Deferred(said("")), 0, false),
            (Outcome::Deferred(said("")), 1, true),
            (Outcome::Uncertain(said("")), 0, true),
            (Outcome::Uncertain(said("")), 2, true),
            (Outcome::Paced(said("")), 0, false),
        ] {
            let name = outcome.name();
            let wanted = if pinned { LaneSet::from(&lane()) } else { both() };
            assert_eq!(rows(&[counted(&[0], outcome, due(1), 1, uncertain)])[0].lanes, wanted, "{name} {uncertain}");
        }
    }

    #[test]
    fn less_than_a_millisecond_parts_nobody() {
        let aged = |nanos| Part {
            progress: Progress { age: Duration::new(1, nanos), ..Progress::default() },
            ..part(&[usize::try_from(nanos).unwrap()], Outcome::Paced(said("")), due(1))
        };
        assert_eq!(rows(&[aged(0), aged(1)]).len(), 1);
    }

    #[test]
    fn each_recipient_in_exactly_one_part() {
        let one = |recipients: &[usize]| part(recipients, Outcome::Paced(said("")), Next::Held);
        assert!(covers_all(&[one(&[1]), one(&[0, 2])], 3));
        assert!(!covers_all(&[one(&[1])], 2));
        assert!(!covers_all(&[one(&[0, 0])], 1));
        assert!(!covers_all(&[one(&[0]), one(&[0])], 1));
        assert!(!covers_all(&[one(&[2])], 1));
    }

    proptest! {
        #[test]
        fn nobody_is_lost_or_doubled(ways in proptest::collection::vec((0..5_u8, 0..3_u8), 1..30)) {
            let parts: Vec<_> = ways.iter().enumerate().map(|(at, (next, outcome))| {
                let next = match next {
                    0 => Next::Finished,
                    1 => due(1_000),
                    2 => Next::Held,
                    3 => Next::Quarantined,
                    _ => due(2_000),
                };
                let outcome = match outcome {
                    0 => Outcome::Accepted(said("a")),
                    1 => Outcome::Deferred(said("d")),
                    _ => Outcome::Uncertain(said("u")),
                };
                part(&[at], outcome, next)
            }).collect();
            prop_assert!(covers_all(&parts, ways.len()));
            let mut left: Vec<usize> = rows(&parts).into_iter().flat_map(|row| row.recipients).collect();
            left.sort_unstable();
            let wanted: Vec<usize> = (0..ways.len()).filter(|at| ways[*at].0 != 0).collect();
            prop_assert_eq!(left, wanted);
        }
    }
}
