//! Who may verify a password now: two at a time, of each client one, none of a client until its last wrong answer was due, and a
//! bounded number waits for a bounded time. It knows nothing of passwords.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{self, Instant};

/// Verifications at a time: each takes 19 MiB and a core for some 30 ms, and sessions need cores too.
const AT_A_TIME: usize = 2;
/// Logins that wait or are verified, of all clients.
const MAX_VISITORS: usize = 512;
/// The same of one client: more than the sessions it may have by default, so that a program that opens all of them at once is
/// not refused; all but the first find their password remembered.
const MAX_VISITORS_OF_CLIENT: usize = 128;
/// A login waits no longer, since devices give up on a server that is silent for long.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The places.
pub(super) struct Places {
    at_a_time: Arc<Semaphore>,
    visitors: Arc<Visitors>,
    max_wait: Duration,
}

/// A place, until it is dropped.
pub(super) struct Place {
    _at_a_time: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
    // Last, so that a client's turns are not forgotten while one is still taken.
    visit: Visit,
}

/// Too many logins wait, or it took too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Crowded;

#[derive(Default)]
struct Visitors(Mutex<HashMap<IpAddr, Visiting>>);

struct Visiting {
    /// Has one permit.
    turn: Arc<Semaphore>,
    count: usize,
    /// Nobody enters before; kept when nobody is here, since a client that goes and comes again waits all the same.
    shut_until: Option<Instant>,
}

impl Visiting {
    fn shut_until(&self) -> Option<Instant> {
        self.shut_until.filter(|until| *until > Instant::now())
    }
}

impl Places {
    pub(super) fn new() -> Self {
        Self { at_a_time: Arc::new(Semaphore::new(AT_A_TIME)), visitors: Arc::default(), max_wait: MAX_WAIT }
    }

    #[cfg(test)]
    pub(super) fn waiting_at_most(max_wait: Duration) -> Self {
        Self { max_wait, ..Self::new() }
    }

    /// Logins that wait or are verified.
    #[cfg(test)]
    pub(super) fn visitors(&self) -> usize {
        self.visitors.lock().values().map(|visiting| visiting.count).sum()
    }

    /// Waits for a place, at most 10 s. The client's own turn comes first, so that one client never waits for both places.
    pub(super) async fn enter(&self, client: IpAddr) -> Result<Place, Crowded> {
        let (visit, turn) = Visit::begin(&self.visitors, client)?;
        let place = async {
            let turn = turn.acquire_owned().await.map_err(|_| Crowded)?;
            // Whoever comes later waits for the turn, so nobody shuts it for longer meanwhile.
            if let Some(until) = self.visitors.shut_until(client) {
                time::sleep_until(until).await;
            }
            let at_a_time = Arc::clone(&self.at_a_time).acquire_owned().await.map_err(|_| Crowded)?;
            Ok(Place { _at_a_time: at_a_time, _turn: turn, visit })
        };
        time::timeout(self.max_wait, place).await.unwrap_or(Err(Crowded))
    }
}

impl Place {
    /// Leaves, and lets nobody else of this client in for `time`. It does not count as one who waits meanwhile.
    pub(super) fn leave_shut(self, time: Duration) {
        if let Some(visiting) = self.visit.visitors.lock().get_mut(&self.visit.client) {
            visiting.shut_until = Some(Instant::now() + time);
        }
    }
}

/// One login on its way through.
struct Visit {
    visitors: Arc<Visitors>,
    client: IpAddr,
}

impl Visit {
    fn begin(visitors: &Arc<Visitors>, client: IpAddr) -> Result<(Self, Arc<Semaphore>), Crowded> {
        let mut clients = visitors.lock();
        // Those that are shut are few: each was verified within the seconds that a wrong answer is delayed.
        clients.retain(|_, visiting| visiting.count > 0 || visiting.shut_until().is_some());
        let all: usize = clients.values().map(|visiting| visiting.count).sum();
        let own = clients.get(&client).map_or(0, |visiting| visiting.count);
        if all >= MAX_VISITORS || own >= MAX_VISITORS_OF_CLIENT {
            return Err(Crowded);
        }
        let visiting = clients.entry(client).or_insert_with(|| Visiting {
            turn: Arc::new(Semaphore::new(1)),
            count: 0,
            shut_until: None,
        });
        visiting.count += 1;
        Ok((Self { visitors: Arc::clone(visitors), client }, Arc::clone(&visiting.turn)))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut clients = self.visitors.lock();
        let Some(visiting) = clients.get_mut(&self.client) else { return };
        visiting.count -= 1;
        if visiting.count == 0 && visiting.shut_until().is_none() {
            clients.remove(&self.client);
        }
    }
}

impl Visitors {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Visiting>> {
        // No panic can come between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shut_until(&self, client: IpAddr) -> Option<Instant> {
        self.lock().get(&client).and_then(Visiting::shut_until)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn client(number: usize) -> IpAddr {
        IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number).unwrap()))
    }

    /// Patience that ends at once, for those who must wait.
    fn impatient() -> Places {
        Places::waiting_at_most(Duration::from_millis(20))
    }

    #[tokio::test]
    async fn a_client_has_one_place_and_all_together_two() {
        let places = impatient();
        let first = places.enter(client(1)).await.ok().unwrap();
        assert!(places.enter(client(1)).await.is_err());
        let second = places.enter(client(2)).await.ok().unwrap();
        assert!(places.enter(client(3)).await.is_err());
        drop(first);
        let _third = places.enter(client(3)).await.ok().unwrap();
        drop(second);
        assert!(places.enter(client(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_shut_is_let_in_later_and_others_at_once() {
        let places = Places::new();
        let begun = Instant::now();
        places.enter(client(1)).await.ok().unwrap().leave_shut(Duration::from_secs(5));
        assert_eq!(places.visitors(), 0, "nobody waits");
        drop(places.enter(client(2)).await.ok().unwrap());
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(places.enter(client(1)).await.ok().unwrap());
        assert_eq!(begun.elapsed().as_secs(), 5);
        drop(places.enter(client(1)).await.ok().unwrap());
        assert_eq!(begun.elapsed().as_secs(), 5, "once");
        assert!(places.visitors.lock().is_empty());
    }

    #[tokio::test]
    async fn those_who_wait_are_bounded_and_forgotten_when_they_leave() {
        let places = Arc::new(Places::new());
        let _held = places.enter(client(1)).await.ok().unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        let mut wait = |number: usize, count: usize| {
            for _ in 0..count {
                let places = Arc::clone(&places);
                waiting.spawn(async move { places.enter(client(number)).await.map(drop) });
            }
        };
        wait(1, MAX_VISITORS_OF_CLIENT - 1);
        while places.visitors() < MAX_VISITORS_OF_CLIENT {
            tokio::task::yield_now().await;
        }
        assert_eq!(places.enter(client(1)).await.err(), Some(Crowded), "it has all that one client may have");
        let other = places.enter(client(2)).await.ok().unwrap();
        for number in 3..6 {
            wait(number, MAX_VISITORS_OF_CLIENT);
        }
        while places.visitors() < MAX_VISITORS {
            tokio::task::yield_now().await;
        }
        assert_eq!(places.enter(client(7)).await.err(), Some(Crowded));
        waiting.shutdown().await;
        assert_eq!(places.visitors(), 2, "the two that hold a place");
        drop(other);
        assert_eq!(places.visitors.lock().len(), 1);
        assert!(places.enter(client(7)).await.is_ok());
    }
}
