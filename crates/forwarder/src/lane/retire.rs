//! The end of a lane: whoever has a turn comes to its end, nobody has another, and nothing stays connected. Only then may
//! another lane of the same login begin, since upstream counts the connections of both.

use std::sync::Arc;
use std::time::Duration;

use super::Lane;
use crate::token::TokenSource;

/// How long a message goes on whose client is slow, once its lane is to end: the login has no lane meanwhile, and its mail waits.
const SLOW_WITHIN: Duration = Duration::from_mins(2);

impl<T: TokenSource> Lane<T> {
    /// Whether a live message must give way to the lane that follows.
    pub(crate) fn is_overdue(&self) -> bool {
        let now = self.clock.monotonic();
        self.state().retires.is_some_and(|since| now.saturating_since(since) >= SLOW_WITHIN)
    }

    /// Waits until every turn has ended, gives none from its first poll on, and closes what is connected. Whoever waits for a
    /// turn then waits in vain, and live messages are broken off after two minutes. Dropped earlier, turns are given again.
    pub async fn retire(&self) {
        self.state().retires = Some(self.clock.monotonic());
        self.close_idle().await;
        let all = u32::try_from(self.allowance.connections.max(1)).unwrap_or(u32::MAX);
        // They are given in the order in which they were asked for: nobody comes before us any more.
        let places = Arc::clone(&self.connections).acquire_many_owned(all).await;
        let places = places.expect("the semaphore of a lane is never closed");
        self.close_idle().await;
        places.forget();
    }
}
