//! Random histories against a model that keeps everything in a map: nothing lost, nothing doubled, nothing sent by a lane
//! that may not, counts and usage true.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use clock::WallTime;
use mail::{LaneId, LaneSet, Outcome};
use proptest::prelude::*;
use spool::{
    BodySink, Claim, Next, Part, Passage, Place, Placed, Progress, QueueId, Rerouting, Selection, Settlement, Spool,
    SqliteSource, SqliteSpool, Usage,
};

use crate::harness::*;

#[derive(Clone, Debug)]
enum Step {
    Commit {
        recipients: usize,
        octets: usize,
        lanes: usize,
        client: u8,
    },
    /// From the queue of these lanes.
    Claim(usize),
    /// From the queue of these lanes, of what was accepted so many seconds ago.
    Sweep(usize, u8),
    /// One of the claims, by one of its lanes.
    Mark(usize, usize),
    Drop(usize),
    /// One of the claims; the way of each recipient.
    Settle(usize, Vec<u8>),
    /// All of a selection, and one of them goes where these say, recipient by recipient; with an operator's word or without.
    Reroute(Which, usize, Vec<u8>, bool),
    /// Something went straight through by one of the lanes, for so many.
    Pass(bool, usize),
    Advance(u8),
    Close,
    Crash,
}

/// Which selection: what other epochs left, what no route takes, or one of the messages.
#[derive(Clone, Copy, Debug)]
enum Which {
    OtherEpoch(u64),
    Unrouted,
    Message,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let octets = prop_oneof![0..100_usize, 32_700..32_800_usize, Just(70_000)];
    let which = prop_oneof![(7..10_u64).prop_map(Which::OtherEpoch), Just(Which::Unrouted), Just(Which::Message)];
    let step = prop_oneof![
        4 => (1..4_usize, octets, 0..3_usize, 0..3_u8)
            .prop_map(|(recipients, octets, lanes, client)| Step::Commit { recipients, octets, lanes, client }),
        6 => (0..3_usize).prop_map(Step::Claim),
        2 => (0..3_usize, 0..5_u8).prop_map(|(lanes, ago)| Step::Sweep(lanes, ago)),
        3 => (any::<usize>(), any::<usize>()).prop_map(|(claim, lane)| Step::Mark(claim, lane)),
        2 => any::<usize>().prop_map(Step::Drop),
        4 => (any::<usize>(), proptest::collection::vec(0..5_u8, 3)).prop_map(|(claim, ways)| Step::Settle(claim, ways)),
        4 => (which, any::<usize>(), proptest::collection::vec(0..5_u8, 3), any::<bool>())
            .prop_map(|(which, at, ways, spoken)| Step::Reroute(which, at, ways, spoken)),
        2 => (any::<bool>(), 1..4_usize).prop_map(|(first, recipients)| Step::Pass(first, recipients)),
        2 => (1..5_u8).prop_map(Step::Advance),
        1 => Just(Step::Close),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..80)
}

fn one() -> LaneId {
    LaneId::new("tenant", "one@contoso.com")
}

fn two() -> LaneId {
    LaneId::new("tenant", "two@contoso.com")
}

/// The queues: each lane's own, and the one that both share.
fn queue(at: usize) -> LaneSet {
    [LaneSet::from(&one()), LaneSet::from(&two()), LaneSet::new(&one(), &[two()])][at].clone()
}

/// Where a recipient of the model stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stands {
    /// As in the database: 0 queued, 1 held, 4 unrouted.
    state: i64,
    due: WallTime,
    epoch: u64,
    lanes: LaneSet,
    client: String,
    /// As stored.
    progress: Progress,
}

type Key = (QueueId, String);
type Model = BTreeMap<Key, Stands>;

struct World {
    directory: tempfile::TempDir,
    spool: SqliteSpool,
    model: Model,
    bodies: BTreeMap<QueueId, usize>,
    accepted: BTreeMap<QueueId, WallTime>,
    claims: Vec<Claim<SqliteSource>>,
    /// Marked in this boot and not settled since, whoever holds them: due at once, and uncertain, after the next start.
    marked: BTreeMap<Vec<Key>, LaneId>,
    /// Those whose claim is in hand and was marked.
    flying: BTreeSet<Vec<Key>>,
    /// How often transfers were cut in this boot.
    cuts: BTreeMap<Key, u32>,
    usage: BTreeMap<LaneId, Usage>,
    /// For how many each of those went that went straight through.
    passed: BTreeMap<QueueId, usize>,
    now: WallTime,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _) = open(directory.path());
        Self {
            directory,
            spool,
            model: Model::new(),
            bodies: BTreeMap::new(),
            accepted: BTreeMap::new(),
            claims: Vec::new(),
            marked: BTreeMap::new(),
            flying: BTreeSet::new(),
            cuts: BTreeMap::new(),
            usage: BTreeMap::new(),
            passed: BTreeMap::new(),
            now: NOW,
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Commit { recipients, octets, lanes, client } => {
                self.commit(recipients, octets, queue(lanes), format!("192.0.2.{client}")).await;
            }
            Step::Claim(lanes) => self.claim(&queue(lanes)).await,
            Step::Sweep(lanes, ago) => self.sweep(&queue(lanes), Duration::from_secs(ago.into())).await,
            Step::Mark(at, lane) if !self.claims.is_empty() => self.mark(at % self.claims.len(), lane),
            Step::Drop(at) if !self.claims.is_empty() => self.drop(at % self.claims.len()).await,
            Step::Settle(at, ways) if !self.claims.is_empty() => self.settle(at % self.claims.len(), &ways).await,
            Step::Reroute(which, at, ways, spoken) => self.reroute(which, at, &ways, spoken).await,
            Step::Pass(first, recipients) => self.pass(if first { one() } else { two() }, recipients),
            Step::Advance(seconds) => self.now = self.now + Duration::from_secs(seconds.into()),
            Step::Close => self.close().await,
            Step::Crash => self.crash().await,
            Step::Mark(..) | Step::Drop(_) | Step::Settle(..) => {}
        }
    }

    async fn commit(&mut self, recipients: usize, octets: usize, lanes: LaneSet, client: String) {
        let sink = sink(&self.spool, &pattern(octets)).await;
        let id = sink.id();
        let names: Vec<String> = (0..recipients).map(|at| format!("r{at}@b.c")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let deliveries = vec![delivery(&lanes, &names)];
        let message =
            spool::NewMessage { accepted_at: self.now, client: client.clone(), deliveries, ..message(&names) };
        self.spool.commit(sink, message).await.unwrap();
        self.bodies.insert(id, octets);
        self.accepted.insert(id, self.now);
        let stands = Stands { state: 0, due: self.now, epoch: 7, lanes, client, progress: Progress::default() };
        self.model.extend(names.iter().map(|name| ((id, (*name).to_owned()), stands.clone())));
    }

    async fn claim(&mut self, lanes: &LaneSet) {
        let found = self.spool.claim(lanes, self.now).await.unwrap();
        let due: Vec<_> = self.free(lanes).filter(|(_, stands)| stands.due <= self.now).collect();
        let Some(claim) = found else {
            assert!(due.is_empty(), "something was due: {due:?}");
            return;
        };
        // Which of a client's comes first is shown in `claiming.rs` and `turns.rs`: while the writer is busy with marks and
        // settlements one may pass another here, rarely, and none is lost by it.
        let due: BTreeSet<Key> = due.into_iter().map(|(key, _)| key.clone()).collect();
        for key in keys(&claim) {
            assert!(due.contains(&key), "{key:?} is not due");
        }
        self.take_in_hand(claim, lanes).await;
    }

    /// All that is old enough and free, the oldest first.
    async fn sweep(&mut self, lanes: &LaneSet, ago: Duration) {
        let before = self.now - ago;
        let old = |key: &Key| self.accepted[&key.0] < before;
        let wanted: BTreeSet<Key> = self.free(lanes).map(|(key, _)| key.clone()).filter(old).collect();
        let mut found = Vec::new();
        while let Some(claim) = self.spool.claim_accepted_before(lanes, before).await.unwrap() {
            found.extend(keys(&claim));
            self.take_in_hand(claim, lanes).await;
        }
        assert!(found.is_sorted_by_key(|(id, _)| *id));
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
    }

    /// What is queued for these lanes and in nobody's hand.
    fn free<'a>(&'a self, lanes: &'a LaneSet) -> impl Iterator<Item = (&'a Key, &'a Stands)> {
        self.unheld().filter(|(_, stands)| stands.state == 0 && stands.lanes == *lanes)
    }

    /// What is in nobody's hand.
    fn unheld(&self) -> impl Iterator<Item = (&Key, &Stands)> {
        let held: BTreeSet<_> = self.claims.iter().flat_map(keys).collect();
        self.model.iter().filter(move |(key, _)| !held.contains(key))
    }

    /// All of a selection are found, by id; then one of them is rerouted and the others are let go.
    async fn reroute(&mut self, which: Which, at: usize, ways: &[u8], spoken: bool) {
        let Some((some, _)) = self.model.keys().nth(at % self.model.len().max(1)) else { return };
        let (some, mut found, mut after) = (*some, Vec::new(), None);
        let selection = match which {
            Which::OtherEpoch(epoch) => Selection::OtherEpoch(epoch),
            Which::Unrouted => Selection::Unrouted,
            Which::Message => Selection::Message(some),
        };
        loop {
            let selected = self.spool.claim_selected(&selection, after).await.unwrap();
            found.extend(selected.claim);
            match selected.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let is_meant = |(key, stands): &(&Key, &Stands)| match selection {
            Selection::OtherEpoch(epoch) => stands.state != 1 && stands.epoch != epoch,
            Selection::Unrouted => stands.state == 4,
            Selection::Message(message) => key.0 == message,
        };
        let wanted: BTreeSet<Key> = self.unheld().filter(is_meant).map(|(key, _)| key.clone()).collect();
        assert_eq!(found.iter().flat_map(keys).collect::<BTreeSet<_>>(), wanted, "{selection:?}");
        assert!(found.is_sorted_by_key(|claim| claim.delivery));
        if !found.is_empty() {
            let claim = found.swap_remove(at % found.len());
            drop(found);
            self.place(claim, ways, spoken).await;
        }
    }

    async fn place(&mut self, claim: Claim<SqliteSource>, ways: &[u8], spoken: bool) {
        let epoch = 7 + u64::from(ways[0]) % 3;
        let (mut parts, mut stay) = (Vec::new(), Vec::new());
        // Its mark is its row's, and goes with those who stay.
        let marked = self.marked.remove(&keys(&claim));
        for (position, key) in keys(&claim).into_iter().enumerate() {
            let stands = self.model.get_mut(&key).unwrap();
            assert_eq!((claim.route_epoch, &claim.lanes, &claim.client), (stands.epoch, &stands.lanes, &stands.client));
            let cuts = self.cuts.get(&key).copied().unwrap_or(0);
            assert_eq!(claim.progress.uncertain, stands.progress.uncertain + cuts);
            stands.epoch = epoch;
            let place = match ways[position % ways.len()] {
                0 => Place::Stays,
                4 => Place::Unrouted { reason: "none".to_owned() },
                way => {
                    let free = spoken || claim.progress.uncertain == 0;
                    let lanes = if free { queue(usize::from(way) - 1) } else { claim.lanes.clone() };
                    Place::Lanes { tenant: "contoso".to_owned(), route: "new".to_owned(), lanes }
                }
            };
            if place == Place::Stays {
                stay.push(key);
            } else {
                stands.progress.uncertain = claim.progress.uncertain;
                self.cuts.remove(&key);
            }
            match &place {
                Place::Stays => {}
                Place::Lanes { lanes, .. } => {
                    stands.due = if stands.state == 0 { stands.due } else { self.now };
                    (stands.state, stands.lanes) = (0, lanes.clone());
                }
                Place::Unrouted { .. } => (stands.state, stands.due) = (4, self.now),
            }
            parts.push(Placed { recipients: vec![position], place });
        }
        if let Some(lane) = marked.filter(|_| !stay.is_empty()) {
            self.marked.insert(stay, lane);
        }
        let said = spoken.then(|| "said".to_owned());
        self.spool.reroute(claim, Rerouting { epoch, parts, said, at: self.now }).await.unwrap();
    }

    /// Every claim is of the queue it was asked of, in no other hand, and as it was stored.
    async fn take_in_hand(&mut self, mut claim: Claim<SqliteSource>, lanes: &LaneSet) {
        let free: BTreeSet<Key> = self.free(lanes).map(|(key, _)| key.clone()).collect();
        for key in keys(&claim) {
            assert!(free.contains(&key), "{key:?} is not free");
            let before = self.model[&key].progress;
            let cuts = self.cuts.get(&key).copied().unwrap_or(0);
            assert_eq!(claim.progress, Progress { uncertain: before.uncertain + cuts, ..before }, "{key:?}");
        }
        assert!(octets(&mut claim.body).await == pattern(self.bodies[&claim.message]));
        self.claims.push(claim);
    }

    /// Nobody waits for it to be written.
    fn pass(&mut self, lane: LaneId, recipients: usize) {
        let id = self.spool.passing_id();
        assert!(!self.bodies.contains_key(&id), "{id} is the name of another");
        assert_eq!(self.passed.insert(id, recipients), None, "{id} is the name of another");
        let names: Vec<String> = (0..recipients).map(|at| format!("r{at}@b.c")).collect();
        let usage = Usage { messages: 1, recipients: u32::try_from(recipients).unwrap(), external: 0 };
        self.add_usage(&lane, usage);
        self.spool.record(Passage {
            id,
            at: self.now,
            lane,
            tenant: "contoso".to_owned(),
            mailbox: "scanner".to_owned(),
            sender: message(&[]).envelope.reverse_path,
            client: "192.0.2.7".to_owned(),
            message_id: String::new(),
            outcomes: names.iter().map(|name| (path(name), Outcome::Accepted(said("p")))).collect(),
            usage,
        });
    }

    fn mark(&mut self, at: usize, lane: usize) {
        let claim = &self.claims[at];
        let lanes: Vec<LaneId> = claim.lanes.lanes().collect();
        let lane = &lanes[lane % lanes.len()];
        self.spool.mark_in_flight(&claim.guard, lane);
        if self.flying.insert(keys(claim)) {
            self.marked.insert(keys(claim), lane.clone());
        }
    }

    /// Behind a write that is awaited all marks are written too.
    async fn barrier(&self) {
        self.spool.prune_history(WallTime::from_unix_millis(0)).await.unwrap();
    }

    async fn drop(&mut self, at: usize) {
        let claim = self.claims.remove(at);
        let keys = keys(&claim);
        drop(claim);
        self.barrier().await;
        if self.flying.remove(&keys) {
            let lanes = LaneSet::from(&self.marked[&keys]);
            for key in keys {
                self.model.get_mut(&key).unwrap().lanes = lanes.clone();
                *self.cuts.entry(key).or_default() += 1;
            }
        }
    }

    async fn settle(&mut self, at: usize, ways: &[u8]) {
        let claim = self.claims.remove(at);
        let marked = self.marked.remove(&keys(&claim));
        self.flying.remove(&keys(&claim));
        let lane = marked.unwrap_or_else(|| claim.lanes.lanes().next().unwrap());
        let mut parts = Vec::new();
        for (position, key) in keys(&claim).into_iter().enumerate() {
            self.cuts.remove(&key);
            let part = self.part(claim.progress, position, ways[position % ways.len()]);
            let pinned = part.progress.uncertain > 0;
            let stands = Stands {
                state: i64::from(part.next == Next::Held),
                due: if let Next::Due(due) = part.next { due } else { self.now },
                epoch: claim.route_epoch,
                lanes: if pinned { LaneSet::from(&lane) } else { claim.lanes.clone() },
                client: claim.client.clone(),
                progress: part.progress,
            };
            match part.next {
                Next::Finished => drop(self.model.remove(&key)),
                _ => drop(self.model.insert(key, stands)),
            }
            parts.push(part);
        }
        let recipients = u32::try_from(parts.len()).unwrap();
        let usage = Usage { messages: 1, recipients, external: 1 };
        self.add_usage(&lane, usage);
        let settlement = Settlement { lane, usage, at: self.now, ..settlement(parts) };
        self.spool.settle(claim, settlement).await.unwrap();
    }

    /// One of the ways that a recipient may go.
    fn part(&self, before: Progress, position: usize, way: u8) -> Part {
        let later = self.now + Duration::from_secs(2);
        let (attempts, uncertain) = (before.attempts + 1, before.uncertain);
        let (outcome, next, progress) = match way {
            0 => {
                let age = before.age + Duration::from_millis(1_500);
                (Outcome::Deferred(said("d")), Next::Due(later), Progress { attempts, age, ..before })
            }
            1 => {
                let progress = Progress { attempts, uncertain: uncertain + 1, ..before };
                (Outcome::Uncertain(said("u")), Next::Due(self.now), progress)
            }
            2 => (Outcome::Refused(said("r")), Next::Finished, before),
            3 => (Outcome::Paced(said("h")), Next::Held, Progress { delay_told: true, ..before }),
            _ => (Outcome::Accepted(said("a")), Next::Finished, before),
        };
        Part { progress, ..part(&[position], outcome, next) }
    }

    fn add_usage(&mut self, lane: &LaneId, usage: Usage) {
        let sum = self.usage.entry(lane.clone()).or_default();
        *sum = sum.plus(usage);
    }

    /// An orderly end, with claims in hand.
    async fn close(&mut self) {
        self.spool.close().await;
        self.reopen();
    }

    /// The end of the process: what the files hold now goes on as another directory.
    async fn crash(&mut self) {
        self.barrier().await;
        let copy = copy_of(self.directory.path());
        self.spool.close().await;
        self.directory = copy;
        self.reopen();
    }

    fn reopen(&mut self) {
        self.claims.clear();
        self.flying.clear();
        self.cuts.clear();
        let (spool, recovered) = open(self.directory.path());
        assert_eq!(recovered.uncertain, self.marked.len() as u64);
        self.spool = spool;
        for (keys, lane) in std::mem::take(&mut self.marked) {
            let recipients = u32::try_from(keys.len()).unwrap();
            self.add_usage(&lane, Usage { messages: 1, recipients, external: recipients });
            for key in keys {
                let stands = self.model.get_mut(&key).unwrap();
                stands.due = NOW;
                stands.lanes = LaneSet::from(&lane);
                stands.progress.uncertain += 1;
            }
        }
    }

    async fn check(&self) {
        let counts = self.spool.counts().await.unwrap();
        let mut ids: Vec<_> = self.model.keys().map(|(id, _)| *id).collect();
        ids.dedup();
        assert_eq!(counts.messages, ids.len() as u64);
        // Marks of claims in hand have moved their rows, and what passed is written.
        self.barrier().await;
        for lane in [one(), two()] {
            let found = self.spool.usage_since(&lane, WallTime::default()).await.unwrap();
            let sum = found.into_iter().fold(Usage::default(), |sum, (_, usage)| sum.plus(usage));
            assert_eq!(sum, self.usage.get(&lane).copied().unwrap_or_default(), "{lane}");
        }
        let connection = database(self.directory.path());
        for (id, recipients) in &self.passed {
            let sql = "SELECT count(*) FROM history WHERE message = ?1 AND event = 'accepted' AND reply = 'p'";
            let told: u32 = connection.query_row(sql, [id.to_i64()], |row| row.get(0)).unwrap();
            assert_eq!(told as usize, *recipients, "{id}");
        }
        let mut model = self.model.clone();
        for (keys, lane) in &self.marked {
            for key in keys {
                model.get_mut(key).unwrap().lanes = LaneSet::from(lane);
            }
        }
        check_database(self.directory.path(), &model, &counts);
    }
}

fn keys(claim: &Claim<SqliteSource>) -> Vec<Key> {
    claim.recipients.iter().map(|path| (claim.message, path.to_string())).collect()
}

/// Every row against the model, and the running sums against the rows.
fn check_database(directory: &Path, model: &Model, counts: &spool::Counts) {
    let connection = database(directory);
    let mut statement = connection
        .prepare("SELECT message, recipients, state, lane, due, route_epoch, uncertain FROM delivery")
        .unwrap();
    let rows = statement
        .query_map([], |row| {
            let stands = (row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?);
            Ok((row.get(0)?, row.get::<_, String>(1)?, stands))
        })
        .unwrap();
    let mut found = Vec::new();
    for (message, recipients, stands) in rows.map(Result::unwrap) {
        let id = QueueId::from_i64(message).unwrap();
        let stands: (i64, String, i64, i64, u32) = stands;
        found.extend(recipients.split('\n').map(|recipient| ((id, recipient.to_owned()), stands.clone())));
    }
    found.sort();
    let wanted: Vec<_> = model
        .iter()
        .map(|(key, stands)| {
            let Stands { state, due, epoch, lanes, progress, .. } = stands;
            (
                key.clone(),
                (*state, lanes.as_str().to_owned(), due.unix_millis(), epoch.cast_signed(), progress.uncertain),
            )
        })
        .collect();
    assert_eq!(found, wanted);
    let one = |sql: &str| {
        let value: i64 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
        u64::try_from(value).unwrap()
    };
    assert_eq!(counts.queued, one("SELECT count(*) FROM delivery WHERE state = 0"));
    assert_eq!(counts.held, one("SELECT count(*) FROM delivery WHERE state IN (1, 4)"));
    assert_eq!(counts.uncertain, one("SELECT count(*) FROM delivery WHERE state = 0 AND uncertain > 0"));
    assert_eq!(counts.bytes, one("SELECT coalesce(sum(size), 0) FROM message"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_doubled(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.take(step).await;
            }
            world.check().await;
            world.spool.close().await;
        });
    }
}
