//! Direct listeners: a client's transaction is carried to Exchange while it waits, and the answer is Exchange's own. Nothing is
//! stored; with a state directory history and the limits' counts are kept of what went through.
//!
//! The road: `way` says by which lanes a message may go, `turn` finds one that has room, `carriage`
//! takes the recipients there, `content` the message, `answer` says what the client hears, `trace` what the log and history keep.

pub(crate) mod answer;
mod carriage;
mod content;
mod trace;
mod turn;
pub(crate) mod way;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use clock::Clock;
use spool::{Passage, QueueId, Spool};
use tokio_util::sync::CancellationToken;

pub(crate) use carriage::Carriage;
pub(crate) use content::Content;

use crate::lanes::Lanes;

/// What direct listeners share.
pub(crate) struct Direct<S> {
    lanes: Arc<Lanes>,
    /// Where history is kept, if it is.
    spool: Option<Arc<S>>,
    clock: Arc<dyn Clock>,
    /// The daemon stops: nobody waits for a turn any more.
    stop: CancellationToken,
    /// Names this run where no spool counts them: the second at which it began.
    run: u32,
    passed: AtomicU32,
    /// Where the next looks for a lane first.
    first: AtomicUsize,
}

impl<S: Spool> Direct<S> {
    /// Messages go by `lanes`; what becomes of them is kept in `spool`, if there is one.
    pub(crate) fn new(
        lanes: Arc<Lanes>,
        spool: Option<Arc<S>>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        // An id has room for 31 bits: two runs share a number only if they begin 68 years apart.
        let second = clock.wall().unix_millis().div_euclid(1000);
        let run = u32::try_from(second & 0x7fff_ffff).unwrap_or_default();
        let (passed, first) = (AtomicU32::new(0), AtomicUsize::new(0));
        Arc::new(Self { lanes, spool, clock, stop, run, passed, first })
    }

    /// Names a message for its whole life.
    fn id(&self) -> QueueId {
        match &self.spool {
            Some(spool) => spool.passing_id(),
            None => QueueId::new(self.run, self.passed.fetch_add(1, Ordering::Relaxed).wrapping_add(1)),
        }
    }

    /// The place among `count` lanes where to look first: another one each time, so that all have their share.
    fn place(&self, count: usize) -> usize {
        self.first.fetch_add(1, Ordering::Relaxed) % count.max(1)
    }

    fn record(&self, passage: Passage) {
        if let Some(spool) = &self.spool {
            spool.record(passage);
        }
    }
}
