//! The tasks that mail needs: listeners with their sessions, lanes with their deliveries. They come and go while the daemon
//! runs; one that ends by a fault is no small matter and is told at once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Tasks that are waited for together.
#[derive(Debug, Default)]
pub(crate) struct Crew {
    tasks: Mutex<JoinSet<()>>,
    /// One of them has ended by a fault.
    fault: CancellationToken,
}

impl Crew {
    /// Nobody yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Starts a task, and forgets those that have ended: their number is that of the tasks that run.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let fault = self.fault.clone().drop_guard();
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            task.await;
            // Only a panic, or the end of all, gets by here.
            fault.disarm();
        });
    }

    /// Resolves when one of them has ended by a fault. Never resolves otherwise.
    pub(crate) async fn failed(&self) {
        self.fault.cancelled().await;
    }

    /// Waits until all that were started so far have ended, and cuts those that have not within `grace`; false if there were
    /// such.
    pub(crate) async fn finish(&self, grace: Duration) -> bool {
        let mut tasks = std::mem::take(&mut *self.tasks());
        let ended = timeout(grace, async { while tasks.join_next().await.is_some() {} }).await;
        tasks.shutdown().await;
        ended.is_ok()
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn those_who_ended_are_forgotten_and_those_who_run_are_waited_for() {
        let crew = Crew::new();
        let stop = CancellationToken::new();
        for _ in 0..100 {
            crew.spawn(std::future::ready(()));
            tokio::task::yield_now().await;
        }
        assert!(crew.tasks().len() < 10, "{}", crew.tasks().len());
        crew.spawn(stop.clone().cancelled_owned());
        assert!(timeout(Duration::ZERO, crew.failed()).await.is_err(), "an end is no fault");
        assert!(!crew.finish(Duration::ZERO).await, "it was cut");
        crew.spawn(stop.clone().cancelled_owned());
        stop.cancel();
        assert!(crew.finish(PATIENCE).await);
    }

    #[tokio::test]
    async fn a_panic_is_told() {
        let crew = Crew::new();
        crew.spawn(async { panic!("as this test wants it") });
        timeout(PATIENCE, crew.failed()).await.unwrap();
    }
}
