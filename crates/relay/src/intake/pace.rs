//! How many messages clients, users and listeners may begin in a minute: the limits of a configuration, and who began how many
//! of late. Pure: the time is given. Not here: what a client hears and what is logged, which is `door`'s, and the pace of a lane
//! upstream, which is the forwarder's.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clock::Monotonic;

use crate::config::{Authentication, Listener, Settings};
use crate::users::counted;

/// What limits speak of.
const MINUTE: Duration = Duration::from_mins(1);
/// Whoever is remembered at a time, of all listeners together.
const MAX_REMEMBERED: usize = 4096;
/// Moments remembered of one of them: 9.6 KB.
const MAX_MOMENTS: u64 = 600;
/// Limits beyond [`MAX_MOMENTS`] are counted by moments as long as this: so many make a minute.
const TICK: Duration = Duration::from_millis(100);

/// What one listener's clients may begin in a minute, as it is configured. None: no limit.
#[derive(Debug, Default)]
pub(crate) struct MessageLimits {
    /// One client.
    per_client: Option<u64>,
    /// All clients together.
    of_listener: Option<u64>,
    /// Those who have a limit, by their names as they are configured.
    users: HashMap<String, u64>,
}

impl MessageLimits {
    /// Those of `listener`.
    pub(crate) fn new(settings: &Settings, listener: &Listener) -> Self {
        let limit = |count: u64| (count > 0).then_some(count);
        // Where any name is taken, nobody has proved to be the user, and anybody could use up the user's minute.
        let are_proved = listener.authentication != Authentication::AcceptAny;
        let users = settings.users.iter().filter(|_| are_proved);
        Self {
            per_client: limit(listener.max_messages_per_minute_per_client.get()),
            of_listener: limit(listener.max_messages_per_minute.get()),
            users: users
                .filter_map(|(name, user)| Some((name.clone(), limit(user.max_messages_per_minute.get())?)))
                .collect(),
        }
    }

    /// Those that a message of this client counts for.
    pub(super) fn of(&self, listener: &Arc<str>, client: IpAddr, user: Option<&Arc<str>>) -> Vec<Limit> {
        let user = user.and_then(|user| Some((Counted::User(Arc::clone(user)), *self.users.get(&**user)?)));
        let client = self.per_client.map(|most| (Counted::Client(Arc::clone(listener), counted(client)), most));
        let all = self.of_listener.map(|most| (Counted::Listener(Arc::clone(listener)), most));
        [client, user, all].into_iter().flatten().map(|(counted, most)| Limit { counted, most }).collect()
    }
}

/// Whose messages are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Counted {
    /// A client's at one listener.
    Client(Arc<str>, IpAddr),
    /// A user's, from wherever they come.
    User(Arc<str>),
    /// A listener's.
    Listener(Arc<str>),
}

/// So many messages in a minute, and no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// Of whom.
    pub(super) counted: Counted,
    /// How many; at least one.
    pub(super) most: u64,
}

/// A message would be one too many.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Over<'a> {
    /// The limit that lasts longest.
    pub(super) limit: &'a Limit,
    /// How long it lasts; more than zero, and at most a minute.
    pub(super) wait: Duration,
}

/// Who began how many messages of late. One for the daemon, for as long as it runs: a reload changes limits, and gives nobody
/// his minute anew.
#[derive(Debug, Default)]
pub(crate) struct Paces(Mutex<Table>);

impl Paces {
    /// Counts a message at `now` for all of `limits`, or for none of them if one has no room for it.
    ///
    /// For each, at most `most` messages are counted within any minute (limits over 600: within 59.9 s), and who keeps an even
    /// pace of `most` a minute is never refused; both but for what is said at [`Table::place`].
    pub(super) fn count<'a>(&self, limits: &'a [Limit], now: Monotonic) -> Result<(), Over<'a>> {
        if limits.is_empty() {
            return Ok(());
        }
        // Plain counts: a panic elsewhere leaves nothing half-done in them.
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = limits.iter().filter_map(|limit| Some(Over { limit, wait: table.place(limit, now).wait(now)? }));
        if let Some(over) = waits.max_by_key(|over| over.wait) {
            return Err(over);
        }
        for limit in limits {
            table.place(limit, now).add(now);
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Table {
    paces: HashMap<Counted, Pace>,
    /// Of all who find no place together.
    others: Pace,
}

impl Table {
    /// The pace that `limit` is about. When all places are taken, the quietest of those who are not at their limits are
    /// forgotten, and begin anew. If there is nobody but who is at a limit, whoever comes shares one pace with all who find no
    /// place: many addresses do not make a limit void.
    fn place(&mut self, limit: &Limit, now: Monotonic) -> &mut Pace {
        if self.paces.len() >= MAX_REMEMBERED && !self.paces.contains_key(&limit.counted) {
            self.make_room(now);
        }
        let is_full = self.paces.len() >= MAX_REMEMBERED && !self.paces.contains_key(&limit.counted);
        let pace = if is_full { &mut self.others } else { self.paces.entry(limit.counted.clone()).or_default() };
        pace.most = limit.most;
        pace
    }

    /// Forgets an eighth of all at least, if so many may be: it looks at all of them, and need not do that for each message.
    fn make_room(&mut self, now: Monotonic) {
        self.paces.retain(|_, pace| pace.last().is_some_and(|last| !is_over(last, now)));
        let left = MAX_REMEMBERED - MAX_REMEMBERED / 8;
        if self.paces.len() <= left {
            return;
        }
        let quiet = self.paces.iter_mut().filter_map(|(counted, pace)| {
            let may_be_forgotten = pace.wait(now).is_none();
            may_be_forgotten.then(|| (pace.last(), counted.clone()))
        });
        let mut quiet: Vec<_> = quiet.collect();
        quiet.sort_unstable_by_key(|(last, _)| *last);
        for (_, counted) in quiet.iter().take(self.paces.len() - left) {
            self.paces.remove(counted);
        }
    }
}

/// The last minute of one.
#[derive(Debug, Default)]
struct Pace {
    /// How many he may have: what the last message was held to.
    most: u64,
    /// When how many were counted, oldest first.
    moments: VecDeque<(Monotonic, u64)>,
    /// All of them.
    count: u64,
}

impl Pace {
    /// How long the next message is too much, if it is.
    fn wait(&mut self, now: Monotonic) -> Option<Duration> {
        let moment = self.moment(now);
        while let Some((at, count)) = self.moments.front().copied().filter(|(at, _)| is_over(*at, moment)) {
            self.moments.pop_front();
            self.count -= count;
            debug_assert!(at <= now, "moments are not in the future");
        }
        // A limit that was lowered since may have to lose several.
        let mut left = self.count;
        let freeing = self.moments.iter().find(|(_, count)| {
            left -= count;
            left < self.most
        });
        let (at, _) = freeing.filter(|_| self.count >= self.most)?;
        Some((*at + MINUTE).saturating_since(now))
    }

    fn add(&mut self, now: Monotonic) {
        let moment = self.moment(now);
        match self.moments.back_mut() {
            // After a change of the limit a tick may begin before what is remembered.
            Some((last, count)) if *last >= moment => *count += 1,
            _ => self.moments.push_back((moment, 1)),
        }
        self.count += 1;
    }

    fn last(&self) -> Option<Monotonic> {
        self.moments.back().map(|(at, _)| *at)
    }

    /// What `now` is remembered as. Since a minute is made of whole ticks, two messages that are a minute apart are so in ticks.
    fn moment(&self, now: Monotonic) -> Monotonic {
        if self.most <= MAX_MOMENTS {
            return now;
        }
        let elapsed = now.saturating_since(Monotonic::default());
        let ticks = elapsed.as_millis() / TICK.as_millis();
        Monotonic::from_start(TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)))
    }
}

/// Whether what was counted `at` counts no more.
fn is_over(at: Monotonic, now: Monotonic) -> bool {
    now.saturating_since(at) >= MINUTE
}

#[cfg(test)]
mod tests;
