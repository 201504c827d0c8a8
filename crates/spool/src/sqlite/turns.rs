//! Whose turn it is in a queue: clients go round, each with the first of its deliveries, so that one with a long queue does
//! not hold up another's only message. A pure state machine over what was looked up ahead; it says what to look up next.
//! Not here: the database, nor who holds what. What it gives may be stale; a row is read again once it is claimed.

use std::collections::VecDeque;

/// Deliveries of one client known ahead: a look-up is paid for once in so many claims.
pub(super) const AHEAD: usize = 64;
/// Clients in the round at once; if more wait, they come after those.
pub(super) const CLIENTS: usize = 64;
/// Clients that a scan looks at for each delivery given before it, so that many who wait for later cost little.
const LOOKED_AT_EACH: usize = 8;

/// When a delivery is due, in milliseconds; orders the deliveries of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) at: i64,
    pub(super) delivery: i64,
}

/// The next step of whoever wants a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is this one's turn.
    Serve(String, Due),
    /// It is the turn of a client of whom nothing is known ahead: [`Turns::looked_up`].
    LookUp(String, Seen),
    /// Nobody known has anything due: [`Turns::scanned`], from behind this client if there is one.
    Scan(Option<String>, Seen),
}

/// What was known when a read began: what was passed over or put off since may be missing in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    passed_over: u64,
    put_off: u64,
}

/// The clients found by a scan, in order.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Those with something due, each with its first; at most [`CLIENTS`].
    pub(super) heads: Vec<(String, Due)>,
    /// When the first of the others has something due.
    pub(super) again: Option<i64>,
    /// How many clients were looked at.
    pub(super) looked_at: usize,
    /// Whether these are all.
    pub(super) whole: bool,
    /// Whether it came by the first of all clients.
    pub(super) wrapped: bool,
}

/// The round of one queue.
#[derive(Debug, Default)]
pub(super) struct Turns {
    round: VecDeque<Turn>,
    /// Whether every client that has something due is in the round. If not, each in it has one turn, then others come.
    whole: bool,
    /// The last client of a scan that did not find all.
    cursor: Option<String>,
    /// When something of a client is due that is not in the round because it had nothing due yet.
    again: Option<i64>,
    /// Deliveries given, and clients looked at, since and in the last scan.
    served: usize,
    looked_at: usize,
    /// Arrivals that were passed over because a look-up would find them.
    passed_over: u64,
    /// Clients that left the round because nothing of theirs was due yet.
    put_off: u64,
}

/// A client in the round.
#[derive(Debug)]
struct Turn {
    client: String,
    /// Its first deliveries that nobody holds, in order and without a gap: what is not due tells that nothing is.
    ahead: VecDeque<Due>,
    /// Whether it may have others behind these.
    more: bool,
}

impl Turns {
    /// Knows nothing any more, and believes no read that began before.
    pub(super) fn forget(&mut self) {
        let (passed_over, put_off) = (self.passed_over + 1, self.put_off + 1);
        *self = Self { passed_over, put_off, ..Self::default() };
    }

    /// What to do for a delivery that is due at `now`.
    pub(super) fn next(&mut self, now: i64) -> Step {
        if self.is_scan_due(now) {
            return self.scan();
        }
        while let Some(mut turn) = self.round.pop_front() {
            match turn.ahead.front().copied() {
                Some(due) if due.at <= now => {
                    turn.ahead.pop_front();
                    self.served += 1;
                    let client = turn.client.clone();
                    if self.whole && (turn.more || !turn.ahead.is_empty()) {
                        self.round.push_back(turn);
                    }
                    return Step::Serve(client, due);
                }
                Some(due) => {
                    self.again = self.again.into_iter().chain([due.at]).min();
                    self.put_off += 1;
                }
                None if turn.more => {
                    let client = turn.client.clone();
                    self.round.push_front(turn);
                    return Step::LookUp(client, self.seen());
                }
                None => {}
            }
        }
        self.scan()
    }

    /// Whether somebody outside the round has something due. Looked for once a round at most, and so that a scan of many
    /// clients is shared by many claims.
    fn is_scan_due(&self, now: i64) -> bool {
        self.again.is_some_and(|again| again <= now)
            && self.served >= self.round.len().max(1)
            && self.served.saturating_mul(LOOKED_AT_EACH) >= self.looked_at
    }

    fn scan(&self) -> Step {
        Step::Scan(self.cursor.clone(), self.seen())
    }

    fn seen(&self) -> Seen {
        Seen { passed_over: self.passed_over, put_off: self.put_off }
    }

    /// The first of `client` (in order), none of them held by anybody. `complete` if there are no others.
    pub(super) fn looked_up(
        &mut self,
        client: &str,
        found: impl Iterator<Item = Due>,
        complete: bool,
        seen: Seen,
        now: i64,
    ) {
        let nothing_missed = seen.passed_over == self.passed_over;
        let Some(turn) = self.turn(client) else { return };
        turn.more = !(complete && nothing_missed);
        // What is not due tells that nothing is: not where something may be missing in front of it.
        for due in found.filter(|due| nothing_missed || due.at <= now) {
            turn.insert(due);
        }
    }

    /// What a scan found. `is_free` tells what nobody holds.
    pub(super) fn scanned(&mut self, scan: Scan, seen: Seen, is_free: impl Fn(Due) -> bool) {
        self.whole = scan.whole && seen.passed_over == self.passed_over;
        self.cursor = if scan.whole { None } else { scan.heads.last().map(|(client, _)| client.clone()) };
        let put_off_since = self.again.filter(|_| seen.put_off != self.put_off);
        self.again = put_off_since.into_iter().chain(scan.again).min();
        self.looked_at = scan.looked_at;
        self.served = 0;
        for (client, due) in scan.heads {
            let turn = self.turn_or_last(&client);
            if is_free(due) {
                turn.insert(due);
            }
            turn.more = true;
        }
    }

    /// A delivery of `client` was committed, and nobody holds it.
    pub(super) fn arrived(&mut self, client: &str, due: Due) {
        if self.turn(client).is_some() {
            self.join(client, due);
        } else if self.whole && self.round.len() < CLIENTS {
            let turn = self.first_turn(client, due);
            self.round.push_back(turn);
        } else {
            // A scan will come by it.
            self.whole = false;
            self.passed_over += 1;
        }
    }

    /// Something given was not what it was taken for, so that somebody may be missing in the round: look for all anew.
    pub(super) fn doubt(&mut self) {
        self.whole = false;
        self.passed_over += 1;
    }

    /// A delivery that was given came back: it is its client's turn again.
    pub(super) fn came_back(&mut self, client: &str, due: Due) {
        if self.turn(client).is_some() {
            self.join(client, due);
        } else {
            let turn = self.first_turn(client, due);
            self.round.push_front(turn);
        }
    }

    /// Into a turn that is there.
    fn join(&mut self, client: &str, due: Due) {
        if self.turn(client).is_some_and(|turn| !turn.joined(due)) {
            self.passed_over += 1;
        }
    }

    /// Of a client that was not in the round: if all who have anything are in it, this is all that it has. Else something
    /// of it may be due before this, and is looked up.
    fn first_turn(&self, client: &str, due: Due) -> Turn {
        let is_all = self.whole && self.again.is_none();
        let ahead = if is_all { VecDeque::from([due]) } else { VecDeque::new() };
        Turn { client: client.to_owned(), ahead, more: !is_all }
    }

    fn turn(&mut self, client: &str) -> Option<&mut Turn> {
        self.round.iter_mut().find(|turn| turn.client == client)
    }

    fn turn_or_last(&mut self, client: &str) -> &mut Turn {
        let at = self.round.iter().position(|turn| turn.client == client).unwrap_or_else(|| {
            self.round.push_back(Turn { client: client.to_owned(), ahead: VecDeque::new(), more: false });
            self.round.len() - 1
        });
        &mut self.round[at]
    }
}

impl Turn {
    /// In its place, once.
    fn insert(&mut self, due: Due) {
        let at = self.ahead.partition_point(|other| *other < due);
        if self.ahead.get(at) != Some(&due) {
            self.ahead.insert(at, due);
        }
        if self.ahead.len() > AHEAD {
            self.ahead.truncate(AHEAD);
            self.more = true;
        }
    }

    /// Takes it in unless it stands behind what is known, with others between; false if a look-up is to find it.
    fn joined(&mut self, due: Due) -> bool {
        let behind = self.ahead.back().is_none_or(|last| *last < due);
        if behind && (self.more || self.ahead.len() >= AHEAD) {
            self.more = true;
            return false;
        }
        self.insert(due);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    fn due(at: i64, delivery: i64) -> Due {
        Due { at, delivery }
    }

    /// A database of one queue, and what it was asked.
    #[derive(Default)]
    struct Queue {
        rows: BTreeMap<String, BTreeSet<Due>>,
        turns: Turns,
        reads: usize,
    }

    impl Queue {
        fn of(clients: &[(&str, i64)]) -> Self {
            let mut queue = Self::default();
            for (at, (client, count)) in clients.iter().enumerate() {
                let first = i64::try_from(at).unwrap() * 1_000_000;
                let rows = (0..*count).map(|delivery| due(0, first + delivery)).collect();
                queue.rows.insert((*client).to_owned(), rows);
            }
            queue
        }

        fn arrive(&mut self, client: &str, due: Due) {
            self.rows.entry(client.to_owned()).or_default().insert(due);
            self.turns.arrived(client, due);
        }

        fn scan(&mut self, cursor: Option<&str>, now: i64) -> Scan {
            let mut scan = Scan::default();
            let (before, behind): (Vec<_>, Vec<_>) =
                self.rows.iter().partition(|(client, _)| cursor.is_some_and(|cursor| client.as_str() <= cursor));
            for (client, rows) in behind.into_iter().chain(before) {
                let Some(first) = rows.first() else { continue };
                self.reads += 1;
                scan.looked_at += 1;
                if first.at > now {
                    scan.again = scan.again.into_iter().chain([first.at]).min();
                    continue;
                }
                scan.heads.push((client.clone(), *first));
                if scan.heads.len() == CLIENTS {
                    return scan;
                }
            }
            self.reads += 1;
            Scan { whole: true, ..scan }
        }

        /// Serves the next and settles it.
        fn serve(&mut self, now: i64) -> Option<(String, Due)> {
            let mut looked = false;
            loop {
                match self.turns.next(now) {
                    Step::Serve(client, due) => {
                        if self.rows.get_mut(&client).is_some_and(|rows| rows.remove(&due)) {
                            return Some((client, due));
                        }
                    }
                    Step::LookUp(client, seen) => {
                        self.reads += 1;
                        let rows = &self.rows[&client];
                        let found: Vec<_> = rows.iter().take(AHEAD).copied().collect();
                        self.turns.looked_up(&client, found.into_iter(), rows.len() < AHEAD, seen, now);
                    }
                    Step::Scan(..) if looked => return None,
                    Step::Scan(cursor, seen) => {
                        let scan = self.scan(cursor.as_deref(), now);
                        looked = scan.whole;
                        self.turns.scanned(scan, seen, |_| true);
                    }
                }
            }
        }

        fn served(&mut self, count: usize) -> Vec<String> {
            (0..count).map_while(|_| self.serve(0)).map(|(client, _)| client).collect()
        }
    }

    #[test]
    fn clients_take_turns_whatever_each_has_queued() {
        let mut queue = Queue::of(&[("a", 1_000), ("b", 2), ("c", 3)]);
        assert_eq!(queue.served(8), ["a", "b", "c", "a", "b", "c", "a", "c"]);
        assert_eq!(queue.served(2), ["a", "a"]);
    }

    #[test]
    fn who_arrives_has_a_turn_within_a_round() {
        let mut queue = Queue::of(&[("a", 1_000), ("b", 1_000)]);
        queue.served(9);
        for delivery in 5_000_000..5_000_003 {
            queue.arrive("new", due(0, delivery));
        }
        let reads = queue.reads;
        assert_eq!(queue.served(9), ["b", "a", "new", "b", "a", "new", "b", "a", "new"]);
        assert_eq!(queue.reads, reads, "and needs no look-up");
    }

    #[test]
    fn what_becomes_due_later_has_its_turn_then() {
        let mut queue = Queue::of(&[("a", 1_000)]);
        queue.arrive("late", due(50, 5_000_000));
        assert_eq!(queue.served(3), ["a", "a", "a"]);
        let (first, second) = (queue.serve(50).unwrap().0, queue.serve(50).unwrap().0);
        assert!([&first, &second].contains(&&"late".to_owned()), "{first} {second}");
    }

    #[test]
    fn what_becomes_due_later_is_remembered_while_nothing_is_due() {
        let mut queue = Queue::default();
        queue.arrive("late", due(50, 1));
        assert_eq!((queue.serve(0), queue.serve(0)), (None, None));
        for delivery in 2..100 {
            queue.arrive("a", due(0, delivery));
        }
        assert_eq!(queue.served(3), ["a", "a", "a"]);
        let (first, second) = (queue.serve(50).unwrap().0, queue.serve(50).unwrap().0);
        assert!([&first, &second].contains(&&"late".to_owned()), "{first} {second}");
    }

    #[test]
    fn what_is_put_off_during_a_scan_is_not_forgotten() {
        let mut turns = Turns::default();
        let Step::Scan(_, seen) = turns.next(0) else { panic!("nothing is known yet") };
        turns.scanned(Scan { whole: true, ..Scan::default() }, seen, |_| true);
        let Step::Scan(_, seen) = turns.next(0) else { panic!("nothing is due yet") };
        // Committed behind what this scan sees, and met by somebody else.
        turns.arrived("late", due(50, 1));
        assert!(matches!(turns.next(0), Step::Scan(..)));
        turns.scanned(Scan { whole: true, ..Scan::default() }, seen, |_| true);
        assert_eq!(turns.again, Some(50));
    }

    #[test]
    fn a_look_up_that_finds_more_than_is_kept_loses_nothing() {
        let mut queue = Queue::of(&[("a", 1)]);
        assert_eq!(queue.served(1), ["a"]);
        let Step::LookUp(client, seen) = queue.turns.next(0) else { panic!("others of it may follow") };
        let found: Vec<_> = (0..100).map(|delivery| due(0, delivery)).collect();
        queue.rows.insert(client.clone(), found.iter().copied().collect());
        queue.turns.looked_up(&client, found.into_iter(), true, seen, 0);
        let endless = (0..1_000).map(|delivery| due(0, 5_000 + delivery));
        endless.for_each(|due| queue.arrive("endless", due));
        let served = queue.served(200);
        assert_eq!(served.iter().filter(|client| *client == "a").count(), 100, "half of the turns are its own");
    }

    #[test]
    fn more_clients_than_are_known_at_once_each_have_a_turn_a_round() {
        let names: Vec<String> = (0..150).map(|at| format!("c{at:03}")).collect();
        let mut queue = Queue::of(&names.iter().map(|name| (name.as_str(), 5)).collect::<Vec<_>>());
        let served = queue.served(300);
        let first: BTreeSet<_> = served[..150].iter().collect();
        let second: BTreeSet<_> = served[150..].iter().collect();
        assert_eq!((first.len(), second.len()), (150, 150));
    }

    #[test]
    fn a_long_drain_looks_up_once_in_many_claims() {
        for clients in [1, 3, 60] {
            let names: Vec<String> = (0..clients).map(|at| format!("c{at:03}")).collect();
            let mut queue = Queue::of(&names.iter().map(|name| (name.as_str(), 6_000)).collect::<Vec<_>>());
            assert_eq!(queue.served(6_000).len(), 6_000);
            assert!(queue.reads < 6_000 / AHEAD * 2 + 3 * clients, "{clients} clients: {} reads", queue.reads);
        }
    }

    #[test]
    fn what_came_back_is_next() {
        let mut queue = Queue::of(&[("a", 2), ("b", 2)]);
        let (client, first) = queue.serve(0).unwrap();
        queue.serve(0);
        queue.serve(0);
        queue.rows.get_mut(&client).unwrap().insert(first);
        queue.turns.came_back(&client, first);
        assert_eq!(queue.serve(0), Some((client, first)));
        assert_eq!(queue.served(9), ["b"]);
    }

    proptest! {
        /// Arrivals, whenever they come, are all served, and none waits for more than a round and its neighbours' arrivals.
        #[test]
        fn nothing_is_passed_over(steps in proptest::collection::vec((0..90_u8, 0..4_i64, any::<bool>()), 1..600)) {
            let mut queue = Queue::default();
            let (mut now, mut left) = (0, 0);
            for (at, (client, wait, serve)) in steps.into_iter().enumerate() {
                queue.arrive(&format!("c{client}"), due(now + wait, i64::try_from(at).unwrap()));
                left += 1;
                if serve && queue.serve(now).is_some() {
                    left -= 1;
                }
                now += 1;
            }
            while let Some((_, due)) = queue.serve(now + 10) {
                prop_assert!(due.at <= now + 10);
                left -= 1;
            }
            prop_assert_eq!(left, 0);
        }

        /// Beside a client that never ends, everyone who has something due is served within a few rounds.
        #[test]
        fn nobody_waits_beyond_a_few_rounds(steps in proptest::collection::vec((0..6_usize, 0..30_i64, 0..3_u8), 1..400)) {
            let mut queue = Queue::default();
            for delivery in 0..5_000 {
                queue.arrive("endless", due(0, 1_000_000 + delivery));
            }
            let mut waiting = [0; 6];
            let calm = (0..300).map(|_| (0, 0, 9));
            for (now, (client, wait, arrivals)) in (0_i64..).zip(steps.into_iter().chain(calm)) {
                for arrival in 0..i64::from(arrivals % 9) {
                    queue.arrive(&format!("c{client}"), due(now + wait, now * 10 + arrival));
                }
                let (served, _) = queue.serve(now).unwrap();
                for (at, waits) in waiting.iter_mut().enumerate() {
                    let name = format!("c{at}");
                    let is_due = queue.rows.get(&name).and_then(BTreeSet::first).is_some_and(|first| first.at <= now);
                    *waits = if is_due && served != name { *waits + 1 } else { 0 };
                    prop_assert!(*waits < 25, "{name} waits at {now}");
                }
            }
        }
    }
}
