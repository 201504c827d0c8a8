//! What all tokens of one application have in common, where each of its mailboxes has one of its own: the credential that is
//! proven, how many ask at a time, and what has been told.
//!
//! With it a thousand mailboxes try a new credential once, warn of its end once, and do not all ask in the same moment.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::{Monotonic, WallTime};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::accounts::Accounts;
use crate::credential::Standing;
use crate::expiry::{Nearness, Told};
use crate::failure::TokenFailure;
use crate::holding::Denied;
use crate::rotation::Rotation;
use crate::schedule::{Deadline, LONGEST_RETRY_AFTER, Now};

/// Requests at a time of one application.
const AT_A_TIME: usize = 4;
/// Files are written one after the other while they are rotated: what lasts until the next look is trouble. A request, or somebody
/// who wants another token, makes for several looks at a moment, so this is time and less than what is between two looks.
const ROTATING: Duration = Duration::from_secs(15);

/// What the tokens of one application have in common. Clones are the same one.
#[derive(Clone)]
pub struct Kinship {
    keeping: Arc<Mutex<Keeping>>,
    places: Arc<Semaphore>,
    /// Held by whoever looks at the credential.
    looking: Arc<tokio::sync::Mutex<()>>,
    /// The budgets of those who signed in.
    accounts: Arc<Accounts>,
}

/// What is kept of the credential.
#[derive(Default)]
pub(crate) struct Keeping {
    pub(crate) rotation: Rotation<Standing>,
    unreadable: Option<Unreadable>,
    told: Told,
    /// The endpoint wants no requests of this application until then.
    throttled: Option<(Deadline, Arc<TokenFailure>)>,
    /// Another secret than the first has been proven: what an administrator wrote of the first one's end is of no more use.
    pub(crate) is_rotated: bool,
}

/// The credential cannot be read.
struct Unreadable {
    since: Monotonic,
    is_told: bool,
}

impl Default for Kinship {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        Self { keeping: Arc::default(), places, looking: Arc::default(), accounts: Arc::default() }
    }
}

impl Kinship {
    pub(crate) fn keeping(&self) -> MutexGuard<'_, Keeping> {
        self.keeping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until another may ask, for `patience` at most.
    pub(crate) async fn place(&self, patience: Duration) -> Option<SemaphorePermit<'_>> {
        timeout(patience, self.places.acquire()).await.ok()?.ok()
    }

    pub(crate) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Leave to look at the credential, unless another of the same application does.
    pub(crate) fn looking(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        self.looking.try_lock().ok()
    }
}

impl Keeping {
    /// The credential was read.
    pub(crate) fn note_readable(&mut self) {
        self.unreadable = None;
    }

    /// It could not be read at `now`. Whether that has lasted and is to be told: once.
    pub(crate) fn note_unreadable(&mut self, now: Now) -> bool {
        let unreadable = self.unreadable.get_or_insert(Unreadable { since: now.monotonic, is_told: false });
        let is_news = !unreadable.is_told && now.monotonic.saturating_since(unreadable.since) >= ROTATING;
        unreadable.is_told |= is_news;
        is_news
    }

    /// The endpoint asked us for a pause: for all that are of the same application.
    pub(crate) fn throttle(&mut self, failure: &Arc<TokenFailure>, now: Now) {
        let wait = failure.retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        self.throttled = Some((Deadline::after(now, wait), Arc::clone(failure)));
    }

    /// Why none of them may ask, and for how long.
    pub(crate) fn throttled(&self, now: Now) -> Option<Denied> {
        let (until, failure) = self.throttled.as_ref()?;
        let least = until.remaining(now);
        (!least.is_zero()).then(|| Denied { failure: Arc::clone(failure), least })
    }

    /// What is to be told now of the credential's end.
    pub(crate) fn end_news(&mut self, end: WallTime, now: WallTime) -> Option<Nearness> {
        self.told.news(end, now)
    }
}

impl fmt::Debug for Kinship {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kinship").field("places", &self.places.available_permits()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_rotation_is_no_trouble_and_lasting_trouble_is_told_once() {
        let at = |seconds| Now {
            wall: WallTime::from_unix_millis(0),
            monotonic: Monotonic::from_start(Duration::from_secs(seconds)),
        };
        let mut keeping = Keeping::default();
        for (now, is_told) in [(0, false), (1, false), (15, true), (30, false)] {
            assert_eq!(keeping.note_unreadable(at(now)), is_told, "{now}");
        }
        keeping.note_readable();
        assert!(!keeping.note_unreadable(at(60)));
        assert!(keeping.note_unreadable(at(90)));
    }
}
