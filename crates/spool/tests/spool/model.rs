//! Random histories against a model that keeps everything in a map: nothing lost, nothing doubled, nothing sent by a lane
//! that may not, counts and usage true.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use clock::WallTime;
use mail::{LaneId, LaneSet, Outcome};
use proptest::prelude::*;
use spool::{BodySink, Claim, Next, Part, Progress, QueueId, Settlement, Spool, SqliteSource, SqliteSpool, Usage};

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
    Advance(u8),
    Close,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let octets = prop_oneof![0..100_usize, 32_700..32_800_usize, Just(70_000)];
    let step = prop_oneof![
        4 => (1..4_usize, octets, 0..3_usize, 0..3_u8)
            .prop_map(|(recipients, octets, lanes, client)| Step::Commit { recipients, octets, lanes, client }),
        6 => (0..3_usize).prop_map(Step::Claim),
        2 => (0..3_usize, 0..5_u8).prop_map(|(lanes, ago)| Step::Sweep(lanes, ago)),
        3 => (any::<usize>(), any::<usize>()).prop_map(|(claim, lane)| Step::Mark(claim, lane)),
        2 => any::<usize>().prop_map(Step::Drop),
        4 => (any::<usize>(), proptest::collection::vec(0..5_u8, 3)).prop_map(|(claim, ways)| Step::Settle(claim, ways)),
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
    /// None while it is held.
    due: Option<WallTime>,
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
        let stands = Stands { due: Some(self.now), lanes, client, progress: Progress::default() };
        self.model.extend(names.iter().map(|name| ((id, (*name).to_owned()), stands.clone())));
    }

    async fn claim(&mut self, lanes: &LaneSet) {
        let found = self.spool.claim(lanes, self.now).await.unwrap();
        let due: Vec<_> = self.free(lanes).filter(|(_, stands)| stands.due <= Some(self.now)).collect();
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
        let held: BTreeSet<_> = self.claims.iter().flat_map(keys).collect();
        let queued = self.model.iter().filter(|(_, stands)| stands.due.is_some());
        queued.filter(move |(key, stands)| !held.contains(key) && stands.lanes == *lanes)
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
                due: if let Next::Due(due) = part.next { Some(due) } else { None },
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
                stands.due = Some(NOW);
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
        for lane in [one(), two()] {
            let found = self.spool.usage_since(&lane, WallTime::default()).await.unwrap();
            let sum = found.into_iter().fold(Usage::default(), |sum, (_, usage)| sum.plus(usage));
            assert_eq!(sum, self.usage.get(&lane).copied().unwrap_or_default(), "{lane}");
        }
        // Marks of claims in hand have moved their rows.
        self.barrier().await;
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
    let mut statement = connection.prepare("SELECT message, recipients, state, lane FROM delivery").unwrap();
    let rows = statement
        .query_map([], |row| {
            Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, String>(3)?))
        })
        .unwrap();
    let mut found = Vec::new();
    for (message, recipients, state, lane) in rows.map(Result::unwrap) {
        let id = QueueId::from_i64(message).unwrap();
        found.extend(recipients.split('\n').map(|recipient| ((id, recipient.to_owned()), state, lane.clone())));
    }
    found.sort();
    let wanted: Vec<_> = model
        .iter()
        .map(|(key, stands)| (key.clone(), i64::from(stands.due.is_none()), stands.lanes.as_str().to_owned()))
        .collect();
    assert_eq!(found, wanted);
    let one = |sql: &str| {
        let value: i64 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
        u64::try_from(value).unwrap()
    };
    assert_eq!(counts.queued, one("SELECT count(*) FROM delivery WHERE state = 0"));
    assert_eq!(counts.held, one("SELECT count(*) FROM delivery WHERE state = 1"));
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
