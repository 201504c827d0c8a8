//! What all experiments share: the subjects, the upstream, the disk, and the figures gathered so far.
//!
//! It starts subjects and books what was promised against what came. What is done to them is the experiments'.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::figure::{Figure, Key, Sessions};
use crate::load::{Crowd, Load, Message, Outcome, Security, TO};
use crate::subject::{Running, Setting, Subject, Tracer, Upstream};
use crate::upstream::{Account, UpstreamProcess};

/// Octets of a message, when an experiment says nothing else.
pub(crate) const OCTETS: usize = 10 * 1024;
/// Connections upstream, when an experiment says nothing else.
pub(crate) const UPSTREAM_CONNECTIONS: usize = 20;
/// How long a queue may take to become full, and empty.
const FILL: Duration = Duration::from_mins(10);
const DRAIN: Duration = Duration::from_mins(5);
/// How long one question to the upstream may wait.
const SLICE: Duration = Duration::from_secs(2);
/// Before upstream is asked again that has enough messages, but not the right ones.
const LOOK: Duration = Duration::from_millis(10);

/// The place of all experiments.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Where queues are kept.
    directory: PathBuf,
    pub(crate) upstream: UpstreamProcess,
    near: Upstream,
    figures: BTreeMap<Key, Vec<f64>>,
    /// Latencies of all repetitions together, for percentiles that need many.
    pools: BTreeMap<Key, Vec<Duration>>,
    /// When the upstream's epoch began.
    epoch_begun: Instant,
    remarks: Vec<String>,
    /// Promised messages that never came, and copies too many, over all.
    lost: usize,
    doubled: usize,
    damaged: usize,
    checked: usize,
    directories: usize,
}

/// How a subject is started, as far as experiments differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start<'a> {
    pub(crate) held: bool,
    pub(crate) clients: usize,
    pub(crate) upstream_connections: usize,
    pub(crate) largest_message: u64,
    /// Sends to the door that is 30 ms away.
    pub(crate) far: bool,
    pub(crate) tracer: Option<Tracer<'a>>,
}

impl Default for Start<'_> {
    fn default() -> Self {
        Self {
            held: false,
            clients: 100,
            upstream_connections: UPSTREAM_CONNECTIONS,
            largest_message: 35 * 1024 * 1024,
            far: false,
            tracer: None,
        }
    }
}

/// What a load is, as far as experiments differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) connections: usize,
    pub(crate) octets: usize,
    pub(crate) sessions: Sessions,
    /// How long upstream takes for a final reply, in milliseconds.
    pub(crate) dot: u64,
}

impl Bench {
    pub(crate) fn new(directory: &Path) -> Result<Self, BenchError> {
        let upstream = UpstreamProcess::start(directory)?;
        let doors = upstream.doors().clone();
        let near = Upstream {
            port: doors.near,
            ca_file: doors.ca_file,
            user: sandbox::DEFAULT_MAILBOX.to_owned(),
            password: "measured".to_owned(),
            token_endpoint: format!("{}/{}/oauth2/v2.0/token", doors.authority, sandbox::DEFAULT_TENANT_ID),
            authority: doors.authority,
            tenant_id: sandbox::DEFAULT_TENANT_ID.to_owned(),
            client_id: sandbox::DEFAULT_CLIENT_ID.to_owned(),
            client_secret: sandbox::DEFAULT_SECRET.to_owned(),
            scope: sandbox::EXCHANGE_SCOPE.to_owned(),
        };
        Ok(Self {
            directory: directory.to_path_buf(),
            upstream,
            near,
            figures: BTreeMap::new(),
            pools: BTreeMap::new(),
            epoch_begun: Instant::now(),
            remarks: Vec::new(),
            lost: 0,
            doubled: 0,
            damaged: 0,
            checked: 0,
            directories: 0,
        })
    }

    /// An empty directory of its own for a subject; removed when dropped.
    pub(crate) fn place(&mut self) -> Result<Place, BenchError> {
        self.directories += 1;
        let path = self.directory.join(format!("subject-{}", self.directories));
        std::fs::create_dir(&path).map_err(BenchError::file("make", &path))?;
        Ok(Place { path })
    }

    /// Starts a subject in a directory.
    pub(crate) async fn start(
        &self,
        subject: &dyn Subject,
        place: &Place,
        start: Start<'_>,
    ) -> Result<Running, BenchError> {
        let mut upstream = self.near.clone();
        if start.far {
            upstream.port = self.upstream.doors().far;
        }
        let setting = Setting {
            directory: &place.path,
            upstream: &upstream,
            held: start.held,
            clients: start.clients,
            upstream_connections: start.upstream_connections,
            largest_message: start.largest_message,
            tracer: start.tracer,
        };
        Running::start(subject, &setting).await
    }

    /// Clients of a subject with messages of a new epoch.
    pub(crate) async fn crowd(
        &mut self,
        subject: &dyn Subject,
        running: &Running,
        work: Work,
    ) -> Result<Crowd, BenchError> {
        self.begin(running.address, Security::with(subject.login()), work)?.open().await
    }

    /// Begins a new epoch upstream and hands in so many messages of it.
    pub(crate) async fn fill(
        &mut self,
        subject: &dyn Subject,
        running: &Running,
        work: Work,
        messages: usize,
    ) -> Result<Outcome, BenchError> {
        let mut crowd = self.crowd(subject, running, work).await?;
        let outcome = crowd.run(FILL, u32::try_from(messages).unwrap_or(u32::MAX)).await?;
        crowd.close().await;
        Ok(outcome)
    }

    /// The load for an address, in a new epoch.
    pub(crate) fn begin(
        &mut self,
        address: std::net::SocketAddr,
        security: Security,
        work: Work,
    ) -> Result<Load, BenchError> {
        let from = self.near.user.clone();
        // All epochs have as many digits, and so bodies have the same size.
        let body = Message::new(0, work.octets, &from, TO).body();
        let epoch = self.upstream.begin(body, work.dot)?;
        self.epoch_begun = Instant::now();
        Ok(Load {
            address,
            security,
            connections: work.connections,
            sessions: work.sessions,
            message: Message::new(epoch, work.octets, &from, TO),
            from,
        })
    }

    /// Waits until upstream has everything that was promised, for as long as a queue may take.
    pub(crate) async fn settle(&mut self, outcome: &Outcome) -> Result<Account, BenchError> {
        let begun = Instant::now();
        loop {
            // In slices, so that a signal is heard between them. More than was promised may have come: what a client was
            // refused in the end.
            let account = self.upstream.wait(outcome.promised.len(), SLICE)?;
            if missing(outcome, &account) == 0 || begun.elapsed() >= DRAIN {
                return Ok(account);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Books what became of an epoch under a name. Best when the subject has ended, and can send nothing twice any more.
    pub(crate) fn book(&mut self, who: &str, outcome: &Outcome) -> Result<(), BenchError> {
        let account = self.upstream.wait(0, SLICE)?;
        let lost = missing(outcome, &account);
        self.lost += lost;
        self.doubled += account.duplicates + account.strays;
        self.damaged += account.damaged;
        self.checked += outcome.promised.len();
        for (count, what) in [
            (lost, "promised and lost"),
            (account.duplicates, "sent twice"),
            (account.damaged, "with a body of another length"),
            (account.strays, "of an earlier load, or without a mark"),
        ] {
            if count > 0 {
                self.remark(format!("{who}, {} messages: {count} {what}", outcome.promised.len()));
            }
        }
        if outcome.refused > 0 {
            let first = outcome.first_refusal.as_deref().unwrap_or_default();
            self.remark(format!("{who}: {} messages not taken; the first: {first}", outcome.refused));
        }
        Ok(())
    }

    /// The time from a load's begin to an arrival upstream that the account told, in microseconds of the epoch.
    pub(crate) fn arrival(&self, begun: Option<Instant>, micros: u64) -> Duration {
        let arrived = self.epoch_begun + Duration::from_micros(micros);
        begun.map_or(Duration::ZERO, |begun| arrived.saturating_duration_since(begun))
    }

    /// Adds latencies of a repetition to a figure that all repetitions make together.
    pub(crate) fn pool(&mut self, key: Key, latencies: &[Duration]) {
        self.pools.entry(key).or_default().extend_from_slice(latencies);
    }

    /// Adds a repetition's value of a figure.
    pub(crate) fn note(&mut self, key: Key, value: f64) {
        self.figures.entry(key).or_default().push(value);
    }

    /// Adds what a reader must know.
    pub(crate) fn remark(&mut self, remark: String) {
        crate::progress::say(&format!("note: {remark}"));
        self.remarks.push(remark);
    }

    /// All figures so far.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let singles = self.figures.iter().map(|(key, values)| Figure { key: key.clone(), values: values.clone() });
        let pools = self.pools.iter().filter_map(|(key, latencies)| {
            let mut sorted = latencies.clone();
            sorted.sort_unstable();
            let value = percentile(&sorted, 999)?.as_secs_f64() * 1000.0;
            Some(Figure { key: key.clone(), values: vec![value] })
        });
        let mut figures: Vec<Figure> = singles.chain(pools).collect();
        figures.sort_by(|one, other| one.key.cmp(&other.key));
        figures
    }

    /// All remarks so far, with the account of loss and copies.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let mut remarks = self.remarks.clone();
        remarks.push(format!(
            "{} promised messages were looked for upstream: {} lost, {} copies too many, {} of another length.",
            self.checked, self.lost, self.doubled, self.damaged
        ));
        remarks
    }
}

/// A directory of a subject.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays is below the run's own directory, which is removed as a whole.
        let _stays = std::fs::remove_dir_all(&self.path);
    }
}

/// How many promised messages have not come.
fn missing(outcome: &Outcome, account: &Account) -> usize {
    outcome.promised.iter().filter(|number| account.copies_of(**number) == 0).count()
}

/// A quotient of a time and a count of messages, in milliseconds.
#[allow(clippy::cast_precision_loss, reason = "counts of messages are small")]
pub(crate) fn each(time: Duration, messages: usize) -> f64 {
    time.as_secs_f64() * 1000.0 / messages.max(1) as f64
}

/// Messages a second.
#[allow(clippy::cast_precision_loss, reason = "counts of messages are small")]
pub(crate) fn rate(messages: usize, time: Duration) -> f64 {
    messages as f64 / time.as_secs_f64().max(1e-9)
}

/// The smallest value that so many of a thousand do not exceed; none where there are too few values to tell.
pub(crate) fn percentile(sorted: &[Duration], per_mille: usize) -> Option<Duration> {
    let above = sorted.len() * (1000 - per_mille) / 1000;
    if above == 0 {
        return None;
    }
    sorted.get(sorted.len() - above - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_need_enough_values() {
        let values = |count: u64| (1..=count).map(Duration::from_millis).collect::<Vec<_>>();
        for (count, per_mille, expected) in [
            (1, 500, None),
            (2, 500, Some(1)),
            (3, 500, Some(2)),
            (99, 990, None),
            (100, 990, Some(99)),
            (1000, 990, Some(990)),
            (999, 999, None),
            (1000, 999, Some(999)),
        ] {
            let found = percentile(&values(count), per_mille);
            assert_eq!(found, expected.map(Duration::from_millis), "{count} values, {per_mille} per mille");
        }
    }
}
