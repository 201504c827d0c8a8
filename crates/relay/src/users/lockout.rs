//! What guessing costs: failed logins by client and user, the delay of their answers, and lockouts. Pure: time is passed in,
//! names and passwords are digests. It verifies nothing and sleeps nowhere.
//!
//! A mistake is a password that was not tried before: a device that retries one old password for ever makes one mistake.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use clock::Monotonic;

/// The client as it is counted: IPv4 by address, IPv6 by /64, since every host has as many addresses in its network as it likes.
/// An IPv4 address mapped into IPv6 is the IPv4 address.
pub(crate) fn counted(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// A keyed digest, of a user's name or of a name with a password.
pub(super) type Tag = [u8; 32];

/// Mistakes older than this do not count.
const WINDOW: Duration = Duration::from_mins(10);
/// Mistakes of one client at one user within [`WINDOW`] that lock it out from that user.
const AT_ONE_USER: usize = 5;
/// Mistakes of one client at all users together within [`WINDOW`] that lock it out from all.
const AT_ALL_USERS: usize = 20;
/// The first lockout; each further one is twice as long.
const FIRST_LOCKOUT: Duration = Duration::from_mins(1);
/// No lockout is longer.
pub(super) const LONGEST_LOCKOUT: Duration = Duration::from_mins(15);
/// The answer to the first mistake is delayed by this; each further one by twice as much.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// No answer is delayed longer, since devices give up on a server that is silent for ten seconds.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// Lockouts are no longer remembered, and begin anew with the first, when nothing failed for this long.
const MEMORY: Duration = Duration::from_hours(1);
/// Other passwords for one user, of one client within [`WINDOW`], for which it is looked up whether they are the one that was right
/// before the client's turn comes and in spite of lockouts. More than lock out, so that who comes after a guesser is let in; and
/// few, since each is a guess that costs no time.
const LOOKS: usize = 2 * AT_ONE_USER;
/// A client that logged in within this time is never locked out.
const TRUST: Duration = Duration::from_hours(24);
/// Entries of each table: some 2 MiB if every one has all its mistakes.
const MAX_ENTRIES: usize = 10_000;

/// Who failed at what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// The client, as it is [`counted`].
    pub(super) client: IpAddr,
    /// The name it gave, whether there is such a user or not.
    pub(super) user: Tag,
    /// Name and password together.
    pub(super) secret: Tag,
}

/// Failures, lockouts and clients that are trusted.
#[derive(Debug)]
pub(super) struct Lockout {
    logins: Table<(IpAddr, Tag), Mistakes>,
    clients: Table<IpAddr, Mistakes>,
    /// Apart from the failures, so that no number of these pushes out who has shown a right password.
    trusted: Table<IpAddr, ()>,
    /// What was looked up in vain. A success does not end it: whoever shares an address with a device that logs in for every message
    /// would otherwise guess as often.
    looks: Table<(IpAddr, Tag), Mistakes>,
}

impl Lockout {
    /// Nobody failed yet.
    pub(super) fn new() -> Self {
        Self::with_room(MAX_ENTRIES)
    }

    fn with_room(entries: usize) -> Self {
        Self {
            logins: Table::new(entries, MEMORY),
            clients: Table::new(entries, MEMORY),
            trusted: Table::new(entries, TRUST),
            looks: Table::new(entries, WINDOW),
        }
    }

    /// How long `client` is still locked out from `user`, if it is; at most [`LONGEST_LOCKOUT`].
    pub(super) fn remaining(&self, client: IpAddr, user: Tag, now: Monotonic) -> Option<Duration> {
        if self.trusted.get(&client, now).is_some() {
            return None;
        }
        let at_user = self.logins.get(&(client, user), now);
        let at_all = self.clients.get(&client, now);
        at_user.into_iter().chain(at_all).filter_map(|mistakes| mistakes.remaining(now)).max()
    }

    /// Whether it may be looked up, before its turn or while it is locked out, if `attempt` is what was right before.
    pub(super) fn may_look(&self, attempt: Attempt, now: Monotonic) -> bool {
        self.looks.get(&(attempt.client, attempt.user), now).is_none_or(|looks| looks.count(now) < LOOKS)
    }

    /// It was looked up, and is not. Only for users that there are, so that no number of names pushes these out.
    pub(super) fn looked_in_vain(&mut self, attempt: Attempt, now: Monotonic) {
        self.looks.touch((attempt.client, attempt.user), now).add(attempt.secret, now, LOOKS, false);
    }

    /// If just this was wrong before, the delay of the same answer. It counts as no further mistake, and the old one does not
    /// grow old while it is repeated.
    pub(super) fn repeated(&mut self, attempt: Attempt, now: Monotonic) -> Option<Duration> {
        let count = self.logins.get_mut(&(attempt.client, attempt.user), now)?.repeat(attempt.secret, now)?;
        self.logins.touch((attempt.client, attempt.user), now);
        let at_all = self.clients.get(&attempt.client, now).map_or(0, |mistakes| mistakes.count(now));
        Some(delay(count.max(at_all)))
    }

    /// The password was wrong. Returns how long the answer is to be delayed; at most [`LONGEST_DELAY`].
    pub(super) fn failed(&mut self, attempt: Attempt, now: Monotonic) -> Duration {
        let lockable = self.trusted.get(&attempt.client, now).is_none();
        let at_user = self.logins.touch((attempt.client, attempt.user), now);
        let at_user = at_user.add(attempt.secret, now, AT_ONE_USER, lockable);
        let at_all = self.clients.touch(attempt.client, now).add(attempt.secret, now, AT_ALL_USERS, lockable);
        delay(at_user.max(at_all))
    }

    /// The password was right. What this client got wrong at other users still slows it down, so that an account of one's own
    /// does not make guessing at others any faster.
    pub(super) fn succeeded(&mut self, client: IpAddr, user: Tag, now: Monotonic) {
        self.logins.forget(&(client, user));
        self.trusted.touch(client, now);
    }
}

/// Twice as long with each mistake.
fn delay(mistakes: usize) -> Duration {
    doubled(FIRST_DELAY, mistakes.saturating_sub(1), LONGEST_DELAY)
}

/// `first` doubled so many `times`, but no longer than `longest`.
fn doubled(first: Duration, times: usize, longest: Duration) -> Duration {
    let times = u32::try_from(times).unwrap_or(u32::MAX);
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(longest)
}

/// The mistakes of one client, at one user or at all.
#[derive(Debug, Default)]
struct Mistakes {
    /// When which was made last, oldest first; as many as lock out, at most.
    recent: Vec<(Monotonic, Tag)>,
    lockouts: usize,
    locked_until: Option<Monotonic>,
}

impl Mistakes {
    fn count(&self, now: Monotonic) -> usize {
        self.recent.iter().filter(|(at, _)| now.saturating_since(*at) < WINDOW).count()
    }

    fn remaining(&self, now: Monotonic) -> Option<Duration> {
        self.locked_until.map(|until| until.saturating_since(now)).filter(|remaining| !remaining.is_zero())
    }

    /// How many there are, if `secret` is one of them.
    fn repeat(&mut self, secret: Tag, now: Monotonic) -> Option<usize> {
        self.recent.retain(|(at, _)| now.saturating_since(*at) < WINDOW);
        let found = self.recent.iter().position(|(_, known)| *known == secret)?;
        let (at, _) = self.recent.remove(found);
        self.recent.push((at.max(now), secret));
        Some(self.recent.len())
    }

    /// Adds one, and locks out if `limit` is reached. How many there were then.
    fn add(&mut self, secret: Tag, now: Monotonic, limit: usize, lockable: bool) -> usize {
        if let Some(count) = self.repeat(secret, now) {
            return count;
        }
        if self.recent.len() >= limit {
            self.recent.remove(0);
        }
        self.recent.push((now, secret));
        let count = self.recent.len();
        if count >= limit && lockable {
            self.locked_until = Some(now + doubled(FIRST_LOCKOUT, self.lockouts, LONGEST_LOCKOUT));
            self.lockouts += 1;
            self.recent.clear();
        }
        count
    }
}

/// Entries that expire, bounded in number.
#[derive(Debug)]
struct Table<K, V> {
    entries: HashMap<K, Entry<V>>,
    room: usize,
    keep: Duration,
}

#[derive(Debug)]
struct Entry<V> {
    touched: Monotonic,
    value: V,
}

impl<K: Clone + Eq + Hash, V: Default> Table<K, V> {
    fn new(room: usize, keep: Duration) -> Self {
        Self { entries: HashMap::new(), room, keep }
    }

    fn get(&self, key: &K, now: Monotonic) -> Option<&V> {
        self.entries.get(key).filter(|entry| !entry.is_over(now, self.keep)).map(|entry| &entry.value)
    }

    fn get_mut(&mut self, key: &K, now: Monotonic) -> Option<&mut V> {
        let keep = self.keep;
        self.entries.get_mut(key).filter(|entry| !entry.is_over(now, keep)).map(|entry| &mut entry.value)
    }

    /// The entry of `key`, made if there is none. It is the newest now.
    fn touch(&mut self, key: K, now: Monotonic) -> &mut V {
        if !self.entries.contains_key(&key) {
            self.make_room(now);
        }
        let keep = self.keep;
        let entry = self.entries.entry(key).or_insert_with(|| Entry { touched: now, value: V::default() });
        if entry.is_over(now, keep) {
            entry.value = V::default();
        }
        entry.touched = entry.touched.max(now);
        &mut entry.value
    }

    fn forget(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// Looks at every entry, which is cheap beside the verification that comes before each new one.
    fn make_room(&mut self, now: Monotonic) {
        if self.entries.len() < self.room {
            return;
        }
        let keep = self.keep;
        self.entries.retain(|_, entry| !entry.is_over(now, keep));
        if self.entries.len() >= self.room {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.touched).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
    }
}

impl<V> Entry<V> {
    fn is_over(&self, now: Monotonic, keep: Duration) -> bool {
        now.saturating_since(self.touched) >= keep
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::{Strategy, any, prop_assert, proptest};

    use super::*;

    fn client(last: u8) -> IpAddr {
        IpAddr::from(Ipv4Addr::new(192, 0, 2, last))
    }

    fn attempt(from: u8, user: u8, password: u8) -> Attempt {
        let mut secret = [user; 32];
        secret[0] = password;
        Attempt { client: client(from), user: [user; 32], secret }
    }

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn clients_are_counted_by_ipv4_address_and_by_ipv6_network() {
        for (client, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"),
            ("2001:db8:1:3::", "2001:db8:1:3::"),
            ("::1", "::"),
            ("fe80::1", "fe80::"),
        ] {
            assert_eq!(counted(client.parse().unwrap()), expected.parse::<IpAddr>().unwrap(), "{client}");
        }
    }

    #[test]
    fn ten_other_passwords_are_looked_up_in_ten_minutes_and_a_success_allows_no_more() {
        let mut lockout = Lockout::new();
        for password in 0..10 {
            assert!(lockout.may_look(attempt(1, 1, password), at(0)), "{password}");
            for _ in 0..3 {
                lockout.looked_in_vain(attempt(1, 1, password), at(0));
            }
        }
        lockout.succeeded(client(1), [1; 32], at(0));
        assert!(!lockout.may_look(attempt(1, 1, 99), at(599)));
        assert!(lockout.may_look(attempt(1, 2, 99), at(599)), "another user");
        assert!(lockout.may_look(attempt(2, 1, 99), at(599)), "another client");
        assert!(lockout.may_look(attempt(1, 1, 99), at(600)));
    }

    #[test]
    fn each_mistake_doubles_the_delay_and_the_fifth_locks_out_from_that_user_only() {
        let mut lockout = Lockout::new();
        for (password, delay) in [1, 2, 4, 5, 5].into_iter().enumerate() {
            assert_eq!(lockout.remaining(client(1), [1; 32], at(10)), None);
            let password = u8::try_from(password).unwrap();
            assert_eq!(lockout.failed(attempt(1, 1, password), at(10)), Duration::from_secs(delay));
        }
        assert_eq!(lockout.remaining(client(1), [1; 32], at(20)), Some(Duration::from_secs(50)));
        assert_eq!(lockout.remaining(client(1), [1; 32], at(70)), None, "it ends");
        assert_eq!(lockout.remaining(client(1), [2; 32], at(20)), None, "another user");
        assert_eq!(lockout.remaining(client(2), [1; 32], at(20)), None, "another client");
    }

    #[test]
    fn each_lockout_is_twice_as_long_up_to_a_quarter_of_an_hour_and_an_hour_of_quiet_ends_the_row() {
        let mut lockout = Lockout::new();
        let mut now = at(0);
        let mut guesses = (0..=u8::MAX).cycle();
        let mut lock = |lockout: &mut Lockout, now: Monotonic| {
            for _ in 0..AT_ONE_USER {
                lockout.failed(attempt(1, 1, guesses.next().unwrap()), now);
            }
            lockout.remaining(client(1), [1; 32], now).unwrap()
        };
        for minutes in [1, 2, 4, 8, 15, 15] {
            let remaining = lock(&mut lockout, now);
            assert_eq!(remaining, Duration::from_mins(minutes));
            now = now + remaining;
        }
        assert_eq!(lock(&mut lockout, now + MEMORY), FIRST_LOCKOUT);
    }

    #[test]
    fn mistakes_grow_old() {
        let mut lockout = Lockout::new();
        for round in 0..20 {
            let now = Monotonic::from_start(WINDOW / 4 * u32::from(round));
            lockout.failed(attempt(1, 1, round), now);
            assert_eq!(lockout.remaining(client(1), [1; 32], now), None, "{round}");
        }
    }

    #[test]
    fn many_names_lock_out_from_all() {
        let mut lockout = Lockout::new();
        for user in 0..20 {
            assert_eq!(lockout.remaining(client(1), [99; 32], at(0)), None, "{user}");
            lockout.failed(attempt(1, user, 1), at(0));
        }
        assert_eq!(lockout.remaining(client(1), [99; 32], at(0)), Some(FIRST_LOCKOUT));
        assert_eq!(lockout.remaining(client(2), [99; 32], at(0)), None);
    }

    #[test]
    fn one_old_password_for_ever_is_one_mistake() {
        let mut lockout = Lockout::new();
        assert_eq!(lockout.repeated(attempt(1, 1, 7), at(0)), None);
        lockout.failed(attempt(1, 1, 7), at(0));
        for minute in 1..3000 {
            let now = at(minute * 60);
            assert_eq!(lockout.repeated(attempt(1, 1, 7), now), Some(FIRST_DELAY), "{minute}");
            assert_eq!(lockout.remaining(client(1), [1; 32], now), None, "{minute}");
        }
        assert_eq!(lockout.repeated(attempt(1, 1, 8), at(3000 * 60)), None, "another password");
        assert_eq!(lockout.repeated(attempt(2, 1, 7), at(3000 * 60)), None, "another client");
    }

    #[test]
    fn who_logged_in_within_a_day_is_slowed_but_not_locked_out() {
        let mut lockout = Lockout::new();
        lockout.succeeded(client(1), [1; 32], at(0));
        let day = 24 * 3600;
        let mut slowest = Duration::ZERO;
        for password in 0..100 {
            slowest = slowest.max(lockout.failed(attempt(1, password % 3, password), at(day - 1)));
            for user in 0..4 {
                assert_eq!(lockout.remaining(client(1), [user; 32], at(day - 1)), None);
            }
        }
        assert_eq!(slowest, LONGEST_DELAY);
        lockout.failed(attempt(1, 1, 200), at(day));
        assert_eq!(lockout.remaining(client(1), [1; 32], at(day)), Some(FIRST_LOCKOUT));
    }

    #[test]
    fn a_success_ends_a_lockout_and_forgets_the_mistakes_at_that_user() {
        let mut lockout = Lockout::new();
        for password in 0..5 {
            lockout.failed(attempt(1, 1, password), at(0));
        }
        lockout.failed(attempt(1, 2, 9), at(0));
        lockout.succeeded(client(1), [2; 32], at(1));
        assert_eq!(lockout.remaining(client(1), [1; 32], at(1)), None);
        assert_eq!(lockout.repeated(attempt(1, 2, 9), at(1)), None);
    }

    #[test]
    fn many_failures_push_out_no_trusted_client_and_the_newest_failures_stay() {
        let mut lockout = Lockout::with_room(4);
        lockout.succeeded(client(0), [1; 32], at(0));
        for from in 1..=200 {
            lockout.failed(attempt(from, 1, 1), at(u64::from(from)));
        }
        assert!(lockout.trusted.get(&client(0), at(300)).is_some());
        for (from, is_known) in [(200, true), (197, true), (196, false), (1, false)] {
            assert_eq!(lockout.repeated(attempt(from, 1, 1), at(300)).is_some(), is_known, "{from}");
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Fail(Attempt),
        Succeed(u8, u8),
        Repeat(Attempt),
    }

    fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
        let step = (0_u8..6, 0_u8..4, 0_u8..30, 0_u8..10).prop_map(|(from, user, password, kind)| match kind {
            0 => Step::Succeed(from, user),
            1 => Step::Repeat(attempt(from, user, password)),
            _ => Step::Fail(attempt(from, user, password)),
        });
        // Mostly quick, sometimes hours apart.
        let pause = (0_u64..40, any::<u8>()).prop_map(|(seconds, chance)| if chance < 4 { 20_000 } else { seconds });
        proptest::collection::vec((pause, step), 0..300)
    }

    proptest! {
        #[test]
        fn tables_are_bounded_delays_too_and_every_lockout_ends(steps in steps()) {
            let mut lockout = Lockout::with_room(3);
            let mut now = at(0);
            for (pause, step) in steps {
                now = now + Duration::from_secs(pause);
                match step {
                    Step::Fail(attempt) => {
                        let delay = lockout.failed(attempt, now);
                        prop_assert!((FIRST_DELAY..=LONGEST_DELAY).contains(&delay));
                    }
                    Step::Succeed(from, user) => lockout.succeeded(client(from), [user; 32], now),
                    Step::Repeat(attempt) => {
                        prop_assert!(lockout.repeated(attempt, now).is_none_or(|delay| delay <= LONGEST_DELAY));
                    }
                }
                let sizes = [lockout.logins.entries.len(), lockout.clients.entries.len(), lockout.trusted.entries.len()];
                prop_assert!(sizes.iter().all(|size| *size <= 3), "{:?}", sizes);
                let kept = lockout.logins.entries.values().chain(lockout.clients.entries.values());
                prop_assert!(kept.into_iter().all(|entry| entry.value.recent.len() <= AT_ALL_USERS));
                for (from, user) in (0..6).flat_map(|from| (0..4).map(move |user| (from, user))) {
                    let Some(remaining) = lockout.remaining(client(from), [user; 32], now) else { continue };
                    prop_assert!(remaining <= LONGEST_LOCKOUT);
                    prop_assert!(lockout.remaining(client(from), [user; 32], now + remaining).is_none());
                }
            }
        }

        #[test]
        fn who_lately_logged_in_is_never_locked_out(steps in steps()) {
            let mut lockout = Lockout::with_room(6);
            let mut successes: HashMap<u8, Monotonic> = HashMap::new();
            let mut now = at(0);
            for (pause, step) in steps {
                now = now + Duration::from_secs(pause);
                match step {
                    Step::Fail(attempt) => drop(lockout.failed(attempt, now)),
                    Step::Repeat(attempt) => drop(lockout.repeated(attempt, now)),
                    Step::Succeed(from, user) => {
                        lockout.succeeded(client(from), [user; 32], now);
                        successes.insert(from, now);
                    }
                }
                for from in successes.iter().filter(|(_, at)| now.saturating_since(**at) < TRUST).map(|(from, _)| *from) {
                    for user in 0..4 {
                        prop_assert!(lockout.remaining(client(from), [user; 32], now).is_none());
                    }
                }
            }
        }
    }
}
