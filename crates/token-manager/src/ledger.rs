//! The request budget on disk: a small file in the state directory, written before each request.
//!
//! It decides nothing (`window` does) and never stops the relay: a file that cannot be read is answered with caution,
//! one that cannot be written with a warning. One file for one (tenant, client, scope), owned by one process.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clock::{Clock, WallTime};

use crate::schedule::Now;
use crate::window::Window;

/// First line of the file; the number is the version of the format.
const HEADER: &str = "xoauth2-relay token requests 1";

/// A file of ours has some 100 octets; whatever is longer is not ours.
const MAX_FILE: u64 = 4096;

/// What an unusable file costs.
const CAUTION: &str = "the first token request waits 5 minutes";

/// The record of recent token requests that keeps [`crate::REQUEST_LIMIT`] across restarts.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    window: Window,
    writable: bool,
}

impl Ledger {
    /// Opens the ledger at `path`, whose directory exists; a missing file is a first start. Blocks for two small file
    /// operations. It never fails: if the file cannot be read, understood or written again, this is logged and the
    /// budget counts as used up just now, so that the first request waits for one [`crate::REQUEST_PERIOD`].
    pub fn open(path: impl Into<PathBuf>, clock: &dyn Clock) -> Self {
        let path = path.into();
        let now = Now::of(clock);
        let mut window = read(&path).map_or_else(
            |error| {
                tracing::warn!(path = %path.display(), %error, "token request ledger unreadable; {CAUTION}");
                Window::full(now)
            },
            |times| Window::from_times(&times, now),
        );
        // Written at once: a ledger that cannot be kept must not give a fresh budget at each restart, and what was
        // unreadable or in the future must not cost the next start another wait.
        let written = write(&path, &render(&window, now));
        if let Err(error) = &written {
            tracing::warn!(path = %path.display(), %error, "token request ledger cannot be written; {CAUTION}");
            window = Window::full(now);
        }
        Self { path, window, writable: written.is_ok() }
    }

    /// How long until a request is within the budget; zero if it is now.
    pub(crate) fn wait(&self, now: Now) -> Duration {
        self.window.wait(now)
    }

    /// Counts a request at `now` and makes that durable before it returns. If the disk refuses, the request counts in
    /// memory and may go: a full disk must not keep queued mail from leaving.
    pub(crate) async fn record(&mut self, now: Now) {
        self.window.record(now);
        let (path, text) = (self.path.clone(), render(&self.window, now));
        let written = tokio::task::spawn_blocking(move || write(&path, &text)).await;
        let written = written.unwrap_or_else(|_| Err(io::Error::other("the writing thread ended early")));
        if let (true, Err(error)) = (self.writable, &written) {
            tracing::warn!(path = %self.path.display(), %error, "token request ledger cannot be written; counting in memory");
        }
        self.writable = written.is_ok();
    }
}

fn read(path: &Path) -> io::Result<Vec<WallTime>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_FILE).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is not a ledger of ours"))
}

fn parse(text: &str) -> Option<Vec<WallTime>> {
    // The final line end proves that the file is whole.
    let body = text.strip_prefix(HEADER)?.strip_prefix('\n')?;
    if !body.is_empty() && !body.ends_with('\n') {
        return None;
    }
    body.lines().map(|line| line.parse().ok().map(WallTime::from_unix_millis)).collect()
}

fn render(window: &Window, now: Now) -> String {
    let mut text = format!("{HEADER}\n");
    for time in window.times(now) {
        text.push_str(&time.unix_millis().to_string());
        text.push('\n');
    }
    text
}

/// Replaces the file; where there is no room for another, its own blocks hold what is new.
fn write(path: &Path, text: &str) -> io::Result<()> {
    match replace(path, text) {
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            // The next start would take it for a leftover.
            let _ = fs::remove_file(temporary(path));
            overwrite(path, text)
        }
        replaced => replaced,
    }
}

/// A crash in the middle leaves a file that does not read, which costs a wait and nothing else.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)?;
    file.sync_all()
}

/// As one step: a crash leaves the old one or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = temporary(path);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    // A leftover of an earlier crash keeps its own mode otherwise.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::REQUEST_LIMIT;
    use clock::ManualClock;

    fn clock() -> ManualClock {
        ManualClock::at(WallTime::from_unix_millis(1_800_000_000_000))
    }

    fn wait(ledger: &Ledger, clock: &ManualClock) -> Duration {
        ledger.wait(Now::of(clock))
    }

    #[tokio::test]
    async fn the_budget_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("contoso.ledger");
        let clock = clock();
        for _ in 0..REQUEST_LIMIT {
            let mut ledger = Ledger::open(&path, &clock);
            assert_eq!(wait(&ledger, &clock), Duration::ZERO);
            ledger.record(Now::of(&clock)).await;
            clock.advance(Duration::from_secs(10));
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(wait(&Ledger::open(&path, &clock), &clock), Duration::from_secs(251));
        clock.advance(Duration::from_secs(251));
        assert_eq!(wait(&Ledger::open(&path, &clock), &clock), Duration::ZERO);
    }

    #[test]
    fn what_is_not_a_ledger_is_met_with_caution_once() {
        for garbage in [
            &b"\xff\xfe\x00"[..],
            b"",
            b"xoauth2-relay token requests 2\n",
            b"xoauth2-relay token requests 1\n12\n1",
            b"xoauth2-relay token requests 1\nx\n",
            &[b'1'; 9999],
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("ledger");
            fs::write(&path, garbage).unwrap();
            let clock = clock();
            assert_eq!(wait(&Ledger::open(&path, &clock), &clock), Duration::from_secs(301), "{garbage:?}");
            clock.advance(Duration::from_secs(301));
            assert_eq!(wait(&Ledger::open(&path, &clock), &clock), Duration::ZERO, "{garbage:?}");
        }
    }

    #[test]
    fn a_directory_that_takes_no_file_is_met_with_caution() {
        let clock = clock();
        let ledger = Ledger::open("/nonexistent/directory/ledger", &clock);
        assert_eq!(wait(&ledger, &clock), Duration::from_secs(301));
    }

    #[tokio::test]
    async fn a_clock_set_back_costs_one_period_even_with_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let clock = clock();
        let mut ledger = Ledger::open(&path, &clock);
        for _ in 0..REQUEST_LIMIT {
            ledger.record(Now::of(&clock)).await;
        }
        clock.set_wall(clock.wall() - Duration::from_hours(24));
        let mut waits = Vec::new();
        for _ in 0..4 {
            waits.push(wait(&Ledger::open(&path, &clock), &clock).as_secs());
            clock.advance(Duration::from_secs(100));
        }
        assert_eq!(waits, [301, 201, 101, 1]);
    }

    #[tokio::test]
    async fn a_lost_directory_does_not_stop_counting() {
        let directory = tempfile::tempdir().unwrap();
        let clock = clock();
        let mut ledger = Ledger::open(directory.path().join("ledger"), &clock);
        drop(directory);
        for _ in 0..REQUEST_LIMIT {
            ledger.record(Now::of(&clock)).await;
        }
        assert_eq!(wait(&ledger, &clock), Duration::from_secs(301));
    }
}
