//! Who holds which delivery: the claims, in memory only, and for each queue (the deliveries of one set of lanes) whose turn
//! it is. Not here: the database. A delivery can be seen in two queues, since a mark moves it to the lane that carries it:
//! who holds it is therefore known by its id alone, whatever queue it was claimed from.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use mail::{LaneId, LaneSet};
use tokio::sync::Notify;

use super::schema::State;
use super::turns::{Due, Scan, Seen, Step, Turns};

/// All claims of a spool.
#[derive(Debug, Default)]
pub(super) struct Claims {
    state: Mutex<ClaimState>,
}

#[derive(Debug, Default)]
struct ClaimState {
    queues: HashMap<LaneSet, Queue>,
    claimed: HashSet<i64>,
    cut: HashMap<i64, Cut>,
}

#[derive(Debug, Default)]
struct Queue {
    wakers: Wakers,
    turns: Turns,
    /// The message up to which a sweep through the oldest has come.
    swept: i64,
}

/// Whoever waits for a queue: several lanes may, and which of them can go is not known here, so that all are woken.
#[derive(Debug, Default)]
struct Wakers(Vec<Weak<Notify>>);

impl Wakers {
    fn add(&mut self) -> Arc<Notify> {
        self.0.retain(|waker| waker.strong_count() > 0);
        let waker = Arc::new(Notify::new());
        self.0.push(Arc::downgrade(&waker));
        waker
    }

    fn notify(&self) {
        for waker in self.0.iter().filter_map(Weak::upgrade) {
            waker.notify_one();
        }
    }
}

/// A delivery whose claim was dropped after the mark, in this boot.
#[derive(Debug)]
struct Cut {
    times: u32,
    /// The lane that was at it, alone: from no other queue may it be claimed, though its row may not say so yet.
    lanes: LaneSet,
}

/// A delivery that became claimable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) lanes: LaneSet,
    pub(super) client: String,
    pub(super) due: Due,
}

impl Claims {
    pub(super) fn waker(&self, lanes: &LaneSet) -> Arc<Notify> {
        self.state().queue(lanes).wakers.add()
    }

    /// How many deliveries cannot be claimed though they may be found: those that are, and those that were cut.
    pub(super) fn taken(&self) -> usize {
        let state = self.state();
        state.claimed.len() + state.cut.len()
    }

    /// Claims the delivery whose turn it is at `now`, or says what to look up.
    pub(super) fn next(&self, lanes: &LaneSet, now: i64) -> Step {
        let mut state = self.state();
        loop {
            let step = state.queue(lanes).turns.next(now);
            match &step {
                Step::Serve(_, due) if !state.take(lanes, due.delivery) => {}
                _ => return step,
            }
        }
    }

    /// Claims `delivery`, if nobody holds it.
    pub(super) fn take(&self, lanes: &LaneSet, delivery: i64) -> bool {
        self.state().take(lanes, delivery)
    }

    /// The answer to [`Step::LookUp`].
    pub(super) fn looked_up(&self, lanes: &LaneSet, client: &str, found: &[Due], complete: bool, seen: Seen, now: i64) {
        let mut state = self.state();
        let free: Vec<Due> = found.iter().filter(|due| state.is_free(lanes, due.delivery)).copied().collect();
        state.queue(lanes).turns.looked_up(client, free.into_iter(), complete, seen, now);
    }

    /// The answer to [`Step::Scan`].
    pub(super) fn scanned(&self, lanes: &LaneSet, scan: Scan, seen: Seen) {
        let mut state = self.state();
        let mut held = HashSet::new();
        held.extend(scan.heads.iter().map(|(_, due)| due.delivery).filter(|delivery| !state.is_free(lanes, *delivery)));
        state.queue(lanes).turns.scanned(scan, seen, |due| !held.contains(&due.delivery));
    }

    /// The first of `found` that can be claimed from this queue.
    pub(super) fn first_free(&self, lanes: &LaneSet, found: &[Due]) -> Option<Due> {
        let state = self.state();
        found.iter().find(|due| state.is_free(lanes, due.delivery)).copied()
    }

    /// Whether somebody holds `delivery`.
    pub(super) fn is_claimed(&self, delivery: i64) -> bool {
        self.state().claimed.contains(&delivery)
    }

    /// How often transfers of `delivery` were cut in this boot.
    pub(super) fn cuts(&self, delivery: i64) -> u32 {
        self.state().cut.get(&delivery).map_or(0, |cut| cut.times)
    }

    /// Deliveries that were committed, or became due earlier than they were.
    pub(super) fn arrived(&self, arrivals: &[Arrival]) {
        let mut state = self.state();
        for Arrival { lanes, client, due } in arrivals {
            let free = state.is_free(lanes, due.delivery);
            let Some(queue) = state.queues.get_mut(lanes) else { continue };
            if free {
                queue.turns.arrived(client, *due);
                queue.wakers.notify();
            }
        }
    }

    /// Due times of many deliveries of a queue changed.
    pub(super) fn forget(&self, lanes: &LaneSet) {
        if let Some(queue) = self.state().queues.get_mut(lanes) {
            queue.forget();
        }
    }

    /// After the store was reopened.
    pub(super) fn forget_all(&self) {
        self.state().queues.values_mut().for_each(Queue::forget);
    }

    /// Where a sweep through the oldest messages of a queue goes on.
    pub(super) fn swept(&self, lanes: &LaneSet) -> i64 {
        self.state().queue(lanes).swept
    }

    /// How far a sweep has come.
    pub(super) fn sweep_to(&self, lanes: &LaneSet, message: i64) {
        self.state().queue(lanes).swept = message;
    }

    fn release(&self, lanes: &LaneSet, client: &str, due: Due, is_queued: bool, fate: Fate) {
        let mut state = self.state();
        state.claimed.remove(&due.delivery);
        let back = match fate {
            Fate::Settled => return drop(state.cut.remove(&due.delivery)),
            Fate::Kept => return,
            Fate::Stale => return state.doubt(lanes),
            Fate::Unused => lanes.clone(),
            Fate::Cut(lane) => state.cut(due.delivery, &lane),
        };
        if let Some(queue) = state.queues.get_mut(&back).filter(|_| is_queued) {
            queue.turns.came_back(client, due);
            queue.wakers.notify();
        }
    }

    fn state(&self) -> MutexGuard<'_, ClaimState> {
        // Each change is one step: a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClaimState {
    /// Looked for first: a name is copied only for a queue that is new.
    fn queue(&mut self, lanes: &LaneSet) -> &mut Queue {
        if !self.queues.contains_key(lanes) {
            self.queues.insert(lanes.clone(), Queue::default());
        }
        self.queues.get_mut(lanes).expect("the queue was put there")
    }

    fn is_free(&self, lanes: &LaneSet, delivery: i64) -> bool {
        !self.claimed.contains(&delivery) && self.cut.get(&delivery).is_none_or(|cut| cut.lanes == *lanes)
    }

    fn take(&mut self, lanes: &LaneSet, delivery: i64) -> bool {
        self.is_free(lanes, delivery) && self.claimed.insert(delivery)
    }

    /// While a delivery was held by mistake its arrival was passed over, and others were told that nothing is due.
    fn doubt(&mut self, lanes: &LaneSet) {
        if let Some(queue) = self.queues.get_mut(lanes) {
            queue.turns.doubt();
            queue.wakers.notify();
        }
    }

    /// Gives the queue it can be claimed from now.
    fn cut(&mut self, delivery: i64, lane: &LaneId) -> LaneSet {
        let lanes = LaneSet::from(lane);
        let cut = self.cut.entry(delivery).or_insert_with(|| Cut { times: 0, lanes: lanes.clone() });
        cut.times += 1;
        cut.lanes.clone()
    }
}

impl Queue {
    fn forget(&mut self) {
        self.turns.forget();
        self.wakers.notify();
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// Its row was written, or is gone.
    Settled,
    /// Its row was written and stands where it stood: what was cut of it in this boot stays so.
    Kept,
    /// It was not what it was looked up as: somebody else may want to look again.
    Stale,
    /// Dropped before upstream can have seen it.
    Unused,
    /// Dropped after its mark: upstream may have it from this lane (invariant 5).
    Cut(LaneId),
}

/// Holds a delivery for one caller; dropped unsettled, the delivery is claimable again and, if it is queued, its queue
/// awake.
#[derive(Debug)]
pub struct ClaimGuard {
    claims: Arc<Claims>,
    lanes: LaneSet,
    client: String,
    due: Due,
    marked: OnceLock<LaneId>,
    /// Unless it is dropped unsettled.
    fate: Option<Fate>,
    /// What the row said when it was claimed. Nobody else changes it meanwhile.
    pub(super) row: Row,
}

/// The columns that a settlement needs again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) version: i64,
    pub(super) state: State,
    pub(super) attempts: u32,
    /// As stored, without what was cut in this boot.
    pub(super) uncertain: u32,
    pub(super) diagnostic: Option<String>,
}

impl ClaimGuard {
    /// For a delivery that [`Claims`] gave to this caller.
    pub(super) fn new(claims: Arc<Claims>, lanes: LaneSet, client: String, due: Due) -> Self {
        Self { claims, lanes, client, due, marked: OnceLock::new(), fate: None, row: Row::default() }
    }

    /// As it stands, if it is not queued.
    pub(super) fn standing(mut self, state: State) -> Self {
        self.row.state = state;
        self
    }

    pub(super) fn delivery(&self) -> i64 {
        self.due.delivery
    }

    /// When it is due, as it was looked up.
    pub(super) fn due(&self) -> Due {
        self.due
    }

    /// The queue it was claimed from.
    pub(super) fn lanes(&self) -> &LaneSet {
        &self.lanes
    }

    /// Whose turn it was.
    pub(super) fn client(&self) -> &str {
        &self.client
    }

    /// Notes the mark; true the first time.
    pub(super) fn mark(&self, lane: &LaneId) -> bool {
        self.marked.set(lane.clone()).is_ok()
    }

    /// Where its row belongs now that it is marked, if that is another queue than the one it was claimed from.
    pub(super) fn pin(&self) -> Option<Arrival> {
        let lanes = LaneSet::from(self.marked.get()?);
        let moved = lanes != self.lanes;
        moved.then(|| Arrival { lanes, client: self.client.clone(), due: self.due })
    }

    /// Whether a transfer of it may have begun.
    pub(super) fn is_marked(&self) -> bool {
        self.marked.get().is_some()
    }

    /// Its row was written, or is gone: claimable again only if the database says so.
    pub(super) fn settle(mut self) {
        self.fate = Some(Fate::Settled);
    }

    /// Its row was written but stands where it stood, cut as often as it was.
    pub(super) fn keep(mut self) {
        self.fate = Some(Fate::Kept);
    }

    /// Its row is not what it was looked up as, and stands in the queue `actual` if it is known.
    pub(super) fn stale(mut self, actual: Option<&LaneSet>) {
        self.fate = Some(Fate::Stale);
        let claims = Arc::clone(&self.claims);
        drop(self);
        if let Some(actual) = actual {
            claims.state().doubt(actual);
        }
    }
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        let dropped = || self.marked.get().map_or(Fate::Unused, |lane| Fate::Cut(lane.clone()));
        let fate = self.fate.take().unwrap_or_else(dropped);
        let is_queued = self.row.state == State::Queued;
        self.claims.release(&self.lanes, &self.client, self.due, is_queued, fate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(at: i64, delivery: i64) -> Due {
        Due { at, delivery }
    }

    fn lane(name: &str) -> LaneId {
        LaneId::new("t", name)
    }

    fn one() -> LaneSet {
        LaneSet::from(&lane("one"))
    }

    fn both() -> LaneSet {
        LaneSet::new(&lane("one"), &[lane("two")])
    }

    /// Claims with a whole, empty round for each of the sets.
    fn claims() -> Arc<Claims> {
        let claims = Arc::new(Claims::default());
        for lanes in [one(), both()] {
            let Step::Scan(_, seen) = claims.next(&lanes, 0) else { panic!("nothing is known yet") };
            claims.scanned(&lanes, Scan { whole: true, ..Scan::default() }, seen);
        }
        claims
    }

    fn arrive(claims: &Claims, lanes: LaneSet, due: Due) {
        claims.arrived(&[Arrival { lanes, client: "c".to_owned(), due }]);
    }

    fn claim(claims: &Arc<Claims>, lanes: &LaneSet, now: i64) -> Option<ClaimGuard> {
        match claims.next(lanes, now) {
            Step::Serve(client, due) => Some(ClaimGuard::new(Arc::clone(claims), lanes.clone(), client, due)),
            _ => None,
        }
    }

    #[test]
    fn a_delivery_has_one_holder() {
        let claims = claims();
        arrive(&claims, both(), due(1, 10));
        arrive(&claims, both(), due(2, 20));
        let first = claim(&claims, &both(), 5).unwrap();
        assert_eq!(first.delivery(), 10);
        arrive(&claims, both(), due(1, 10));
        let second = claim(&claims, &both(), 5).unwrap();
        assert_eq!(second.delivery(), 20);
        assert!(claim(&claims, &both(), 5).is_none());
        drop(second);
        drop(first);
        assert_eq!(claim(&claims, &both(), 5).unwrap().delivery(), 10, "back in its place");
    }

    #[test]
    fn what_is_not_due_is_not_taken() {
        let claims = claims();
        arrive(&claims, one(), due(9, 10));
        assert!(claim(&claims, &one(), 8).is_none());
        let Step::Scan(_, seen) = claims.next(&one(), 9) else { panic!("it is due now") };
        let heads = vec![("c".to_owned(), due(9, 10))];
        claims.scanned(&one(), Scan { heads, whole: true, ..Scan::default() }, seen);
        assert!(claim(&claims, &one(), 9).is_some());
    }

    #[test]
    fn only_a_marked_claim_is_cut_and_only_until_settled() {
        let claims = claims();
        arrive(&claims, one(), due(1, 10));
        drop(claim(&claims, &one(), 5));
        assert_eq!(claims.cuts(10), 0);
        let marked = claim(&claims, &one(), 5).unwrap();
        assert!(marked.mark(&lane("one")));
        assert!(!marked.mark(&lane("one")));
        assert_eq!(marked.pin(), None, "it stays where it is");
        drop(marked);
        assert_eq!(claims.cuts(10), 1);
        claim(&claims, &one(), 5).unwrap().settle();
        assert_eq!((claims.cuts(10), claims.taken()), (0, 0));
        assert!(claim(&claims, &one(), 5).is_none());
    }

    #[test]
    fn a_cut_transfer_goes_by_its_lane_alone() {
        let claims = claims();
        arrive(&claims, both(), due(1, 10));
        let marked = claim(&claims, &both(), 5).unwrap();
        marked.mark(&lane("one"));
        let pin = marked.pin().unwrap();
        assert_eq!((&pin.lanes, pin.due), (&one(), due(1, 10)));
        // Its row is moved while it is held.
        claims.arrived(std::slice::from_ref(&pin));
        assert!(claim(&claims, &one(), 5).is_none());
        drop(marked);
        // Looked up before its row was moved.
        arrive(&claims, both(), due(1, 10));
        assert!(claim(&claims, &both(), 5).is_none());
        assert_eq!(claims.first_free(&both(), &[due(1, 10)]), None);
        let again = claim(&claims, &one(), 5).unwrap();
        assert_eq!((again.delivery(), claims.cuts(10)), (10, 1));
    }

    #[test]
    fn a_queue_whose_delivery_was_held_by_mistake_is_woken() {
        let claims = claims();
        let (waker, actual) = (claims.waker(&both()), claims.waker(&one()));
        arrive(&claims, both(), due(1, 10));
        let mistaken = claim(&claims, &both(), 5).unwrap();
        mistaken.stale(Some(&one()));
        let mut both_woken = Box::pin(waker.notified());
        let mut one_woken = Box::pin(actual.notified());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(both_woken.as_mut().poll(&mut context).is_ready());
        assert!(one_woken.as_mut().poll(&mut context).is_ready());
        assert_eq!(claims.taken(), 0);
    }
}
