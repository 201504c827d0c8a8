//! Room: the caps on what is stored, the floor of free disk, the budget of memory for bodies, and the ballast that is
//! thrown off when the disk is full, so that what is queued can still drain. Not here: what is done when room ends.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::{Clock, Monotonic};

use super::SpoolOptions;
use super::totals::Totals;
use crate::error::StoreError;

/// Enough blocks for the log of some thousand settles, which then free more.
const BALLAST_LEN: u64 = 4 * 1024 * 1024;
/// How long one answer of the file system about its free blocks is believed.
const FREE_SPACE_AGE: Duration = Duration::from_secs(1);

/// All that limits the store, shared by sinks and writer.
pub(super) struct Space {
    directory: PathBuf,
    memory_budget: u64,
    max_messages: AtomicU64,
    max_bytes: AtomicU64,
    min_free_bytes: AtomicU64,
    clock: Arc<dyn Clock>,
    usage: Mutex<Usage>,
    free: Mutex<Option<(Monotonic, u64)>>,
    memory: AtomicU64,
}

#[derive(Debug, Default)]
struct Usage {
    stored: Totals,
    receiving_messages: u64,
    receiving_bytes: u64,
}

impl Space {
    pub(super) fn new(options: SpoolOptions, clock: Arc<dyn Clock>, stored: Totals) -> Self {
        let usage = Mutex::new(Usage { stored, ..Usage::default() });
        let SpoolOptions { directory, max_messages, max_bytes, min_free_bytes, memory_budget } = options;
        Self {
            directory,
            memory_budget,
            max_messages: AtomicU64::new(max_messages),
            max_bytes: AtomicU64::new(max_bytes),
            min_free_bytes: AtomicU64::new(min_free_bytes),
            clock,
            usage,
            free: Mutex::new(None),
            memory: AtomicU64::new(0),
        }
    }

    /// Other caps and another floor. Each stands for itself: whoever asks meanwhile may meet one of before.
    pub(super) fn set_limits(&self, max_messages: u64, max_bytes: u64, min_free_bytes: u64) {
        self.max_messages.store(max_messages, Ordering::Relaxed);
        self.max_bytes.store(max_bytes, Ordering::Relaxed);
        self.min_free_bytes.store(min_free_bytes, Ordering::Relaxed);
    }

    /// What is stored now.
    pub(super) fn stored(&self) -> Totals {
        self.usage().stored
    }

    /// After a transaction.
    pub(super) fn add_stored(&self, change: Totals) {
        self.usage().stored += change;
    }

    /// After the store was reopened.
    pub(super) fn set_stored(&self, stored: Totals) {
        self.usage().stored = stored;
    }

    /// Room for one more message, octets to be added as they come.
    pub(super) fn reserve(self: &Arc<Self>, kind: Kind) -> Result<Reservation, StoreError> {
        if kind == Kind::Received {
            self.check_floor(0)?;
        }
        let mut usage = self.usage();
        if kind == Kind::Received {
            self.check_messages(&usage)?;
            self.check_bytes(&usage, 1)?;
        }
        usage.receiving_messages += 1;
        drop(usage);
        Ok(Reservation { space: Arc::clone(self), kind, bytes: 0 })
    }

    /// Whether there is room for one more message of a client, of so many octets.
    pub(super) fn check(&self, octets: u64) -> Result<(), StoreError> {
        self.check_floor(octets)?;
        let usage = self.usage();
        self.check_messages(&usage)?;
        self.check_bytes(&usage, octets.max(1))
    }

    fn check_messages(&self, usage: &Usage) -> Result<(), StoreError> {
        let messages = usage.stored.counts().messages + usage.receiving_messages;
        let cap = self.max_messages.load(Ordering::Relaxed);
        if messages < cap {
            return Ok(());
        }
        Err(StoreError::Full(format!("{messages} messages are stored or being received, max_messages is {cap}")))
    }

    fn check_bytes(&self, usage: &Usage, more: u64) -> Result<(), StoreError> {
        let bytes = (usage.stored.counts().bytes + usage.receiving_bytes).saturating_add(more);
        let cap = self.max_bytes.load(Ordering::Relaxed);
        if bytes <= cap {
            return Ok(());
        }
        Err(StoreError::Full(format!("{bytes} octets would be stored or being received, max_bytes is {cap}")))
    }

    /// Refuses while the disk, less `octets`, has less free than the configuration keeps back.
    fn check_floor(&self, octets: u64) -> Result<(), StoreError> {
        let free = self.free_bytes()?;
        let floor = self.min_free_bytes.load(Ordering::Relaxed);
        if free >= floor.saturating_add(octets) {
            return Ok(());
        }
        let directory = self.directory.display();
        let wanted = if octets == 0 { String::new() } else { format!("{octets} are wanted, ") };
        Err(StoreError::Full(format!(
            "{free} octets are free on the disk of {directory}, {wanted}min_free_bytes is {floor}"
        )))
    }

    /// Free octets for an unprivileged process, at most a second old.
    fn free_bytes(&self) -> Result<u64, StoreError> {
        let now = self.clock.monotonic();
        let mut cached = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, free)) = *cached
            && now.saturating_since(at) < FREE_SPACE_AGE
        {
            return Ok(free);
        }
        let disk = rustix::fs::statvfs(&self.directory)
            .map_err(|error| StoreError::Failed(format!("asking for free space: {}", io::Error::from(error))))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        *cached = Some((now, free));
        Ok(free)
    }

    /// The disk said it is full: ask it anew next time.
    pub(super) fn forget_free_bytes(&self) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn ballast(&self) -> PathBuf {
        ballast(&self.directory)
    }

    /// Throws the ballast off; false if there is none any more.
    pub(super) fn release_ballast(&self) -> bool {
        self.forget_free_bytes();
        throw_ballast_off(&self.directory)
    }

    /// Takes ballast in if there is none and the floor stays clear of it. Failing is no harm: the floor still stands.
    pub(super) fn restore_ballast(&self) {
        let path = self.ballast();
        let wanted = self.min_free_bytes.load(Ordering::Relaxed).saturating_add(2 * BALLAST_LEN);
        if fs::metadata(&path).is_ok_and(|file| file.len() == BALLAST_LEN) || self.free_bytes().unwrap_or(0) < wanted {
            return;
        }
        if let Err(error) = write_ballast(&path) {
            tracing::debug!(%error, "no reserve could be made on the disk of the queue");
            let _ = fs::remove_file(&path);
        }
        self.forget_free_bytes();
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        // Plain sums: a panic elsewhere leaves nothing half-done in them.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ballast(directory: &Path) -> PathBuf {
    directory.join("ballast")
}

/// The same for a queue that is not open yet.
pub(super) fn throw_ballast_off(directory: &Path) -> bool {
    let released = fs::remove_file(ballast(directory)).is_ok();
    if released {
        tracing::warn!("the disk of the queue is full: gave up the reserve, so that queued mail still leaves");
    }
    released
}

/// Real blocks of octets that no file system folds away.
fn write_ballast(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    let mut chunk = Vec::with_capacity(64 * 1024);
    for _ in 0..BALLAST_LEN / (64 * 1024) {
        chunk.clear();
        for _ in 0..8 * 1024 {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            chunk.extend_from_slice(&word.to_le_bytes());
        }
        file.write_all(&chunk)?;
    }
    file.sync_all()
}

/// Whose message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A client's: the caps hold.
    Received,
    /// A bounce of ours: beyond the caps, so that a full queue can drain.
    Own,
}

/// The room of one message while it is not stored yet; given back when dropped.
pub(super) struct Reservation {
    space: Arc<Space>,
    kind: Kind,
    bytes: u64,
}

impl Reservation {
    /// Room for `more` octets.
    pub(super) fn grow(&mut self, more: usize) -> Result<(), StoreError> {
        let more = more as u64;
        let mut usage = self.space.usage();
        if self.kind == Kind::Received {
            self.space.check_bytes(&usage, more)?;
        }
        usage.receiving_bytes += more;
        self.bytes += more;
        Ok(())
    }

    /// The floor again, for what is about to be written to a file.
    pub(super) fn check_floor(&self) -> Result<(), StoreError> {
        if self.kind == Kind::Received { self.space.check_floor(0) } else { Ok(()) }
    }

    /// A share of the memory for bodies, empty at first.
    pub(super) fn memory(&self) -> Memory {
        Memory { space: Arc::clone(&self.space), bytes: 0 }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut usage = self.space.usage();
        usage.receiving_messages -= 1;
        usage.receiving_bytes -= self.bytes;
    }
}

/// A share of the memory budget; given back when dropped.
pub(super) struct Memory {
    space: Arc<Space>,
    bytes: u64,
}

impl Memory {
    /// Takes `more` octets of the budget; false if it has not so many left.
    pub(super) fn grow(&mut self, more: usize) -> bool {
        let more = more as u64;
        let budget = self.space.memory_budget;
        let grown = self.space.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(more).filter(|sum| *sum <= budget)
        });
        if grown.is_ok() {
            self.bytes += more;
        }
        grown.is_ok()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.space.memory.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::{ManualClock, WallTime};

    fn space(max_messages: u64, max_bytes: u64, min_free_bytes: u64, memory_budget: u64) -> Arc<Space> {
        let options = SpoolOptions { directory: "/".into(), max_messages, max_bytes, min_free_bytes, memory_budget };
        let clock = Arc::new(ManualClock::at(WallTime::default()));
        Arc::new(Space::new(options, clock, Totals::default()))
    }

    fn full(result: Result<impl Sized, StoreError>, cap: &str) {
        match result {
            Err(StoreError::Full(text)) => assert!(text.contains(cap), "{text}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("not refused by {cap}"),
        }
    }

    #[test]
    fn messages_being_received_count() {
        let space = space(2, 100, 0, 0);
        let first = space.reserve(Kind::Received).unwrap();
        let _second = space.reserve(Kind::Received).unwrap();
        full(space.reserve(Kind::Received), "max_messages is 2");
        full(space.check(0), "max_messages is 2");
        drop(first);
        assert!(space.check(0).is_ok());
        assert!(space.reserve(Kind::Received).is_ok());
    }

    #[test]
    fn other_limits_hold_from_now_on() {
        let space = space(1, 100, 0, 0);
        *space.free.lock().unwrap() = Some((space.clock.monotonic(), 1_000));
        let _first = space.reserve(Kind::Received).unwrap();
        full(space.check(0), "max_messages is 1");
        space.set_limits(2, 100, 0);
        assert_eq!(space.check(100), Ok(()));
        space.set_limits(2, 50, 0);
        full(space.check(51), "max_bytes is 50");
        space.set_limits(2, 50, 1_001);
        full(space.check(0), "min_free_bytes is 1001");
        space.set_limits(1, 50, 0);
        full(space.check(0), "max_messages is 1");
    }

    #[test]
    fn octets_being_received_count() {
        let space = space(9, 100, 0, 0);
        let mut first = space.reserve(Kind::Received).unwrap();
        first.grow(60).unwrap();
        let mut second = space.reserve(Kind::Received).unwrap();
        full(second.grow(41), "max_bytes is 100");
        second.grow(40).unwrap();
        full(space.reserve(Kind::Received), "max_bytes is 100");
        let mut own = space.reserve(Kind::Own).unwrap();
        own.grow(1_000).unwrap();
        drop((first, second, own));
        let usage = space.usage();
        assert_eq!((usage.receiving_bytes, usage.receiving_messages), (0, 0));
    }

    #[test]
    fn what_is_announced_must_fit() {
        let space = space(9, 100, 1_000, 0);
        *space.free.lock().unwrap() = Some((space.clock.monotonic(), 1_050));
        assert_eq!((space.check(0), space.check(50)), (Ok(()), Ok(())));
        full(space.check(51), "51 are wanted, min_free_bytes is 1000");
        full(space.check(u64::MAX), "min_free_bytes is 1000");
        let mut first = space.reserve(Kind::Received).unwrap();
        first.grow(60).unwrap();
        assert_eq!(space.check(40), Ok(()));
        full(space.check(41), "max_bytes is 100");
    }

    #[test]
    fn the_floor_is_asked_about_once_a_second() {
        let space = space(9, 100, u64::MAX, 0);
        full(space.reserve(Kind::Received), "min_free_bytes is");
        assert!(space.reserve(Kind::Own).is_ok());
        assert!(space.free.lock().unwrap().is_some());
        *space.free.lock().unwrap() = Some((space.clock.monotonic(), u64::MAX));
        assert!(space.reserve(Kind::Received).is_ok());
    }

    #[test]
    fn memory_is_shared() {
        let space = space(9, 100, 0, 100);
        let reservation = space.reserve(Kind::Received).unwrap();
        let mut first = reservation.memory();
        let mut second = reservation.memory();
        assert!(first.grow(70));
        assert!(!second.grow(31));
        assert!(second.grow(30));
        drop(first);
        assert!(second.grow(70));
    }
}
