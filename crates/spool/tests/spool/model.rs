//! Random histories against a model that keeps everything in a map: nothing lost, nothing doubled, counts true.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use clock::WallTime;
use mail::Outcome;
use proptest::prelude::*;
use spool::{BodySink, Claim, Next, QueueId, Spool, SqliteSource, SqliteSpool};

use crate::harness::*;

#[derive(Clone, Debug)]
enum Step {
    /// A message with so many recipients and so many octets.
    Commit(usize, usize),
    Claim,
    Mark(usize),
    Drop(usize),
    /// One of the claims; the way of each recipient.
    Settle(usize, Vec<u8>),
    Advance(u8),
    Close,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..4_usize, prop_oneof![0..100_usize, 32_700..32_800_usize, Just(70_000)])
            .prop_map(|(recipients, len)| Step::Commit(recipients, len)),
        5 => Just(Step::Claim),
        2 => any::<usize>().prop_map(Step::Mark),
        1 => any::<usize>().prop_map(Step::Drop),
        4 => (any::<usize>(), proptest::collection::vec(0..5_u8, 3)).prop_map(|(claim, ways)| Step::Settle(claim, ways)),
        2 => (1..5_u8).prop_map(Step::Advance),
        1 => Just(Step::Close),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Where a recipient of the model stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Queued(WallTime),
    Held,
    Refused,
}

type Model = BTreeMap<(QueueId, String), Stands>;

struct World {
    directory: tempfile::TempDir,
    spool: SqliteSpool,
    model: Model,
    bodies: BTreeMap<QueueId, usize>,
    claims: Vec<Claim<SqliteSource>>,
    /// Marked in this boot and not settled since, whoever holds them: due at once, and uncertain, after the next start.
    marked: BTreeSet<Vec<(QueueId, String)>>,
    now: WallTime,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _) = open(directory.path());
        let (claims, marked) = (Vec::new(), BTreeSet::new());
        Self { directory, spool, model: Model::new(), bodies: BTreeMap::new(), claims, marked, now: NOW }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Commit(recipients, len) => self.commit(recipients, len).await,
            Step::Claim => self.claim().await,
            Step::Mark(at) if !self.claims.is_empty() => {
                let at = at % self.claims.len();
                self.spool.mark_in_flight(&self.claims[at].guard, &lane());
                self.marked.insert(keys(&self.claims[at]));
            }
            Step::Drop(at) if !self.claims.is_empty() => {
                let at = at % self.claims.len();
                drop(self.claims.remove(at));
            }
            Step::Settle(at, ways) if !self.claims.is_empty() => self.settle(at, &ways).await,
            Step::Advance(seconds) => self.now = self.now + Duration::from_secs(seconds.into()),
            Step::Close => self.close().await,
            Step::Crash => self.crash().await,
            Step::Mark(_) | Step::Drop(_) | Step::Settle(..) => {}
        }
    }

    async fn commit(&mut self, recipients: usize, len: usize) {
        let sink = sink(&self.spool, &pattern(len)).await;
        let id = sink.id();
        let names: Vec<String> = (0..recipients).map(|at| format!("r{at}@b.c")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let message = spool::NewMessage { accepted_at: self.now, ..message(&names) };
        self.spool.commit(sink, message).await.unwrap();
        self.bodies.insert(id, len);
        self.model.extend(names.iter().map(|name| ((id, (*name).to_owned()), Stands::Queued(self.now))));
    }

    async fn claim(&mut self) {
        let found = self.spool.claim(&lanes(), self.now).await.unwrap();
        let held: Vec<_> = self.claims.iter().flat_map(keys).collect();
        let free = |(key, stands): &(&(QueueId, String), &Stands)| {
            matches!(stands, Stands::Queued(due) if *due <= self.now) && !held.contains(key)
        };
        let earliest = self.model.iter().filter(free).map(|(_, stands)| *stands).min_by_key(due_of);
        let Some(mut claim) = found else {
            assert_eq!(earliest, None, "something was due");
            return;
        };
        for key in keys(&claim) {
            assert_eq!(self.model.get(&key).copied(), earliest, "{key:?} is not the longest due");
            assert!(!held.contains(&key), "{key:?} was given twice");
        }
        assert!(octets(&mut claim.body).await == pattern(self.bodies[&claim.message]));
        self.claims.push(claim);
    }

    async fn settle(&mut self, at: usize, ways: &[u8]) {
        let at = at % self.claims.len();
        let claim = self.claims.remove(at);
        self.marked.remove(&keys(&claim));
        let mut parts = Vec::new();
        for (position, key) in keys(&claim).into_iter().enumerate() {
            let later = self.now + Duration::from_secs(2);
            let (outcome, next, stands) = match ways[position % ways.len()] {
                0 => (Outcome::Deferred(said("d")), Next::Due(later), Some(Stands::Queued(later))),
                1 => (Outcome::Uncertain(said("u")), Next::Due(self.now), Some(Stands::Queued(self.now))),
                2 => (Outcome::Refused(said("r")), Next::Refused, Some(Stands::Refused)),
                3 => (Outcome::Paced(said("h")), Next::Held, Some(Stands::Held)),
                _ => (Outcome::Accepted(said("a")), Next::Finished, None),
            };
            parts.push(part(&[position], outcome, next));
            match stands {
                Some(stands) => drop(self.model.insert(key, stands)),
                None => drop(self.model.remove(&key)),
            }
        }
        self.spool.settle(claim, settlement(parts)).await.unwrap();
    }

    /// An orderly end, with claims in hand.
    async fn close(&mut self) {
        self.spool.close().await;
        self.reopen();
    }

    /// The end of the process: what the files hold now goes on as another directory.
    async fn crash(&mut self) {
        // A settled write is a barrier behind which all marks are written too.
        self.spool.prune_history(WallTime::from_unix_millis(0)).await.unwrap();
        let copy = copy_of(self.directory.path());
        self.spool.close().await;
        self.directory = copy;
        self.reopen();
    }

    fn reopen(&mut self) {
        self.claims.clear();
        let (spool, recovered) = open(self.directory.path());
        assert_eq!(recovered.uncertain, self.marked.len() as u64);
        self.spool = spool;
        for key in std::mem::take(&mut self.marked).into_iter().flatten() {
            self.model.insert(key, Stands::Queued(NOW));
        }
    }

    async fn check(&self) {
        let counts = self.spool.counts().await.unwrap();
        let mut ids: Vec<_> = self.model.keys().map(|(id, _)| *id).collect();
        ids.dedup();
        assert_eq!(counts.messages, ids.len() as u64);
        check_database(self.directory.path(), &self.model, &counts);
    }
}

fn due_of(stands: &Stands) -> Option<WallTime> {
    match stands {
        Stands::Queued(due) => Some(*due),
        Stands::Held | Stands::Refused => None,
    }
}

fn keys(claim: &Claim<SqliteSource>) -> Vec<(QueueId, String)> {
    claim.recipients.iter().map(|path| (claim.message, path.to_string())).collect()
}

/// Every row against the model, and the running sums against the rows.
fn check_database(directory: &Path, model: &Model, counts: &spool::Counts) {
    let connection = database(directory);
    let mut statement = connection.prepare("SELECT message, recipients, state FROM delivery").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?))).unwrap();
    let mut found: Vec<((QueueId, String), i64)> = Vec::new();
    for (message, recipients, state) in rows.map(Result::unwrap) {
        let id = QueueId::from_i64(message).unwrap();
        found.extend(recipients.split('\n').map(|recipient| ((id, recipient.to_owned()), state)));
    }
    found.sort();
    let number = |stands: &Stands| match stands {
        Stands::Queued(_) => 0,
        Stands::Held => 1,
        Stands::Refused => 2,
    };
    let wanted: Vec<_> = model.iter().map(|(key, stands)| (key.clone(), number(stands))).collect();
    assert_eq!(found, wanted);
    let one = |sql: &str| {
        let value: i64 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
        u64::try_from(value).unwrap()
    };
    assert_eq!(counts.queued, one("SELECT count(*) FROM delivery WHERE state = 0"));
    assert_eq!(counts.held, one("SELECT count(*) FROM delivery WHERE state = 1"));
    assert_eq!(counts.refused, one("SELECT count(*) FROM delivery WHERE state = 2"));
    assert_eq!(counts.uncertain, one("SELECT count(*) FROM delivery WHERE state = 0 AND uncertain > 0"));
    assert_eq!(counts.bytes, one("SELECT coalesce(sum(size), 0) FROM message"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

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
